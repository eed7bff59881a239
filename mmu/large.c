/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Large pages: when a block may be one leaf, and how a leaf is taken apart and put together.
 *
 * Each 2M and 1G block of a slot has a word: a bit for mixed attributes, and a count of other
 * reasons against a leaf.  They belong to the slot and are changed by conversions and page-out
 * only.  Tables have no part in them, so zapping neither resets them nor, when an obsolete
 * table is freed much later, lowers them.  Blocks without a word have no reason against them.
 */
#include <errno.h>

#include "mmu/gate.h"
#include "mmu/rmap.h"

#define LARGE_MIXED ((uint64_t)1 << 63)

bool large_allowed(const struct slot *slot, uint64_t frame, unsigned int level)
{
	struct gfn_range block = block_around(frame, level);
	const _Atomic uint64_t *word;

	if (level > slot->max_level || block.start.v < slot->range.start.v ||
		range_end(block) > range_end(slot->range) ||
		atomic_load_explicit(&slot->large_off, memory_order_relaxed))
		return false;
	word = sparse_get(&slot->large[level], block_index(frame, level));
	return !word || atomic_load_explicit(word, memory_order_relaxed) == 0;
}

/* Undoes a split before it is linked: nobody but rmap walkers has seen the table. */
static void unsplit(struct vcpu *v, struct mmu_page *table, rmap_t *words)
{
	entry_t *entries = page_words(table);

	for (unsigned int i = 0; i < TABLE_ENTRIES; i++) {
		if (entry_take_leaf(&entries[i]))
			count_removed(v->mmu, table->level, 1);
		rmap_remove(&words[i], &entries[i]);
	}
	mem_cache_push(&v->mmu->mem, &v->cache, table);
}

bool large_split(struct vcpu *v, struct slot *slot, uint64_t frame, entry_t *entry, uint64_t value)
{
	struct mmu_page *parent = page_of(entry), *table;
	unsigned int level = parent->level - 1;
	uint64_t first = block_around(frame, parent->level).start.v, small = value;
	bool stale = false;
	rmap_t *words = rmap_word_make(v, slot, first, level);
	entry_t *entries;

	table = mem_cache_pop(&v->mmu->mem, &v->cache, PAGE_TABLE);
	table_init(table, parent, first, level, parent->generation);
	entries = page_words(table);
	if (atomic_load_explicit(&slot->logging, memory_order_relaxed))
		small &= ~ENTRY_WRITE;
	count_own(&v->installed[level], TABLE_ENTRIES);
	for (uint64_t i = 0; i < TABLE_ENTRIES; i++) {
		uint64_t offset = (i * mmu_level_pages(level)) << PAGE_SHIFT;

		atomic_store_explicit(&entries[i], small + offset, memory_order_relaxed);
		stale |= rmap_add(v, &words[i], &entries[i], level) < 0;
	}
	if (stale || !atomic_compare_exchange_strong_explicit(entry, &value, table_entry(table),
			     memory_order_acq_rel, memory_order_acquire)) {
		unsplit(v, table, words);
		return false;
	}
	rmap_forget(v->mmu, value, first, parent->level, entry);
	count_own(&v->splits, 1);
	return true;
}

static void set_mixed(struct mmu *mmu, struct slot *slot, uint64_t index, unsigned int level)
{
	struct page_cache cache = {0};
	_Atomic uint64_t *word = sparse_get(&slot->large[level], index);

	if (!word && mem_cache_fill(&mmu->mem, &cache, SPARSE_MAKE_PAGES) == 0)
		word = sparse_make(&slot->large[level], index, &mmu->mem, &cache);
	if (word)
		atomic_fetch_or(word, LARGE_MIXED);
	else
		atomic_store(&slot->large_off, true);
	mem_cache_empty(&mmu->mem, &cache);
}

static void clear_mixed(struct slot *slot, uint64_t index, unsigned int level)
{
	_Atomic uint64_t *word = sparse_get(&slot->large[level], index);

	if (word)
		atomic_fetch_and(word, ~LARGE_MIXED);
}

/* Asks the owner about a block, if all of it is in the slot: only then does it matter. */
static void ask_block(struct mmu *mmu, struct slot *slot, uint64_t index, unsigned int level)
{
	struct gfn_range block = block_around(index * mmu_level_pages(level), level);

	if (block.start.v < slot->range.start.v || range_end(block) > range_end(slot->range))
		return;
	if (mmu->ops.uniform && !mmu->ops.uniform(mmu->ctx, block))
		set_mixed(mmu, slot, index, level);
	else
		clear_mixed(slot, index, level);
}

