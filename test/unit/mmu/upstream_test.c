/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One test for each bug that such code had upstream, and that could be here as well, and for
 * each problem that the fast-zap series set out to solve.
 */
#include "test/unit/mmu/guest.h"
#include "mmu/rmap.h"

#include <errno.h>
#include <sched.h>

/* ---- zapping ---- */

/* A device kept memory that a slot-only zap had left mapped. */
static void slot_only_zap_leaves_nothing_of_the_slot(void **state)
{
	struct owner *o = *state;
	uint8_t *a = owner_memory(SIZE_1G, 0), *b = owner_memory(SIZE_1G, 0);

	o->max_level = MMU_1G;
	owner_slot(o, 0, 0, BLOCK_1G, a);
	owner_slot(o, 1, BLOCK_1G, 700, a);
	assert_non_null(owner_touch(o, 12345, true));
	for (uint64_t i = 0; i < 700; i++)
		assert_non_null(owner_touch(o, BLOCK_1G + i, true));
	assert_int_equal(mmu_slot_delete(o->mmu, 0), 0);
	assert_int_equal(mmu_slot_delete(o->mmu, 1), 0);
	for (uint64_t i = 0; i < BLOCK_1G + 700; i += 13)
		assert_int_equal(owner_level(o, i), 0);
	owner_slot(o, 0, 0, BLOCK_1G, b);
	owner_slot(o, 1, BLOCK_1G, 700, b);
	assert_ptr_equal(owner_touch(o, 12345, true), b + 12345 * PAGE_SIZE);
	assert_ptr_equal(owner_touch(o, BLOCK_1G + 699, true), b + 699 * PAGE_SIZE);
}

/* Builds a tree and takes it out of the MMU, as mmu_zap_all() does, for the test to reclaim. */
static struct mmu_page *steal_tree(struct owner *o)
{
	struct mmu_page *root;

	pthread_mutex_lock(&o->mmu->flush_lock);
	root = atomic_exchange(&o->mmu->root, NULL);
	atomic_fetch_add(&o->mmu->generation, 1);
	flush_post_locked(o->mmu, frames(0, GFN_END));
	pthread_mutex_unlock(&o->mmu->flush_lock);
	return root;
}

/* Yielding, then starting over at the tail, a zap never caught up with new mappings. */
static void yielding_zap_all_ends_while_others_fault_and_zap(void **state)
{
	struct owner *o = *state;
	struct mmu_page *root, *at;
	unsigned int steps = 0, bound;

	owner_slot(o, 0, 0, 4000, owner_memory(SIZE_1G, 0));
	for (uint64_t i = 0; i < 4000; i++)
		assert_non_null(owner_touch(o, i, true));
	bound = ((unsigned int)owner_stats(o).table_pages * (TABLE_ENTRIES + 1)) / 16 + 1;
	root = at = steal_tree(o);
	while (!reclaim_tree_step(o->mmu, root, &at, 16)) {
		assert_non_null(owner_touch(o, steps % 4000, true));
		if (steps % 3 == 0)
			mmu_zap_all(o->mmu);
		assert_in_range(++steps, 1, bound);
	}
}

static void zap_in_the_middle(struct owner *o, gfn_t at)
{
	o->hook = NULL;
	mmu_zap_all(o->mmu);
}

/* A fault that began before a zap installed under the old root after it. */
static void nothing_is_installed_under_a_stale_root(void **state)
{
	struct owner *o = *state;
	const struct mmu_page *old, *root;
	unsigned int level;
	entry_t *entry;

	owner_slot(o, 0, 0, 1000, owner_memory(SIZE_1G, 0));
	mmu_vcpu_enter(o->vcpu); /* an online reader: the old tree cannot go yet */
	for (uint64_t i = 0; i < 5; i++) {
		uint64_t len;

		if (i == 3)
			o->hook = zap_in_the_middle;
		old = atomic_load(&o->mmu->root);
		assert_non_null(mmu_vcpu_translate(o->vcpu, gpa(i << PAGE_SHIFT), true, &len));
		if (i == 3) {
			root = atomic_load(&o->mmu->root);
			assert_ptr_not_equal(root, old);
			assert_int_equal(root->generation, 2);
			assert_int_equal(table_walk(old, 3, &entry, &level), 0);
			assert_true(table_walk(root, 3, &entry, &level) != 0);
		}
	}
	mmu_vcpu_leave(o->vcpu);
}

