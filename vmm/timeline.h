/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The timeline: what happened to a VM and when, written as one JSON document at the end.
 *
 * Events come from several threads.  An event's t_ns is when it was over, on a clock
 * that starts with the timeline; where it took long, duration_ns says how long, so it
 * began at t_ns - duration_ns.  Counters are exact; of share and unshare events, which a
 * guest can make in millions, only the first TIMELINE_CONVERSIONS_MAX each are kept, and
 * of page-out and page-in one event stands for what came within TIMELINE_PAGING_NS.  The
 * counters from resident_bytes to pressure are what `lethe ps` said when the VM was closed.
 */
#ifndef VMM_TIMELINE_H
#define VMM_TIMELINE_H

#include <stdbool.h>
#include <stdint.h>

#define TIMELINE_CONVERSIONS_MAX 1000
#define TIMELINE_EVENTS_MAX      100000
#define TIMELINE_PAGING_NS       100000000

struct timeline;

/* X(name in the file) */
#define TIMELINE_COUNTERS(X) \
	X(shares)            \
	X(unshares)          \
	X(shared_bytes)      \
	X(unshared_bytes)    \
	X(mapped_ranges)     \
	X(unmapped_ranges)   \
	X(dma_transfers)     \
	X(dma_bytes)         \
	X(dma_refused)       \
	X(released_bytes)    \
	X(paged_out_bytes)   \
	X(paged_in_bytes)    \
	X(reboots)           \
	X(eager_reboots)     \
	X(destroyed_bytes)   \
	X(quarantined_bytes) \
	X(resident_bytes)    \
	X(forget_bytes)      \
	X(forget_rate)       \
	X(pressure)          \
	X(events_dropped)

enum timeline_counter {
#define X(name) TIMELINE_##name,
	TIMELINE_COUNTERS(X)
#undef X
		TIMELINE_COUNTER_COUNT
};

/*
 * A new timeline whose clock starts now.  @path: the file to write it to, created now so
 * that a bad path shows before anything starts; NULL: events go nowhere.
 * Returns 0; -ENOMEM; any errno of opening.
 */
int timeline_open(const char *path, struct timeline **ret);

/* What the head of the file says.  Before timeline_write(). */
void timeline_describe(struct timeline *timeline, const char *name, uint64_t memory_bytes,
	unsigned int vcpus, const char *executor);

/*
 * Adds an event that was over at @at_ns (CLOCK_MONOTONIC; 0: now).  @format (NULL: no
 * more fields) and what follows are those of json_pack() for an object.  An event that
 * does not fit is counted as dropped.
 */
void timeline_event(
	struct timeline *timeline, uint64_t at_ns, const char *event, const char *format, ...);

/* Adds a share (@to_shared) or unshare event and counts it. */
void timeline_conversion(struct timeline *timeline, uint64_t gpa, uint64_t bytes, bool to_shared);

/* Whether one more conversion would be an event in the file. */
bool timeline_wants_conversions(struct timeline *timeline);

/* Records that @bytes went to the page store (@out) or came from it, and counts them. */
void timeline_paging(struct timeline *timeline, uint64_t bytes, bool out);

void timeline_count(struct timeline *timeline, enum timeline_counter counter, uint64_t add);

/*
 * Writes the file through the descriptor of timeline_open(): root may be gone by now.
 * Returns 0; -ENOMEM; any errno of writing.
 */
int timeline_write(struct timeline *timeline);

/* Frees @timeline (NULL is allowed) without writing. */
void timeline_free(struct timeline *timeline);

#endif
