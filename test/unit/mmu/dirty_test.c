/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test/unit/mmu/owner.h"

#include <errno.h>
#include <string.h>

static uint64_t bits(struct owner *o, uint64_t from)
{
	uint64_t word = ~(uint64_t)0;

	assert_int_equal(mmu_dirty_get(o->mmu, 0, frames(from, 64), &word), 0);
	return word;
}

static void refuses_what_is_wrong(void **state)
{
	struct owner *o = *state;
	uint64_t word;

	assert_int_equal(mmu_dirty_start(o->mmu, 0), -ENOENT);
	assert_int_equal(mmu_dirty_stop(o->mmu, 0), -ENOENT);
	owner_slot(o, 0, 0, 128, owner_memory(SIZE_2M, 0));
	assert_int_equal(mmu_dirty_stop(o->mmu, 0), -EALREADY);
	assert_int_equal(mmu_dirty_get(o->mmu, 0, frames(0, 64), &word), -EINVAL);
	assert_int_equal(mmu_dirty_start(o->mmu, 0), 0);
	assert_int_equal(mmu_dirty_start(o->mmu, 0), -EALREADY);
	assert_int_equal(mmu_dirty_get(o->mmu, 0, frames(1, 64), &word), -EINVAL);
	assert_int_equal(mmu_dirty_get(o->mmu, 0, frames(0, 63), &word), -EINVAL);
	assert_int_equal(mmu_dirty_clear(o->mmu, 0, frames(GFN_END, 64), &word), -EINVAL);
	assert_int_equal(mmu_dirty_get(o->mmu, 1, frames(0, 64), &word), -ENOENT);
	assert_int_equal(bits(o, 128), 0); /* beyond the slot */
	assert_int_equal(mmu_dirty_stop(o->mmu, 0), 0);
}

static void writes_are_logged_and_reads_are_not(void **state)
{
	struct owner *o = *state;

	owner_slot(o, 0, 0, 128, owner_memory(SIZE_2M, 0));
	for (uint64_t i = 0; i < 64; i++)
		assert_non_null(owner_touch(o, i, true));
	assert_int_equal(mmu_dirty_start(o->mmu, 0), 0);
	assert_int_equal(bits(o, 0), 0);
	assert_false(owner_writable(o, 5));
	assert_non_null(owner_touch(o, 5, false));
	assert_non_null(owner_touch(o, 6, true));
	assert_non_null(owner_touch(o, 70, false));
	assert_non_null(owner_touch(o, 71, true));
	assert_int_equal(bits(o, 0), (uint64_t)1 << 6);
	assert_int_equal(bits(o, 64), (uint64_t)1 << 7);
	assert_false(owner_writable(o, 70));
	assert_int_equal(mmu_dirty_stop(o->mmu, 0), 0);
	assert_non_null(owner_touch(o, 5, true));
	assert_int_equal(mmu_dirty_start(o->mmu, 0), 0); /* starts empty */
	assert_int_equal(bits(o, 0) | bits(o, 64), 0);
}

static void clear_takes_what_it_is_given_and_protects_it(void **state)
{
	struct owner *o = *state;
	uint64_t some = 0xf0;

	owner_slot(o, 0, 3, 125, owner_memory(SIZE_2M, 0));
	assert_int_equal(mmu_dirty_start(o->mmu, 0), 0);
	for (uint64_t i = 3; i < 12; i++)
		assert_non_null(owner_touch(o, i, true));
	assert_int_equal(bits(o, 0), 0xff8);
	assert_int_equal(mmu_dirty_clear(o->mmu, 0, frames(0, 64), &some), 0);
	assert_int_equal(bits(o, 0), 0xf08);
	assert_true(owner_writable(o, 3) && owner_writable(o, 9));
	assert_false(owner_writable(o, 4) || owner_writable(o, 7));
	assert_non_null(owner_touch(o, 4, true));
	assert_int_equal(bits(o, 0), 0xf18);
}

