/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test/unit/mmu/owner.h"

#include <errno.h>

static struct mem mem;
static struct page_cache cache;

static int setup(void **state)
{
	mem_init(&mem);
	return mem_cache_fill(&mem, &cache, 64);
}

static int teardown(void **state)
{
	mem_cache_empty(&mem, &cache);
	assert_int_equal(atomic_load(&mem.objects), 0);
	for (unsigned int use = 0; use < PAGE_USES; use++)
		assert_int_equal(atomic_load(&mem.pages[use]), 0);
	mem_destroy(&mem);
	return 0;
}

static void a_terabyte_costs_next_to_nothing_untouched(void **state)
{
	struct sparse s;

	assert_int_equal(sparse_init(&s, &mem, 12345, 12345 + ((uint64_t)1 << 28), PAGE_RMAP), 0);
	assert_in_range(s.tops * sizeof(*s.top), 1, 8208);
	assert_null(sparse_get(&s, 99999999));
	assert_int_equal(atomic_load(&mem.pages[PAGE_RMAP]), 0);
	sparse_free(&s, &mem);
}

static void words_keep_their_place(void **state)
{
	static const uint64_t at[] = {700, 701, 1023, 1024, 262143, 262144, 524288, 799999};
	struct sparse s;

	assert_int_equal(sparse_init(&s, &mem, 700, 800000, PAGE_LARGE), 0);
	for (unsigned int i = 0; i < 8; i++) {
		assert_int_equal(atomic_load(sparse_make(&s, at[i], &mem, &cache)), 0);
		atomic_store(sparse_make(&s, at[i], &mem, &cache), i + 1);
	}
	for (unsigned int i = 0; i < 8; i++)
		assert_int_equal(atomic_load(sparse_get(&s, at[i])), i + 1);
	assert_null(sparse_get(&s, 5000));
	assert_null(sparse_get(&s, UINT64_MAX));
	sparse_free(&s, &mem);
}

static void an_aligned_block_of_512_is_in_one_page(void **state)
{
	struct sparse s;
	_Atomic uint64_t *first;

	assert_int_equal(sparse_init(&s, &mem, 3 * 512 + 5, 100000, PAGE_RMAP), 0);
	first = sparse_make(&s, 8 * 512, &mem, &cache);
	for (unsigned int i = 0; i < 512; i++)
		assert_ptr_equal(sparse_get(&s, 8 * 512 + i), first + i);
	sparse_free(&s, &mem);
}

static void next_finds_what_was_made(void **state)
{
	struct sparse s;

	assert_int_equal(sparse_init(&s, &mem, 0, (uint64_t)1 << 28, PAGE_RMAP), 0);
	assert_int_equal(sparse_next(&s, 0, 1 << 28), 1 << 28);
	sparse_make(&s, 1000, &mem, &cache);
	sparse_make(&s, 5000000, &mem, &cache);
	assert_int_equal(sparse_next(&s, 0, 1 << 28), 512);
	assert_int_equal(sparse_next(&s, 600, 1 << 28), 600);
	assert_int_equal(sparse_next(&s, 1024, 1 << 28), align_down(5000000, 512));
	assert_int_equal(sparse_next(&s, 1024, 4000000), 4000000);
	assert_int_equal(sparse_next(&s, 6000000, UINT64_MAX), UINT64_MAX);
	sparse_free(&s, &mem);
}

static void no_memory_for_the_top(void **state)
{
	struct sparse s;

	mem_fail_nth(&mem, 1);
	assert_int_equal(sparse_init(&s, &mem, 0, 512, PAGE_RMAP), -ENOMEM);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			a_terabyte_costs_next_to_nothing_untouched, setup, teardown),
		cmocka_unit_test_setup_teardown(words_keep_their_place, setup, teardown),
		cmocka_unit_test_setup_teardown(
			an_aligned_block_of_512_is_in_one_page, setup, teardown),
		cmocka_unit_test_setup_teardown(next_finds_what_was_made, setup, teardown),
		cmocka_unit_test_setup_teardown(no_memory_for_the_top, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
