/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmm/pc_memory.c: slots around the hole, and an e820 map that agrees with them. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/types.h"
#include "vmm/pc_memory.h"

static void layout_of_small_memory_is_one_slot(void **state)
{
	struct pc_memory memory;

	assert_int_equal(pc_memory_layout(PC_HOLE_GPA, &memory), 0);
	assert_int_equal(memory.slot_count, 1);
	assert_int_equal(memory.slots[0].gpa, 0);
	assert_int_equal(memory.slots[0].bytes, PC_HOLE_GPA);
	assert_int_equal(pc_memory_low_end(&memory), PC_HOLE_GPA);
}

static void layout_of_large_memory_goes_on_at_4g(void **state)
{
	struct pc_memory memory;

	assert_int_equal(pc_memory_layout(PC_HOLE_GPA + PAGE_SIZE, &memory), 0);
	assert_int_equal(memory.slot_count, 2);
	assert_int_equal(memory.slots[0].bytes, PC_HOLE_GPA);
	assert_int_equal(memory.slots[1].gpa, PC_HOLE_END);
	assert_int_equal(memory.slots[1].bytes, PAGE_SIZE);
}

static void layout_refuses_bad_sizes(void **state)
{
	struct pc_memory memory = {.slot_count = 7};
	uint64_t most = GPA_END - (PC_HOLE_END - PC_HOLE_GPA);

	assert_int_equal(pc_memory_layout(0, &memory), -EINVAL);
	assert_int_equal(pc_memory_layout(PC_MEMORY_MIN - PAGE_SIZE, &memory), -EINVAL);
	assert_int_equal(pc_memory_layout(PC_MEMORY_MIN + 1, &memory), -EINVAL);
	assert_int_equal(pc_memory_layout(most + PAGE_SIZE, &memory), -ERANGE);
	assert_int_equal(pc_memory_layout(align_down(UINT64_MAX, PAGE_SIZE), &memory), -ERANGE);
	assert_int_equal(memory.slot_count, 7);
	assert_int_equal(pc_memory_layout(most, &memory), 0);
	assert_int_equal(pc_memory_layout(PC_MEMORY_MIN, &memory), 0);
}

static void e820_is_sorted_and_inside_the_slots(void **state)
{
	static const uint64_t sizes[] = {PC_MEMORY_MIN, 256u << 20, PC_HOLE_GPA, 5ull << 30};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct pc_e820_entry map[PC_E820_MAX];
		struct pc_memory memory;
		uint64_t ram = 0, end = 0;
		size_t count;

		assert_int_equal(pc_memory_layout(sizes[i], &memory), 0);
		count = pc_memory_e820(&memory, map);
		assert_int_equal(count, memory.slot_count + 2);
		for (size_t j = 0; j < count; j++) {
			assert_true(map[j].gpa >= end);
			assert_true(map[j].bytes > 0);
			end = map[j].gpa + map[j].bytes;
			if (map[j].type == PC_E820_RAM)
				ram += map[j].bytes;
		}
		/* All but what lies between conventional memory and 1 MiB. */
		assert_int_equal(ram, sizes[i] - (PC_HIGH_GPA - PC_LOW_END));
		assert_int_equal(end, memory.slots[memory.slot_count - 1].gpa +
					      memory.slots[memory.slot_count - 1].bytes);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(layout_of_small_memory_is_one_slot),
		cmocka_unit_test(layout_of_large_memory_goes_on_at_4g),
		cmocka_unit_test(layout_refuses_bad_sizes),
		cmocka_unit_test(e820_is_sorted_and_inside_the_slots),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
