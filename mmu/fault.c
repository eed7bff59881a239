/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Faults: what a vCPU does when neither its TLB nor the tables have an answer.
 *
 * First, with nothing held: take pages for the worst case, note the invalidation sequence,
 * look up the slot and ask the owner.  All of that may fail.  Then, in the fault gate:
 * check that the sequence has not moved and that no invalidation covers the page, and
 * install under the current root.  As whoever removes a slot or begins an invalidation
 * closes the gate to do so, nothing is ever installed for a dead slot or against an
 * invalidation.
 *
 * A zap of everything does not close the gate, so that it need not wait for a fault whose
 * thread has lost its CPU.  The fault installs, then looks whether its root is still the
 * current one; the zap takes the root away before it returns.  So either the zap comes
 * after the fault, or the fault sees it, takes its entry out again and starts over: no
 * fault ends with an entry installed under an obsolete root.
 *
 * A leaf is named in the rmap before it is present, and marked in the dirty log after: the
 * log is cleared first and write-protected through the rmap second, so a writable leaf
 * that the protection missed has its mark coming.
 */
#include <assert.h>
#include <errno.h>

#include "mmu/gate.h"
#include "mmu/rmap.h"

#define FAULT_TRIES 8 /* before the vCPU is sent past a checkpoint */
#define FAULT_AGAIN 1

struct fault {
	uint64_t frame;
	bool write;
	uint64_t sequence;
	const struct slot_table *table;
	const struct slot_view *view;
	struct mmu_resolution res;
	uint64_t value; /* the leaf, in the end */
	unsigned int level;
};

static bool usable(uint64_t value, bool write)
{
	return entry_is_leaf(value) && (!write || (value & ENTRY_WRITE));
}

/* Checks the owner's answer.  An unsound pointer would become someone's table. */
static int check_resolution(const struct fault *f)
{
	uint64_t host = (uint64_t)(uintptr_t)f->res.host;

	if (host == 0 || (host & ~ENTRY_FRAME) != 0)
		return -EPROTO;
	return f->write && !f->res.writable ? -EACCES : 0;
}

static int fault_prepare(struct vcpu *v, struct fault *f)
{
	struct mmu *mmu = v->mmu;
	int ret;

	if (v->cache.count < CACHE_NEED) {
		ret = mem_cache_fill(&mmu->mem, &v->cache, CACHE_FULL);
		if (ret < 0)
			return ret;
	}
	f->sequence = atomic_load_explicit(&mmu->sequence, memory_order_acquire);
	f->table = atomic_load_explicit(&mmu->slots, memory_order_acquire);
	f->view = slot_find(f->table, f->frame, &v->slot_hint);
	if (!f->view)
		return -ENOENT;
	ret = mmu->ops.resolve(mmu->ctx, gfn(f->frame), f->write, &f->res);
	return ret < 0 ? ret : check_resolution(f);
}

/* The largest leaf that everybody allows around the page.  In the gate. */
static unsigned int choose_level(const struct mmu *mmu, const struct fault *f)
{
	const struct slot *slot = f->view->slot;
	uint64_t host = (uint64_t)(uintptr_t)f->res.host;
	unsigned int level =
		f->res.max_level < slot->max_level ? f->res.max_level : slot->max_level;

	if (atomic_load_explicit(&slot->logging, memory_order_relaxed))
		return MMU_4K;
	for (; level > MMU_4K; level--) {
		uint64_t inside = (mmu_level_pages(level) - 1) << PAGE_SHIFT;
		struct gfn_range block = block_around(f->frame, level);

		if (((host ^ (f->frame << PAGE_SHIFT)) & inside) == 0 &&
			large_allowed(slot, f->frame, level) &&
			!(mmu->active && invalidate_covers(mmu, f->table, f->view, block)))
			return level;
	}
	return MMU_4K;
}

