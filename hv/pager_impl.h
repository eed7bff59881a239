/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files of the pager share: hv/pager.c, pager_in.c, pager_out.c, pager_policy.c. */
#ifndef HV_PAGER_IMPL_H
#define HV_PAGER_IMPL_H

#include <pthread.h>

#include "abi/uvcall.h"
#include "base/range_map.h"
#include "hv/pager.h"
#include "hv/vm.h"
#include "os/pressure.h"

/* Pages of a PAGE_OUT, and bits of the bitmaps that go with it. */
#define BATCH_PAGES LETHE_STORE_RUN
#define BATCH_WORDS (BATCH_PAGES / 64)

/* Pages of a page-in at most. */
#define FETCH_PAGES 256

/*
 * Wants that wait for a worker: at least as many as an ultravisor has threads, each of which
 * waits for one.
 */
#define WANTS_MAX 256

#define STREAMS 8

/* Pages that are read for a want that follows no other, at first. */
#define PAGER_FIRST_WINDOW 8

_Static_assert(BATCH_PAGES *PAGE_SIZE <= ABI_BULK_SIZE, "a batch fits into the bulk buffer");

enum transfer_kind {
	TRANSFER_IN,  /* store, or the buffer of an OUT => ultravisor */
	TRANSFER_OUT, /* ultravisor => store */
	TRANSFER_DROP /* space in the store => given back */
};

/* Guarded by vm->lock, but for pages, which do not change while the transfer is listed. */
struct transfer {
	struct transfer *next;
	enum transfer_kind kind;
	struct gfn_range range;
	uint64_t life; /* vm->life when it began */

	/* IN: somebody else wants what may have been meant as read-ahead. */
	bool wanted_again;

	/* OUT: */
	uint8_t *pages;               /* sealed pages, each at its place in range */
	uint64_t sealed[BATCH_WORDS]; /* those of them that the ultravisor has not got back */
	unsigned int readers;         /* INs that copy from pages */
	int err;                      /* it is to be undone */
	bool kept;                    /* neither the store nor the ultravisor took them, so far */
};

/* A guest that goes through its memory, as its wants show. */
struct stream {
	uint64_t next;       /* the GFN that it will want */
	unsigned int window; /* pages that are read for it at a time */
	bool hit;            /* it has come to what it was thought to want */
	uint64_t used;       /* p->wants_seen then */
};

struct pager_thread {
	struct pager *pager;
	void (*run)(struct pager_thread *t);
	uint8_t *buffer; /* of a worker: FETCH_PAGES pages */
	pthread_t thread;
	bool ended; /* guarded by vm->lock */
};

/* Workers, the cleaner, and who pages out by itself. */
#define THREADS (LETHE_STORE_GETS + 2)

struct pager {
	struct lethe_vm *vm;
	struct lethe_page_store *store;
	struct pager_thread thread[THREADS];
	unsigned int threads; /* that were started */

	/* Guarded by vm->lock; `changed` goes with it. */
	pthread_cond_t changed;
	bool stopping;
	bool left; /* with threads that have not ended: each has a reference to the VM */
	struct transfer *transfers;
	struct transfer *spare;      /* of the last page-out, whose buffer has its pages; or NULL */
	struct range_map *stored;    /* 1: sealed in the ultravisor */
	struct range_map *droppable; /* 1: space that may be given back, unless stored or in use */
	bool drop_all;               /* everything is to be dropped before anything is put */
	bool dirty;                  /* something was put since the last drop_all */
	uint64_t pages_out, pages_in;
	uint64_t lost_gpa; /* the page that was given up last */
	int lost_err;      /* and why; 0: none was */
	struct stream stream[STREAMS];
	unsigned int first_window; /* of a new stream */
	uint64_t wants_seen;

	/* Its own lock, the innermost: the reader of the connection must not wait for vm->lock. */
	pthread_mutex_t queue_lock;
	pthread_cond_t queue_changed, pause_over;
	struct gfn_range want[WANTS_MAX];
	unsigned int want_count;
	uint64_t arrivals; /* times pages came in */
	bool queue_closed;
};

static inline bool bit_get(const uint64_t *bits, uint64_t i)
{
	return (bits[i / 64] >> i % 64 & 1) != 0;
}

static inline void bit_set(uint64_t *bits, uint64_t i)
{
	bits[i / 64] |= (uint64_t)1 << i % 64;
}

static inline void bit_clear(uint64_t *bits, uint64_t i)
{
	bits[i / 64] &= ~((uint64_t)1 << i % 64);
}

/* The next run of equal bits in [*from, count): its end, and *ret_value. */
static inline uint64_t bit_run(const uint64_t *bits, uint64_t from, uint64_t count, bool *ret_value)
{
	uint64_t end = from + 1;

	*ret_value = bit_get(bits, from);
	while (end < count && bit_get(bits, end) == *ret_value)
		end++;
	return end;
}

/* Takes the next want.  False: the pager stops. */
bool pager_take_want(struct pager *p, struct gfn_range *ret);

/* ---- transfers; caller holds vm->lock ---- */

void transfer_begin(struct pager *p, struct transfer *t);

/* Whoever waits for its range goes on. */
void transfer_end(struct pager *p, struct transfer *t);

/* The first transfer on the list that overlaps @r and is not @except, or NULL. */
struct transfer *transfer_find(
	const struct pager *p, struct gfn_range r, const struct transfer *except);

/*
 * Unseals the pages of @present, which lie at @pages, in the ultravisor, and notes that; all of
 * @r is in one slot.  0 or a negative errno as of PAGE_IN_SEALED.
 */
int pager_unseal(
	struct pager *p, struct gfn_range r, const uint64_t *present, const uint8_t *pages);

/* Notes that the GFNs of @r, all in @s, are PAGED-OUT.  0 or -ENOMEM.  Caller holds vm->lock. */
int pager_note_sealed(struct slot *s, struct gfn_range r);

/* What the store holds of @r may be dropped; where it is sealed or in use, that stays. */
void pager_may_drop(struct pager *p, struct gfn_range r);

/* Of an OUT; NULL is allowed. */
void transfer_free(struct transfer *t);

/*
 * Pages out what was not used for longest, @bytes of it (whole pages) or less.  Also with an
 * error, *ret_pages is what went out, if anything did.
 */
int pager_out_cold(struct pager *p, uint64_t bytes, uint64_t *ret_pages);

/* Tries once more to get rid of a kept transfer.  0: it has ended, and is freed. */
int pager_resolve_kept(struct pager *p, struct transfer *t);

/* ---- when to page out by itself ---- */

struct pager_policy {
	unsigned int pause_ms; /* until the next look */
	uint64_t pages_in;     /* what had come in by the last look */
	uint64_t pages_out;    /* what went out after it */
};

/* How many bytes are to go out now. */
uint64_t pager_policy_look(struct pager_policy *s, enum pressure pressure, uint64_t pages_in);

/* What came of it. */
void pager_policy_done(struct pager_policy *s, uint64_t pages, int err);

/* ---- threads ---- */

void pager_worker(struct pager_thread *t);
void pager_cleaner(struct pager_thread *t);
void pager_policy_thread(struct pager_thread *t);

#endif
