/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Each allocation of each operation fails once: nothing changes, nothing leaks. */
#include "test/unit/mmu/owner.h"

#include <errno.h>

/* Runs @op with its 1st, 2nd, ... allocation failing until it has no more of them. */
static void fail_each(struct owner *o, int (*op)(struct owner *o), void (*check)(struct owner *o))
{
	int ret = -ENOMEM;

	for (unsigned int nth = 1; ret == -ENOMEM; nth++) {
		assert_in_range(nth, 1, 200);
		mem_fail_nth(&o->mmu->mem, nth);
		ret = op(o);
		mem_fail_nth(&o->mmu->mem, 0);
		if (ret == -ENOMEM)
			check(o);
	}
	assert_int_equal(ret, 0);
}

static int add_slot(struct owner *o)
{
	static uint8_t *host;

	host = host ? host : owner_memory(SIZE_2M, 0);
	return mmu_slot_add(o->mmu, 0, frames(0, 100), host);
}

static void no_slot(struct owner *o)
{
	assert_int_equal(owner_stats(o).slots, 0);
	mmu_reclaim_wait(o->mmu);
	assert_int_equal(owner_stats(o).heap_objects, 2); /* slot table, vCPU */
}

static void adding_a_slot(void **state)
{
	fail_each(*state, add_slot, no_slot);
}

static int move_slot(struct owner *o)
{
	return mmu_slot_move(o->mmu, 0, gfn(1000));
}

static int delete_slot(struct owner *o)
{
	return mmu_slot_delete(o->mmu, 0);
}

static void slot_at_0(struct owner *o)
{
	assert_non_null(owner_touch(o, 5, true));
	assert_null(owner_touch(o, 1005, true));
}

static void slot_at_1000(struct owner *o)
{
	assert_null(owner_touch(o, 5, true));
	assert_non_null(owner_touch(o, 1005, true));
}

static void moving_and_deleting_a_slot(void **state)
{
	struct owner *o = *state;

	owner_slot(o, 0, 0, 100, owner_memory(SIZE_2M, 0));
	o->slot[1].range = frames(1000, 100);
	o->slot[1].host = o->slot[0].host;
	fail_each(o, move_slot, slot_at_0);
	fail_each(o, delete_slot, slot_at_1000);
	assert_int_equal(owner_stats(o).slots, 0);
}

static int fault_in(struct owner *o)
{
	return owner_touch(o, 7, true) ? 0 : mmu_vcpu_error(o->vcpu);
}

static void not_mapped(struct owner *o)
{
	assert_int_equal(owner_level(o, 7), 0);
	assert_int_equal(owner_stats(o).mapped[MMU_4K], 0);
}

static void a_fault(void **state)
{
	struct owner *o = *state;

	owner_slot(o, 0, 0, 100, owner_memory(SIZE_2M, 0));
	fail_each(o, fault_in, not_mapped);
}

static int disallow(struct owner *o)
{
	return mmu_large_disallow(o->mmu, gfn(7));
}

static void still_allowed(struct owner *o)
{
	assert_int_equal(mmu_large_allow(o->mmu, gfn(7)), -EINVAL);
}

static void disallowing_large_leaves(void **state)
{
	struct owner *o = *state;

	owner_slot(o, 0, 0, BLOCK_1G, owner_memory(SIZE_1G, 0));
	fail_each(o, disallow, still_allowed);
}

static int new_vcpu(struct owner *o)
{
	struct mmu_vcpu *vcpu;
	int ret = mmu_vcpu_new(o->mmu, &vcpu);

	if (ret == 0)
		mmu_vcpu_free(vcpu);
	return ret;
}

static void one_vcpu(struct owner *o)
{
	assert_int_equal(o->mmu->vcpus, 1);
}

static void making_a_vcpu(void **state)
{
	struct mmu_vcpu *vcpu[MMU_VCPUS];
	struct owner *o = *state;

	fail_each(o, new_vcpu, one_vcpu);
	for (unsigned int i = 1; i < MMU_VCPUS; i++)
		assert_int_equal(mmu_vcpu_new(o->mmu, &vcpu[i]), 0);
	assert_int_equal(new_vcpu(o), -ENOSPC);
	for (unsigned int i = 1; i < MMU_VCPUS; i++)
		mmu_vcpu_free(vcpu[i]);
}

/* What cannot fail does not need memory either, or does with less. */
static void taking_away_needs_no_memory(void **state)
{
	struct owner *o = *state;
	struct mmu_invalidation inv;

	owner_slot(o, 0, 0, 2000, owner_memory(SIZE_1G, 0));
	for (uint64_t i = 0; i < 2000; i++)
		assert_non_null(owner_touch(o, i, true));
	mem_fail_nth(&o->mmu->mem, 1);
	mmu_invalidate_begin(o->mmu, &inv, frames(5, 1500));
	mmu_invalidate_end(o->mmu, &inv);
	mmu_collapse(o->mmu, frames(0, 2000));
	assert_int_equal(mmu_dirty_start(o->mmu, 0), 0);
	assert_int_equal(mmu_dirty_stop(o->mmu, 0), 0);
	mmu_age(o->mmu, frames(0, 2000));
	mmu_zap_all(o->mmu);
	mmu_zap_all_by_walk(o->mmu);
	mmu_reclaim_wait(o->mmu);
	assert_int_equal(owner_stats(o).mapped[MMU_4K], 0);
	mem_fail_nth(&o->mmu->mem, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		owner_test(adding_a_slot),
		owner_test(moving_and_deleting_a_slot),
		owner_test(a_fault),
		owner_test(disallowing_large_leaves),
		owner_test(making_a_vcpu),
		owner_test(taking_away_needs_no_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
