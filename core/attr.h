/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The attribute map: what each GFN of a protected VM is, apart from memslots.
 *
 * The default is private, so a VM that shares little keeps little: a few hundred bytes
 * for a few ranges, a bit a page (three where all attributes mix) for the worst pattern.
 * The map says nothing about whether memory exists at a GFN; it outlives slot changes.
 *
 * Writers - attr_set(), attr_clear(), attr_map_reclaim() - and the figures are guarded by
 * the owner's lock.  Readers - attr_get() and all that look at ranges - are wait-free and
 * may run beside a writer, but for attr_map_reclaim() and attr_map_free(): these free what
 * earlier changes replaced, and must find no reader inside.  A reader beside a writer
 * sees each page as it was or as it is; one page, or one step of a walk, sees a whole
 * change or none of it.
 */
#ifndef CORE_ATTR_H
#define CORE_ATTR_H

#include <stddef.h>

#include "base/types.h"

enum page_attr {
	/* The guest and the ultravisor only.  Operations: share, release, page out. */
	ATTR_PRIVATE = 0,
	/* In the private window; the hypervisor reaches it through copy calls. */
	ATTR_COPIED = 1,
	/* In the slot's memfd, laid over the window; the hypervisor maps it too. */
	ATTR_MAPPED = 2,
	/* Given up by the guest: no content; nobody may touch it until its slot goes. */
	ATTR_RELEASED = 3,
	/* Private, and its content is with the hypervisor, encrypted.  Operations: page in. */
	ATTR_SEALED = 4
};

struct attr_map;

/* Pages [start, end) that are all @attr. */
struct attr_run {
	uint64_t start;
	uint64_t end;
	enum page_attr attr;
};

/* All private; or NULL when memory is short. */
struct attr_map *attr_map_new(void);

/* NULL is allowed. */
void attr_map_free(struct attr_map *map);

enum page_attr attr_get(const struct attr_map *map, gfn_t gfn);

/*
 * The run that holds page @at, clipped to [at, limit).  The way to walk a range:
 * at = run.end until limit.
 */
struct attr_run attr_run_at(const struct attr_map *map, uint64_t at, uint64_t limit);

/*
 * Makes every page of @range @attr.  What it replaces is kept for readers until
 * attr_map_reclaim().  0; -ENOMEM, nothing changed then.
 */
int attr_set(struct attr_map *map, struct gfn_range range, enum page_attr attr);

/* All pages are private again.  Cannot fail. */
void attr_clear(struct attr_map *map);

/* Frees what changes have replaced.  No reader may be inside. */
void attr_map_reclaim(struct attr_map *map);

/*
 * How many pages are @attr, which is not ATTR_PRIVATE; and how many bytes the map takes,
 * with what waits to be reclaimed.
 */
uint64_t attr_count(const struct attr_map *map, enum page_attr attr);
size_t attr_map_bytes(const struct attr_map *map);

static inline bool attr_is_shared(enum page_attr a)
{
	return a == ATTR_COPIED || a == ATTR_MAPPED;
}

/* True if every page of @range is @attr. */
bool attr_all(const struct attr_map *map, struct gfn_range range, enum page_attr attr);

/* True if every page of @range is shared, one way or the other. */
bool attr_all_shared(const struct attr_map *map, struct gfn_range range);

/* True if no page of @range is @attr. */
bool attr_none(const struct attr_map *map, struct gfn_range range, enum page_attr attr);

#endif
