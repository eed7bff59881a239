/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test/unit/mmu/owner.h"

#include <errno.h>

#define PAGES (3 * BLOCK_1G)

static uint8_t attribute[PAGES]; /* by frame; what uniform() looks at */

static bool uniform(struct owner *o, struct gfn_range range)
{
	for (uint64_t i = range.start.v + 1; i < range_end(range); i++) {
		if (attribute[i] != attribute[range.start.v])
			return false;
	}
	return true;
}

static int setup(void **state)
{
	struct owner *o;

	owner_setup(state);
	o = *state;
	o->max_level = MMU_1G;
	o->uniform = uniform;
	for (uint64_t i = 0; i < PAGES; i++)
		attribute[i] = 0;
	return 0;
}

#define large_test(fn) cmocka_unit_test_setup_teardown(fn, setup, owner_teardown)

static void set_attribute(struct owner *o, uint64_t from, uint64_t count, uint8_t value)
{
	struct mmu_invalidation inv;

	mmu_invalidate_begin(o->mmu, &inv, frames(from, count));
	for (uint64_t i = 0; i < count; i++)
		attribute[from + i] = value;
	mmu_large_update(o->mmu, frames(from, count));
	mmu_invalidate_end(o->mmu, &inv);
}

static void the_largest_leaf_that_fits(void **state)
{
	struct owner *o = *state;
	uint8_t *host = owner_memory(3 * SIZE_1G, 0);

	/* From half a 2M block on, to beyond one whole 1G block and some of the next. */
	owner_slot(o, 0, 256, 2 * BLOCK_1G + 700, host + 256 * PAGE_SIZE);
	assert_ptr_equal(owner_touch(o, 300, true), host + 300 * PAGE_SIZE);
	assert_int_equal(owner_level(o, 300), MMU_4K);
	assert_ptr_equal(owner_touch(o, 1000, true), host + 1000 * PAGE_SIZE);
	assert_int_equal(owner_level(o, 512), MMU_2M);
	assert_ptr_equal(
		owner_touch(o, BLOCK_1G + 77777, true), host + (BLOCK_1G + 77777) * PAGE_SIZE);
	assert_int_equal(owner_level(o, BLOCK_1G), MMU_1G);
	assert_ptr_equal(
		owner_touch(o, 2 * BLOCK_1G + 5, true), host + (2 * BLOCK_1G + 5) * PAGE_SIZE);
	assert_int_equal(owner_level(o, 2 * BLOCK_1G + 500), MMU_2M);
	assert_non_null(owner_touch(o, 2 * BLOCK_1G + 900, true));
	assert_int_equal(owner_level(o, 2 * BLOCK_1G + 900), MMU_4K);
	for (uint64_t i = BLOCK_1G; i < 2 * BLOCK_1G; i += 4099)
		assert_ptr_equal(owner_touch(o, i, true), host + i * PAGE_SIZE);
}

static void unlike_addresses_keep_leaves_small(void **state)
{
	struct owner *o = *state;

	owner_slot(o, 0, 0, BLOCK_1G, owner_memory(2 * SIZE_1G, PAGE_SIZE));
	owner_slot(o, 1, BLOCK_1G, BLOCK_1G, owner_memory(2 * SIZE_1G, SIZE_2M));
	assert_non_null(owner_touch(o, 1000, true));
	assert_int_equal(owner_level(o, 1000), MMU_4K);
	assert_non_null(owner_touch(o, BLOCK_1G + 1000, true));
	assert_int_equal(owner_level(o, BLOCK_1G + 1000), MMU_2M);
}

static void the_owner_may_keep_leaves_small(void **state)
{
	struct owner *o = *state;

	owner_slot(o, 0, 0, BLOCK_1G, owner_memory(SIZE_1G, 0));
	o->max_level = MMU_2M;
	assert_non_null(owner_touch(o, 0, true));
	assert_int_equal(owner_level(o, 0), MMU_2M);
	o->max_level = MMU_4K;
	assert_non_null(owner_touch(o, 512, true));
	assert_int_equal(owner_level(o, 512), MMU_4K);
}

