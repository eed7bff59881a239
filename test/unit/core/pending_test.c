/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Conversions under way: all pairs of ranges, all vCPUs, failure changes nothing. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/pending.h"

#define SPACE 7

static struct gfn_range range(uint64_t start, uint64_t count)
{
	return (struct gfn_range){.start = gfn(start), .count = count};
}

static void try_pair(struct gfn_range a, struct gfn_range b)
{
	struct pending_set p = {0}, before;
	bool overlap = false;

	for (uint64_t i = a.start.v; i < range_end(a); i++)
		overlap = overlap || (i >= b.start.v && i < range_end(b));
	assert_false(pending_overlaps(&p, b));
	assert_int_equal(pending_begin(&p, 5, a), 0);
	assert_int_equal(pending_overlaps(&p, b), overlap);
	before = p;
	assert_int_equal(pending_begin(&p, 2, b), overlap ? -EAGAIN : 0);
	if (overlap)
		assert_memory_equal(&p, &before, sizeof(p));
	pending_end(&p, 5);
	if (overlap)
		assert_int_equal(pending_begin(&p, 2, b), 0);
	assert_int_equal(pending_begin(&p, 5, a), overlap ? -EAGAIN : 0);
}

static void test_every_pair_of_ranges(void **state)
{
	for (uint64_t s1 = 0; s1 < SPACE; s1++) {
		for (uint64_t n1 = 1; s1 + n1 <= SPACE; n1++) {
			for (uint64_t s2 = 0; s2 < SPACE; s2++) {
				for (uint64_t n2 = 1; s2 + n2 <= SPACE; n2++)
					try_pair(range(s1, n1), range(s2, n2));
			}
		}
	}
}

static void test_every_vcpu_has_one(void **state)
{
	struct pending_set p = {0};

	for (unsigned int i = 0; i < PENDING_MAX; i++)
		assert_int_equal(pending_begin(&p, i, range(i * 2, 2)), 0);
	for (unsigned int i = 0; i < PENDING_MAX; i++) {
		pending_end(&p, i);
		assert_int_equal(pending_begin(&p, i, range(0, 2 * PENDING_MAX)), -EAGAIN);
		assert_int_equal(pending_begin(&p, i, range(i * 2, 2)), 0);
	}
	for (unsigned int i = 0; i < PENDING_MAX; i++)
		pending_end(&p, i);
	assert_int_equal(pending_begin(&p, 63, range(0, 2 * PENDING_MAX)), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_pair_of_ranges),
		cmocka_unit_test(test_every_vcpu_has_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
