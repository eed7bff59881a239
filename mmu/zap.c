/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Dropping everything: a new generation.
 *
 * mmu_zap_all() takes the root away, counts the generation up and asks every vCPU for a
 * reload, all in a few stores behind the closed gate.  The first fault makes a new root.  The
 * old tree is unreachable for whoever reloads; a vCPU that has not yet may walk on in it
 * until its checkpoint, and the reclaimer waits for that.
 */
#include "mmu/gate.h"
#include "mmu/rmap.h"

/* root: current => obsolete; generation + 1; vCPUs are told.  mmu->lock held, gate closed. */
static struct mmu_page *retire_root_locked(struct mmu *mmu)
{
	struct mmu_page *root = atomic_load_explicit(&mmu->root, memory_order_relaxed);
	uint64_t next = atomic_load_explicit(&mmu->generation, memory_order_relaxed) + 1;

	atomic_store_explicit(&mmu->root, NULL, memory_order_release);
	atomic_store_explicit(&mmu->generation, next, memory_order_release);
	flush_post_locked(mmu, (struct gfn_range){gfn(0), GFN_END});
	return root;
}

void mmu_zap_all(struct mmu *mmu)
{
	struct mmu_page *root;

	pthread_mutex_lock(&mmu->lock);
	gate_close(mmu);
	root = retire_root_locked(mmu);
	gate_open(mmu);
	pthread_mutex_unlock(&mmu->lock);
	if (root) {
		reclaim_tree(mmu, root);
		reclaim_kick_soon(mmu);
	}
}

static void clear_tree(struct mmu *mmu, struct mmu_page *page)
{
	for (uint64_t i = 0; i < TABLE_ENTRIES; i++) {
		entry_t *entry = &page_words(page)[i];
		uint64_t value = atomic_load_explicit(entry, memory_order_acquire);
		uint64_t frame = page->base + i * mmu_level_pages(page->level);
		uint64_t leaf = entry_take_leaf(entry);

		if (leaf)
			rmap_forget(mmu, leaf, frame, page->level, entry);
		else if (entry_is_table(value))
			clear_tree(mmu, page_of(entry_table(value)));
	}
}

void mmu_zap_all_by_walk(struct mmu *mmu)
{
	struct mmu_page *root;

	pthread_mutex_lock(&mmu->walk);
	pthread_mutex_lock(&mmu->lock);
	gate_close(mmu);
	root = atomic_load(&mmu->root);
	if (root)
		clear_tree(mmu, root);
	root = retire_root_locked(mmu);
	gate_open(mmu);
	pthread_mutex_unlock(&mmu->lock);
	pthread_mutex_unlock(&mmu->walk);
	if (root) {
		reclaim_tree(mmu, root);
		reclaim_kick_soon(mmu);
	}
}
