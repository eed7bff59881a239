/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "hv/gfn_state.h"

#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/range_map.h"

#define STATES 4
#define EVENTS 6
#define NONE   -1

struct gfn_states {
	struct range_map *map; /* value: enum lethe_gfn_state; NORMAL is 0, absent */
};

/* kvm-semantics of PPC: rows are states, columns events. */
static const int8_t next_state[STATES][EVENTS] = {
	[LETHE_GFN_NORMAL] =
		{
			[GFN_PAGE_IN] = LETHE_GFN_SECURE,
			[GFN_PAGE_IN_SHARED] = LETHE_GFN_SHARED,
			[GFN_UNSHARE] = NONE,
			[GFN_PAGE_OUT] = LETHE_GFN_NORMAL,
			[GFN_INIT_DONE] = LETHE_GFN_SECURE,
			[GFN_DROP] = LETHE_GFN_NORMAL,
		},
	[LETHE_GFN_SECURE] =
		{
			[GFN_PAGE_IN] = NONE,
			[GFN_PAGE_IN_SHARED] = LETHE_GFN_SHARED,
			[GFN_UNSHARE] = LETHE_GFN_SECURE,
			[GFN_PAGE_OUT] = LETHE_GFN_PAGED_OUT,
			[GFN_INIT_DONE] = LETHE_GFN_SECURE,
			[GFN_DROP] = LETHE_GFN_NORMAL,
		},
	[LETHE_GFN_SHARED] =
		{
			[GFN_PAGE_IN] = LETHE_GFN_SECURE,
			[GFN_PAGE_IN_SHARED] = LETHE_GFN_SHARED,
			[GFN_UNSHARE] = LETHE_GFN_SECURE,
			[GFN_PAGE_OUT] = LETHE_GFN_SHARED,
			[GFN_INIT_DONE] = LETHE_GFN_SHARED,
			[GFN_DROP] = LETHE_GFN_NORMAL,
		},
	[LETHE_GFN_PAGED_OUT] =
		{
			[GFN_PAGE_IN] = LETHE_GFN_SECURE,
			[GFN_PAGE_IN_SHARED] = LETHE_GFN_SHARED,
			[GFN_UNSHARE] = LETHE_GFN_PAGED_OUT,
			[GFN_PAGE_OUT] = LETHE_GFN_PAGED_OUT,
			[GFN_INIT_DONE] = LETHE_GFN_PAGED_OUT,
			[GFN_DROP] = LETHE_GFN_NORMAL,
		},
};

struct gfn_saved {
	size_t count;
	struct range_run runs[];
};

struct gfn_states *gfn_states_new(void)
{
	struct gfn_states *s = calloc(1, sizeof(*s));

	if (s == NULL)
		return NULL;
	s->map = range_map_new();
	if (s->map == NULL) {
		free(s);
		return NULL;
	}
	return s;
}

void gfn_states_free(struct gfn_states *s)
{
	if (s == NULL)
		return;
	range_map_free(s->map);
	free(s);
}

int gfn_state_next(enum lethe_gfn_state from, enum gfn_event event)
{
	int to = next_state[from][event];

	return to == NONE ? -EINVAL : to;
}

enum lethe_gfn_state gfn_state_get(const struct gfn_states *s, gfn_t gfn)
{
	return range_map_get(s->map, gfn.v);
}

/* Checks every run of @r; *ret_same: one new state serves all of it. */
static int check(const struct gfn_states *s, struct gfn_range r, enum gfn_event event,
	bool *ret_same, int *ret_to)
{
	*ret_same = true;
	*ret_to = NONE;
	for (uint64_t at = r.start.v; at < range_end(r);) {
		struct range_run run = range_map_run_at(s->map, at, range_end(r));
		int to = gfn_state_next(run.value, event);

		if (to < 0)
			return to;
		if (*ret_to != NONE && *ret_to != to)
			*ret_same = false;
		*ret_to = to;
		at = run.end;
	}
	return 0;
}

struct gfn_saved *gfn_state_save(const struct gfn_states *s, struct gfn_range r)
{
	struct gfn_saved *saved;
	size_t n = 0;

	for (uint64_t at = r.start.v; at < range_end(r); n++)
		at = range_map_run_at(s->map, at, range_end(r)).end;
	saved = malloc(sizeof(*saved) + n * sizeof(saved->runs[0]));
	if (saved == NULL)
		return NULL;
	saved->count = 0;
	for (uint64_t at = r.start.v; at < range_end(r); saved->count++) {
		saved->runs[saved->count] = range_map_run_at(s->map, at, range_end(r));
		at = saved->runs[saved->count].end;
	}
	return saved;
}

void gfn_state_restore(struct gfn_states *s, const struct gfn_saved *saved)
{
	for (size_t i = 0; i < saved->count; i++) {
		const struct range_run *run = &saved->runs[i];

		if (range_map_set(s->map, run->start, run->end, run->value) < 0)
			log_warn("states of %llu pages are not put back: no memory",
				(unsigned long long)(run->end - run->start));
	}
}

/* Runs of @r end in different states: one by one, from a copy of what they were. */
static int apply_each(struct gfn_states *s, struct gfn_range r, enum gfn_event event)
{
	struct gfn_saved *saved = gfn_state_save(s, r);
	int ret = 0;

	if (saved == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < saved->count && ret == 0; i++) {
		const struct range_run *run = &saved->runs[i];

		ret = range_map_set(
			s->map, run->start, run->end, (uint32_t)gfn_state_next(run->value, event));
	}
	if (ret < 0)
		gfn_state_restore(s, saved);
	free(saved);
	return ret;
}

int gfn_state_apply(struct gfn_states *s, struct gfn_range r, enum gfn_event event)
{
	bool same;
	int to, ret = check(s, r, event, &same, &to);

	if (ret < 0)
		return ret;
	if (same)
		return range_map_set(s->map, r.start.v, range_end(r), (uint32_t)to);
	return apply_each(s, r, event);
}

int gfn_state_apply_to(
	struct gfn_states *s, struct gfn_range r, enum lethe_gfn_state only, enum gfn_event event)
{
	int to = gfn_state_next(only, event), ret = 0;
	struct gfn_saved *saved;

	if (to < 0)
		return to;
	saved = gfn_state_save(s, r);
	if (saved == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < saved->count && ret == 0; i++) {
		const struct range_run *run = &saved->runs[i];

		if (run->value == (uint32_t)only)
			ret = range_map_set(s->map, run->start, run->end, (uint32_t)to);
	}
	if (ret < 0)
		gfn_state_restore(s, saved);
	free(saved);
	return ret;
}

bool gfn_state_none(const struct gfn_states *s, struct gfn_range r, enum lethe_gfn_state state)
{
	for (uint64_t at = r.start.v; at < range_end(r);) {
		struct range_run run = range_map_run_at(s->map, at, range_end(r));

		if (run.value == (uint32_t)state)
			return false;
		at = run.end;
	}
	return true;
}

bool gfn_state_all(const struct gfn_states *s, struct gfn_range r, enum lethe_gfn_state state)
{
	return range_map_all(s->map, r.start.v, range_end(r), state);
}

size_t gfn_state_ranges(const struct gfn_states *s)
{
	return range_map_runs(s->map);
}