/* Asks about the blocks that reach beyond @range; the others are uniform. */
static void update_part(
	struct mmu *mmu, struct slot *slot, struct gfn_range range, unsigned int level)
{
	const struct sparse *words = &slot->large[level];
	uint64_t pages = mmu_level_pages(level), end = range_end(range);
	uint64_t first = block_index(range.start.v, level), last = block_index(end - 1, level);
	uint64_t inner = first + (range.start.v % pages != 0);
	uint64_t inner_end = last + (end % pages == 0);
	uint64_t i = sparse_next(words, inner, inner_end);

	for (; i < inner_end; i = sparse_next(words, i + 1, inner_end))
		clear_mixed(slot, i, level);
	if (inner != first)
		ask_block(mmu, slot, first, level);
	if (inner_end == last && (last != first || inner == first))
		ask_block(mmu, slot, last, level);
}

static void rebuild_part(
	struct mmu *mmu, struct slot *slot, struct gfn_range range, unsigned int level)
{
	uint64_t end = block_index(range_end(range) - 1, level) + 1;

	for (uint64_t i = block_index(range.start.v, level); i < end; i++)
		ask_block(mmu, slot, i, level);
}

static void each_part(struct mmu *mmu, struct gfn_range range,
	void (*fn)(struct mmu *mmu, struct slot *slot, struct gfn_range range, unsigned int level))
{
	uint64_t from = range.start.v;
	struct slot *slot;

	while (from < range_end(range) &&
		(slot = slot_next(mmu, from, range_end(range), NULL)) != NULL) {
		struct gfn_range part = slot_clip(slot, range);

		for (unsigned int level = MMU_2M; level <= MMU_1G; level++)
			fn(mmu, slot, part, level);
		from = range_end(slot->range);
		slot_put(mmu, slot);
	}
}

void mmu_large_update(struct mmu *mmu, struct gfn_range range)
{
	each_part(mmu, range, update_part);
}

void mmu_large_rebuild(struct mmu *mmu, struct gfn_range range)
{
	each_part(mmu, range, rebuild_part);
}

int mmu_large_disallow(struct mmu *mmu, gfn_t at)
{
	struct slot *slot = slot_next(mmu, at.v, at.v + 1, NULL);
	struct page_cache cache = {0};
	int ret;

	if (!slot)
		return -ENOENT;
	ret = mem_cache_fill(&mmu->mem, &cache, 2 * SPARSE_MAKE_PAGES);
	for (unsigned int level = MMU_2M; ret == 0 && level <= MMU_1G; level++) {
		_Atomic uint64_t *word = sparse_make(
			&slot->large[level], block_index(at.v, level), &mmu->mem, &cache);

		atomic_fetch_add(word, 1);
	}
	mem_cache_empty(&mmu->mem, &cache);
	slot_put(mmu, slot);
	return ret;
}

/* Lowers a count that is not 0. */
static bool count_down(_Atomic uint64_t *word)
{
	uint64_t value = word ? atomic_load(word) : 0;

	while ((value & ~LARGE_MIXED) != 0) {
		if (atomic_compare_exchange_weak(word, &value, value - 1))
			return true;
	}
	return false;
}

int mmu_large_allow(struct mmu *mmu, gfn_t at)
{
	struct slot *slot = slot_next(mmu, at.v, at.v + 1, NULL);
	int ret = -EINVAL;

	if (!slot)
		return -ENOENT;
	if (count_down(sparse_get(&slot->large[MMU_2M], block_index(at.v, MMU_2M)))) {
		count_down(sparse_get(&slot->large[MMU_1G], block_index(at.v, MMU_1G)));
		ret = 0;
	}
	slot_put(mmu, slot);
	return ret;
}

/* One step: whole 2M blocks within 1G.  Faults there wait while it lasts. */
static void collapse_step(struct mmu *mmu, const struct slot *slot, struct gfn_range range)
{
	struct mmu_invalidation inv;

	pthread_mutex_lock(&mmu->lock);
	gate_close(mmu);
	invalidate_open_locked(mmu, &inv, range);
	gate_open(mmu);
	pthread_mutex_unlock(&mmu->lock);
	if (!atomic_load(&slot->logging))
		table_detach_4k(mmu, slot, range);
	invalidate_close(mmu, &inv);
}

/*
 * The pages stay where they are, so pointers and TLBs stay right and nobody is waited for:
 * only the tables go, as after an invalidation.
 */
static void collapse_part(struct mmu *mmu, struct slot *slot, struct gfn_range range, void *arg)
{
	uint64_t block = mmu_level_pages(MMU_2M), most = mmu_level_pages(MMU_1G);
	uint64_t from = align_down(range.start.v + block - 1, block);
	uint64_t end = align_down(range_end(range), block);

	while (from < end) {
		uint64_t next = align_down(from, most) + most;

		next = next < end ? next : end;
		collapse_step(mmu, slot, (struct gfn_range){gfn(from), next - from});
		from = next;
	}
}

void mmu_collapse(struct mmu *mmu, struct gfn_range range)
{
	slot_each(mmu, range, collapse_part, NULL);
}
