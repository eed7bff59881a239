/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * rmap: from a slot's page, at each level, to the entry that maps it.
 *
 * One word a page: the entry's address, or 0, and a lock in bit 0.  One word is enough for
 * all roots.  The current tables have one place for a page at a level; an entry that a fault
 * is about to make there finds the word empty or naming an entry of a tree that nobody can
 * reach any more, and then removes that one first: it would have had to go anyway.  So no
 * list of entries is ever needed, adding needs no memory, and nothing moves or is freed under
 * a concurrent remover (the seed's problems 1 and 2).  Aliased slots have an rmap each.
 *
 * A fault that a zap has overtaken could meet a word that already names an entry of the new
 * tree.  It looks at the root with the word locked before it displaces anything, so the old
 * never displaces the new.
 *
 * An entry is in the rmap before it is present and until it no longer is.  Who frees a table
 * first takes each leaf out of its rmap word, so who holds the word's lock may follow the
 * address in it (the seed's problem 3).
 */
#ifndef MMU_RMAP_H
#define MMU_RMAP_H

#include "mmu/internal.h"

typedef _Atomic uint64_t rmap_t;

/*
 * Names @entry, which is in the tree under v->root, in @word.  Another entry that it named is
 * displaced: its leaf, if it still is one, is gone.  -ESTALE: it names another and v->root is
 * obsolete.
 */
int rmap_add(struct vcpu *v, rmap_t *word, entry_t *entry, unsigned int level);

/* Takes @entry out of @word if that names it. */
void rmap_remove(rmap_t *word, const entry_t *entry);

/* The word of @slot for a leaf of @level at @frame; made from the vCPU's cache if need be. */
rmap_t *rmap_word_make(struct vcpu *v, struct slot *slot, uint64_t frame, unsigned int level);
rmap_t *rmap_word(const struct slot *slot, uint64_t frame, unsigned int level);

/* Takes the leaf @value of @level at @frame, just removed from @entry, out of its rmap. */
void rmap_forget(
	struct mmu *mmu, uint64_t value, uint64_t frame, unsigned int level, const entry_t *entry);

/* Removes the leaf that @word names. */
void rmap_zap(struct mmu *mmu, rmap_t *word, unsigned int level);

/* Clears @bits of the leaf that @word names.  Returns those that were set. */
uint64_t rmap_clear_bits(rmap_t *word, uint64_t bits);

/* Calls rmap_zap() for all blocks of @level that overlap @range. */
void rmap_zap_range(struct mmu *mmu, struct slot *slot, unsigned int level, struct gfn_range range);

/*
 * Clears @bits in all leaves of @level that overlap @range.  Returns for how many pages of
 * @range a bit was set.
 */
uint64_t rmap_clear_range(
	struct slot *slot, unsigned int level, struct gfn_range range, uint64_t bits);

#endif