/* What the MMU allows at each block against a look at every page. */
static void assert_exact(struct owner *o)
{
	bool aliased;
	struct slot *slot = slot_next(o->mmu, 0, GFN_END, &aliased);

	for (unsigned int level = MMU_2M; level <= MMU_1G; level++) {
		for (uint64_t i = 0; i < PAGES; i += mmu_level_pages(level))
			assert_int_equal(
				large_allowed(slot, i, level), uniform(o, block_around(i, level)));
	}
	slot_put(o->mmu, slot);
}

static void conversions_keep_the_mixed_blocks_exactly(void **state)
{
	struct owner *o = *state;
	uint64_t seed = 12345;

	owner_slot(o, 0, 0, PAGES, owner_memory(4 * SIZE_1G, 0));
	for (unsigned int i = 0; i < 150; i++) {
		uint64_t from, count;

		seed = seed * 6364136223846793005u + 1442695040888963407u;
		from = (seed >> 33) % PAGES;
		count = 1 + (seed >> 20) % (i % 3 ? 1500 : PAGES);
		from = i % 2 ? align_down(from, 512) : from;
		count = count > PAGES - from ? PAGES - from : count;
		set_attribute(o, from, count, (seed >> 13) % 2);
		if (i % 10 == 0)
			assert_exact(o);
	}
	set_attribute(o, 0, PAGES, 1);
	assert_exact(o);
}

static void a_mixed_block_gets_no_large_leaf(void **state)
{
	struct owner *o = *state;

	owner_slot(o, 0, 0, BLOCK_1G, owner_memory(SIZE_1G, 0));
	assert_non_null(owner_touch(o, 0, true));
	assert_int_equal(owner_level(o, 0), MMU_1G);
	set_attribute(o, 5 * BLOCK_2M + 5, 1, 1);
	assert_int_equal(owner_level(o, 0), 0);
	assert_non_null(owner_touch_anew(o, 0, true));
	assert_int_equal(owner_level(o, 0), MMU_2M);
	assert_non_null(owner_touch(o, 5 * BLOCK_2M, true));
	assert_int_equal(owner_level(o, 5 * BLOCK_2M), MMU_4K);
	assert_int_equal(owner_level(o, 5 * BLOCK_2M + 1), 0);
}

static void reasons_against_are_counted(void **state)
{
	struct owner *o = *state;
	uint64_t at = 3 * BLOCK_2M + 7;

	assert_int_equal(mmu_large_disallow(o->mmu, gfn(at)), -ENOENT);
	assert_int_equal(mmu_large_allow(o->mmu, gfn(at)), -ENOENT);
	owner_slot(o, 0, 0, BLOCK_1G, owner_memory(SIZE_1G, 0));
	assert_int_equal(mmu_large_allow(o->mmu, gfn(at)), -EINVAL);
	assert_int_equal(mmu_large_disallow(o->mmu, gfn(at)), 0);
	assert_int_equal(mmu_large_disallow(o->mmu, gfn(at + 1)), 0);
	set_attribute(o, at, 1, 1);
	set_attribute(o, at, 1, 0);
	assert_int_equal(mmu_large_allow(o->mmu, gfn(at)), 0);
	assert_non_null(owner_touch(o, at, true));
	assert_int_equal(owner_level(o, at), MMU_4K);
	assert_non_null(owner_touch(o, 0, true));
	assert_int_equal(owner_level(o, 0), MMU_2M);
	assert_int_equal(mmu_large_allow(o->mmu, gfn(at)), 0);
	assert_int_equal(mmu_large_allow(o->mmu, gfn(at)), -EINVAL);
	mmu_zap_all(o->mmu);
	assert_non_null(owner_touch(o, at, true));
	assert_int_equal(owner_level(o, at), MMU_1G);
}

