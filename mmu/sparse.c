/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "mmu/sparse.h"

#include <errno.h>
#include <sched.h>
#include <string.h>

#define FANOUT_SHIFT 9
#define FANOUT       ((uint64_t)1 << FANOUT_SHIFT)
#define TOP_SHIFT    (2 * FANOUT_SHIFT)
#define TOP_WORDS    ((uint64_t)1 << TOP_SHIFT)

int sparse_init(struct sparse *s, struct mem *mem, uint64_t first, uint64_t end, enum page_use use)
{
	uint64_t origin = align_down(first, TOP_WORDS);
	uint64_t tops = (end - origin + TOP_WORDS - 1) >> TOP_SHIFT;
	entry_t *top = mem_zalloc(mem, tops * sizeof(*top));

	if (!top)
		return -ENOMEM;
	*s = (struct sparse){.origin = origin, .tops = tops, .top = top, .use = use};
	return 0;
}

static entry_t *words_at(uint64_t value)
{
	return (entry_t *)(uintptr_t)value;
}

/* Chains a page, whose words were all cleared by the last user or now, to @list. */
static void chain_page(uint64_t address, struct mmu_page **list)
{
	struct mmu_page *page = page_of(words_at(address));

	memset((void *)words_at(address), 0, PAGE_SIZE);
	page->next = *list;
	*list = page;
}

/* Frees what is below one entry of the top: at most 513 pages. */
static void free_middle(uint64_t mid, struct mem *mem)
{
	struct mmu_page *list = NULL;

	for (uint64_t i = 0; i < FANOUT; i++) {
		uint64_t leaf = atomic_load_explicit(&words_at(mid)[i], memory_order_acquire);

		if (leaf)
			chain_page(leaf, &list);
	}
	chain_page(mid, &list);
	mem_give_back(mem, list);
}

void sparse_free(struct sparse *s, struct mem *mem)
{
	for (uint64_t i = 0; s->top && i < s->tops; i++) {
		uint64_t mid = atomic_load_explicit(&s->top[i], memory_order_acquire);

		if (!mid)
			continue;
		free_middle(mid, mem);
		sched_yield();
	}
	mem_free(mem, s->top);
	s->top = NULL;
}

_Atomic uint64_t *sparse_get(const struct sparse *s, uint64_t index)
{
	uint64_t i = index - s->origin, mid, leaf;

	if (i >> TOP_SHIFT >= s->tops)
		return NULL;
	mid = atomic_load_explicit(&s->top[i >> TOP_SHIFT], memory_order_acquire);
	if (!mid)
		return NULL;
	leaf = atomic_load_explicit(
		&words_at(mid)[(i >> FANOUT_SHIFT) & (FANOUT - 1)], memory_order_acquire);
	return leaf ? &words_at(leaf)[i & (FANOUT - 1)] : NULL;
}

/* The page that @link points to, made if there is none. */
static entry_t *link_make(
	entry_t *link, struct mem *mem, struct page_cache *cache, enum page_use use)
{
	uint64_t value = atomic_load_explicit(link, memory_order_acquire);
	struct mmu_page *page;

	if (value)
		return words_at(value);
	page = mem_cache_pop(mem, cache, use);
	if (atomic_compare_exchange_strong_explicit(link, &value,
		    (uint64_t)(uintptr_t)page_words(page), memory_order_acq_rel,
		    memory_order_acquire))
		return page_words(page);
	mem_cache_push(mem, cache, page);
	return words_at(value);
}

_Atomic uint64_t *sparse_make(
	struct sparse *s, uint64_t index, struct mem *mem, struct page_cache *cache)
{
	uint64_t i = index - s->origin;
	entry_t *mid = link_make(&s->top[i >> TOP_SHIFT], mem, cache, s->use);
	entry_t *leaf = link_make(&mid[(i >> FANOUT_SHIFT) & (FANOUT - 1)], mem, cache, s->use);

	return &leaf[i & (FANOUT - 1)];
}

uint64_t sparse_next(const struct sparse *s, uint64_t from, uint64_t end)
{
	uint64_t index = from < s->origin ? s->origin : from;

	while (index < end) {
		uint64_t i = index - s->origin, mid;

		if (i >> TOP_SHIFT >= s->tops)
			return end;
		mid = atomic_load_explicit(&s->top[i >> TOP_SHIFT], memory_order_acquire);
		if (!mid) {
			index = s->origin + align_down(i, TOP_WORDS) + TOP_WORDS;
			continue;
		}
		if (atomic_load_explicit(&words_at(mid)[(i >> FANOUT_SHIFT) & (FANOUT - 1)],
			    memory_order_acquire))
			return index;
		index = s->origin + align_down(i, FANOUT) + FANOUT;
	}
	return end;
}
