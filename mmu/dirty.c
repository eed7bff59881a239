/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Dirty logging by write protection, and aging by accessed bits.
 *
 * The log of a slot is a bit a page, by absolute frame.  While logging is on, a fault makes a
 * page writable only for a write, as a 4K leaf, and sets its bit after the leaf is there and
 * before the vCPU writes.  Clearing goes the other way round: take the bits, then protect,
 * then flush; a write that falls between is either before the caller reads the page or
 * has set the bit again.
 */
#include <errno.h>
#include <string.h>

#include "mmu/gate.h"
#include "mmu/rmap.h"

static void set_logging(struct mmu *mmu, struct slot *slot, bool on)
{
	pthread_mutex_lock(&mmu->lock);
	gate_close(mmu);
	atomic_store_explicit(&slot->logging, on, memory_order_relaxed);
	gate_open(mmu);
	pthread_mutex_unlock(&mmu->lock);
}

/* Large leaves first: one that is split meanwhile leaves small ones without write. */
static void protect(struct slot *slot, struct gfn_range range)
{
	for (unsigned int level = MMU_1G; level >= MMU_4K; level--)
		rmap_clear_range(slot, level, range, ENTRY_WRITE);
}

static void forget_log(struct slot *slot)
{
	uint64_t end = (range_end(slot->range) - 1) / 64 + 1;
	uint64_t i = sparse_next(&slot->dirty, slot->range.start.v / 64, end);

	for (; i < end; i = sparse_next(&slot->dirty, i + 1, end))
		atomic_store_explicit(sparse_get(&slot->dirty, i), 0, memory_order_relaxed);
}

int mmu_dirty_start(struct mmu *mmu, unsigned int id)
{
	struct slot *slot = slot_get(mmu, id);
	int ret = -EALREADY;

	if (!slot)
		return -ENOENT;
	pthread_mutex_lock(&slot->log_lock);
	if (!atomic_load(&slot->logging)) {
		forget_log(slot);
		set_logging(mmu, slot, true);
		protect(slot, slot->range);
		flush_range(mmu, slot->range);
		ret = 0;
	}
	pthread_mutex_unlock(&slot->log_lock);
	slot_put(mmu, slot);
	return ret;
}

int mmu_dirty_stop(struct mmu *mmu, unsigned int id)
{
	struct slot *slot = slot_get(mmu, id);
	int ret = -EALREADY;

	if (!slot)
		return -ENOENT;
	pthread_mutex_lock(&slot->log_lock);
	if (atomic_load(&slot->logging)) {
		set_logging(mmu, slot, false);
		ret = 0;
	}
	pthread_mutex_unlock(&slot->log_lock);
	slot_put(mmu, slot);
	return ret;
}

/* Finds the slot of a get or clear.  It is logging, and @range is sound. */
static int log_open(struct mmu *mmu, unsigned int id, struct gfn_range range, struct slot **ret)
{
	struct slot *slot;

	if (((range.start.v | range.count) & 63) != 0 || range.start.v >= GFN_END ||
		range.count > GFN_END - range.start.v)
		return -EINVAL;
	slot = slot_get(mmu, id);
	if (!slot)
		return -ENOENT;
	if (!atomic_load(&slot->logging)) {
		slot_put(mmu, slot);
		return -EINVAL;
	}
	*ret = slot;
	return 0;
}

/* The log word for 64 frames from @frame, or NULL if nothing there was ever logged. */
static _Atomic uint64_t *log_word(const struct slot *slot, uint64_t frame)
{
	struct gfn_range part = slot_clip(slot, (struct gfn_range){gfn(frame), 64});

	return part.count ? sparse_get(&slot->dirty, frame / 64) : NULL;
}

int mmu_dirty_get(struct mmu *mmu, unsigned int id, struct gfn_range range, uint64_t *bitmap)
{
	struct slot *slot;
	int ret = log_open(mmu, id, range, &slot);

	if (ret < 0)
		return ret;
	for (uint64_t i = 0; i < range.count / 64; i++) {
		_Atomic uint64_t *word = log_word(slot, range.start.v + 64 * i);

		bitmap[i] = word ? atomic_load_explicit(word, memory_order_acquire) : 0;
	}
	slot_put(mmu, slot);
	return 0;
}

/* Takes @bits of 64 frames from @frame out of the log and protects those that were in. */
static void clear_word(struct slot *slot, uint64_t frame, uint64_t bits)
{
	_Atomic uint64_t *word = bits ? log_word(slot, frame) : NULL;

	if (!word)
		return;
	bits &= atomic_fetch_and_explicit(word, ~bits, memory_order_acq_rel);
	for (; bits != 0; bits &= bits - 1) {
		rmap_t *page = rmap_word(slot, frame + (uint64_t)__builtin_ctzll(bits), MMU_4K);

		if (page)
			rmap_clear_bits(page, ENTRY_WRITE);
	}
}

int mmu_dirty_clear(
	struct mmu *mmu, unsigned int id, struct gfn_range range, const uint64_t *bitmap)
{
	struct slot *slot;
	int ret = log_open(mmu, id, range, &slot);

	if (ret < 0)
		return ret;
	for (uint64_t i = 0; i < range.count / 64; i++)
		clear_word(slot, range.start.v + 64 * i, bitmap[i]);
	if (range.count > 0)
		flush_range(mmu, range);
	slot_put(mmu, slot);
	return 0;
}

/* The flush is not waited for: an access that slips through counts for this time. */
static void age_part(struct mmu *mmu, struct slot *slot, struct gfn_range range, void *arg)
{
	uint64_t *young = arg;

	for (unsigned int level = MMU_1G; level >= MMU_4K; level--)
		*young += rmap_clear_range(slot, level, range, ENTRY_ACCESSED);
	flush_post(mmu, range);
}

uint64_t mmu_age(struct mmu *mmu, struct gfn_range range)
{
	uint64_t young = 0;

	if (range.count > 0)
		slot_each(mmu, range, age_part, &young);
	return young;
}
