/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "core/attr.h"

#include "base/range_map.h"

/* The map is a range map by another name: every function here is cast and call. */
static struct range_map *runs_of(const struct attr_map *map)
{
	return (struct range_map *)map;
}

struct attr_map *attr_map_new(void)
{
	return (struct attr_map *)range_map_new();
}

void attr_map_free(struct attr_map *map)
{
	range_map_free(runs_of(map));
}

enum page_attr attr_get(const struct attr_map *map, gfn_t gfn)
{
	return range_map_get(runs_of(map), gfn.v);
}

struct attr_run attr_run_at(const struct attr_map *map, uint64_t at, uint64_t limit)
{
	struct range_run run = range_map_run_at(runs_of(map), at, limit);

	return (struct attr_run){run.start, run.end, run.value};
}

int attr_set(struct attr_map *map, struct gfn_range range, enum page_attr attr)
{
	return range_map_set(runs_of(map), range.start.v, range_end(range), attr);
}

void attr_clear(struct attr_map *map)
{
	range_map_clear(runs_of(map));
}

uint64_t attr_count(const struct attr_map *map, enum page_attr attr)
{
	return range_map_count(runs_of(map), attr);
}

size_t attr_map_bytes(const struct attr_map *map)
{
	return range_map_bytes(runs_of(map));
}

bool attr_all(const struct attr_map *map, struct gfn_range range, enum page_attr attr)
{
	struct attr_run run = attr_run_at(map, range.start.v, range_end(range));

	return run.attr == attr && run.end == range_end(range);
}

bool attr_all_shared(const struct attr_map *map, struct gfn_range range)
{
	uint64_t at = range.start.v, end = range_end(range);

	while (at < end) {
		struct attr_run run = attr_run_at(map, at, end);

		if (!attr_is_shared(run.attr))
			return false;
		at = run.end;
	}
	return true;
}

bool attr_none(const struct attr_map *map, struct gfn_range range, enum page_attr attr)
{
	uint64_t at = range.start.v, end = range_end(range);

	while (at < end) {
		struct attr_run run = attr_run_at(map, at, end);

		if (run.attr == attr)
			return false;
		at = run.end;
	}
	return true;
}
