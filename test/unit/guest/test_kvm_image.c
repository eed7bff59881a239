/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The workload guest's page tables and first state, read as a CPU would. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/types.h"
#include "guest/kvm_image.h"

#define ADDRESS 0x000ffffffffff000u

struct tables {
	uint8_t bytes[GUEST_KVM_TABLES_MAX];
	size_t used;
};

static uint64_t entry(const struct tables *t, uint64_t table, uint64_t index)
{
	uint64_t at = (table & ADDRESS) - GUEST_KVM_TABLES_GPA + 8 * index, e;

	assert_true(at + 8 <= t->used);
	memcpy(&e, t->bytes + at, sizeof(e));
	return e;
}

/* Walks the tables for @va.  Returns false if it is not mapped. */
static bool walk(const struct tables *t, uint64_t va, uint64_t *ret_pa)
{
	uint64_t e = GUEST_KVM_TABLES_GPA;

	for (unsigned int shift = 39; shift >= 21; shift -= 9) {
		e = entry(t, e, (va >> shift) & 511);
		if (!(e & 1))
			return false;
		assert_int_equal(e & 0x22, 0x22); /* writable, accessed */
		if (!(e & 0x80))
			continue;
		assert_true(shift < 39 && (e & 0x40)); /* dirty */
		*ret_pa = (e & ADDRESS) + (va & (((uint64_t)1 << shift) - 1));
		return true;
	}
	return false;
}

static void check_tables(uint64_t memory_end, size_t pages, bool needs_1g)
{
	struct tables *t = malloc(sizeof(*t));
	uint64_t top = (memory_end + SIZE_1G - 1) & ~(SIZE_1G - 1);
	uint64_t pa;

	assert_non_null(t);
	memset(t->bytes, 0xaa, sizeof(t->bytes));
	assert_int_equal(guest_kvm_tables(memory_end, t->bytes, &t->used), 0);
	assert_int_equal(t->used, pages * PAGE_SIZE);
	assert_int_equal(guest_kvm_needs_1g_pages(memory_end), needs_1g);
	for (uint64_t va = 0; va < top; va += (top < 64 * SIZE_1G ? SIZE_2M : SIZE_1G / 2)) {
		assert_true(walk(t, va + 0x12345, &pa));
		assert_int_equal(pa, va + 0x12345);
	}
	assert_true(walk(t, memory_end - 1, &pa));
	assert_int_equal(pa, memory_end - 1);
	assert_false(walk(t, top, &pa));
	free(t);
}

static void test_tables(void **state)
{
	check_tables(2 << 20, 3, false);
	check_tables(SIZE_1G, 3, false);
	check_tables(SIZE_1G + 4096, 4, false);
	check_tables(13 * SIZE_1G, 15, false);
	check_tables(13 * SIZE_1G + 4096, 2, true);
	check_tables(512 * SIZE_1G, 2, true);
	check_tables(512 * SIZE_1G + 4096, 3, true);
	check_tables(1024 * SIZE_1G, 3, true);
	check_tables(7 * 1024 * SIZE_1G, 15, true);
}

static void test_tables_refused(void **state)
{
	uint8_t *tables = calloc(1, GUEST_KVM_TABLES_MAX);
	size_t used = 42;

	assert_non_null(tables);
	assert_int_equal(guest_kvm_tables(0, tables, &used), -ERANGE);
	assert_int_equal(guest_kvm_tables(7 * 1024 * SIZE_1G + 1, tables, &used), -ERANGE);
	assert_int_equal(guest_kvm_tables(UINT64_MAX, tables, &used), -ERANGE);
	assert_int_equal(used, 42);
	for (size_t i = 0; i < GUEST_KVM_TABLES_MAX; i++)
		assert_int_equal(tables[i], 0);
	free(tables);
}

static void test_state(void **state)
{
	struct abi_vcpu_state first, last;

	guest_kvm_state(0, &first);
	guest_kvm_state(ABI_MAX_VCPUS - 1, &last);
	assert_int_equal(first.rip, GUEST_KVM_IMAGE_GPA);
	assert_int_equal(first.rsp, GUEST_KVM_STACKS_GPA + GUEST_KVM_STACK_SIZE);
	assert_int_equal(last.vcpu, ABI_MAX_VCPUS - 1);
	assert_true(last.rsp <= GUEST_TEXT_GPA && last.rsp % 16 == 0);
	assert_int_equal(first.cr3, GUEST_KVM_TABLES_GPA);
	assert_int_equal(first.cr0, 0x80010033);
	assert_int_equal(first.cr4, 0x20);
	assert_int_equal(first.efer, 0x500);
	assert_int_equal(first.cs.flags & (ABI_SEG_LONG | ABI_SEG_DEFAULT_32), ABI_SEG_LONG);
	last.vcpu = first.vcpu;
	last.rsp = first.rsp;
	assert_memory_equal(&first, &last, sizeof(first));
}

static void test_image(void **state)
{
	static const uint8_t first[] = {0x31, 0xed, 0xfc}; /* xor ebp, ebp; cld */

	assert_in_range(guest_kvm_image_size, 4096, GUEST_KVM_IMAGE_MAX);
	assert_memory_equal(guest_kvm_image, first, sizeof(first));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tables),
		cmocka_unit_test(test_tables_refused),
		cmocka_unit_test(test_state),
		cmocka_unit_test(test_image),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
