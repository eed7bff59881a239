/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "mmu/mem.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define MEM_ASAN
#endif
#if __has_feature(thread_sanitizer)
#define MEM_TSAN
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define MEM_ASAN
#endif
#ifdef __SANITIZE_THREAD__
#define MEM_TSAN
#endif
#ifdef MEM_ASAN
#include <sanitizer/asan_interface.h>
#endif

#define CHUNK_BYTES ((size_t)SIZE_2M)
#define CHUNK_PAGES (CHUNK_BYTES / PAGE_SIZE)
#define CACHE_LINE  64

struct mem_chunk {
	struct mem_chunk *next, *next_available;
	struct mmu_page *free;
	unsigned int used, fresh; /* pages in use; pages that were never handed out start here */
	bool available;
	struct mmu_page page[CHUNK_PAGES];
};

#define CHUNK_FIRST ((sizeof(struct mem_chunk) + PAGE_SIZE - 1) / PAGE_SIZE)

static struct mem_chunk *chunk_of(const void *inside)
{
	return (struct mem_chunk *)align_down((uintptr_t)inside, CHUNK_BYTES);
}

entry_t *page_words(const struct mmu_page *page)
{
	struct mem_chunk *chunk = chunk_of(page);

	return (entry_t *)((uint8_t *)chunk + (size_t)(page - chunk->page) * PAGE_SIZE);
}

struct mmu_page *page_of(const void *inside)
{
	struct mem_chunk *chunk = chunk_of(inside);

	return &chunk->page[((uintptr_t)inside - (uintptr_t)chunk) / PAGE_SIZE];
}

/*
 * In sanitizer builds a page that nobody may look at is guarded: ASan refuses every access,
 * and TSan sees a plain write that races with every walker who is not done.
 */
static void guard_page(struct mmu_page *page)
{
#ifdef MEM_ASAN
	ASAN_POISON_MEMORY_REGION(page_words(page), PAGE_SIZE);
#elif defined(MEM_TSAN)
	memset((void *)page_words(page), 0, PAGE_SIZE);
#endif
}

static void unguard_page(struct mmu_page *page)
{
#ifdef MEM_ASAN
	ASAN_UNPOISON_MEMORY_REGION(page_words(page), PAGE_SIZE);
#endif
}

void mem_init(struct mem *mem)
{
	memset(mem, 0, sizeof(*mem));
	pthread_mutex_init(&mem->lock, NULL);
}

void mem_destroy(struct mem *mem)
{
	for (struct mem_chunk *chunk = mem->chunks, *next; chunk; chunk = next) {
		next = chunk->next;
		assert(chunk->used == 0);
#ifdef MEM_ASAN
		ASAN_UNPOISON_MEMORY_REGION(chunk, CHUNK_BYTES);
#endif
		munmap(chunk, CHUNK_BYTES);
	}
	pthread_mutex_destroy(&mem->lock);
}

void mem_fail_nth(struct mem *mem, uint64_t nth)
{
	atomic_store(&mem->fail_in, (int64_t)nth);
}

static bool must_fail(struct mem *mem)
{
	if (atomic_load_explicit(&mem->fail_in, memory_order_relaxed) <= 0)
		return false;
	return atomic_fetch_sub(&mem->fail_in, 1) == 1;
}

void *mem_zalloc(struct mem *mem, size_t bytes)
{
	size_t rounded = (bytes + CACHE_LINE - 1) & ~(size_t)(CACHE_LINE - 1);
	void *object = must_fail(mem) ? NULL : aligned_alloc(CACHE_LINE, rounded);

	if (!object)
		return NULL;
	memset(object, 0, rounded);
	atomic_fetch_add_explicit(&mem->objects, 1, memory_order_relaxed);
	return object;
}

void mem_free(struct mem *mem, void *object)
{
	if (!object)
		return;
	atomic_fetch_sub_explicit(&mem->objects, 1, memory_order_relaxed);
	free(object);
}

static void make_available(struct mem *mem, struct mem_chunk *chunk)
{
	if (chunk->available)
		return;
	chunk->available = true;
	chunk->next_available = mem->available;
	mem->available = chunk;
}

static void reset_chunk(struct mem_chunk *chunk)
{
	chunk->free = NULL;
	chunk->fresh = CHUNK_FIRST;
}

static struct mem_chunk *chunk_map(struct mem *mem)
{
	uint8_t *raw = mmap(NULL, 2 * CHUNK_BYTES, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	struct mem_chunk *chunk;
	size_t before;

	if (raw == MAP_FAILED)
		return NULL;
	chunk = chunk_of(raw + CHUNK_BYTES - 1);
	before = (size_t)((uint8_t *)chunk - raw);
	if (before > 0)
		munmap(raw, before);
	munmap((uint8_t *)chunk + CHUNK_BYTES, CHUNK_BYTES - before);
	reset_chunk(chunk);
	chunk->next = mem->chunks;
	mem->chunks = chunk;
	make_available(mem, chunk);
	atomic_fetch_add_explicit(&mem->pool_bytes, CHUNK_BYTES, memory_order_relaxed);
	return chunk;
}

/* A zero page from the pool, or NULL.  The lock is held. */
static struct mmu_page *take_page(struct mem *mem)
{
	struct mem_chunk *chunk = mem->available;
	struct mmu_page *page;