static void zap_constantly(void *arg)
{
	struct owner *o = arg;

	while (!atomic_load((_Atomic bool *)o->data))
		mmu_zap_all(o->mmu);
}

/* The same without a fixed place: zaps hit a fault anywhere.  Nothing stays behind. */
static void faults_overtaken_by_zaps_take_their_entries_back(void **state)
{
	struct owner *o = *state;
	_Atomic bool done = false;
	struct caller zapper;
	uint8_t *host = owner_memory(SIZE_1G, 0);

	o->data = &done;
	o->max_level = MMU_2M;
	owner_slot(o, 0, 0, 8 * 512, host);
	caller_start(&zapper, zap_constantly, o);
	for (uint64_t i = 0; i < 20000; i++) {
		uint64_t at = i * 77 % (8 * 512);
		uint8_t *found = owner_touch(o, at, true);

		o->max_level = i % 3 ? MMU_2M : MMU_4K;
		if (found)
			assert_ptr_equal(found, host + at * PAGE_SIZE);
		else
			assert_int_equal(mmu_vcpu_error(o->vcpu), -EAGAIN);
	}
	atomic_store(&done, true);
	caller_join(&zapper);
	mmu_zap_all(o->mmu);
	mmu_reclaim_wait(o->mmu);
	assert_int_equal(owner_stats(o).mapped[MMU_4K] + owner_stats(o).mapped[MMU_2M], 0);
	assert_int_equal(owner_stats(o).table_pages, 0);
	for (uint64_t i = 0; i < 8 * 512; i++) {
		struct slot *slot = slot_get(o->mmu, 0);
		rmap_t *word = rmap_word(slot, i, MMU_4K);

		assert_int_equal(word ? atomic_load(word) : 0, 0);
		slot_put(o->mmu, slot);
	}
}

static void set_sequence(struct owner *o, uint64_t value)
{
	atomic_store(&o->mmu->sequence, value);
}

static void far_away(struct owner *o, gfn_t at)
{
	o->hook = NULL;
	set_sequence(o, atomic_load(&o->mmu->sequence) + ((uint64_t)1 << 32));
	o->answer = o->slot[0].host + SIZE_2M;
}

/* The snapshot of the sequence was kept in an int. */
static void the_sequence_has_64_bits(void **state)
{
	static const uint64_t values[] = {INT32_MAX, (uint64_t)INT32_MAX + 1, UINT32_MAX,
		(uint64_t)UINT32_MAX + 1, INT64_MAX, UINT64_MAX - 1};
	struct owner *o = *state;
	struct mmu_invalidation inv;

	owner_slot(o, 0, 0, 100, owner_memory(SIZE_1G, 0));
	for (uint64_t i = 0; i < 6; i++) {
		set_sequence(o, values[i]);
		assert_non_null(owner_touch(o, i, true));
		mmu_invalidate_begin(o->mmu, &inv, frames(i, 1));
		assert_null(owner_touch(o, i, true));
		assert_non_null(owner_touch(o, 10 + i, true));
		mmu_invalidate_end(o->mmu, &inv);
		assert_non_null(owner_touch(o, i, true));
	}
	assert_int_equal(owner_stats(o).retries, 0);
	/* Exactly 2^32 later is later: the answer from before must not be used. */
	set_sequence(o, 0);
	o->hook = far_away;
	assert_ptr_equal(owner_touch(o, 50, true), o->slot[0].host + SIZE_2M);
	assert_int_equal(owner_stats(o).retries, 1);
}

