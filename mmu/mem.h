/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory of the MMU: zeroed 4K pages with a descriptor each, and small objects.
 *
 * Pages come from chunks of 2 MiB, aligned to their size, with the descriptors at their
 * head: page and descriptor find each other by arithmetic.  A page is given back zeroed.
 * A chunk without pages in use is kept for the next fault or, if there already is one,
 * handed back to the kernel while its address range stays.
 *
 * A vCPU takes pages in batches into a cache of its own before it enters the fault gate, so
 * that nothing inside the gate can fail or wait for memory.
 */
#ifndef MMU_MEM_H
#define MMU_MEM_H

#include <pthread.h>
#include <stdatomic.h>

#include "mmu/entry.h"

enum page_use { PAGE_CACHED, PAGE_TABLE, PAGE_RMAP, PAGE_LARGE, PAGE_DIRTY, PAGE_USES };

/*
 * Descriptor of a page.  For PAGE_TABLE it is the shadow page descriptor: level to generation
 * are set before the page can be reached and constant from then on.
 */
struct mmu_page {
	struct mmu_page *next;   /* in a cache, on a free list, or on a list of dead trees */
	struct mmu_page *parent; /* the table that points here; NULL for the top of a tree */
	uint64_t base;           /* first frame that the table translates */
	uint64_t generation;     /* of the root it hangs under */
	uint16_t cursor;         /* next entry to reclaim; reclaimer only */
	uint8_t level;           /* of the table's entries: 1 has 4K leaves, 4 is a root */
	uint8_t use;
};

struct page_cache {
	struct mmu_page *head;
	unsigned int count;
};

struct mem_chunk;

struct mem {
	pthread_mutex_t lock;
	struct mem_chunk *chunks;    /* all; guarded by lock */
	struct mem_chunk *available; /* with pages left; guarded by lock */
	unsigned int warm_chunks;    /* with no page in use, but resident; guarded by lock */
	_Atomic uint64_t pool_bytes;
	_Atomic uint64_t pages[PAGE_USES];
	_Atomic uint64_t objects;
	_Atomic int64_t fail_in; /* test seam, see mem_fail_nth() */
};

void mem_init(struct mem *mem);

/* Everything has been given back. */
void mem_destroy(struct mem *mem);

/* Makes the @nth allocation from now fail, once; 0: none.  A page or an object counts as one. */
void mem_fail_nth(struct mem *mem, uint64_t nth);

/* A zeroed object, aligned to a cache line; NULL when memory is short. */
void *mem_zalloc(struct mem *mem, size_t bytes);
void mem_free(struct mem *mem, void *object);

/* Fills @cache to @want pages.  -ENOMEM: it has fewer. */
int mem_cache_fill(struct mem *mem, struct page_cache *cache, unsigned int want);
void mem_cache_empty(struct mem *mem, struct page_cache *cache);

/* Takes a page, which must be there, out of @cache for @use. */
struct mmu_page *mem_cache_pop(struct mem *mem, struct page_cache *cache, enum page_use use);

/* Puts a page back that nobody else has seen, or that is zero again. */
void mem_cache_push(struct mem *mem, struct page_cache *cache, struct mmu_page *page);

/* Gives back a list of pages, all zero. */
void mem_give_back(struct mem *mem, struct mmu_page *list);

entry_t *page_words(const struct mmu_page *page);
struct mmu_page *page_of(const void *inside);

#endif