	if (must_fail(mem))
		return NULL;
	if (!chunk)
		chunk = chunk_map(mem);
	if (!chunk)
		return NULL;
	if (chunk->used++ == 0 && chunk->fresh > CHUNK_FIRST)
		mem->warm_chunks--;
	page = chunk->free;
	if (page)
		chunk->free = page->next;
	else
		page = &chunk->page[chunk->fresh++];
	if (!chunk->free && chunk->fresh == CHUNK_PAGES) {
		mem->available = chunk->next_available;
		chunk->available = false;
	}
	unguard_page(page);
	return page;
}

int mem_cache_fill(struct mem *mem, struct page_cache *cache, unsigned int want)
{
	unsigned int before = cache->count;
	struct mmu_page *page;

	pthread_mutex_lock(&mem->lock);
	while (cache->count < want && (page = take_page(mem)) != NULL) {
		page->next = cache->head;
		page->use = PAGE_CACHED;
		cache->head = page;
		cache->count++;
	}
	pthread_mutex_unlock(&mem->lock);
	atomic_fetch_add_explicit(
		&mem->pages[PAGE_CACHED], cache->count - before, memory_order_relaxed);
	return cache->count < want ? -ENOMEM : 0;
}

struct mmu_page *mem_cache_pop(struct mem *mem, struct page_cache *cache, enum page_use use)
{
	struct mmu_page *page = cache->head;

	assert(page && use != PAGE_CACHED);
	cache->head = page->next;
	cache->count--;
	page->next = NULL;
	page->use = use;
	atomic_fetch_sub_explicit(&mem->pages[PAGE_CACHED], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&mem->pages[use], 1, memory_order_relaxed);
	return page;
}

void mem_cache_push(struct mem *mem, struct page_cache *cache, struct mmu_page *page)
{
	atomic_fetch_sub_explicit(&mem->pages[page->use], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&mem->pages[PAGE_CACHED], 1, memory_order_relaxed);
	page->use = PAGE_CACHED;
	page->next = cache->head;
	cache->head = page;
	cache->count++;
}

void mem_cache_empty(struct mem *mem, struct page_cache *cache)
{
	struct mmu_page *list = cache->head;

	cache->head = NULL;
	cache->count = 0;
	mem_give_back(mem, list);
}

static void unlink_available(struct mem *mem, struct mem_chunk *chunk)
{
	struct mem_chunk **link = &mem->available;

	if (!chunk->available)
		return;
	while (*link != chunk)
		link = &(*link)->next_available;
	*link = chunk->next_available;
	chunk->available = false;
}

static void make_available_last(struct mem *mem, struct mem_chunk *chunk)
{
	struct mem_chunk **link = &mem->available;

	while (*link)
		link = &(*link)->next_available;
	chunk->available = true;
	chunk->next_available = NULL;
	*link = chunk;
}

/*
 * Hands an empty chunk's pages to the kernel, with the lock dropped meanwhile: the chunk is
 * then on no list that a taker looks at.  If the kernel keeps them (locked memory), they are
 * zero all the same, as all free pages are.
 */
static void cool_chunk(struct mem *mem, struct mem_chunk *chunk)
{
	uint8_t *pages = (uint8_t *)chunk + CHUNK_FIRST * PAGE_SIZE;

	unlink_available(mem, chunk);
	pthread_mutex_unlock(&mem->lock);
#ifdef MEM_ASAN
	ASAN_UNPOISON_MEMORY_REGION(pages, CHUNK_BYTES - CHUNK_FIRST * PAGE_SIZE);
#endif
	madvise(pages, CHUNK_BYTES - CHUNK_FIRST * PAGE_SIZE, MADV_DONTNEED);
	pthread_mutex_lock(&mem->lock);
	reset_chunk(chunk);
	make_available_last(mem, chunk);
}

void mem_give_back(struct mem *mem, struct mmu_page *list)
{
	pthread_mutex_lock(&mem->lock);
	for (struct mmu_page *page = list, *next; page; page = next) {
		struct mem_chunk *chunk = chunk_of(page);

		next = page->next;
		atomic_fetch_sub_explicit(&mem->pages[page->use], 1, memory_order_relaxed);
		guard_page(page);
		page->next = chunk->free;
		chunk->free = page;
		make_available(mem, chunk);
		if (--chunk->used > 0)
			continue;
		if (mem->warm_chunks > 0)
			cool_chunk(mem, chunk);
		else
			mem->warm_chunks++;
	}
	pthread_mutex_unlock(&mem->lock);
}