static void logging_splits_large_leaves_on_write(void **state)
{
	struct owner *o = *state;
	uint8_t *host = owner_memory(SIZE_1G, 0);

	o->max_level = MMU_1G;
	owner_slot(o, 0, 0, BLOCK_1G, host);
	assert_non_null(owner_touch(o, 5, true));
	assert_int_equal(owner_level(o, 5), MMU_1G);
	assert_int_equal(mmu_dirty_start(o->mmu, 0), 0);
	assert_int_equal(owner_level(o, 5), MMU_1G);
	assert_false(owner_writable(o, 5));
	assert_ptr_equal(owner_touch(o, 9, false), host + 9 * PAGE_SIZE);
	assert_int_equal(owner_stats(o).splits, 0);
	assert_ptr_equal(owner_touch(o, 9, true), host + 9 * PAGE_SIZE);
	assert_int_equal(owner_stats(o).splits, 2);
	for (uint64_t i = 0; i < 512; i++) {
		assert_int_equal(owner_level(o, i), MMU_4K);
		assert_int_equal(owner_writable(o, i), i == 9);
	}
	assert_int_equal(owner_level(o, 512), MMU_2M);
	assert_int_equal(bits(o, 0), (uint64_t)1 << 9);
	assert_int_equal(mmu_dirty_stop(o->mmu, 0), 0);
	mmu_collapse(o->mmu, frames(0, BLOCK_1G));
	assert_non_null(owner_touch_anew(o, 9, true));
	assert_int_equal(owner_level(o, 9), MMU_2M);
}

static void the_log_outlives_the_mapping(void **state)
{
	struct owner *o = *state;

	owner_slot(o, 0, 0, 128, owner_memory(SIZE_2M, 0));
	assert_int_equal(mmu_dirty_start(o->mmu, 0), 0);
	assert_non_null(owner_touch(o, 9, true));
	mmu_zap_all(o->mmu);
	assert_int_equal(bits(o, 0), (uint64_t)1 << 9);
	assert_non_null(owner_touch(o, 9, false));
	assert_int_equal(bits(o, 0), (uint64_t)1 << 9);
}

static void age_counts_once(void **state)
{
	struct owner *o = *state;

	owner_slot(o, 0, 0, 128, owner_memory(SIZE_2M, 0));
	for (uint64_t i = 10; i < 20; i++)
		assert_non_null(owner_touch(o, i, false));
	assert_int_equal(mmu_age(o->mmu, frames(15, 100)), 5);
	assert_int_equal(mmu_age(o->mmu, frames(15, 100)), 0);
	assert_int_equal(mmu_age(o->mmu, frames(0, 128)), 5);
	assert_non_null(owner_touch(o, 17, false)); /* its TLB has let go of it */
	assert_int_equal(mmu_age(o->mmu, frames(0, 128)), 1);
	assert_int_equal(mmu_age(o->mmu, frames(0, 0)), 0);
	assert_int_equal(o->calls, 10);
}

static void age_of_a_large_leaf_and_of_an_alias(void **state)
{
	struct owner *o = *state;
	uint8_t *host = owner_memory(SIZE_1G, 0);

	o->max_level = MMU_2M;
	owner_slot(o, 0, 0, 4 * BLOCK_2M, host);
	assert_non_null(owner_touch(o, 5, true));
	assert_int_equal(mmu_age(o->mmu, frames(500, 100)), 12);
	assert_int_equal(mmu_age(o->mmu, frames(0, 512)), 0);
	o->max_level = MMU_4K;
	owner_slot(o, 1, BLOCK_1G, BLOCK_2M, host);
	assert_non_null(owner_touch(o, BLOCK_1G + 3, false));
	assert_int_equal(mmu_age(o->mmu, frames(0, 512)), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		owner_test(refuses_what_is_wrong),
		owner_test(writes_are_logged_and_reads_are_not),
		owner_test(clear_takes_what_it_is_given_and_protects_it),
		owner_test(logging_splits_large_leaves_on_write),
		owner_test(the_log_outlives_the_mapping),
		owner_test(age_counts_once),
		owner_test(age_of_a_large_leaf_and_of_an_alias),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
