/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test/unit/mmu/owner.h"

#include <errno.h>

static void add_refuses_what_is_wrong(void **state)
{
	struct owner *o = *state;
	uint8_t *host = owner_memory(SIZE_1G, 0);

	owner_slot(o, 3, 100, 100, host);
	assert_int_equal(mmu_slot_add(o->mmu, MMU_SLOT_END, frames(0, 1), host), -EINVAL);
	assert_int_equal(mmu_slot_add(o->mmu, 4, frames(0, 0), host), -EINVAL);
	assert_int_equal(mmu_slot_add(o->mmu, 4, frames(0, 1), NULL), -EINVAL);
	assert_int_equal(mmu_slot_add(o->mmu, 4, frames(0, 1), host + 1), -EINVAL);
	assert_int_equal(mmu_slot_add(o->mmu, 4, frames(GFN_END, 1), host), -ERANGE);
	assert_int_equal(mmu_slot_add(o->mmu, 4, frames(1, GFN_END), host), -ERANGE);
	assert_int_equal(mmu_slot_add(o->mmu, 4, frames(1, UINT64_MAX), host), -ERANGE);
	assert_int_equal(mmu_slot_add(o->mmu, 3, frames(0, 1), host), -EEXIST);
	assert_int_equal(mmu_slot_add(o->mmu, 4, frames(199, 1), host), -EEXIST);
	assert_int_equal(mmu_slot_add(o->mmu, 4, frames(99, 2), host), -EEXIST);
	assert_int_equal(mmu_slot_add(o->mmu, 4, frames(0, 1000), host), -EEXIST);
	owner_slot(o, 4, 200, 1, host);
	owner_slot(o, 5, 99, 1, host);
	assert_int_equal(owner_stats(o).slots, 3);
}

static void as_many_as_there_is_room_for(void **state)
{
	struct owner *o = *state;
	uint8_t *host = owner_memory(SIZE_1G, 0);

	for (unsigned int i = 0; i < MMU_SLOTS; i++)
		assert_int_equal(mmu_slot_add(o->mmu, i, frames(2 * i, 1), host), 0);
	assert_int_equal(mmu_slot_add(o->mmu, MMU_SLOTS, frames(1, 1), host), -ENOSPC);
	for (unsigned int i = 0; i < MMU_SLOTS; i++)
		assert_int_equal(mmu_slot_delete(o->mmu, i), 0);
	assert_int_equal(mmu_slot_delete(o->mmu, 0), -ENOENT);
}

static void delete_takes_its_own_and_nothing_else(void **state)
{
	struct owner *o = *state;
	uint8_t *host = owner_memory(SIZE_1G, 0);

	owner_slot(o, 0, 0, 700, host);
	owner_slot(o, 1, 700, 2000, host + SIZE_2M * 10);
	for (uint64_t i = 0; i < 2700; i++)
		assert_non_null(owner_touch(o, i, true));
	assert_int_equal(mmu_slot_delete(o->mmu, 1), 0);
	for (uint64_t i = 0; i < 2700; i++)
		assert_int_equal(owner_level(o, i), i < 700 ? MMU_4K : 0);
	assert_null(owner_touch(o, 700, false));
	mmu_reclaim_wait(o->mmu);
	assert_int_equal(owner_stats(o).mapped[MMU_4K], 700);
	assert_int_equal(owner_stats(o).slots_dying, 0);
}

static void a_new_slot_shows_its_own_memory(void **state)
{
	struct owner *o = *state;
	uint8_t *a = owner_memory(SIZE_1G, 0), *b = owner_memory(SIZE_1G, 0);

	for (unsigned int i = 0; i < 10; i++) {
		uint8_t *host = i % 2 ? a : b;

		owner_slot(o, 0, 5, 1500, host);
		assert_ptr_equal(owner_touch(o, 5, true), host);
		assert_ptr_equal(owner_touch(o, 1000, true), host + 995 * PAGE_SIZE);
		assert_int_equal(mmu_slot_delete(o->mmu, 0), 0);
	}
}

static void move_carries_the_memory_along(void **state)
{
	struct owner *o = *state;
	uint8_t *host = owner_memory(SIZE_1G, 0);

	owner_slot(o, 0, 1000, 3000, host);
	owner_slot(o, 1, 9000, 10, host + SIZE_2M * 100);
	for (uint64_t i = 1000; i < 4000; i += 7)
		assert_non_null(owner_touch(o, i, true));
	assert_int_equal(mmu_slot_move(o->mmu, 0, gfn(8000)), -EEXIST);
	assert_int_equal(mmu_slot_move(o->mmu, 7, gfn(8000)), -ENOENT);
	assert_int_equal(mmu_slot_move(o->mmu, 0, gfn(GFN_END - 5)), -ERANGE);
	assert_int_equal(mmu_slot_move(o->mmu, 0, gfn(2000)), 0); /* overlaps itself */
	o->slot[0].range = frames(2000, 3000);
	for (uint64_t i = 1000; i < 5000; i += 7) {
		uint8_t *want = i < 2000 ? NULL : host + (i - 2000) * PAGE_SIZE;

		assert_ptr_equal(owner_touch(o, i, true), want);
	}
	assert_int_equal(mmu_slot_move(o->mmu, 0, gfn(2000)), 0); /* nowhere */
	assert_ptr_equal(owner_touch(o, 2000, true), host);
}

static void a_slot_of_a_terabyte_costs_nothing_untouched(void **state)
{
	struct owner *o = *state;
	uint64_t pool = owner_stats(o).pool_bytes;

	owner_slot(o, 0, 0, 1024 * BLOCK_1G, owner_memory(1024 * SIZE_1G, 0));
	assert_int_equal(owner_stats(o).pool_bytes, pool);
	assert_int_equal(mmu_slot_delete(o->mmu, 0), 0);
}

static void deleting_gives_up_whole_tables(void **state)
{
	struct owner *o = *state;

	owner_slot(o, 0, BLOCK_1G, 2 * BLOCK_1G, owner_memory(2 * SIZE_1G, 0));
	for (uint64_t i = 0; i < 2 * BLOCK_1G; i += BLOCK_2M)
		assert_non_null(owner_touch(o, BLOCK_1G + i, true));
	assert_in_range(owner_stats(o).table_pages, 1024, 1030);
	assert_int_equal(mmu_slot_delete(o->mmu, 0), 0);
	mmu_reclaim_wait(o->mmu);
	assert_in_range(owner_stats(o).table_pages, 1, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		owner_test(add_refuses_what_is_wrong),
		owner_test(as_many_as_there_is_room_for),
		owner_test(delete_takes_its_own_and_nothing_else),
		owner_test(a_new_slot_shows_its_own_memory),
		owner_test(move_carries_the_memory_along),
		owner_test(a_slot_of_a_terabyte_costs_nothing_untouched),
		owner_test(deleting_gives_up_whole_tables),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