/* Roots that were obsolete stayed until the VM ended. */
static void an_obsolete_root_goes_once_the_last_vcpu_reloads(void **state)
{
	struct owner *o = *state;
	struct guest g;

	owner_slot(o, 0, 0, 1000, owner_memory(SIZE_1G, 0));
	guest_start(&g, o->mmu);
	guest_do(&g, GUEST_ENTER);
	assert_non_null(guest_touch(&g, 5, true));
	for (unsigned int i = 0; i < 10; i++) {
		mmu_zap_all(o->mmu);
		/* Not yet: it may be walking in there. */
		assert_true(owner_stats(o).table_pages >= 4);
		assert_true(owner_stats(o).trees_waiting >= 1);
		while (owner_stats(o).trees_waiting > 0)
			guest_do(&g, GUEST_CHECKPOINT);
		assert_int_equal(owner_stats(o).table_pages, 0);
		assert_non_null(guest_touch(&g, 5, true));
	}
	guest_do(&g, GUEST_LEAVE);
	guest_stop(&g);
}

static void delete_slot_0(void *arg)
{
	mmu_slot_delete(((struct owner *)arg)->mmu, 0);
}

static void slot_goes_meanwhile(struct owner *o, gfn_t at)
{
	const struct slot_table *before = atomic_load(&o->mmu->slots);

	o->hook = NULL;
	caller_start(o->data, delete_slot_0, o);
	while (atomic_load(&o->mmu->slots) == before)
		sched_yield();
}

/*
 * A pre-fault against the removal of its slot was retried for ever; a fault against it
 * (PPC: the sequence was not raised) installed a page of a slot that was gone.
 */
static void a_fault_against_slot_removal_ends_and_installs_nothing(void **state)
{
	struct owner *o = *state;
	struct caller c;
	uint64_t len;

	owner_slot(o, 0, 0, 1000, owner_memory(SIZE_1G, 0));
	o->data = &c;
	o->hook = slot_goes_meanwhile;
	mmu_vcpu_enter(o->vcpu);
	assert_null(mmu_vcpu_translate(o->vcpu, gpa(0x5000), true, &len));
	assert_int_equal(mmu_vcpu_error(o->vcpu), -ENOENT);
	mmu_vcpu_leave(o->vcpu);
	caller_join(&c);
	assert_int_equal(o->calls, 1);
	assert_int_equal(owner_stats(o).mapped[MMU_4K], 0);
}

/* The new top table was linked at the wrong index (s390). */
static void a_new_root_translates_the_whole_address_space(void **state)
{
	struct owner *o = *state;
	uint8_t *host = owner_memory(SIZE_1G, 0);
	uint64_t step = GFN_END / 8;

	for (unsigned int i = 0; i < OWNER_SLOTS; i++)
		owner_slot(o, i, i * step + 99, 1, host + i * PAGE_SIZE);
	for (unsigned int round = 0; round < 3; round++) {
		for (unsigned int i = OWNER_SLOTS; i-- > 0;)
			assert_ptr_equal(owner_touch(o, i * step + 99, true), host + i * PAGE_SIZE);
		mmu_zap_all(o->mmu);
	}
}

/* ---- private memory ---- */

static uint8_t attribute[4 * 512];

static bool all_alike(struct owner *o, struct gfn_range range)
{
	for (uint64_t i = range.start.v + 1; i < range_end(range); i++) {
		if (attribute[i] != attribute[range.start.v])
			return false;
	}
	return true;
}

static void set_attribute(struct owner *o, uint64_t from, uint64_t end, uint8_t value)
{
	struct mmu_invalidation inv;

	mmu_invalidate_begin(o->mmu, &inv, frames(from, end - from));
	for (uint64_t i = from; i < end; i++)
		attribute[i] = value;
	mmu_large_update(o->mmu, frames(from, end - from));
	mmu_invalidate_end(o->mmu, &inv);
}

