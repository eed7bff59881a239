/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "mmu/rmap.h"

#include <assert.h>
#include <errno.h>

#include "mmu/gate.h"

#define RMAP_LOCK ((uint64_t)1)

static entry_t *named(uint64_t value)
{
	return (entry_t *)(uintptr_t)(value & ~RMAP_LOCK);
}

/* Locks @word and returns its value without the lock. */
static uint64_t word_lock(rmap_t *word)
{
	uint64_t value = atomic_load_explicit(word, memory_order_relaxed);
	unsigned int spins = 0;

	for (;;) {
		value &= ~RMAP_LOCK;
		if (atomic_compare_exchange_weak_explicit(word, &value, value | RMAP_LOCK,
			    memory_order_acquire, memory_order_relaxed))
			return value;
		if (value & RMAP_LOCK)
			gate_pause(&spins);
	}
}

static void word_unlock(rmap_t *word, const entry_t *entry)
{
	atomic_store_explicit(word, (uint64_t)(uintptr_t)entry, memory_order_release);
}

int rmap_add(struct vcpu *v, rmap_t *word, entry_t *entry, unsigned int level)
{
	entry_t *other;
	uint64_t old = 0;

	if (atomic_compare_exchange_strong_explicit(word, &old, (uint64_t)(uintptr_t)entry,
		    memory_order_acq_rel, memory_order_acquire) ||
		old == (uint64_t)(uintptr_t)entry)
		return 0;
	other = named(word_lock(word));
	if (!other || other == entry) {
		word_unlock(word, entry);
		return 0;
	}
	if (atomic_load(&v->mmu->root) != v->root) {
		word_unlock(word, other);
		return -ESTALE;
	}
	if (entry_take_leaf(other))
		count_removed(v->mmu, level, 1);
	word_unlock(word, entry);
	count_own(&v->displaced, 1);
	return 0;
}

void rmap_remove(rmap_t *word, const entry_t *entry)
{
	uint64_t value = (uint64_t)(uintptr_t)entry;

	if (atomic_compare_exchange_strong_explicit(
		    word, &value, 0, memory_order_acq_rel, memory_order_acquire) ||
		!(value & RMAP_LOCK))
		return;
	value = word_lock(word);
	word_unlock(word, named(value) == entry ? NULL : named(value));
}

rmap_t *rmap_word(const struct slot *slot, uint64_t frame, unsigned int level)
{
	return sparse_get(&slot->rmap[level], block_index(frame, level));
}

rmap_t *rmap_word_make(struct vcpu *v, struct slot *slot, uint64_t frame, unsigned int level)
{
	return sparse_make(&slot->rmap[level], block_index(frame, level), &v->mmu->mem, &v->cache);
}

void rmap_forget(
	struct mmu *mmu, uint64_t value, uint64_t frame, unsigned int level, const entry_t *entry)
{
	struct slot *slot =
		atomic_load_explicit(&mmu->handle[entry_slot(value)], memory_order_acquire);

	assert(slot);
	rmap_remove(rmap_word(slot, frame, level), entry);
	count_removed(mmu, level, 1);
}

void rmap_zap(struct mmu *mmu, rmap_t *word, unsigned int level)
{
	uint64_t value;

	if (atomic_load_explicit(word, memory_order_acquire) == 0)
		return;
	value = word_lock(word);
	if (named(value) && entry_take_leaf(named(value)))
		count_removed(mmu, level, 1);
	word_unlock(word, NULL);
}

uint64_t rmap_clear_bits(rmap_t *word, uint64_t bits)
{
	uint64_t value, cleared = 0;

	if (atomic_load_explicit(word, memory_order_acquire) == 0)
		return 0;
	value = word_lock(word);
	if (named(value))
		cleared = entry_clear_bits(named(value), bits);
	word_unlock(word, named(value));
	return cleared;
}

void rmap_zap_range(struct mmu *mmu, struct slot *slot, unsigned int level, struct gfn_range range)
{
	const struct sparse *words = &slot->rmap[level];
	uint64_t end = block_index(range_end(range) - 1, level) + 1;
	uint64_t i = sparse_next(words, block_index(range.start.v, level), end);

	for (; i < end; i = sparse_next(words, i + 1, end))
		rmap_zap(mmu, sparse_get(words, i), level);
}

uint64_t rmap_clear_range(
	struct slot *slot, unsigned int level, struct gfn_range range, uint64_t bits)
{
	const struct sparse *words = &slot->rmap[level];
	uint64_t pages = mmu_level_pages(level), found = 0;
	uint64_t end = block_index(range_end(range) - 1, level) + 1;
	uint64_t i = sparse_next(words, block_index(range.start.v, level), end);

	for (; i < end; i = sparse_next(words, i + 1, end)) {
		uint64_t from = i * pages, to = from + pages;

		if (!rmap_clear_bits(sparse_get(words, i), bits))
			continue;
		from = from < range.start.v ? range.start.v : from;
		found += (to > range_end(range) ? range_end(range) : to) - from;
	}
	return found;
}
