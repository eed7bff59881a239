/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the files of the MMU share.  docs/mmu.md explains the whole.
 *
 * Locks, in the order in which they may be taken:
 *
 *	slots_lock	one change of the slots at a time, vCPUs' acknowledgement included
 *	slot->log_lock	one start or stop of a slot's dirty log at a time, ditto
 *	mmu->walk	threads without a vCPU that walk tables; the reclaimer passes through
 *			it before it frees, as an RCU grace period for them
 *	mmu->lock	"the MMU lock": slots, invalidations, vCPUs.  Only constant-time
 *			work under it
 *	fault gate	closed by the holder of mmu->lock, entered by faults (gate.h)
 *	rmap head	bit 0 of the word (rmap.h); a few instructions
 *	mmu->flush_lock	root and generation, flush requests; a few stores, no waiting at all
 *	mmu->ack_lock	sleeping until vCPUs acknowledge
 *	mmu->reclaim_lock	the reclaimer's queues
 *	mem->lock	the page pool
 *
 * Only the first two are held while waiting for vCPUs, and none while calling the owner.
 */
#ifndef MMU_INTERNAL_H
#define MMU_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "mmu/mem.h"
#include "mmu/mmu.h"
#include "mmu/sparse.h"

#define SLOTS_DYING  512 /* more than these are waited for */
#define SLOT_HANDLES (MMU_SLOTS + SLOTS_DYING)
#define FLUSH_RING   64
#define CACHE_FULL   32

/*
 * What one fault may need at most: 4 tables, rmap pages at three levels (when it splits
 * twice), a page of the dirty log.
 */
#define CACHE_NEED (TABLE_LEVELS + (MMU_LEVELS + 1) * SPARSE_MAKE_PAGES)

/* What the compiler may not use a fence for: a busy wait's pause. */
static inline void mmu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#else
	__asm__ volatile("" : : : "memory");
#endif
}

/*
 * A memslot.  The fields before refs are constant.  A slot that is no longer in the slot
 * table is dead: no fault finds it, so its rmap is remove-only.  Freed when the reclaimer
 * has emptied its rmap, refs is 0 and no walker can be looking at it.
 */
struct slot {
	unsigned int id, handle;
	struct gfn_range range;
	uint8_t *host;
	enum mmu_level max_level; /* by alignment and size */
	struct sparse rmap[MMU_LEVELS + 1];
	struct sparse large[MMU_LEVELS + 1]; /* 2M and 1G: reasons against a leaf, large.c */
	struct sparse dirty;                 /* a bit a page */
	unsigned int refs;      /* threads without a vCPU at work on it; guarded by mmu->lock */
	bool dead;              /* guarded by mmu->lock */
	_Atomic bool logging;   /* changes with the gate closed */
	_Atomic bool large_off; /* memory for counts was short: never a large leaf again */
	pthread_mutex_t log_lock;
	struct slot *next_dead;
};

struct slot_view {
	uint64_t start, end; /* frames */
	struct slot *slot;
	bool aliased; /* another live slot shares host memory with it */
};

/* All live slots by address.  Constant once published; replaced whole, freed after RCU. */
struct slot_table {
	struct slot_table *next_dead;
	unsigned int count;
	struct slot_view view[];
};

/* The private part of a vCPU. */
struct vcpu {
	struct mmu_vcpu pub;
	struct mmu *mmu;

	/* Owner thread only. */
	struct mmu_page *root; /* of the generation below; NULL none yet */
	uint64_t generation;
	uint64_t flush_seen;
	struct page_cache cache;
	unsigned int slot_hint, victim;
	bool attached;
	int error;
	gfn_t failed;

	/* Written by the owner thread, read by others. */
	_Atomic uint64_t acked __attribute__((aligned(64))); /* flushes; ACK_OUTSIDE */
	_Atomic uint32_t in_gate;
	_Atomic uint64_t misses, faults, retries, splits, displaced;
	_Atomic uint64_t installed[MMU_LEVELS + 1];
};

#define ACK_OUTSIDE UINT64_MAX

struct mmu {
	struct mem mem;
	struct mmu_ops ops;
	void *ctx;

	/* Read by every fault; changed with flush_lock held. */
	_Atomic(struct mmu_page *) root __attribute__((aligned(64))); /* NULL until a fault */
	_Atomic uint64_t generation;

	/* Read by every fault; changed with mmu->lock held and the gate closed. */
	_Atomic uint64_t sequence; /* begins and ends of invalidations, slot changes */
	_Atomic(struct slot_table *) slots;
	struct mmu_invalidation *active;
	_Atomic uint32_t gate_closed;

