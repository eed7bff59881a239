/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>

#include "mmu/rmap.h"

void table_init(struct mmu_page *page, struct mmu_page *parent, uint64_t frame, unsigned int level,
	uint64_t generation)
{
	page->parent = parent;
	page->base = align_down(frame, (uint64_t)TABLE_ENTRIES << (9 * (level - 1)));
	page->level = level;
	page->generation = generation;
	page->cursor = 0;
}

uint64_t table_walk(
	const struct mmu_page *root, uint64_t frame, entry_t **ret_entry, unsigned int *ret_level)
{
	entry_t *table = root ? page_words(root) : NULL;

	for (unsigned int level = TABLE_LEVELS; table; level--) {
		entry_t *entry = &table[table_index(frame, level)];
		uint64_t value = atomic_load_explicit(entry, memory_order_acquire);

		if (entry_is_leaf(value)) {
			*ret_entry = entry;
			*ret_level = level;
			return value;
		}
		if (!entry_is_table(value))
			return 0;
		table = entry_table(value);
	}
	return 0;
}

int mmu_probe(struct mmu *mmu, gfn_t at, struct mmu_mapping *ret)
{
	unsigned int level = 0;
	entry_t *entry;
	uint64_t value = 0;

	if (at.v >= GFN_END)
		return -ENOENT;
	pthread_mutex_lock(&mmu->walk);
	value = table_walk(atomic_load(&mmu->root), at.v, &entry, &level);
	pthread_mutex_unlock(&mmu->walk);
	if (!value)
		return -ENOENT;
	*ret = (struct mmu_mapping){
		.host = entry_host(value, level, at.v),
		.level = level,
		.writable = value & ENTRY_WRITE,
		.accessed = value & ENTRY_ACCESSED,
		.dirty = value & ENTRY_DIRTY,
		.shared = value & ENTRY_SHARED,
	};
	return 0;
}

struct detach {
	struct mmu *mmu;
	const struct slot *only_4k; /* NULL: everything */
	uint64_t start, end;
};

/*
 * Cuts the table @value off @entry.  Once a table, an entry stays one until someone with the
 * walk lock cuts it.
 */
static void cut(struct mmu *mmu, entry_t *entry, uint64_t value)
{
	struct mmu_page *page = page_of(entry_table(value));

	atomic_store_explicit(entry, 0, memory_order_release);
	page->parent = NULL;
	reclaim_tree(mmu, page);
}

static void detach_in(const struct detach *d, struct mmu_page *page);

/* One entry, for frames from @frame, that overlaps the range. */
static void detach_entry(const struct detach *d, entry_t *entry, unsigned int level, uint64_t frame)
{
	uint64_t end = frame + mmu_level_pages(level);
	bool covered = d->start <= frame && end <= d->end;
	uint64_t value = atomic_load_explicit(entry, memory_order_acquire);

	if (entry_is_leaf(value) && !d->only_4k) {
		uint64_t taken = entry_take_leaf(entry);

		if (taken) {
			rmap_forget(d->mmu, taken, frame, level, entry);
			return;
		}
		value = atomic_load_explicit(entry, memory_order_acquire);
	}
	if (!entry_is_table(value))
		return;
	if (d->only_4k && level == MMU_2M) {
		if (covered && large_allowed(d->only_4k, frame, MMU_2M))
			cut(d->mmu, entry, value);
		return;
	}
	if (covered && !d->only_4k)
		cut(d->mmu, entry, value);
	else
		detach_in(d, page_of(entry_table(value)));
}

static void detach_in(const struct detach *d, struct mmu_page *page)
{
	uint64_t step = mmu_level_pages(page->level);
	uint64_t from = d->start > page->base ? (d->start - page->base) / step : 0;

	for (uint64_t i = from; i < TABLE_ENTRIES && page->base + i * step < d->end; i++)
		detach_entry(d, &page_words(page)[i], page->level, page->base + i * step);
}

static void detach(const struct detach *d)
{
	struct mmu_page *root;

	pthread_mutex_lock(&d->mmu->walk);
	root = atomic_load(&d->mmu->root);
	if (root)
		detach_in(d, root);
	pthread_mutex_unlock(&d->mmu->walk);
	reclaim_kick_soon(d->mmu);
}

void table_detach(struct mmu *mmu, struct gfn_range range)
{
	detach(&(struct detach){mmu, NULL, range.start.v, range_end(range)});
}

void table_detach_4k(struct mmu *mmu, const struct slot *slot, struct gfn_range range)
{
	detach(&(struct detach){mmu, slot, range.start.v, range_end(range)});
}
