/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "core/attr.h"

bool attr_all_shared(const struct range_map *map, struct gfn_range range)
{
	uint64_t at = range.start.v, end = range_end(range);

	while (at < end) {
		struct range_run run = range_map_run_at(map, at, end);

		if (!attr_is_shared(run.value))
			return false;
		at = run.end;
	}
	return true;
}

bool attr_none_released(const struct range_map *map, struct gfn_range range)
{
	uint64_t at = range.start.v, end = range_end(range);

	while (at < end) {
		struct range_run run = range_map_run_at(map, at, end);

		if (run.value == ATTR_RELEASED)
			return false;
		at = run.end;
	}
	return true;
}