	/* Flush requests (flush.c); written with flush_lock held. */
	_Atomic uint64_t flush_seq __attribute__((aligned(64)));
	struct {
		_Atomic uint64_t start, end; /* frames */
	} flush_ring[FLUSH_RING];
	_Atomic uint32_t ack_waiters;

	pthread_mutex_t slots_lock __attribute__((aligned(64)));
	pthread_mutex_t lock;
	pthread_mutex_t flush_lock;
	pthread_mutex_t walk;
	pthread_cond_t ended; /* an invalidation did; with lock */
	pthread_mutex_t ack_lock;
	pthread_cond_t acks;

	struct vcpu *vcpu[MMU_VCPUS]; /* lock, ack_lock and flush_lock: any to read */
	unsigned int vcpus;
	_Atomic(struct slot *) handle[SLOT_HANDLES]; /* guarded by lock; reclaimer reads */
	unsigned int handle_hint;

	/* Background (reclaim.c); guarded by reclaim_lock. */
	pthread_mutex_t reclaim_lock;
	pthread_cond_t reclaim_work, reclaim_progress;
	pthread_t reclaimer;
	struct graveyard {
		struct mmu_page *trees, **trees_end;
		struct slot *slots;
		struct slot_table *tables;
	} dead;
	bool reclaim_kicked, reclaim_busy, reclaim_stopping;
	_Atomic bool kick_owed; /* something waits that the reclaimer was not woken for */

	_Atomic uint64_t trees_waiting, slots_dying;
	_Atomic uint64_t flush_wait_max_ns;
	_Atomic uint64_t removed[MMU_LEVELS + 1];
	_Atomic uint64_t gone_installed[MMU_LEVELS + 1]; /* of vCPUs that were freed */
	_Atomic uint64_t gone_misses, gone_faults, gone_retries, gone_splits, gone_displaced;
};

static inline struct vcpu *vcpu_of(struct mmu_vcpu *pub)
{
	return (struct vcpu *)pub;
}

/* Adds to a counter that only the calling thread writes. */
static inline void count_own(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
		memory_order_relaxed);
}

static inline void count_removed(struct mmu *mmu, unsigned int level, uint64_t n)
{
	atomic_fetch_add_explicit(&mmu->removed[level], n, memory_order_relaxed);
}

static inline bool frames_overlap(
	uint64_t a_start, uint64_t a_end, uint64_t b_start, uint64_t b_end)
{
	return a_start < b_end && b_start < a_end;
}

/* The block of @level around @frame. */
static inline struct gfn_range block_around(uint64_t frame, unsigned int level)
{
	uint64_t pages = mmu_level_pages(level);

	return (struct gfn_range){gfn(align_down(frame, pages)), pages};
}

/* The index of @frame's rmap word, or large-page word, at @level. */
static inline uint64_t block_index(uint64_t frame, unsigned int level)
{
	return frame >> (9 * (level - 1));
}

/* ---- table.c ---- */

/* Walks from @root: the entry's place, level and value; 0 if nothing is present. */
uint64_t table_walk(
	const struct mmu_page *root, uint64_t frame, entry_t **ret_entry, unsigned int *ret_level);

/* Makes @page a table. */
void table_init(struct mmu_page *page, struct mmu_page *parent, uint64_t frame, unsigned int level,
	uint64_t generation);

static inline uint64_t table_entry(const struct mmu_page *page)
{
	return (uint64_t)(uintptr_t)page_words(page) | ENTRY_PRESENT;
}

/*
 * Cuts all of @range, whole 2M blocks that faults stay out of, off the current tables: tables
 * that lie inside go to the reclaimer as they are.  A 1G leaf that overlaps is taken out.
 */
void table_detach(struct mmu *mmu, struct gfn_range range);

/* As above, but only tables of 4K leaves that @slot's rules let be one 2M leaf. */
void table_detach_4k(struct mmu *mmu, const struct slot *slot, struct gfn_range range);

/* ---- large.c ---- */

/* Whether nothing in slot and counts speaks against a leaf of @level around @frame. */
bool large_allowed(const struct slot *slot, uint64_t frame, unsigned int level);

/*
 * Replaces the leaf @value of @level in @entry by a table of leaves one level smaller with
 * the same rights.  In the gate.  False if the entry has changed or v->root is obsolete.
 */
bool large_split(struct vcpu *v, struct slot *slot, uint64_t frame, entry_t *entry, uint64_t value);

/* ---- slot.c ---- */

/* The view that holds @frame, or NULL.  *hint, where the last search ended, speeds it up. */
const struct slot_view *slot_find(
	const struct slot_table *table, uint64_t frame, unsigned int *hint);

