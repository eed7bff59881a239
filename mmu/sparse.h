/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sparse arrays of 64-bit words: three levels, the lower two made of pages when they are first
 * needed.  Made for a slot's rmap, large-page counts and dirty log: an array over 1 TiB of
 * 4K pages costs 8 KiB until it is used.
 *
 * Lookups and growth are lock-free and may run side by side; nothing shrinks before
 * sparse_free().  Words are addressed by absolute index (a frame number, say), and the
 * array is cut so that the 512 words of an aligned block are in one page: the rmap of one
 * table of 4K leaves, for instance.
 */
#ifndef MMU_SPARSE_H
#define MMU_SPARSE_H

#include "mmu/mem.h"

struct sparse {
	uint64_t origin; /* index of the first word */
	uint64_t tops;   /* entries of top */
	entry_t *top;    /* addresses of middle pages, 0 where there is none */
	enum page_use use;
};

/* How many pages one sparse_make() may take. */
#define SPARSE_MAKE_PAGES 2

/* An array that covers at least [first, end).  -ENOMEM. */
int sparse_init(struct sparse *s, struct mem *mem, uint64_t first, uint64_t end, enum page_use use);

/* Frees it, giving way now and then; nobody uses it any more. */
void sparse_free(struct sparse *s, struct mem *mem);

/* The word at @index, or NULL if its page was never made. */
_Atomic uint64_t *sparse_get(const struct sparse *s, uint64_t index);

/* The same, making its page from @cache, which has SPARSE_MAKE_PAGES, if need be. */
_Atomic uint64_t *sparse_make(
	struct sparse *s, uint64_t index, struct mem *mem, struct page_cache *cache);

/* The first index from @from whose page exists; @end if there is none below it. */
uint64_t sparse_next(const struct sparse *s, uint64_t from, uint64_t end);

#endif
