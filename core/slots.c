/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "core/slots.h"

#include <assert.h>
#include <errno.h>

static bool overlap(struct gfn_range a, struct gfn_range b)
{
	return a.start.v < range_end(b) && b.start.v < range_end(a);
}

int slots_check_add(const struct slot_table *t, unsigned int id, struct gfn_range range)
{
	if (id >= SLOTS_MAX)
		return -EINVAL;
	if (t->slot[id].used)
		return -EEXIST;
	for (unsigned int i = 0; i < SLOTS_MAX; i++) {
		if (t->slot[i].used && overlap(t->slot[i].range, range))
			return -EEXIST;
	}
	return 0;
}

void slots_add(struct slot_table *t, unsigned int id, struct gfn_range range)
{
	assert(slots_check_add(t, id, range) == 0);
	t->slot[id].used = true;
	t->slot[id].range = range;
}

int slots_check(const struct slot_table *t, unsigned int id)
{
	if (id >= SLOTS_MAX)
		return -EINVAL;
	return t->slot[id].used ? 0 : -ENOENT;
}

void slots_remove(struct slot_table *t, unsigned int id)
{
	assert(slots_check(t, id) == 0);
	t->slot[id].used = false;
}

int slots_find(const struct slot_table *t, gfn_t gfn)
{
	return slots_find_range(t, (struct gfn_range){.start = gfn, .count = 1});
}

int slots_find_range(const struct slot_table *t, struct gfn_range range)
{
	for (unsigned int i = 0; i < SLOTS_MAX; i++) {
		struct gfn_range s = t->slot[i].range;

		if (t->slot[i].used && range.start.v >= s.start.v &&
			range_end(range) <= range_end(s))
			return (int)i;
	}
	return -ENOENT;
}

uint64_t slots_pages(const struct slot_table *t)
{
	uint64_t pages = 0;

	for (unsigned int i = 0; i < SLOTS_MAX; i++)
		pages += t->slot[i].used ? t->slot[i].range.count : 0;
	return pages;
}

uint64_t slots_end(const struct slot_table *t)
{
	uint64_t end = 0;

	for (unsigned int i = 0; i < SLOTS_MAX; i++) {
		if (t->slot[i].used && range_end(t->slot[i].range) > end)
			end = range_end(t->slot[i].range);
	}
	return end;
}

int slots_check_covered(const struct slot_table *t, struct gfn_range range)
{
	for (uint64_t at = range.start.v; at < range_end(range);) {
		int id = slots_find(t, gfn(at));

		if (id < 0)
			return id;
		at = range_end(t->slot[id].range);
	}
	return 0;
}
