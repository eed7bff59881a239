/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The memslot table: which GFNs exist, as up to 32 ranges that do not overlap.
 * Pure bookkeeping; what memory a slot has is its owner's business.  Guarded by the
 * owner's lock.
 */
#ifndef CORE_SLOTS_H
#define CORE_SLOTS_H

#include "base/types.h"

#define SLOTS_MAX 32

struct slot_table {
	struct {
		bool used;
		struct gfn_range range;
	} slot[SLOTS_MAX];
};

/* 0 if @range may become slot @id; -EINVAL bad id; -EEXIST id taken or overlap. */
int slots_check_add(const struct slot_table *t, unsigned int id, struct gfn_range range);

/* Commits what slots_check_add() allowed. */
void slots_add(struct slot_table *t, unsigned int id, struct gfn_range range);

/* 0 if slot @id exists; -EINVAL bad id; -ENOENT. */
int slots_check(const struct slot_table *t, unsigned int id);

void slots_remove(struct slot_table *t, unsigned int id);

/* The slot that holds @gfn, or -ENOENT. */
int slots_find(const struct slot_table *t, gfn_t gfn);

/* The slot that holds all of @range, or -ENOENT. */
int slots_find_range(const struct slot_table *t, struct gfn_range range);

/* 0 if every page of @range is in a slot, of which several may adjoin; -ENOENT. */
int slots_check_covered(const struct slot_table *t, struct gfn_range range);

/* All pages, and one past the highest GFN. */
uint64_t slots_pages(const struct slot_table *t);
uint64_t slots_end(const struct slot_table *t);

#endif