/* Whether a block was mixed was off by one page at the end of a range. */
static void the_last_page_of_a_block_counts(void **state)
{
	static const uint64_t ends[] = {
		1, 2, 510, 511, 512, 513, 514, 1023, 1024, 1025, 2046, 2047};
	struct owner *o = *state;
	struct slot *slot;

	o->uniform = all_alike;
	set_attribute(o, 0, 4 * 512, 0);
	owner_slot(o, 0, 0, 4 * 512, owner_memory(SIZE_1G, 0));
	slot = slot_get(o->mmu, 0);
	for (unsigned int i = 0; i < 12; i++) {
		set_attribute(o, 0, ends[i], 1);
		for (uint64_t at = 0; at < 4 * 512; at += 512)
			assert_int_equal(
				large_allowed(slot, at, MMU_2M), all_alike(o, frames(at, 512)));
		set_attribute(o, 0, ends[i], 0);
		set_attribute(o, ends[i], 4 * 512, 1);
		for (uint64_t at = 0; at < 4 * 512; at += 512)
			assert_int_equal(
				large_allowed(slot, at, MMU_2M), all_alike(o, frames(at, 512)));
		set_attribute(o, 0, 4 * 512, 0);
	}
	slot_put(o->mmu, slot);
}

/* A large page came in beside an attribute change of a page inside it. */
static void no_large_leaf_during_an_attribute_change(void **state)
{
	struct owner *o = *state;
	struct mmu_invalidation inv;

	o->max_level = MMU_2M;
	owner_slot(o, 0, 0, 4 * 512, owner_memory(SIZE_1G, 0));
	mmu_invalidate_begin(o->mmu, &inv, frames(512 + 7, 1));
	for (uint64_t at = 0; at < 4 * 512; at += 512) {
		assert_non_null(owner_touch(o, at, true));
		assert_int_equal(owner_level(o, at), at == 512 ? MMU_4K : MMU_2M);
	}
	mmu_invalidate_end(o->mmu, &inv);
}

/* A split said that all was well and left a page out (s390). */
static void a_split_leaves_no_page_out(void **state)
{
	struct owner *o = *state;
	uint8_t *host = owner_memory(SIZE_1G, 0);

	o->max_level = MMU_2M;
	owner_slot(o, 0, 512, 512, host);
	assert_non_null(owner_touch(o, 512, true));
	assert_int_equal(mmu_dirty_start(o->mmu, 0), 0);
	assert_non_null(owner_touch(o, 512 + 300, true));
	assert_int_equal(owner_stats(o).splits, 1);
	for (uint64_t i = 0; i < 512; i++) {
		struct slot *slot = slot_get(o->mmu, 0);
		struct mmu_mapping m;

		assert_int_equal(mmu_probe(o->mmu, gfn(512 + i), &m), 0);
		assert_ptr_equal(m.host, host + i * PAGE_SIZE);
		assert_true(atomic_load(rmap_word(slot, 512 + i, MMU_4K)) != 0);
		slot_put(o->mmu, slot);
	}
}

/* ---- the fast-zap series' own problems ---- */

/* "do not reuse rmap when memslot is moved" */
static void a_moved_slot_starts_with_an_empty_rmap(void **state)
{
	struct owner *o = *state;
	struct slot *before, *after;

	owner_slot(o, 0, 0, 100, owner_memory(SIZE_1G, 0));
	before = slot_get(o->mmu, 0);
	assert_non_null(owner_touch(o, 5, true));
	assert_int_equal(mmu_slot_move(o->mmu, 0, gfn(3)), 0);
	after = slot_get(o->mmu, 0);
	assert_ptr_not_equal(before, after);
	assert_null(rmap_word(after, 5, MMU_4K));
	slot_put(o->mmu, before);
	slot_put(o->mmu, after);
}

/* Problem 1: nothing is added to the rmap of an invalid slot. */
static void an_invalid_slots_rmap_is_remove_only(void **state)
{
	struct owner *o = *state;
	struct slot *slot;

	owner_slot(o, 0, 0, 1000, owner_memory(SIZE_1G, 0));
	for (uint64_t i = 0; i < 1000; i++)
		assert_non_null(owner_touch(o, i, true));
	mmu_zap_all(o->mmu); /* the obsolete tree's entries stay in the rmap for a while */
	slot = slot_get(o->mmu, 0);
	assert_int_equal(mmu_slot_delete(o->mmu, 0), 0);
	for (uint64_t i = 0; i < 1000; i++)
		assert_null(owner_touch(o, i, true));
	slot_put(o->mmu, slot);
	mmu_reclaim_wait(o->mmu);
	assert_int_equal(owner_stats(o).mapped[MMU_4K], 0);
	assert_int_equal(owner_stats(o).rmap_pages, 0);
}

