/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Stage-2 MMU in software: from guest physical addresses to host pointers.
 *
 * For a hypervisor whose vCPUs are threads.  Each vCPU thread asks for a host pointer before
 * it touches a piece of guest memory (mmu_vcpu_translate), and passes a checkpoint between
 * pieces.  The owner says through struct mmu_ops what lies behind a page, and takes
 * mappings away through invalidations.  docs/mmu.md tells how it works inside.
 *
 * Guest mode.  A vCPU is in guest mode between mmu_vcpu_enter() and mmu_vcpu_leave().  A
 * pointer that mmu_vcpu_translate() returned is good until the vCPU's next
 * mmu_vcpu_checkpoint(), mmu_vcpu_wait() or mmu_vcpu_leave(), so several may be held at once.
 * Whoever takes a mapping away waits until each vCPU has passed one of the three; a vCPU
 * outside guest mode is never waited for.  So a vCPU in guest mode must reach a checkpoint
 * soon (after at most a page or so of work), must not block, and must not call anything
 * below that is marked "waits for vCPUs".
 *
 * Resolving.  ops->resolve runs on a vCPU thread in guest mode: it must not block on
 * anything that a thread holds while it waits for vCPUs.  It returns -EAGAIN instead; the
 * owner's vCPU loop then leaves guest mode, waits as it likes, enters and tries again.
 *
 * All functions are thread-safe; those of a vCPU belong to the one thread it is attached to.
 * Errors are negative errnos; on failure nothing has changed and ret_... is untouched.
 */
#ifndef MMU_MMU_H
#define MMU_MMU_H

#include "base/types.h"

struct mmu;

/* Sizes a leaf may have: 4K, 2M, 1G. */
enum mmu_level { MMU_4K = 1, MMU_2M = 2, MMU_1G = 3 };

#define MMU_LEVELS   3
#define MMU_SLOTS    512 /* live memslots at a time */
#define MMU_VCPUS    256
#define MMU_SLOT_END 65536 /* slot ids are below this */

static inline uint64_t mmu_level_pages(unsigned int level)
{
	return (uint64_t)1 << (9 * (level - 1));
}

/* What lies behind a page. */
struct mmu_resolution {
	uint8_t *host;            /* of this 4K page; page-aligned, below 2^48 */
	bool writable;            /* may be mapped writable */
	bool shared;              /* kept in the entry for the owner; no effect here */
	enum mmu_level max_level; /* the host memory around is contiguous up to this size */
};

struct mmu_ops {
	/*
	 * Says what lies behind @gfn, which is inside a memslot, for a read or a write.
	 * 0, or an errno that mmu_vcpu_translate() hands to its caller: -EAGAIN not now.
	 * Lock-free against invalidations: if one over @gfn begins or ends meanwhile, the
	 * answer is thrown away and asked again.
	 */
	int (*resolve)(void *ctx, gfn_t gfn, bool write, struct mmu_resolution *ret);

	/*
	 * Whether all pages of @range, a whole 2M or 1G block, have the same attributes, so
	 * that one leaf may map it.  Called by mmu_large_update().  NULL: always true.
	 */
	bool (*uniform)(void *ctx, struct gfn_range range);
};

struct mmu_config {
	const struct mmu_ops *ops; /* copied */
	void *ctx;                 /* for ops */
};

/* Makes an empty MMU and its reclaim thread.  -EINVAL no resolve; -ENOMEM; -EAGAIN threads. */
int mmu_new(const struct mmu_config *config, struct mmu **ret_mmu);

/*
 * Frees @mmu with its slots and tables.  Every vCPU has been freed, no invalidation is in
 * progress and no other call is under way.
 */
void mmu_free(struct mmu *mmu);

/* ---- memslots ---- */

/*
 * Gives guest frames @range the host memory at @host as memslot @id.  No memory is touched,
 * and a slot costs a few kilobytes until it is used.  Two slots may have the same @host:
 * what is done to pages of one is then done to the other's mappings of them too.  If its
 * attributes are mixed from the start, add or move it inside an invalidation over its new
 * range, and call mmu_large_rebuild() before the end.
 * Waits for vCPUs if hundreds of deleted slots have not been reclaimed yet.
 * -EINVAL id, alignment or an empty range; -ERANGE beyond 2^48; -EEXIST id taken or overlap;
 * -ENOSPC too many slots; -ENOMEM.
 */
int mmu_slot_add(struct mmu *mmu, unsigned int id, struct gfn_range range, uint8_t *host);

/*
 * Removes memslot @id: on return no vCPU uses or can get a pointer through it.  Takes time in
 * proportion to the slot's gigabytes and not to what is mapped: its tables are cut off
 * whole, and its rmap is emptied later, in the background.  Waits for vCPUs.
 * -ENOENT; -ENOMEM.
 */
int mmu_slot_delete(struct mmu *mmu, unsigned int id);

/*
 * Moves memslot @id to guest frames from @start; the host memory stays.  As delete and add
 * in one step: no vCPU finds neither.  Waits for vCPUs.
 * -ENOENT; -EEXIST overlap with another slot; -ERANGE; -ENOMEM.
 */
