/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* lethe-uv: slots that move, and which memory is cold. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "test/system/uv_store.h"

/* ---- moving slots ---- */

/* Memory of a normal VM moves with its content, while no vCPU runs. */
static void test_move_normal(void **state)
{
	struct abi_vcpu_page page;
	struct uvc c;

	uvc_begin(&c, 1, 0, MEMORY);
	uvc_load(&c, "check 32M 8K\nprint ready\npoweroff\n");
	assert_int_equal(uvc_slot_add(&c, 1, 16 * MIB, MIB), ABI_ST_OK);
	assert_int_equal(uvc_slot_add(&c, 2, 20 * MIB, MIB), ABI_ST_OK);
	uvc_fill(c.slot[1].base, 32 * MIB, 8 * KIB, 0);
	assert_int_equal(uvc_slot_move(&c, ABI_MAX_SLOTS, 32 * MIB), ABI_ST_INVALID);
	assert_int_equal(uvc_slot_move(&c, 3, 32 * MIB), ABI_ST_NOT_FOUND);
	assert_int_equal(uvc_slot_move(&c, 1, 32 * MIB + 8), ABI_ST_INVALID);
	assert_int_equal(uvc_slot_move(&c, 1, TOP), ABI_ST_RANGE);
	assert_int_equal(uvc_slot_move(&c, 1, TOP - PAGE), ABI_ST_RANGE);
	assert_int_equal(uvc_slot_move(&c, 1, MEMORY - PAGE), ABI_ST_EXISTS);
	assert_int_equal(uvc_slot_move(&c, 1, 20 * MIB + PAGE), ABI_ST_EXISTS);
	assert_int_equal(uvc_slot_move(&c, 1, 19 * MIB + PAGE), ABI_ST_EXISTS);
	assert_int_equal(uvc_mem(&c, ABI_CALL_MEM_READ, 16 * MIB, MIB), ABI_ST_OK);
	/* Over itself, to the very end, and where it is. */
	assert_int_equal(uvc_slot_move(&c, 1, 16 * MIB + PAGE), ABI_ST_OK);
	assert_int_equal(uvc_mem(&c, ABI_CALL_MEM_READ, 16 * MIB, PAGE), ABI_ST_NOT_FOUND);
	assert_int_equal(uvc_slot_move(&c, 1, TOP - MIB), ABI_ST_OK);
	assert_int_equal(uvc_slot_move(&c, 1, 32 * MIB), ABI_ST_OK);
	assert_int_equal(uvc_slot_move(&c, 1, 32 * MIB), ABI_ST_OK);
	uvc_start(&c);
	uvc_run_until(&c, ABI_EXIT_PRINT, &page);
	assert_int_equal(uvc_slot_move(&c, 2, 40 * MIB), ABI_ST_BUSY);
	uvc_reply(&c, 0, ABI_ST_OK);
	uvc_run_until(&c, ABI_EXIT_POWEROFF, &page);
	uvc_end(&c);
}

/* A protected guest whose slot 1, at 16M, it has given up. */
static void begin_released(struct uvc *c, const char *text)
{
	struct abi_vcpu_page page;
	char all[512];

	/* All but the last page, then that. */
	snprintf(all, sizeof(all),
		"write 16M 1M\nshare 16M 4K\nunshare 16M 4K\nrelease 16M 1020K\nprint some\n"
		"release 17404K 4K\nprint ready\n%s",
		text);
	uvc_begin(c, 1, 0, MEMORY);
	assert_int_equal(uvc_slot_add(c, 1, 16 * MIB, MIB), ABI_ST_OK);
	uvc_start_protected(c, all);
	uvc_run_until(c, ABI_EXIT_PRINT, &page);
	assert_int_equal(uvc_slot_move(c, 1, 12 * MIB), ABI_ST_BUSY);
	uvc_reply(c, 0, ABI_ST_OK);
	uvc_run_until(c, ABI_EXIT_PRINT, &page);
}

/* What a guest has given up comes back elsewhere as new memory. */
static void test_move_released(void **state)
{
	struct store *s = store_new();
	struct uvc c;

	begin_released(&c, "zero 12M 1M\nwrite 12M 64K\ncheck 12M 64K\npoweroff\n");
	assert_int_equal(uvc_slot_move(&c, 1, MEMORY - PAGE), ABI_ST_EXISTS);
	assert_int_equal(uvc_slot_move(&c, 1, 12 * MIB), ABI_ST_OK);
	assert_int_equal(uvc_mem(&c, ABI_CALL_MEM_READ, 16 * MIB, PAGE), ABI_ST_NOT_FOUND);
	assert_int_equal(uvc_mem(&c, ABI_CALL_MEM_READ, 12 * MIB, PAGE), ABI_ST_DENIED);
	/* It is the guest's again. */
	assert_int_equal(uvc_slot_move(&c, 1, 13 * MIB), ABI_ST_BUSY);
	/* The old place is free and has no past. */
	assert_int_equal(uvc_slot_add(&c, 2, 16 * MIB, MIB), ABI_ST_OK);
	store_finish(&c, s);
}

