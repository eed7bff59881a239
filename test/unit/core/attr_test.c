/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Both questions for every map of four attributes over a few pages, and every range. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/attr.h"

#define PAGES 5
#define BASE  100 /* so that the pages before and after the range matter */

static void check_all_ranges(const struct attr_map *map, const enum page_attr *attr)
{
	for (uint64_t s = 0; s < PAGES; s++) {
		bool shared = true, none_released = true;

		for (uint64_t n = 1; s + n <= PAGES; n++) {
			enum page_attr a = attr[s + n - 1];
			struct gfn_range r = {gfn(BASE + s), n};

			shared = shared && (a == ATTR_COPIED || a == ATTR_MAPPED);
			none_released = none_released && a != ATTR_RELEASED;
			assert_int_equal(attr_all_shared(map, r), shared);
			assert_int_equal(attr_none(map, r, ATTR_RELEASED), none_released);
		}
	}
}

static void test_every_map(void **state)
{
	struct attr_map *map = attr_map_new();

	assert_non_null(map);
	for (unsigned int code = 0; code < 1u << (2 * PAGES); code++) {
		enum page_attr attr[PAGES];

		for (unsigned int i = 0; i < PAGES; i++) {
			attr[i] = (enum page_attr)(code >> (2 * i) & 3);
			assert_int_equal(
				attr_set(map, (struct gfn_range){gfn(BASE + i), 1}, attr[i]), 0);
		}
		check_all_ranges(map, attr);
	}
	attr_map_free(map);
}

static void test_default_is_private(void **state)
{
	struct attr_map *map = attr_map_new();
	struct gfn_range all = {gfn(0), GFN_END};

	assert_non_null(map);
	assert_false(attr_all_shared(map, all));
	assert_true(attr_none(map, all, ATTR_RELEASED));
	assert_int_equal(attr_set(map, (struct gfn_range){gfn(0), GFN_END - 1}, ATTR_COPIED), 0);
	assert_false(attr_all_shared(map, all));
	assert_int_equal(attr_set(map, (struct gfn_range){gfn(GFN_END - 1), 1}, ATTR_MAPPED), 0);
	assert_true(attr_all_shared(map, all));
	attr_map_free(map);
}

static void test_shared_is_two_attributes(void **state)
{
	assert_false(attr_is_shared(ATTR_PRIVATE));
	assert_true(attr_is_shared(ATTR_COPIED));
	assert_true(attr_is_shared(ATTR_MAPPED));
	assert_false(attr_is_shared(ATTR_RELEASED));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_map),
		cmocka_unit_test(test_default_is_private),
		cmocka_unit_test(test_shared_is_two_attributes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