int mmu_slot_move(struct mmu *mmu, unsigned int id, gfn_t start);

/* ---- taking mappings away ---- */

/* One invalidation in progress.  The caller's, between begin and end; fields are private. */
struct mmu_invalidation {
	struct gfn_range range;
	struct mmu_invalidation *next;
};

/*
 * From return to mmu_invalidate_end() no vCPU has a pointer into @range, and none gets one:
 * mmu_vcpu_translate() fails with -EAGAIN there.  Any number may be in progress at once, and
 * overlap.  Cannot fail.  Waits for vCPUs.  @range is inside 2^48 pages and not empty.
 */
void mmu_invalidate_begin(struct mmu *mmu, struct mmu_invalidation *inv, struct gfn_range range);
void mmu_invalidate_end(struct mmu *mmu, struct mmu_invalidation *inv);

/*
 * Drops every mapping of the VM, in constant time and without waiting: each vCPU starts from
 * an empty root at its next checkpoint.  The old tables are freed in the background.
 */
void mmu_zap_all(struct mmu *mmu);

/* Waits until every vCPU has seen all that was taken away before this call.  Waits for vCPUs. */
void mmu_sync(struct mmu *mmu);

/*
 * The same result as mmu_zap_all() in the old way, entry by entry while faults are locked
 * out: the baseline for measurements.
 */
void mmu_zap_all_by_walk(struct mmu *mmu);

/* Waits until all that is to be freed in the background has been. */
void mmu_reclaim_wait(struct mmu *mmu);

/* ---- large pages ---- */

/*
 * Asks ops->uniform again about the 2M and 1G blocks at the edges of @range, and takes those
 * inside it to be uniform: after a change of attributes over @range, before the end of the
 * invalidation that covers it.  As it asks about neighbours of @range as well, attribute
 * changes must not run side by side: the caller holds the lock that guards its attributes
 * from the change until this returns.  If memory for the count is short, the whole slot loses large
 * pages for good.
 */
void mmu_large_update(struct mmu *mmu, struct gfn_range range);

/*
 * The same, but asks about every block that touches @range: for a slot whose attributes are
 * mixed when it is added or moved.
 */
void mmu_large_rebuild(struct mmu *mmu, struct gfn_range range);

/*
 * One reason more, or less, for the blocks around @gfn to be mapped by 4K leaves (a page
 * inside is paged out, say).  Disallow inside an invalidation that covers @gfn.
 * -ENOENT no slot; disallow: -ENOMEM; allow: -EINVAL there is no such reason.
 */
int mmu_large_disallow(struct mmu *mmu, gfn_t gfn);
int mmu_large_allow(struct mmu *mmu, gfn_t gfn);

/*
 * Gives up tables of 4K leaves in @range whose 2M block may be one leaf by now; the next
 * fault there installs it.
 */
void mmu_collapse(struct mmu *mmu, struct gfn_range range);

/* ---- dirty logging and aging ---- */

/*
 * Logs the pages of memslot @id that are written from return on.  The log starts empty.
 * Existing mappings are write-protected; faults map 4K pages only.  Waits for vCPUs.
 * -ENOENT; -EALREADY.
 */
int mmu_dirty_start(struct mmu *mmu, unsigned int id);

/* Ends it.  Mappings stay as they are: mmu_collapse() lets them grow again.  -ENOENT; -EALREADY. */
int mmu_dirty_stop(struct mmu *mmu, unsigned int id);

/*
 * Copies the log of @range to @bitmap, bit i for page start + i; bits beyond the slot are 0.
 * start and count are multiples of 64.  -ENOENT; -EINVAL alignment, or not logging.
 */
int mmu_dirty_get(struct mmu *mmu, unsigned int id, struct gfn_range range, uint64_t *bitmap);

/*
 * Takes the pages set in @bitmap (laid out as above) out of the log and write-protects
 * them: what is written from return on is logged again.  Read the pages after this, not
 * before.  Waits for vCPUs.  Errors as mmu_dirty_get().
 */
int mmu_dirty_clear(
	struct mmu *mmu, unsigned int id, struct gfn_range range, const uint64_t *bitmap);

/*
 * Counts the pages of @range, and of slots that alias it, that have been accessed since they
 * were mapped or last aged, and forgets that they were.  A large leaf counts with its pages
 * inside @range.  An access that runs beside this call may be counted now or next time, and
 * one through a mapping that has been dropped but not yet reclaimed still counts.
 */
uint64_t mmu_age(struct mmu *mmu, struct gfn_range range);

/* ---- vCPUs ---- */

#define MMU_TLB_SETS 128
#define MMU_TLB_WAYS 4

/*
 * A tag is the page's address, the TLB's epoch and whether writes may go through.  Dropping
 * the whole TLB is a new epoch.  A host pointer is the guest address plus the addend.
 */
struct mmu_tlb_set {
	uint64_t tag[MMU_TLB_WAYS];
	uint64_t addend[MMU_TLB_WAYS];
};