static void test_old_place_is_gone(void **state)
{
	struct uvc c;

	begin_released(&c, "write 16M 4K\nprint never\n");
	assert_int_equal(uvc_slot_move(&c, 1, 12 * MIB), ABI_ST_OK);
	uvc_reply(&c, 0, ABI_ST_OK);
	uvc_expect_stopped(&c, ABI_STOP_VIOLATION, 16 * MIB);
	uvc_end(&c);
}

/* ---- cold memory ---- */

static struct abi_coldest_ret coldest(struct uvc *c, uint64_t bytes)
{
	struct abi_coldest_ret ret;

	assert_int_equal(uvc_coldest(c, bytes, &ret), ABI_ST_OK);
	assert_true(ret.count <= ABI_MAX_RANGES);
	for (uint32_t i = 0; i < ret.count; i++) {
		assert_true(ret.range[i].bytes > 0);
		assert_int_equal(ret.range[i].gpa % PAGE, 0);
		assert_int_equal(ret.range[i].bytes % PAGE, 0);
		assert_true(ret.range[i].gpa + ret.range[i].bytes <= MEMORY);
	}
	return ret;
}

/* Where @gpa stands in the order; count if it does not. */
static uint32_t place(const struct abi_coldest_ret *r, uint64_t gpa)
{
	uint32_t i = 0;

	while (i < r->count &&
		(gpa < r->range[i].gpa || gpa >= r->range[i].gpa + r->range[i].bytes))
		i++;
	return i;
}

static void test_coldest_first(void **state)
{
	struct abi_vcpu_page page;
	struct abi_coldest_ret r;
	struct uvc c;

	uvc_begin_protected(&c, 1, 0,
		"write 2M 6M\nprint a\ncheck 4M 2M\nprint b\ncheck 4M 2M\ncheck 6M 2M\nprint c\n"
		"poweroff\n");
	(void)coldest(&c, MIB);
	uvc_reply(&c, 0, ABI_ST_OK);
	uvc_run_until(&c, ABI_EXIT_PRINT, &page);
	r = coldest(&c, 1ull << 40);
	/* All that is private and resident, what was used last. */
	assert_true(place(&r, 2 * MIB) < place(&r, 4 * MIB));
	assert_true(place(&r, 6 * MIB) < place(&r, 4 * MIB));
	assert_true(place(&r, 4 * MIB) < r.count);
	assert_int_equal(place(&r, 8 * MIB), r.count);
	uvc_reply(&c, 0, ABI_ST_OK);
	uvc_run_until(&c, ABI_EXIT_PRINT, &page);
	r = coldest(&c, 1ull << 40);
	assert_true(place(&r, 2 * MIB) < place(&r, 4 * MIB));
	assert_true(place(&r, 2 * MIB) < place(&r, 6 * MIB));
	uvc_end(&c);
}

/* What is out, shared or given up is not offered; no more is offered than was asked for. */
static void test_coldest_is_private_and_here(void **state)
{
	struct store *s = store_new();
	struct abi_coldest_ret r;
	struct uvc c;

	uvc_begin_protected(&c, 1, 0,
		"write 2M 6M\nshare 6M 2M\nrelease 3M 1M\nprint a\ncheck 4M 2M\npoweroff\n");
	for (uint64_t at = 4 * MIB; at < 6 * MIB; at += MIB)
		assert_int_equal(store_out(&c, s, at, MIB), MIB / PAGE);
	r = coldest(&c, 1ull << 40);
	for (uint64_t at = 3 * MIB; at < 8 * MIB; at += PAGE)
		assert_int_equal(place(&r, at), r.count);
	assert_true(place(&r, 2 * MIB) < r.count);
	r = coldest(&c, PAGE);
	assert_int_equal(r.count, 1);
	assert_true(r.range[0].bytes <= 2 * MIB);
	store_finish(&c, s);
}

static void test_coldest_of_nothing(void **state)
{
	struct uvc c;

	uvc_begin(&c, 1, 0, MEMORY);
	uvc_protect(&c, LOW);
	assert_int_equal(coldest(&c, MIB).count, 0);
	uvc_end(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_move_normal),
		cmocka_unit_test(test_move_released),
		cmocka_unit_test(test_old_place_is_gone),
		cmocka_unit_test(test_coldest_first),
		cmocka_unit_test(test_coldest_is_private_and_here),
		cmocka_unit_test(test_coldest_of_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
