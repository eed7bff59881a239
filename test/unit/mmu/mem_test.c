/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test/unit/mmu/owner.h"

#include <errno.h>

static void assert_zero(const struct mmu_page *page)
{
	for (unsigned int i = 0; i < TABLE_ENTRIES; i++)
		assert_int_equal(atomic_load(&page_words(page)[i]), 0);
}

static void page_and_descriptor_find_each_other(void **state)
{
	struct page_cache cache = {0};
	struct mem mem;

	mem_init(&mem);
	assert_int_equal(mem_cache_fill(&mem, &cache, 700), 0);
	for (struct mmu_page *page = cache.head; page; page = page->next) {
		assert_int_equal((uintptr_t)page_words(page) & PAGE_MASK, 0);
		assert_ptr_equal(page_of(page_words(page)), page);
		assert_ptr_equal(page_of(&page_words(page)[511]), page);
		assert_zero(page);
	}
	assert_int_equal(atomic_load(&mem.pages[PAGE_CACHED]), 700);
	mem_cache_empty(&mem, &cache);
	mem_destroy(&mem);
}

static void pages_come_back_zero_and_chunks_are_reused(void **state)
{
	struct page_cache cache = {0};
	uint64_t pool;
	struct mem mem;

	mem_init(&mem);
	assert_int_equal(mem_cache_fill(&mem, &cache, 2000), 0);
	pool = atomic_load(&mem.pool_bytes);
	for (unsigned int round = 0; round < 3; round++) {
		mem_cache_empty(&mem, &cache);
		assert_int_equal(atomic_load(&mem.pages[PAGE_CACHED]), 0);
		assert_int_equal(mem_cache_fill(&mem, &cache, 2000), 0);
		for (struct mmu_page *page = cache.head; page; page = page->next)
			assert_zero(page);
	}
	assert_int_equal(atomic_load(&mem.pool_bytes), pool);
	mem_cache_empty(&mem, &cache);
	mem_destroy(&mem);
}

static void pop_and_push_keep_the_counts(void **state)
{
	struct page_cache cache = {0};
	struct mmu_page *page;
	struct mem mem;

	mem_init(&mem);
	assert_int_equal(mem_cache_fill(&mem, &cache, 4), 0);
	page = mem_cache_pop(&mem, &cache, PAGE_TABLE);
	assert_int_equal(atomic_load(&mem.pages[PAGE_TABLE]), 1);
	assert_int_equal(atomic_load(&mem.pages[PAGE_CACHED]), 3);
	mem_cache_push(&mem, &cache, page);
	assert_int_equal(cache.count, 4);
	assert_int_equal(atomic_load(&mem.pages[PAGE_TABLE]), 0);
	mem_cache_empty(&mem, &cache);
	mem_destroy(&mem);
}

static void the_nth_allocation_fails_once(void **state)
{
	struct page_cache cache = {0};
	struct mem mem;
	void *object;

	mem_init(&mem);
	mem_fail_nth(&mem, 3);
	assert_int_equal(mem_cache_fill(&mem, &cache, 5), -ENOMEM);
	assert_int_equal(cache.count, 2);
	assert_int_equal(mem_cache_fill(&mem, &cache, 5), 0);
	mem_fail_nth(&mem, 1);
	assert_null(mem_zalloc(&mem, 10));
	object = mem_zalloc(&mem, 10);
	assert_non_null(object);
	mem_free(&mem, object);
	mem_cache_empty(&mem, &cache);
	assert_int_equal(atomic_load(&mem.objects), 0);
	mem_destroy(&mem);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(page_and_descriptor_find_each_other),
		cmocka_unit_test(pages_come_back_zero_and_chunks_are_reused),
		cmocka_unit_test(pop_and_push_keep_the_counts),
		cmocka_unit_test(the_nth_allocation_fails_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