#define MMU_TLB_WRITE       ((uint64_t)1)
#define MMU_TLB_EPOCH_FIRST ((uint64_t)2)
#define MMU_TLB_EPOCH_END   PAGE_SIZE

/* The part of a vCPU that the fast path needs; the rest is private. */
struct mmu_vcpu {
	uint64_t epoch;
	struct mmu_tlb_set set[MMU_TLB_SETS] __attribute__((aligned(64)));
};

static inline unsigned int mmu_tlb_index(uint64_t frame)
{
	return (frame ^ (frame >> 7) ^ (frame >> 14)) & (MMU_TLB_SETS - 1);
}

/* Makes a vCPU of @mmu, outside guest mode, attached to no thread.  -ENOSPC; -ENOMEM. */
int mmu_vcpu_new(struct mmu *mmu, struct mmu_vcpu **ret_vcpu);

/* Frees a vCPU that is attached to no thread. */
void mmu_vcpu_free(struct mmu_vcpu *vcpu);

/*
 * Ties @vcpu to the calling thread, and unties it.  The thread becomes a reader of liburcu's
 * QSBR flavour while a vCPU of it is in guest mode, and is offline otherwise.  A thread may
 * have several vCPUs, one of them in guest mode at a time.
 */
void mmu_vcpu_attach(struct mmu_vcpu *vcpu);
void mmu_vcpu_detach(struct mmu_vcpu *vcpu);

/* Into and out of guest mode. */
void mmu_vcpu_enter(struct mmu_vcpu *vcpu);
void mmu_vcpu_leave(struct mmu_vcpu *vcpu);

/*
 * The point between two pieces of work: pointers die, flushes are carried out and
 * acknowledged, a new root is picked up.  A few nanoseconds when there is nothing to do.
 */
void mmu_vcpu_checkpoint(struct mmu_vcpu *vcpu);

/*
 * After mmu_vcpu_translate() failed with -EAGAIN: a checkpoint, and if an invalidation
 * covers the page, stays outside guest mode until none does.  If -EAGAIN came from
 * ops->resolve, the owner waits for its own reason as well.
 */
void mmu_vcpu_wait(struct mmu_vcpu *vcpu);

/* Why the last translation of this vCPU failed: a negative errno. */
int mmu_vcpu_error(const struct mmu_vcpu *vcpu);

/* The way of mmu_vcpu_translate() when the TLB has no answer. */
uint8_t *mmu_vcpu_translate_miss(struct mmu_vcpu *vcpu, gpa_t at, bool write, uint64_t *ret_len);

/*
 * The host pointer for guest address @at, good for *ret_len bytes, to the end of its page.
 * NULL, with mmu_vcpu_error(): -ENOENT no memslot; -EAGAIN give up all pointers, see
 * mmu_vcpu_wait(), and try again; -EACCES a write to what the owner called not writable;
 * -ENOMEM; -EPROTO the owner's answer is no page pointer; any other of ops->resolve.
 */
static inline uint8_t *mmu_vcpu_translate(
	struct mmu_vcpu *vcpu, gpa_t at, bool write, uint64_t *ret_len)
{
	const struct mmu_tlb_set *set = &vcpu->set[mmu_tlb_index(at.v >> PAGE_SHIFT)];
	uint64_t want = (at.v & ~PAGE_MASK) | vcpu->epoch | MMU_TLB_WRITE;
	uint64_t either = !write;

	for (unsigned int way = 0; way < MMU_TLB_WAYS; way++) {
		if ((set->tag[way] | either) == want) {
			*ret_len = PAGE_SIZE - (at.v & PAGE_MASK);
			return (uint8_t *)(uintptr_t)(at.v + set->addend[way]);
		}
	}
	return mmu_vcpu_translate_miss(vcpu, at, write, ret_len);
}

/* ---- looking inside ---- */

struct mmu_mapping {
	uint8_t *host; /* of the 4K page */
	enum mmu_level level;
	bool writable, accessed, dirty, shared;
};

/* What the current tables say about @gfn.  -ENOENT nothing. */
int mmu_probe(struct mmu *mmu, gfn_t gfn, struct mmu_mapping *ret);

/* Counts; each exact when nothing runs, none of them a snapshot of one moment otherwise. */
struct mmu_stats {
	uint64_t mapped[MMU_LEVELS + 1];               /* leaves by level, obsolete ones included */
	uint64_t table_pages;                          /* 4K each, obsolete ones included */
	uint64_t rmap_pages, large_pages, dirty_pages; /* 4K each */
	uint64_t cached_pages;                         /* ready for a vCPU's next faults */
	uint64_t pool_bytes;   /* taken from the host for pages, in use or not */
	uint64_t heap_objects; /* slots, vCPUs and the like */
	uint64_t slots, slots_dying;
	uint64_t trees_waiting; /* obsolete trees and parts not yet reclaimed */
	uint64_t generation, sequence;
	uint64_t misses, faults, retries, splits;
	uint64_t displaced; /* obsolete entries that a fault removed in passing */
	uint64_t flushes, flush_wait_max_ns;
};

void mmu_get_stats(struct mmu *mmu, struct mmu_stats *ret);

#endif
