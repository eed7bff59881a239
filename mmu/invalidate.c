/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Taking mappings away.
 *
 *	begin	gate closed: put on the list, sequence + 1.  From here no fault installs
 *		in the range.
 *		Then, with no lock: tables that lie inside are cut off whole, pages at the
 *		edges are removed through the rmap.
 *		Then each vCPU drops the range from its TLB and says so.
 *	end	gate closed: off the list, sequence + 1.
 *
 * What a fault learned from the owner before a begin or an end is stale after it: that is
 * what the sequence says.  It has 64 bits wherever it is kept.
 *
 * TLBs are flushed whether or not the rmap held anything: an entry that was already gone
 * may have been read by a vCPU before it went.
 */
#include <assert.h>

#include "mmu/gate.h"
#include "mmu/rmap.h"

static bool list_covers(const struct mmu *mmu, struct gfn_range range)
{
	for (const struct mmu_invalidation *inv = mmu->active; inv; inv = inv->next) {
		if (frames_overlap(inv->range.start.v, range_end(inv->range), range.start.v,
			    range_end(range)))
			return true;
	}
	return false;
}

bool invalidate_covers(const struct mmu *mmu, const struct slot_table *table,
	const struct slot_view *view, struct gfn_range range)
{
	struct gfn_range other;

	if (list_covers(mmu, range))
		return true;
	for (unsigned int i = 0; view->aliased && i < table->count; i++) {
		if (slot_alias(view->slot, range, table->view[i].slot, &other) &&
			list_covers(mmu, other))
			return true;
	}
	return false;
}

static void bump_sequence(struct mmu *mmu)
{
	uint64_t next = atomic_load_explicit(&mmu->sequence, memory_order_relaxed) + 1;

	atomic_store_explicit(&mmu->sequence, next, memory_order_release);
}

void invalidate_open_locked(struct mmu *mmu, struct mmu_invalidation *inv, struct gfn_range range)
{
	inv->range = range;
	inv->next = mmu->active;
	mmu->active = inv;
	bump_sequence(mmu);
}

void invalidate_close(struct mmu *mmu, struct mmu_invalidation *inv)
{
	struct mmu_invalidation **link = &mmu->active;

	pthread_mutex_lock(&mmu->lock);
	gate_close(mmu);
	while (*link != inv) {
		assert(*link);
		link = &(*link)->next;
	}
	*link = inv->next;
	bump_sequence(mmu);
	gate_open(mmu);
	pthread_cond_broadcast(&mmu->ended);
	pthread_mutex_unlock(&mmu->lock);
}

/*
 * Page by page through the rmap, large leaves first: one that a fault splits meanwhile is
 * then found again as small ones.
 */
static void zap_pages(struct mmu *mmu, struct slot *slot, struct gfn_range range)
{
	for (unsigned int level = MMU_1G; range.count > 0 && level >= MMU_4K; level--)
		rmap_zap_range(mmu, slot, level, range);
}

void zap_slot_range(struct mmu *mmu, struct slot *slot, struct gfn_range range)
{
	uint64_t block = mmu_level_pages(MMU_2M), end = range_end(range);
	uint64_t from = align_down(range.start.v + block - 1, block);
	uint64_t to = align_down(end, block);

	if (from >= to) {
		zap_pages(mmu, slot, range);
		return;
	}
	zap_pages(mmu, slot, (struct gfn_range){range.start, from - range.start.v});
	zap_pages(mmu, slot, (struct gfn_range){gfn(to), end - to});
	table_detach(mmu, (struct gfn_range){gfn(from), to - from});
}

static void invalidate_part(struct mmu *mmu, struct slot *slot, struct gfn_range range, void *arg)
{
	uint64_t *seq = arg;

	zap_slot_range(mmu, slot, range);
	*seq = flush_post(mmu, range);
}

void mmu_invalidate_begin(struct mmu *mmu, struct mmu_invalidation *inv, struct gfn_range range)
{
	uint64_t seq = 0;

	assert(range.count > 0 && range_end(range) <= GFN_END);
	pthread_mutex_lock(&mmu->lock);
	gate_close(mmu);
	invalidate_open_locked(mmu, inv, range);
	gate_open(mmu);
	pthread_mutex_unlock(&mmu->lock);

	slot_each(mmu, range, invalidate_part, &seq);
	if (seq == 0)
		flush_range(mmu, range);
	else
		flush_wait(mmu, seq);
}

void mmu_invalidate_end(struct mmu *mmu, struct mmu_invalidation *inv)
{
	invalidate_close(mmu, inv);
}
