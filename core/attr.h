/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The attribute map: what each GFN of a protected VM is, apart from memslots.
 *
 * The default is private, so a VM that shares little keeps little.  The map says
 * nothing about whether memory exists at a GFN; it outlives slot changes.
 * Guarded by the owner's lock.
 */
#ifndef CORE_ATTR_H
#define CORE_ATTR_H

#include "base/range_map.h"
#include "base/types.h"

enum page_attr {
	/* The guest and the ultravisor only.  Operations: share, release, page out. */
	ATTR_PRIVATE = 0,
	/* In the private window; the hypervisor reaches it through copy calls. */
	ATTR_COPIED = 1,
	/* In the slot's memfd, laid over the window; the hypervisor maps it too. */
	ATTR_MAPPED = 2,
	/* Given up by the guest: no content; nobody may touch it until its slot goes. */
	ATTR_RELEASED = 3
};

static inline bool attr_is_shared(enum page_attr a)
{
	return a == ATTR_COPIED || a == ATTR_MAPPED;
}

/* True if every page of @range is shared, one way or the other. */
bool attr_all_shared(const struct range_map *map, struct gfn_range range);

/* True if no page of @range has been released. */
bool attr_none_released(const struct range_map *map, struct gfn_range range);

#endif