static void a_write_splits_a_read_only_leaf(void **state)
{
	struct owner *o = *state;
	uint8_t *host = owner_memory(SIZE_1G, 0);

	owner_slot(o, 0, 0, BLOCK_1G, host);
	o->read_only = true;
	assert_non_null(owner_touch(o, 0, false));
	assert_int_equal(owner_level(o, 0), MMU_1G);
	o->read_only = false;
	o->max_level = MMU_4K;
	assert_ptr_equal(owner_touch(o, 1000, true), host + 1000 * PAGE_SIZE);
	assert_int_equal(owner_stats(o).splits, 2);
	for (uint64_t i = 0; i < BLOCK_1G; i += i < 1024 ? 1 : 511) {
		struct mmu_mapping m;

		assert_int_equal(mmu_probe(o->mmu, gfn(i), &m), 0);
		assert_ptr_equal(m.host, host + i * PAGE_SIZE);
		assert_int_equal(m.level, i / 512 == 1 ? MMU_4K : MMU_2M);
		assert_int_equal(m.writable, i == 1000);
	}
	assert_int_equal(owner_stats(o).mapped[MMU_1G], 0);
	assert_int_equal(owner_stats(o).mapped[MMU_2M], 511);
	assert_int_equal(owner_stats(o).mapped[MMU_4K], 512);
}

static void collapse_lets_leaves_grow_again(void **state)
{
	struct owner *o = *state;

	owner_slot(o, 0, 0, 4 * BLOCK_2M, owner_memory(SIZE_1G, 0));
	o->max_level = MMU_4K;
	for (uint64_t i = 0; i < 4 * BLOCK_2M; i++)
		assert_non_null(owner_touch(o, i, true));
	set_attribute(o, BLOCK_2M, 1, 1);
	assert_int_equal(mmu_large_disallow(o->mmu, gfn(2 * BLOCK_2M)), 0);
	o->max_level = MMU_2M;
	mmu_collapse(o->mmu, frames(5, 4 * BLOCK_2M - 5)); /* not the first block: not all of it */
	assert_int_equal(owner_level(o, 0), MMU_4K);
	assert_int_equal(owner_level(o, BLOCK_2M + 9), MMU_4K);
	assert_int_equal(owner_level(o, 2 * BLOCK_2M + 9), MMU_4K);
	assert_int_equal(owner_level(o, 3 * BLOCK_2M + 9), 0);
	assert_non_null(owner_touch_anew(o, 3 * BLOCK_2M + 9, true));
	assert_int_equal(owner_level(o, 3 * BLOCK_2M), MMU_2M);
	mmu_collapse(o->mmu, frames(0, BLOCK_2M));
	assert_non_null(owner_touch_anew(o, 0, true));
	assert_int_equal(owner_level(o, 0), MMU_2M);
}

static void without_memory_for_counts_leaves_stay_small(void **state)
{
	struct owner *o = *state;

	owner_slot(o, 0, 0, BLOCK_1G, owner_memory(SIZE_1G, 0));
	mem_fail_nth(&o->mmu->mem, 1);
	set_attribute(o, 5, 1, 1);
	assert_non_null(owner_touch(o, 10 * BLOCK_2M, true));
	assert_int_equal(owner_level(o, 10 * BLOCK_2M), MMU_4K);
	mem_fail_nth(&o->mmu->mem, 1);
	assert_int_equal(mmu_large_disallow(o->mmu, gfn(7)), -ENOMEM);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		large_test(the_largest_leaf_that_fits),
		large_test(unlike_addresses_keep_leaves_small),
		large_test(the_owner_may_keep_leaves_small),
		large_test(conversions_keep_the_mixed_blocks_exactly),
		large_test(a_mixed_block_gets_no_large_leaf),
		large_test(reasons_against_are_counted),
		large_test(a_write_splits_a_read_only_leaf),
		large_test(collapse_lets_leaves_grow_again),
		large_test(without_memory_for_counts_leaves_stay_small),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