static void make_root(struct vcpu *v)
{
	struct mmu *mmu = v->mmu;

	pthread_mutex_lock(&mmu->flush_lock);
	if (!atomic_load(&mmu->root)) {
		struct mmu_page *page = mem_cache_pop(&mmu->mem, &v->cache, PAGE_TABLE);

		table_init(page, NULL, 0, TABLE_LEVELS, atomic_load(&mmu->generation));
		atomic_store(&mmu->root, page);
	}
	pthread_mutex_unlock(&mmu->flush_lock);
}

/* Takes up the current root, made if there is none.  NULL: zapped once more meanwhile. */
static struct mmu_page *current_root(struct vcpu *v)
{
	struct mmu_page *root = atomic_load(&v->mmu->root);

	if (!root) {
		make_root(v);
		root = atomic_load(&v->mmu->root);
	}
	if (root && root->generation != v->generation) {
		v->generation = root->generation;
		tlb_drop_all(v);
	}
	v->root = root;
	return root;
}

static bool root_is_obsolete(const struct vcpu *v)
{
	return atomic_load(&v->mmu->root) != v->root;
}

static void link_table(struct vcpu *v, struct mmu_page *parent, entry_t *entry, uint64_t frame)
{
	struct mmu_page *page = mem_cache_pop(&v->mmu->mem, &v->cache, PAGE_TABLE);
	uint64_t none = 0;

	table_init(page, parent, frame, parent->level - 1, parent->generation);
	if (!atomic_compare_exchange_strong_explicit(
		    entry, &none, table_entry(page), memory_order_acq_rel, memory_order_acquire))
		mem_cache_push(&v->mmu->mem, &v->cache, page);
}

static void log_dirty(struct vcpu *v, struct slot *slot, uint64_t frame)
{
	_Atomic uint64_t *word = sparse_make(&slot->dirty, frame / 64, &v->mmu->mem, &v->cache);

	atomic_fetch_or_explicit(word, (uint64_t)1 << (frame % 64), memory_order_acq_rel);
}

static uint64_t leaf_value(const struct fault *f, unsigned int level, bool logging)
{
	uint64_t inside = f->frame & (mmu_level_pages(level) - 1);
	uint64_t value = (uint64_t)(uintptr_t)f->res.host - (inside << PAGE_SHIFT);

	value |= ENTRY_PRESENT | ENTRY_LEAF | ENTRY_ACCESSED;
	value |= (uint64_t)f->view->slot->handle << ENTRY_SLOT_SHIFT;
	if (f->res.shared)
		value |= ENTRY_SHARED;
	if (f->write)
		value |= ENTRY_DIRTY;
	if (f->res.writable && (f->write || !logging))
		value |= ENTRY_WRITE;
	return value;
}

/*
 * entry: nothing, or a leaf with fewer rights => the leaf.  False if it changed meanwhile, or
 * the root is obsolete: the entry is then empty.
 */
static bool put_leaf(
	struct vcpu *v, struct fault *f, entry_t *entry, uint64_t old, unsigned int level)
{
	struct slot *slot = f->view->slot;
	bool logging = atomic_load_explicit(&slot->logging, memory_order_relaxed);
	uint64_t value = leaf_value(f, level, logging) | (old & ENTRY_DIRTY);
	rmap_t *word = NULL;

	if (!old) {
		word = rmap_word_make(v, slot, f->frame, level);
		if (rmap_add(v, word, entry, level) < 0)
			return false;
	}
	if (!atomic_compare_exchange_strong(entry, &old, value)) {
		if (word && !entry_is_leaf(old))
			rmap_remove(word, entry);
		return false;
	}
	if (word)
		count_own(&v->installed[level], 1);
	if (root_is_obsolete(v)) {
		value = entry_take_leaf(entry);
		if (value)
			rmap_forget(v->mmu, value, f->frame, level, entry);
		return false;
	}
	if (logging && (value & ENTRY_WRITE))
		log_dirty(v, slot, f->frame);
	f->value = value;
	f->level = level;
	return true;
}

