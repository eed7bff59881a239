/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memslots.
 *
 * The live slots are an array by address that faults search without a lock.  A change builds
 * a new array beside it and publishes it with the gate closed and the sequence raised, so a
 * fault that looked into the old one starts again.
 *
 *	add	nothing => live
 *	delete	live => dead, with an invalidation over its range in the same step; its part
 *		of the current tables is cut off and flushed, the invalidation ends, the
 *		reclaimer gets the slot.  Its rmap is remove-only from the first step on, and
 *		emptied beside concurrent removals of the same entries by others.
 *	move	as delete, with a new slot, whose rmap is empty, live in the same step
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "mmu/gate.h"

unsigned int slot_position(const struct slot_table *table, uint64_t from)
{
	unsigned int low = 0, high = table->count;

	while (low < high) {
		unsigned int mid = (low + high) / 2;

		if (table->view[mid].end <= from)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

const struct slot_view *slot_find(
	const struct slot_table *table, uint64_t frame, unsigned int *hint)
{
	unsigned int i = *hint;

	if (i >= table->count || frame < table->view[i].start || frame >= table->view[i].end) {
		i = slot_position(table, frame);
		if (i == table->count || frame < table->view[i].start)
			return NULL;
		*hint = i;
	}
	return &table->view[i];
}

static struct slot_table *current_table(struct mmu *mmu)
{
	return atomic_load_explicit(&mmu->slots, memory_order_acquire);
}

struct slot *slot_next(struct mmu *mmu, uint64_t from, uint64_t end, bool *ret_aliased)
{
	const struct slot_view *view = NULL;
	struct slot *slot = NULL;
	const struct slot_table *table;
	unsigned int i;

	pthread_mutex_lock(&mmu->lock);
	table = current_table(mmu);
	i = slot_position(table, from);
	if (i < table->count && table->view[i].start < end) {
		view = &table->view[i];
		slot = view->slot;
		slot->refs++;
		if (ret_aliased)
			*ret_aliased = view->aliased;
	}
	pthread_mutex_unlock(&mmu->lock);
	return slot;
}

static const struct slot_view *find_id(const struct slot_table *table, unsigned int id)
{
	for (unsigned int i = 0; i < table->count; i++) {
		if (table->view[i].slot->id == id)
			return &table->view[i];
	}
	return NULL;
}

struct slot *slot_get(struct mmu *mmu, unsigned int id)
{
	const struct slot_view *view;
	struct slot *slot = NULL;

	pthread_mutex_lock(&mmu->lock);
	view = find_id(current_table(mmu), id);
	if (view) {
		slot = view->slot;
		slot->refs++;
	}
	pthread_mutex_unlock(&mmu->lock);
	return slot;
}

void slot_put(struct mmu *mmu, struct slot *slot)
{
	bool last;

	pthread_mutex_lock(&mmu->lock);
	assert(slot->refs > 0);
	last = --slot->refs == 0 && slot->dead;
	pthread_mutex_unlock(&mmu->lock);
	if (last)
		reclaim_kick(mmu);
}

struct gfn_range slot_clip(const struct slot *slot, struct gfn_range range)
{
	uint64_t start = range.start.v, end = range_end(range);

	start = start > slot->range.start.v ? start : slot->range.start.v;
	end = end < range_end(slot->range) ? end : range_end(slot->range);
	return (struct gfn_range){gfn(start), end > start ? end - start : 0};
}

bool slot_alias(const struct slot *slot, struct gfn_range range, const struct slot *other,
	struct gfn_range *ret)
{
	uint64_t host = ((uint64_t)(uintptr_t)slot->host >> PAGE_SHIFT) +
			(range.start.v - slot->range.start.v);
	uint64_t base = (uint64_t)(uintptr_t)other->host >> PAGE_SHIFT;
	uint64_t start = host > base ? host : base, end = host + range.count;

	if (end > base + other->range.count)
		end = base + other->range.count;
	if (other == slot || start >= end)
		return false;
	*ret = (struct gfn_range){gfn(other->range.start.v + (start - base)), end - start};
	return true;
}

/* Calls @fn for the aliases of @range of @slot. */
static void each_alias(
	struct mmu *mmu, struct slot *slot, struct gfn_range range, slot_fn fn, void *arg)
{
	struct gfn_range part;
	struct slot *other;
	uint64_t from = 0;

	while ((other = slot_next(mmu, from, GFN_END, NULL)) != NULL) {
		if (slot_alias(slot, range, other, &part))
			fn(mmu, other, part, arg);
		from = range_end(other->range);
		slot_put(mmu, other);
	}
}

void slot_each(struct mmu *mmu, struct gfn_range range, slot_fn fn, void *arg)
{
	uint64_t from = range.start.v;
	struct slot *slot;
	bool aliased;

	while (from < range_end(range) &&
		(slot = slot_next(mmu, from, range_end(range), &aliased)) != NULL) {
		struct gfn_range part = slot_clip(slot, range);

		fn(mmu, slot, part, arg);
		if (aliased)
			each_alias(mmu, slot, part, fn, arg);
		from = range_end(slot->range);
		slot_put(mmu, slot);
	}
}

void slot_free(struct mmu *mmu, struct slot *slot)
{
	for (unsigned int level = MMU_4K; level <= MMU_1G; level++) {
		sparse_free(&slot->rmap[level], &mmu->mem);
		sparse_free(&slot->large[level], &mmu->mem);
	}
	sparse_free(&slot->dirty, &mmu->mem);
	pthread_mutex_destroy(&slot->log_lock);
	mem_free(&mmu->mem, slot);
}

/* The largest leaf for which guest and host addresses are alike, and that could fit. */
static enum mmu_level level_by_alignment(struct gfn_range range, const uint8_t *host)
{
	enum mmu_level level = MMU_1G;
	uint64_t differ = (uint64_t)(uintptr_t)host ^ gfn_to_gpa(range.start).v;

	while (level > MMU_4K && ((differ & ((mmu_level_pages(level) << PAGE_SHIFT) - 1)) != 0 ||
					 range.count < mmu_level_pages(level)))
		level--;
	return level;
}

static int init_arrays(struct mem *mem, struct slot *slot)
{
	uint64_t first = slot->range.start.v, last = range_end(slot->range) - 1;
	int ret = sparse_init(&slot->dirty, mem, first / 64, last / 64 + 1, PAGE_DIRTY);

	for (unsigned int level = MMU_4K; ret == 0 && level <= MMU_1G; level++) {
		uint64_t from = block_index(first, level), end = block_index(last, level) + 1;

		ret = sparse_init(&slot->rmap[level], mem, from, end, PAGE_RMAP);
		if (ret == 0 && level > MMU_4K)
			ret = sparse_init(&slot->large[level], mem, from, end, PAGE_LARGE);
	}
	return ret;
}

/* A new slot that nobody knows yet, without a handle.  NULL when memory is short. */
static struct slot *slot_make(
	struct mmu *mmu, unsigned int id, struct gfn_range range, uint8_t *host)
{
	struct slot *slot = mem_zalloc(&mmu->mem, sizeof(*slot));

	if (!slot)
		return NULL;
	slot->id = id;
	slot->range = range;
	slot->host = host;
	slot->max_level = level_by_alignment(range, host);
	pthread_mutex_init(&slot->log_lock, NULL);
	if (init_arrays(&mmu->mem, slot) < 0) {
		slot_free(mmu, slot);
		return NULL;
	}
	return slot;
}

static void mark_aliases(struct slot_table *table)
{
	struct gfn_range other;

	for (unsigned int i = 0; i < table->count; i++) {
		struct slot *slot = table->view[i].slot;

		table->view[i].aliased = false;
		for (unsigned int j = 0; j < table->count; j++)
			table->view[i].aliased |=
				slot_alias(slot, slot->range, table->view[j].slot, &other);
	}
}

/* The slots of @old without @out and with @in; either may be NULL.  NULL: memory is short. */
static struct slot_table *table_make(
	struct mmu *mmu, const struct slot_table *old, const struct slot *out, struct slot *in)
{
	unsigned int most = old->count + 1;
	struct slot_table *table =
		mem_zalloc(&mmu->mem, sizeof(*table) + most * sizeof(table->view[0]));
	struct slot_view view = {.slot = in};

	if (!table)
		return NULL;
	if (in) {
		view.start = in->range.start.v;
		view.end = range_end(in->range);
	}
	for (unsigned int i = 0; i < old->count; i++) {
		if (old->view[i].slot == out)
			continue;
		if (view.slot && view.start < old->view[i].start) {
			table->view[table->count++] = view;
			view.slot = NULL;
		}
		table->view[table->count++] = old->view[i];
	}
	if (view.slot)
		table->view[table->count++] = view;
	mark_aliases(table);
	return table;
}

static bool overlaps_other(
	const struct slot_table *table, struct gfn_range range, const struct slot *except)
{
	for (unsigned int i = 0; i < table->count; i++) {
		if (table->view[i].slot != except &&
			frames_overlap(range.start.v, range_end(range), table->view[i].start,
				table->view[i].end))
			return true;
	}
	return false;
}

/* slots_lock is held, so there is a handle left: see reclaim_throttle_slots(). */
static void take_handle(struct mmu *mmu, struct slot *slot)
{
	unsigned int handle = mmu->handle_hint % SLOT_HANDLES;

	for (unsigned int i = 0; atomic_load(&mmu->handle[handle]); i++) {
		assert(i < SLOT_HANDLES);
		handle = (handle + 1) % SLOT_HANDLES;
	}
	slot->handle = handle;
	atomic_store(&mmu->handle[handle], slot);
	mmu->handle_hint = handle + 1;
}

/*
 * The flip of all three changes.  @out, if any, is dead from here on, and @inv is in progress
 * over its range.
 */
static void publish(
	struct mmu *mmu, struct slot_table *table, struct slot *out, struct mmu_invalidation *inv)
{
	pthread_mutex_lock(&mmu->lock);
	gate_close(mmu);
	atomic_store_explicit(&mmu->slots, table, memory_order_release);
	if (out) {
		out->dead = true;
		invalidate_open_locked(mmu, inv, out->range);
	} else {
		atomic_fetch_add(&mmu->sequence, 1);
	}
	gate_open(mmu);
	pthread_mutex_unlock(&mmu->lock);
}

/* After the flip: nothing reaches @out any more when this returns. */
static void retire(
	struct mmu *mmu, struct slot *out, struct slot_table *old, struct mmu_invalidation *inv)
{
	zap_slot_range(mmu, out, out->range);
	flush_range(mmu, out->range);
	invalidate_close(mmu, inv);
	reclaim_slot(mmu, out, old);
}

static int check_new(const struct slot_table *table, unsigned int id, struct gfn_range range,
	const struct slot *moving)
{
	if (range.start.v >= GFN_END || range.count > GFN_END - range.start.v)
		return -ERANGE;
	if (!moving && table->count == MMU_SLOTS)
		return -ENOSPC;
	if ((!moving && find_id(table, id)) || overlaps_other(table, range, moving))
		return -EEXIST;
	return 0;
}

/* Makes @in and the table that has it in the place of @out.  slots_lock is held. */
static int prepare(struct mmu *mmu, unsigned int id, struct gfn_range range, uint8_t *host,
	struct slot *out, struct slot **ret_in, struct slot_table **ret_table)
{
	const struct slot_table *old = current_table(mmu);
	int ret = check_new(old, id, range, out);
	struct slot_table *table;
	struct slot *in;

	if (ret < 0)
		return ret;
	reclaim_throttle_slots(mmu);
	in = slot_make(mmu, id, range, host);
	if (!in)
		return -ENOMEM;
	table = table_make(mmu, old, out, in);
	if (!table) {
		slot_free(mmu, in);
		return -ENOMEM;
	}
	take_handle(mmu, in);
	*ret_in = in;
	*ret_table = table;
	return 0;
}

int mmu_slot_add(struct mmu *mmu, unsigned int id, struct gfn_range range, uint8_t *host)
{
	uint64_t bits = (uint64_t)(uintptr_t)host;
	struct slot_table *old, *table;
	struct slot *in;
	int ret;

	if (id >= MMU_SLOT_END || range.count == 0 || bits == 0 || (bits & ~ENTRY_FRAME) != 0)
		return -EINVAL;
	pthread_mutex_lock(&mmu->slots_lock);
	old = current_table(mmu);
	ret = prepare(mmu, id, range, host, NULL, &in, &table);
	if (ret == 0) {
		publish(mmu, table, NULL, NULL);
		reclaim_slot(mmu, NULL, old);
	}
	pthread_mutex_unlock(&mmu->slots_lock);
	return ret;
}

int mmu_slot_delete(struct mmu *mmu, unsigned int id)
{
	struct slot_table *old, *table;
	const struct slot_view *view;
	struct mmu_invalidation inv;
	int ret = -ENOENT;

	pthread_mutex_lock(&mmu->slots_lock);
	old = current_table(mmu);
	view = find_id(old, id);
	if (view) {
		struct slot *out = view->slot;

		table = table_make(mmu, old, out, NULL);
		ret = table ? 0 : -ENOMEM;
		if (table) {
			publish(mmu, table, out, &inv);
			retire(mmu, out, old, &inv);
		}
	}
	pthread_mutex_unlock(&mmu->slots_lock);
	return ret;
}

int mmu_slot_move(struct mmu *mmu, unsigned int id, gfn_t start)
{
	struct slot_table *old, *table;
	const struct slot_view *view;
	struct mmu_invalidation inv;
	struct slot *in;
	int ret = -ENOENT;

	pthread_mutex_lock(&mmu->slots_lock);
	old = current_table(mmu);
	view = find_id(old, id);
	if (view) {
		struct slot *out = view->slot;
		struct gfn_range range = {start, out->range.count};

		ret = prepare(mmu, id, range, out->host, out, &in, &table);
		if (ret == 0) {
			publish(mmu, table, out, &inv);
			retire(mmu, out, old, &inv);
		}
	}
	pthread_mutex_unlock(&mmu->slots_lock);
	return ret;
}
