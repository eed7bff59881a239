/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Incarnations on their way out: every edge, and the queue against an array. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/incarnation.h"

#define STATES 5

/* Row: from; column: to: SET_ASIDE, LEFT, DESTROYING, DONE, QUARANTINED. */
static const bool legal[STATES][STATES] = {
	{0, 1, 1, 0, 0}, /* SET_ASIDE: nobody waits any more; PERFORM */
	{0, 0, 1, 0, 0}, /* LEFT: only destroying; never set aside again */
	{0, 1, 0, 1, 1}, /* DESTROYING: cancelled, done, failed */
	{0, 0, 0, 0, 0}, /* DONE */
	{0, 0, 0, 0, 0}, /* QUARANTINED: for good */
};

static void test_every_pair_of_states(void **state)
{
	for (int from = 0; from < STATES; from++) {
		for (int to = 0; to < STATES; to++) {
			struct incarnation inc = {
				.number = 7, .state = (enum incarnation_state)from};
			bool ok = incarnation_set_state(&inc, (enum incarnation_state)to);

			assert_int_equal(ok, legal[from][to]);
			assert_int_equal(inc.state, ok ? to : from);
			assert_int_equal(inc.number, 7);
		}
	}
}

static void test_one_set_aside(void **state)
{
	struct incarnation a = {.number = 1}, b = {.number = 2}, c = {.number = 3};
	struct incarnation_queue q = {0};

	assert_null(incarnation_find(&q, INC_SET_ASIDE));
	assert_int_equal(incarnation_push(&q, &a), 0);
	assert_int_equal(incarnation_push(&q, &b), -EALREADY);
	assert_ptr_equal(q.first, &a);
	assert_null(a.next);

	/* A leftover is always taken; once destruction began, so is the next one. */
	b.state = INC_LEFT;
	assert_int_equal(incarnation_push(&q, &b), 0);
	assert_int_equal(incarnation_push(&q, &c), -EALREADY);
	assert_true(incarnation_set_state(&a, INC_DESTROYING));
	assert_int_equal(incarnation_push(&q, &c), 0);
	assert_ptr_equal(incarnation_find(&q, INC_SET_ASIDE), &c);
	assert_ptr_equal(incarnation_find(&q, INC_LEFT), &b);
	assert_ptr_equal(incarnation_find(&q, INC_DESTROYING), &a);

	/* Cancelled, it is the oldest leftover: before b. */
	assert_true(incarnation_set_state(&a, INC_LEFT));
	assert_ptr_equal(incarnation_find(&q, INC_LEFT), &a);
	incarnation_remove(&q, &a);
	assert_ptr_equal(incarnation_find(&q, INC_LEFT), &b);
	incarnation_remove(&q, &c);
	incarnation_remove(&q, &b);
	assert_null(q.first);
}

/* Pushes at the end and removes anywhere, beside an array that does the same. */
static void test_order(void **state)
{
	enum { COUNT = 12, STEPS = 2000 };
	struct incarnation inc[COUNT];
	struct incarnation *order[COUNT];
	struct incarnation_queue q = {0};
	bool in[COUNT] = {0};
	size_t n = 0;

	srand(2);
	for (int step = 0; step < STEPS; step++) {
		size_t i = (size_t)rand() % COUNT;
		struct incarnation *at;

		if (in[i]) {
			size_t k = 0;

			while (order[k] != &inc[i])
				k++;
			for (n--; k < n; k++)
				order[k] = order[k + 1];
			incarnation_remove(&q, &inc[i]);
			assert_null(inc[i].next);
		} else {
			inc[i] = (struct incarnation){.number = i, .state = INC_LEFT};
			assert_int_equal(incarnation_push(&q, &inc[i]), 0);
			order[n++] = &inc[i];
		}
		in[i] = !in[i];
		at = q.first;
		for (size_t k = 0; k < n; k++, at = at->next)
			assert_ptr_equal(at, order[k]);
		assert_null(at);
		assert_ptr_equal(incarnation_find(&q, INC_LEFT), n > 0 ? order[0] : NULL);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_pair_of_states),
		cmocka_unit_test(test_one_set_aside),
		cmocka_unit_test(test_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