/*
 * Makes a leaf of at most @level for the fault, under the current root.  In the gate.
 * 0, or FAULT_AGAIN if that root has become obsolete.
 */
static int install(struct vcpu *v, struct fault *f, unsigned int level)
{
	struct mmu_page *table = current_root(v);

	while (table && !root_is_obsolete(v)) {
		entry_t *entry = &page_words(table)[table_index(f->frame, table->level)];
		uint64_t old = atomic_load_explicit(entry, memory_order_acquire);

		if (entry_is_table(old)) {
			table = page_of(entry_table(old));
		} else if (usable(old, f->write)) {
			f->value = old;
			f->level = table->level;
			return 0;
		} else if (table->level <= level) {
			if (put_leaf(v, f, entry, old, table->level))
				return 0;
		} else if (entry_is_leaf(old)) {
			large_split(v, f->view->slot, f->frame, entry, old);
		} else {
			link_table(v, table, entry, f->frame);
		}
	}
	return FAULT_AGAIN;
}

/* Rechecks and installs.  In the gate.  0, FAULT_AGAIN, or -EAGAIN. */
static int fault_commit(struct vcpu *v, struct fault *f)
{
	struct mmu *mmu = v->mmu;
	struct gfn_range page = {gfn(f->frame), 1};

	if (atomic_load_explicit(&mmu->sequence, memory_order_relaxed) != f->sequence)
		return FAULT_AGAIN;
	if (mmu->active && invalidate_covers(mmu, f->table, f->view, page))
		return -EAGAIN;
	return install(v, f, choose_level(mmu, f));
}

static int fault(struct vcpu *v, struct fault *f)
{
	int ret = fault_prepare(v, f);

	if (ret < 0)
		return ret;
	gate_enter(v);
	ret = fault_commit(v, f);
	gate_leave(v);
	if (ret == 0)
		count_own(&v->faults, 1);
	else if (ret == FAULT_AGAIN)
		count_own(&v->retries, 1);
	return ret;
}

/* Looks into the tables.  On a hit the entry is marked accessed and, for a write, dirty. */
static bool walk_hit(struct vcpu *v, struct fault *f)
{
	uint64_t marks = ENTRY_ACCESSED | (f->write ? ENTRY_DIRTY : 0);
	entry_t *entry = NULL;
	uint64_t value = table_walk(v->root, f->frame, &entry, &f->level);

	while (usable(value, f->write)) {
		if ((value & marks) == marks ||
			atomic_compare_exchange_weak_explicit(entry, &value, value | marks,
				memory_order_acq_rel, memory_order_acquire)) {
			f->value = value | marks;
			return true;
		}
	}
	return false;
}

uint8_t *mmu_vcpu_translate_miss(struct mmu_vcpu *pub, gpa_t at, bool write, uint64_t *ret_len)
{
	struct vcpu *v = vcpu_of(pub);
	struct fault f = {.frame = at.v >> PAGE_SHIFT, .write = write};
	int ret = at.v < GPA_END ? FAULT_AGAIN : -ENOENT;

	assert(atomic_load_explicit(&v->acked, memory_order_relaxed) != ACK_OUTSIDE);
	count_own(&v->misses, 1);
	for (unsigned int i = 0; ret == FAULT_AGAIN && i < FAULT_TRIES; i++)
		ret = walk_hit(v, &f) ? 0 : fault(v, &f);
	if (ret != 0) {
		v->error = ret == FAULT_AGAIN ? -EAGAIN : ret;
		v->failed = gfn(f.frame);
		return NULL;
	}
	tlb_fill(v, f.frame, f.value, f.level);
	*ret_len = PAGE_SIZE - (at.v & PAGE_MASK);
	return entry_host(f.value, f.level, f.frame) + (at.v & PAGE_MASK);
}