struct race {
	struct owner *o;
	struct slot *slot;
	struct mmu_page *root;
};

static void remove_by_tree(void *arg)
{
	struct race *r = arg;
	struct mmu_page *at = r->root;

	while (!reclaim_tree_step(r->o->mmu, r->root, &at, 7))
		sched_yield();
}

static void remove_by_rmap(void *arg)
{
	struct race *r = arg;
	uint64_t at = 0;

	while (!reclaim_rmap_step(r->o->mmu, r->slot, MMU_4K, &at, 5))
		sched_yield();
}

static void remove_by_range(void *arg)
{
	struct race *r = arg;

	rmap_zap_range(r->o->mmu, r->slot, MMU_4K, frames(0, 2000));
}

/*
 * Problems 2 and 3: several remove the same entries at once, and one of them frees the tables
 * that they are in.  Each entry is taken exactly once, and no freed table is touched.
 */
static void concurrent_removers_of_the_same_entries(void **state)
{
	struct owner *o = *state;
	struct caller by_tree, by_rmap, by_range;

	owner_slot(o, 0, 0, 2000, owner_memory(SIZE_1G, 0));
	for (unsigned int round = 0; round < 20; round++) {
		struct race r = {.o = o, .slot = slot_get(o->mmu, 0)};

		for (uint64_t i = 0; i < 2000; i++)
			assert_non_null(owner_touch(o, i, true));
		r.root = steal_tree(o);
		caller_start(&by_tree, remove_by_tree, &r);
		caller_start(&by_rmap, remove_by_rmap, &r);
		caller_start(&by_range, remove_by_range, &r);
		caller_join(&by_tree);
		caller_join(&by_rmap);
		caller_join(&by_range);
		slot_put(o->mmu, r.slot);
		assert_int_equal(owner_stats(o).mapped[MMU_4K], 0);
		assert_int_equal(owner_stats(o).table_pages, 0);
	}
}

/* Zap-all cleared the counts, and obsolete pages lowered them once more when they went. */
static void zapping_and_reclaiming_keep_the_disallow_counts(void **state)
{
	struct owner *o = *state;

	o->max_level = MMU_2M;
	owner_slot(o, 0, 0, 4 * 512, owner_memory(SIZE_1G, 0));
	assert_int_equal(mmu_large_disallow(o->mmu, gfn(3)), 0);
	for (unsigned int i = 0; i < 3; i++) {
		assert_non_null(owner_touch(o, 3, true));
		assert_non_null(owner_touch(o, 600, true));
		assert_int_equal(owner_level(o, 3), MMU_4K);
		assert_int_equal(owner_level(o, 600), MMU_2M);
		mmu_zap_all(o->mmu);
		mmu_reclaim_wait(o->mmu);
	}
	assert_int_equal(mmu_large_allow(o->mmu, gfn(3)), 0);
	assert_int_equal(mmu_large_allow(o->mmu, gfn(3)), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		owner_test(slot_only_zap_leaves_nothing_of_the_slot),
		owner_test(yielding_zap_all_ends_while_others_fault_and_zap),
		owner_test(nothing_is_installed_under_a_stale_root),
		owner_test(faults_overtaken_by_zaps_take_their_entries_back),
		owner_test(the_sequence_has_64_bits),
		owner_test(an_obsolete_root_goes_once_the_last_vcpu_reloads),
		owner_test(a_fault_against_slot_removal_ends_and_installs_nothing),
		owner_test(a_new_root_translates_the_whole_address_space),
		owner_test(the_last_page_of_a_block_counts),
		owner_test(no_large_leaf_during_an_attribute_change),
		owner_test(a_split_leaves_no_page_out),
		owner_test(a_moved_slot_starts_with_an_empty_rmap),
		owner_test(an_invalid_slots_rmap_is_remove_only),
		owner_test(concurrent_removers_of_the_same_entries),
		owner_test(zapping_and_reclaiming_keep_the_disallow_counts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
