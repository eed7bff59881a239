/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/checked.h"

static void test_align_up(void **state)
{
	uint64_t x = 7;

	assert_false(checked_align_up(UINT64_MAX, PAGE_SIZE, &x));
	assert_false(checked_align_up(UINT64_MAX - PAGE_MASK + 1, PAGE_SIZE, &x));
	assert_int_equal(x, 7);
	assert_true(checked_align_up(UINT64_MAX - PAGE_MASK, PAGE_SIZE, &x));
	assert_int_equal(x, UINT64_MAX - PAGE_MASK);
	assert_true(checked_align_up(1, SIZE_2M, &x));
	assert_int_equal(x, SIZE_2M);
	assert_true(checked_align_up(0, SIZE_2M, &x));
	assert_int_equal(x, 0);
}

static void test_gfn_range_is_checked(void **state)
{
	static const struct {
		uint64_t start, bytes;
		int error;
	} bad[] = {
		{0, 0, -EINVAL},
		{1, PAGE_SIZE, -EINVAL},
		{0, 1, -EINVAL},
		{0, PAGE_SIZE + 512, -EINVAL},
		{-PAGE_SIZE, PAGE_SIZE, -ERANGE},
		{-PAGE_SIZE, 2 * PAGE_SIZE, -ERANGE},
		{GPA_END, PAGE_SIZE, -ERANGE},
		{GPA_END - PAGE_SIZE, 2 * PAGE_SIZE, -ERANGE},
		{PAGE_SIZE, -PAGE_SIZE, -ERANGE},
	};
	struct gfn_range range = {.start = {99}, .count = 98};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(
			checked_gfn_range(bad[i].start, bad[i].bytes, &range), bad[i].error);
		assert_int_equal(range.start.v, 99);
		assert_int_equal(range.count, 98);
	}
	assert_int_equal(checked_gfn_range(0, GPA_END, &range), 0);
	assert_int_equal(range_end(range), GFN_END);
	assert_int_equal(range_bytes(range), GPA_END);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_align_up),
		cmocka_unit_test(test_gfn_range_is_checked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