/* The first view that ends after @from, or the end of the table. */
unsigned int slot_position(const struct slot_table *table, uint64_t from);

/*
 * Finds the first live slot that ends after @from and starts before @end, and keeps it from
 * being freed until slot_put().  NULL if there is none.
 */
struct slot *slot_next(struct mmu *mmu, uint64_t from, uint64_t end, bool *ret_aliased);

/* The live slot @id, kept likewise, or NULL. */
struct slot *slot_get(struct mmu *mmu, unsigned int id);
void slot_put(struct mmu *mmu, struct slot *slot);
void slot_free(struct mmu *mmu, struct slot *slot);

/* The part of @range in @slot. */
struct gfn_range slot_clip(const struct slot *slot, struct gfn_range range);

/*
 * The frames of @other that map the same host memory as @range of @slot.  False if none.
 */
bool slot_alias(const struct slot *slot, struct gfn_range range, const struct slot *other,
	struct gfn_range *ret);

/* Calls @fn for the part of @range in each slot, then for the aliases of each part. */
typedef void (*slot_fn)(struct mmu *mmu, struct slot *slot, struct gfn_range range, void *arg);
void slot_each(struct mmu *mmu, struct gfn_range range, slot_fn fn, void *arg);

/* ---- invalidate.c ---- */

/* Whether an invalidation in progress touches @range, as such or through an alias. */
bool invalidate_covers(const struct mmu *mmu, const struct slot_table *table,
	const struct slot_view *view, struct gfn_range range);

/* The two ends of an invalidation without anything between.  mmu->lock held, gate closed. */
void invalidate_open_locked(struct mmu *mmu, struct mmu_invalidation *inv, struct gfn_range range);
void invalidate_close(struct mmu *mmu, struct mmu_invalidation *inv);

/* Removes what maps @range of @slot, while faults stay out of it. */
void zap_slot_range(struct mmu *mmu, struct slot *slot, struct gfn_range range);

/* ---- flush.c ---- */

/* Asks every vCPU to drop @range from its TLB.  Returns the request's number. */
uint64_t flush_post(struct mmu *mmu, struct gfn_range range);
uint64_t flush_post_locked(struct mmu *mmu, struct gfn_range range);
void flush_wait(struct mmu *mmu, uint64_t seq);

/* Both of them. */
void flush_range(struct mmu *mmu, struct gfn_range range);

/* Carries out what @v has not seen yet and picks up the current root. */
void flush_catch_up(struct vcpu *v);

/* After a vCPU acknowledged something or left: wakes who waits for it. */
void flush_wake(struct mmu *mmu);

void tlb_fill(struct vcpu *v, uint64_t frame, uint64_t value, unsigned int level);
void tlb_drop_all(struct vcpu *v);

/* ---- reclaim.c ---- */

int reclaim_start(struct mmu *mmu);
void reclaim_stop(struct mmu *mmu);

/*
 * Hands over a tree that cannot be reached any more, or a dead slot with the slot table it
 * left (NULL: none).  Constant time.
 */
void reclaim_tree(struct mmu *mmu, struct mmu_page *top);
void reclaim_slot(struct mmu *mmu, struct slot *slot_or_null, struct slot_table *table_or_null);

/* Wakes the reclaimer; _soon lets a vCPU do it if one is in guest mode. */
void reclaim_kick(struct mmu *mmu);
void reclaim_kick_soon(struct mmu *mmu);

/* A vCPU's side of it: on catching up with flushes, and after leaving guest mode. */
void reclaim_kick_if_owed(struct mmu *mmu);

/* Waits while so many slots are dying that there may be no handle for a new one. */
void reclaim_throttle_slots(struct mmu *mmu);

/*
 * Takes up to @budget entries out of the tree under @top, freeing its tables.  Picks up where
 * it left off: *at is the table it is in, the top at first.  True when the tree is gone.
 */
bool reclaim_tree_step(
	struct mmu *mmu, struct mmu_page *top, struct mmu_page **at, unsigned int budget);

/* Removes up to @budget rmap words' entries of a dead slot, from *at of @level on. */
bool reclaim_rmap_step(
	struct mmu *mmu, struct slot *slot, unsigned int level, uint64_t *at, unsigned int budget);

/* ---- rcu.c: liburcu's QSBR flavour, in terms that TSan understands ---- */

void rcu_reader_attach(void);
void rcu_reader_detach(void);
void rcu_reader_online(void);
void rcu_reader_offline(void);
void rcu_reader_quiescent(void);
void rcu_wait_for_readers(void);

#endif
