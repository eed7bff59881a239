/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* GFN states: every state with every event, and ranges against one state a page. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "hv/gfn_state.h"

#define N LETHE_GFN_NORMAL
#define S LETHE_GFN_SECURE
#define H LETHE_GFN_SHARED
#define O LETHE_GFN_PAGED_OUT
#define X (-EINVAL)

/* The protocol's table, written down a second time: PAGE_IN, SHARE, UNSHARE, OUT, DONE, DROP. */
static const int expected[4][6] = {
	[N] = {S, H, X, N, S, N},
	[S] = {X, H, S, O, S, N},
	[H] = {S, H, S, H, H, N},
	[O] = {S, H, O, O, O, N},
};

static const struct gfn_range page = {{100}, 1};

/* One page in @state, reached by the protocol. */
static struct gfn_states *one_page(enum lethe_gfn_state state)
{
	struct gfn_states *s = gfn_states_new();

	assert_non_null(s);
	if (state == S || state == O)
		assert_int_equal(gfn_state_apply(s, page, GFN_PAGE_IN), 0);
	if (state == O)
		assert_int_equal(gfn_state_apply(s, page, GFN_PAGE_OUT), 0);
	if (state == H)
		assert_int_equal(gfn_state_apply(s, page, GFN_PAGE_IN_SHARED), 0);
	assert_int_equal(gfn_state_get(s, page.start), state);
	return s;
}

static void test_every_state_and_event(void **unused)
{
	for (int state = N; state <= O; state++) {
		for (int event = GFN_PAGE_IN; event <= GFN_DROP; event++) {
			struct gfn_states *s = one_page(state);
			int want = expected[state][event];

			assert_int_equal(gfn_state_next(state, event), want);
			assert_int_equal(gfn_state_apply(s, page, event), want < 0 ? want : 0);
			assert_int_equal(gfn_state_get(s, page.start), want < 0 ? state : want);
			/* Neighbours are not touched. */
			assert_int_equal(gfn_state_get(s, gfn(99)), N);
			assert_int_equal(gfn_state_get(s, gfn(101)), N);
			gfn_states_free(s);
		}
	}
}

static void test_no_normal_after_done(void **unused)
{
	for (int state = N; state <= O; state++)
		assert_int_not_equal(gfn_state_next(state, GFN_INIT_DONE), N);
}

static void test_apply_all_or_nothing(void **unused)
{
	struct gfn_states *s = gfn_states_new();
	const struct gfn_range low = {{0}, 10}, last = {{9}, 1};

	assert_int_equal(gfn_state_apply(s, last, GFN_PAGE_IN), 0);
	/* 0..8 could be paged in, 9 cannot a second time. */
	assert_int_equal(gfn_state_apply(s, low, GFN_PAGE_IN), -EINVAL);
	for (uint64_t i = 0; i < 9; i++)
		assert_int_equal(gfn_state_get(s, gfn(i)), N);
	assert_int_equal(gfn_state_get(s, gfn(9)), S);
	gfn_states_free(s);
}

static void test_terabytes_are_few_ranges(void **unused)
{
	struct gfn_states *s = gfn_states_new();
	const struct gfn_range all = {{0}, (uint64_t)1 << 36}, some = {{1 << 20}, 1 << 14};

	assert_int_equal(gfn_state_apply(s, some, GFN_PAGE_IN_SHARED), 0);
	assert_int_equal(gfn_state_apply(s, all, GFN_INIT_DONE), 0);
	assert_int_equal(gfn_state_ranges(s), 3);
	assert_true(gfn_state_all(s, some, H));
	assert_int_equal(gfn_state_apply(s, all, GFN_PAGE_OUT), 0);
	assert_int_equal(gfn_state_ranges(s), 3);
	assert_int_equal(gfn_state_apply(s, all, GFN_DROP), 0);
	assert_int_equal(gfn_state_ranges(s), 0);
	gfn_states_free(s);
}

