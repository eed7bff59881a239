/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The memslot table against a plain array of owners, one entry per GFN: all pairs of
 * ranges in a small space, then random adding and removing.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/slots.h"

#define SPACE 8 /* GFNs of the small space */

static struct gfn_range range(uint64_t start, uint64_t count)
{
	return (struct gfn_range){.start = gfn(start), .count = count};
}

/* Every lookup agrees with owner[]: the slot of each GFN, -1 for none. */
static void assert_lookups(const struct slot_table *t, const int *owner, uint64_t space)
{
	uint64_t pages = 0, end = 0;

	for (uint64_t start = 0; start < space; start++) {
		assert_int_equal(
			slots_find(t, gfn(start)), owner[start] < 0 ? -ENOENT : owner[start]);
		if (owner[start] >= 0) {
			pages++;
			end = start + 1;
		}
		for (uint64_t n = 1; start + n <= space; n++) {
			bool one = owner[start] >= 0;

			for (uint64_t i = 1; i < n; i++)
				one = one && owner[start + i] == owner[start];
			assert_int_equal(
				slots_find_range(t, range(start, n)), one ? owner[start] : -ENOENT);
		}
	}
	assert_int_equal(slots_pages(t), pages);
	assert_int_equal(slots_end(t), end);
}

static void fill(int *owner, uint64_t start, uint64_t count, int id)
{
	for (uint64_t i = 0; i < count; i++)
		owner[start + i] = id;
}

static void try_pair(uint64_t s1, uint64_t n1, uint64_t s2, uint64_t n2)
{
	struct slot_table t = {0};
	int owner[SPACE];
	bool overlap = false;

	fill(owner, 0, SPACE, -1);
	assert_int_equal(slots_check_add(&t, 3, range(s1, n1)), 0);
	slots_add(&t, 3, range(s1, n1));
	fill(owner, s1, n1, 3);
	for (uint64_t i = s2; i < s2 + n2; i++)
		overlap = overlap || owner[i] >= 0;
	assert_int_equal(slots_check_add(&t, 0, range(s2, n2)), overlap ? -EEXIST : 0);
	assert_int_equal(slots_check_add(&t, 3, range(s2, n2)), -EEXIST);
	if (!overlap) {
		slots_add(&t, 0, range(s2, n2));
		fill(owner, s2, n2, 0);
	}
	assert_lookups(&t, owner, SPACE);
	slots_remove(&t, 3);
	fill(owner, s1, n1, -1);
	assert_lookups(&t, owner, SPACE);
}

static void test_every_pair_of_ranges(void **state)
{
	for (uint64_t s1 = 0; s1 < SPACE; s1++) {
		for (uint64_t n1 = 1; s1 + n1 <= SPACE; n1++) {
			for (uint64_t s2 = 0; s2 < SPACE; s2++) {
				for (uint64_t n2 = 1; s2 + n2 <= SPACE; n2++)
					try_pair(s1, n1, s2, n2);
			}
		}
	}
}

static void test_ids(void **state)
{
	struct slot_table t = {0};

	assert_int_equal(slots_check_add(&t, SLOTS_MAX, range(0, 1)), -EINVAL);
	assert_int_equal(slots_check_add(&t, UINT32_MAX, range(0, 1)), -EINVAL);
	assert_int_equal(slots_check(&t, SLOTS_MAX), -EINVAL);
	for (unsigned int id = 0; id < SLOTS_MAX; id++) {
		assert_int_equal(slots_check(&t, id), -ENOENT);
		assert_int_equal(slots_check_add(&t, id, range(id, 1)), 0);
		slots_add(&t, id, range(id, 1));
		assert_int_equal(slots_check(&t, id), 0);
	}
	assert_int_equal(slots_pages(&t), SLOTS_MAX);
	for (unsigned int id = 0; id < SLOTS_MAX; id++)
		slots_remove(&t, id);
	assert_int_equal(slots_pages(&t), 0);
	assert_int_equal(slots_end(&t), 0);
}

static void test_ends_of_the_address_space(void **state)
{
	struct slot_table t = {0};

	slots_add(&t, 0, range(GFN_END - 1, 1));
	slots_add(&t, 1, range(0, 1));
	assert_int_equal(slots_find(&t, gfn(GFN_END - 1)), 0);
	assert_int_equal(slots_find(&t, gfn(GFN_END - 2)), -ENOENT);
	assert_int_equal(slots_find(&t, gfn(GFN_END)), -ENOENT);
	assert_int_equal(slots_end(&t), GFN_END);
	assert_int_equal(slots_check_add(&t, 2, range(0, GFN_END)), -EEXIST);
	assert_int_equal(slots_check_add(&t, 2, range(1, GFN_END - 2)), 0);
}

static void test_random_walk(void **state)
{
	enum { SPACE_BIG = 48, STEPS = 4000 };
	struct slot_table t = {0};
	uint64_t start[SLOTS_MAX], count[SLOTS_MAX] = {0};
	int owner[SPACE_BIG];

	srand(1);
	fill(owner, 0, SPACE_BIG, -1);
	for (int step = 0; step < STEPS; step++) {
		unsigned int id = (unsigned int)rand() % SLOTS_MAX;
		uint64_t s = (uint64_t)rand() % SPACE_BIG;
		uint64_t n = 1 + (uint64_t)rand() % 6;

		if (s + n > SPACE_BIG)
			continue;
		if (count[id] > 0) {
			slots_remove(&t, id);
			fill(owner, start[id], count[id], -1);
			count[id] = 0;
		} else if (slots_check_add(&t, id, range(s, n)) == 0) {
			slots_add(&t, id, range(s, n));
			start[id] = s;
			count[id] = n;
			for (uint64_t i = 0; i < n; i++)
				assert_int_equal(owner[s + i], -1);
			fill(owner, s, n, (int)id);
		}
		if (step % 16 == 0)
			assert_lookups(&t, owner, SPACE_BIG);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_pair_of_ranges),
		cmocka_unit_test(test_ids),
		cmocka_unit_test(test_ends_of_the_address_space),
		cmocka_unit_test(test_random_walk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
