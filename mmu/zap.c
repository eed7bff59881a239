/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Dropping everything: a new generation.
 *
 * mmu_zap_all() takes the root away, counts the generation up and asks every vCPU for a
 * reload: a few stores, and it waits for nobody, not even for a fault that is under way.
 * Such a fault looks at the root once more after it has installed; if that is no longer
 * the root it installed under, it takes its entry out again and starts over.  The next
 * fault makes a new root.  The old tree is unreachable for whoever reloads; a vCPU that has
 * not yet may walk on in it until its checkpoint, and the reclaimer waits for that.
 */
#include "mmu/gate.h"
#include "mmu/rmap.h"

/* root: current => obsolete; generation + 1; vCPUs are told.  Returns the root. */
static struct mmu_page *retire_root(struct mmu *mmu)
{
	struct mmu_page *root;

	pthread_mutex_lock(&mmu->flush_lock);
	root = atomic_exchange(&mmu->root, NULL);
	atomic_fetch_add(&mmu->generation, 1);
	flush_post_locked(mmu, (struct gfn_range){gfn(0), GFN_END});
	pthread_mutex_unlock(&mmu->flush_lock);
	return root;
}

static void bury_root(struct mmu *mmu, struct mmu_page *root)
{
	if (!root)
		return;
	reclaim_tree(mmu, root);
	reclaim_kick_soon(mmu);
}

void mmu_zap_all(struct mmu *mmu)
{
	bury_root(mmu, retire_root(mmu));
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
	root = retire_root(mmu);
	gate_open(mmu);
	pthread_mutex_unlock(&mmu->lock);
	pthread_mutex_unlock(&mmu->walk);
	bury_root(mmu, root);
}
