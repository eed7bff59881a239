/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Steps of paging and moving that fail inside lethe-uv: the call says so, nothing has
 * changed, and the same call succeeds afterwards.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "test/system/uv_store.h"

static void begin_failing(struct uvc *c, const char *failpoint, const char *text)
{
	uvc_begin_failing(c, failpoint, 1, 0, MEMORY);
	uvc_load(c, text);
}

static void run_to_print(struct uvc *c)
{
	struct abi_vcpu_page page;

	uvc_protect(c, LOW);
	uvc_start(c);
	uvc_run_until(c, ABI_EXIT_PRINT, &page);
}

static void test_page_out_fails(void **state)
{
	static const char *const failpoints[] = {
		"uv-seal-key", "uv-seal-table", "uv-seal", "uv-sealed-out", "window-vacate"};

	for (size_t i = 0; i < COUNT(failpoints); i++) {
		struct store *s = store_new();
		struct uvc c;

		print_message("%s\n", failpoints[i]);
		begin_failing(&c, failpoints[i], "write 2M 64K\nprint a\ncheck 2M 64K\npoweroff\n");
		run_to_print(&c);
		assert_int_equal(uvc_page_out(&c, 2 * MIB, 64 * KIB, NULL), ABI_ST_NO_MEMORY);
		assert_int_equal(uvc_info(&c).sealed_pages, 0);
		assert_int_equal(store_out(&c, s, 2 * MIB, 64 * KIB), 16);
		store_finish(&c, s);
	}
}

/* The second of two runs cannot go: the first is out, and the answer says so. */
static void test_page_out_fails_half_way(void **state)
{
	struct store *s = store_new();
	struct uvc c;

	begin_failing(&c, "window-vacate:2",
		"write 2M 64K\nshare 2080K 4K\nprint a\ncheck 2M 64K\npoweroff\n");
	run_to_print(&c);
	assert_int_equal(store_out(&c, s, 2 * MIB, 64 * KIB), 8);
	assert_int_equal(uvc_info(&c).sealed_pages, 8);
	assert_int_equal(store_out(&c, s, 2 * MIB, 64 * KIB), 7);
	store_finish(&c, s);
}

/* Three runs come back; the one that fails, and what is after it, stays out. */
static void test_page_in_fails(void **state)
{
	static const char *const failpoints[] = {
		"uv-sealed-in:1", "uv-sealed-in:2", "uv-sealed-in:3"};

	for (unsigned int i = 0; i < COUNT(failpoints); i++) {
		struct store *s = store_new();
		uint64_t pages = 99;
		struct uvc c;

		print_message("%s\n", failpoints[i]);
		begin_failing(&c, failpoints[i],
			"write 2M 64K\nshare 2064K 4K\nshare 2084K 4K\nprint a\ncheck 2M 64K\n"
			"poweroff\n");
		run_to_print(&c);
		assert_int_equal(store_out(&c, s, 2 * MIB, 64 * KIB), 14);
		assert_int_equal(store_in(&c, s, 2 * MIB, 64 * KIB, &pages),
			i == 0 ? ABI_ST_NO_MEMORY : ABI_ST_OK);
		assert_int_equal(pages, i == 0 ? 0 : i == 1 ? 4 : 8);
		assert_int_equal(uvc_info(&c).sealed_pages, 14 - pages);
		store_finish(&c, s);
	}
}

static void test_coldest_fails(void **state)
{
	struct abi_coldest_ret ret;
	struct uvc c;

	begin_failing(&c, "uv-coldest", "write 2M 1M\nprint a\n");
	run_to_print(&c);
	assert_int_equal(uvc_coldest(&c, MIB, &ret), ABI_ST_NO_MEMORY);
	assert_int_equal(uvc_coldest(&c, MIB, &ret), ABI_ST_OK);
	assert_true(ret.count > 0);
	uvc_end(&c);
}

static void test_move_fails(void **state)
{
	static const char *const failpoints[] = {"uv-dying:2", "window-private:3"};

	for (size_t i = 0; i < COUNT(failpoints); i++) {
		struct abi_vcpu_page page;
		struct uvc c;

		print_message("%s\n", failpoints[i]);
		begin_failing(&c, failpoints[i],
			"release 16M 1M\nprint a\nwrite 12M 4K\ncheck 12M 4K\npoweroff\n");
		assert_int_equal(uvc_slot_add(&c, 1, 16 * MIB, MIB), ABI_ST_OK);
		run_to_print(&c);
		assert_int_equal(uvc_slot_move(&c, 1, 12 * MIB), ABI_ST_NO_MEMORY);
		assert_int_equal(uvc_mem(&c, ABI_CALL_MEM_READ, 16 * MIB, PAGE), ABI_ST_DENIED);
		assert_int_equal(uvc_mem(&c, ABI_CALL_MEM_READ, 12 * MIB, PAGE), ABI_ST_NOT_FOUND);
		assert_int_equal(uvc_slot_move(&c, 1, 12 * MIB), ABI_ST_OK);
		uvc_reply(&c, 0, ABI_ST_OK);
		uvc_run_until(&c, ABI_EXIT_POWEROFF, &page);
		uvc_end(&c);
	}
}

int main(void)
{
#ifndef LETHE_FAILPOINTS
	fprintf(stderr, "skipped: built without -Dfailpoints=true\n");
	return 77;
#endif
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_page_out_fails),
		cmocka_unit_test(test_page_out_fails_half_way),
		cmocka_unit_test(test_page_in_fails),
		cmocka_unit_test(test_coldest_fails),
		cmocka_unit_test(test_move_fails),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