/* A share that fails over a part that was shared before leaves that part shared. */
static void test_restore(void **unused)
{
	struct gfn_states *s = gfn_states_new();
	const struct gfn_range all = {{0}, 100}, shared = {{10}, 5}, out = {{20}, 5};
	struct gfn_saved *before;

	assert_int_equal(gfn_state_apply(s, all, GFN_INIT_DONE), 0);
	assert_int_equal(gfn_state_apply(s, shared, GFN_PAGE_IN_SHARED), 0);
	assert_int_equal(gfn_state_apply(s, out, GFN_PAGE_OUT), 0);
	before = gfn_state_save(s, all);
	assert_non_null(before);
	assert_int_equal(gfn_state_apply(s, all, GFN_PAGE_IN_SHARED), 0);
	assert_true(gfn_state_all(s, all, H));
	gfn_state_restore(s, before);
	free(before);
	assert_true(gfn_state_all(s, shared, H));
	assert_true(gfn_state_all(s, out, O));
	assert_int_equal(gfn_state_ranges(s), 5);
	gfn_states_free(s);
}

/* What comes back is what was out, and nothing else of the range. */
static void test_apply_to(void **unused)
{
	struct gfn_states *s = gfn_states_new();
	const struct gfn_range all = {{0}, 100}, shared = {{10}, 5}, out = {{20}, 5},
			       more = {{30}, 2};

	assert_int_equal(gfn_state_apply(s, all, GFN_INIT_DONE), 0);
	assert_true(gfn_state_none(s, all, O));
	assert_int_equal(gfn_state_apply(s, shared, GFN_PAGE_IN_SHARED), 0);
	assert_int_equal(gfn_state_apply(s, out, GFN_PAGE_OUT), 0);
	assert_int_equal(gfn_state_apply(s, more, GFN_PAGE_OUT), 0);
	assert_false(gfn_state_none(s, all, O));
	assert_true(gfn_state_none(s, shared, O));
	/* SECURE has no page-in: refused, whether there is such a page or not. */
	assert_int_equal(gfn_state_apply_to(s, out, S, GFN_PAGE_IN), -EINVAL);
	assert_int_equal(gfn_state_apply_to(s, all, O, GFN_PAGE_IN), 0);
	assert_true(gfn_state_none(s, all, O));
	assert_true(gfn_state_all(s, shared, H));
	assert_true(gfn_state_all(s, out, S));
	assert_int_equal(gfn_state_ranges(s), 3);
	assert_int_equal(gfn_state_apply_to(s, all, O, GFN_PAGE_IN), 0);
	assert_int_equal(gfn_state_ranges(s), 3);
	gfn_states_free(s);
}

#define PAGES 64

static uint32_t next_random(uint32_t *state)
{
	*state = *state * 1664525 + 1013904223;
	return *state >> 8;
}

static int model_apply(int *model, struct gfn_range r, int event)
{
	for (uint64_t i = r.start.v; i < range_end(r); i++) {
		if (expected[model[i]][event] < 0)
			return -EINVAL;
	}
	for (uint64_t i = r.start.v; i < range_end(r); i++)
		model[i] = expected[model[i]][event];
	return 0;
}

static void test_random_ranges(void **unused)
{
	uint32_t random = 1;

	for (int round = 0; round < 200; round++) {
		struct gfn_states *s = gfn_states_new();
		int model[PAGES] = {0};

		for (int step = 0; step < 60; step++) {
			uint64_t start = next_random(&random) % PAGES;
			struct gfn_range r = {
				gfn(start), 1 + next_random(&random) % (PAGES - start)};
			int event = (int)(next_random(&random) % 6);

			assert_int_equal(
				gfn_state_apply(s, r, event), model_apply(model, r, event));
			for (uint64_t i = 0; i < PAGES; i++)
				assert_int_equal(gfn_state_get(s, gfn(i)), model[i]);
		}
		gfn_states_free(s);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_state_and_event),
		cmocka_unit_test(test_no_normal_after_done),
		cmocka_unit_test(test_apply_all_or_nothing),
		cmocka_unit_test(test_terabytes_are_few_ranges),
		cmocka_unit_test(test_restore),
		cmocka_unit_test(test_apply_to),
		cmocka_unit_test(test_random_ranges),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
