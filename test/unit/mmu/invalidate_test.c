/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Invalidations, zap-all and the flushes that both need. */
#include "test/unit/mmu/guest.h"

#include <errno.h>
#include <sched.h>

static void removes_exactly_its_range(void **state)
{
	static const uint64_t cases[][2] = {{0, 1}, {5, 3}, {511, 2}, {512, 512}, {500, 1000},
		{1023, 514}, {0, 4000}, {3999, 1}, {1, 3998}};
	struct owner *o = *state;
	struct mmu_invalidation inv;

	owner_slot(o, 0, 0, 4000, owner_memory(SIZE_1G, 0));
	for (unsigned int c = 0; c < 9; c++) {
		uint64_t from = cases[c][0], end = from + cases[c][1];

		for (uint64_t i = 0; i < 4000; i++)
			assert_non_null(owner_touch(o, i, true));
		mmu_invalidate_begin(o->mmu, &inv, frames(from, end - from));
		for (uint64_t i = 0; i < 4000; i++)
			assert_int_equal(owner_level(o, i), i >= from && i < end ? 0 : MMU_4K);
		mmu_invalidate_end(o->mmu, &inv);
	}
}

static void no_fault_gets_through_between_begin_and_end(void **state)
{
	struct owner *o = *state;
	struct mmu_invalidation inv;

	owner_slot(o, 0, 0, 100, owner_memory(SIZE_1G, 0));
	mmu_invalidate_begin(o->mmu, &inv, frames(10, 10));
	for (uint64_t i = 0; i < 30; i++) {
		bool covered = i >= 10 && i < 20;

		assert_int_equal(owner_touch(o, i, true) == NULL, covered);
		if (covered)
			assert_int_equal(mmu_vcpu_error(o->vcpu), -EAGAIN);
	}
	mmu_invalidate_end(o->mmu, &inv);
	assert_non_null(owner_touch(o, 15, true));
}

static void several_at_once_may_overlap(void **state)
{
	struct owner *o = *state;
	struct mmu_invalidation a, b, c;

	owner_slot(o, 0, 0, 100, owner_memory(SIZE_1G, 0));
	mmu_invalidate_begin(o->mmu, &a, frames(0, 50));
	mmu_invalidate_begin(o->mmu, &b, frames(40, 20));
	mmu_invalidate_begin(o->mmu, &c, frames(40, 20));
	mmu_invalidate_end(o->mmu, &b);
	assert_null(owner_touch(o, 45, true));
	assert_null(owner_touch(o, 55, true));
	mmu_invalidate_end(o->mmu, &a);
	assert_non_null(owner_touch(o, 39, true));
	assert_null(owner_touch(o, 45, true));
	mmu_invalidate_end(o->mmu, &c);
	assert_non_null(owner_touch(o, 45, true));
}

static void a_range_without_slots(void **state)
{
	struct owner *o = *state;
	struct mmu_invalidation inv;

	mmu_invalidate_begin(o->mmu, &inv, frames(0, GFN_END));
	owner_slot(o, 0, 0, 100, owner_memory(SIZE_1G, 0));
	assert_null(owner_touch(o, 5, true));
	mmu_invalidate_end(o->mmu, &inv);
	assert_non_null(owner_touch(o, 5, true));
}

static void an_alias_loses_the_page_too(void **state)
{
	struct owner *o = *state;
	uint8_t *host = owner_memory(SIZE_1G, 0);
	struct mmu_invalidation inv;

	owner_slot(o, 0, 0, 1000, host);
	owner_slot(o, 1, 5000, 1000, host + 500 * PAGE_SIZE); /* half of the other */
	for (uint64_t i = 0; i < 1000; i++) {
		assert_non_null(owner_touch(o, i, true));
		assert_non_null(owner_touch(o, 5000 + i, true));
	}
	mmu_invalidate_begin(o->mmu, &inv, frames(490, 20));
	for (uint64_t i = 0; i < 1000; i++) {
		assert_int_equal(owner_level(o, i), i >= 490 && i < 510 ? 0 : MMU_4K);
		assert_int_equal(owner_level(o, 5000 + i), i < 10 ? 0 : MMU_4K);
	}
	assert_null(owner_touch(o, 5009, false));
	assert_non_null(owner_touch(o, 5010, false));
	mmu_invalidate_end(o->mmu, &inv);
	assert_non_null(owner_touch(o, 5009, false));
}

static struct mmu_invalidation taken;

static void take_page_5(void *arg)
{
	struct owner *o = arg;

	mmu_invalidate_begin(o->mmu, &taken, frames(5, 1));
}

static void wait_for_request(struct owner *o, uint64_t after)
{
	while (atomic_load(&o->mmu->flush_seq) <= after)
		sched_yield();
}

/* A guest that runs has page 5, and a caller takes it away, which it has heard of. */
static void begin_beside_guest(struct owner *o, struct guest *g, struct caller *c)
{
	uint64_t seq = atomic_load(&o->mmu->flush_seq);

	owner_slot(o, 0, 0, 100, owner_memory(SIZE_1G, 0));
	guest_start(g, o->mmu);
	guest_do(g, GUEST_ENTER);
	assert_non_null(guest_touch(g, 5, true));
	caller_start(c, take_page_5, o);
	wait_for_request(o, seq);
}

static void begin_waits_for_a_vcpu_in_guest_mode(void **state)
{
	struct owner *o = *state;
	struct guest g;
	struct caller c;

	begin_beside_guest(o, &g, &c);
	/* The old pointer is alive, so begin cannot be over. */
	assert_non_null(guest_touch(&g, 5, true));
	assert_false(atomic_load(&c.returned));
	guest_do(&g, GUEST_CHECKPOINT);
	caller_join(&c);
	assert_null(guest_touch(&g, 5, true));
	guest_post(&g, GUEST_WAIT);
	mmu_invalidate_end(o->mmu, &taken);
	guest_done(&g);
	assert_non_null(guest_touch(&g, 5, true));
	guest_do(&g, GUEST_LEAVE);
	guest_stop(&g);
}

static void leaving_acknowledges_as_well(void **state)
{
	struct owner *o = *state;
	struct guest g;
	struct caller c;

	begin_beside_guest(o, &g, &c);
	assert_false(atomic_load(&c.returned));
	guest_do(&g, GUEST_LEAVE);
	caller_join(&c);
	guest_do(&g, GUEST_ENTER);
	assert_null(guest_touch(&g, 5, true)); /* its TLB forgot while it was away */
	guest_do(&g, GUEST_LEAVE);
	mmu_invalidate_end(o->mmu, &taken);
	guest_stop(&g);
}

static void far_more_requests_than_the_ring_holds(void **state)
{
	struct owner *o = *state;
	struct mmu_invalidation inv;
	uint8_t *host = owner_memory(SIZE_1G, 0);

	owner_slot(o, 0, 0, 1000, host);
	for (uint64_t i = 0; i < 1000; i++)
		assert_non_null(owner_touch(o, i, true));
	for (uint64_t i = 0; i < 3 * FLUSH_RING; i++) {
		mmu_invalidate_begin(o->mmu, &inv, frames(i, 1));
		mmu_invalidate_end(o->mmu, &inv);
	}
	o->slot[0].host += SIZE_2M;
	for (uint64_t i = 0; i < 1000; i++) {
		bool moved = i < 3 * FLUSH_RING;

		assert_ptr_equal(
			owner_touch(o, i, true), host + i * PAGE_SIZE + (moved ? SIZE_2M : 0));
	}
}

static void a_flush_takes_out_its_range_only(void **state)
{
	struct owner *o = *state;
	struct mmu_invalidation inv;
	uint64_t misses;

	owner_slot(o, 0, 0, 100, owner_memory(SIZE_1G, 0));
	for (uint64_t i = 0; i < 100; i++)
		assert_non_null(owner_touch(o, i, true));
	mmu_invalidate_begin(o->mmu, &inv, frames(20, 10));
	mmu_invalidate_end(o->mmu, &inv);
	misses = owner_stats(o).misses;
	for (uint64_t i = 0; i < 100; i++)
		assert_non_null(owner_touch(o, i, true));
	assert_int_equal(owner_stats(o).misses, misses + 10);
}

static void zap_all_drops_everything_at_the_next_checkpoint(void **state)
{
	struct owner *o = *state;
	struct guest g;
	uint8_t *host = owner_memory(SIZE_1G, 0);

	owner_slot(o, 0, 0, 1000, host);
	guest_start(&g, o->mmu);
	guest_do(&g, GUEST_ENTER);
	assert_ptr_equal(guest_touch(&g, 7, true), host + 7 * PAGE_SIZE);
	mmu_zap_all(o->mmu);
	assert_int_equal(owner_stats(o).generation, 2);
	assert_int_equal(owner_level(o, 7), 0);
	o->slot[0].host += SIZE_2M;
	assert_ptr_equal(guest_touch(&g, 7, true), host + 7 * PAGE_SIZE);
	guest_do(&g, GUEST_CHECKPOINT);
	assert_ptr_equal(guest_touch(&g, 7, true), host + 7 * PAGE_SIZE + SIZE_2M);
	guest_do(&g, GUEST_LEAVE);
	guest_stop(&g);
}

static void sync(void *arg)
{
	mmu_sync(((struct owner *)arg)->mmu);
}

static void sync_waits_for_the_reload(void **state)
{
	struct owner *o = *state;
	struct guest g;
	struct caller c;

	owner_slot(o, 0, 0, 1000, owner_memory(SIZE_1G, 0));
	guest_start(&g, o->mmu);
	guest_do(&g, GUEST_ENTER);
	assert_non_null(guest_touch(&g, 7, true));
	mmu_zap_all(o->mmu);
	caller_start(&c, sync, o);
	assert_non_null(guest_touch(&g, 7, true));
	assert_false(atomic_load(&c.returned));
	guest_do(&g, GUEST_CHECKPOINT);
	caller_join(&c);
	guest_do(&g, GUEST_LEAVE);
	guest_stop(&g);
}

static void zapping_by_walk_has_the_same_result(void **state)
{
	struct owner *o = *state;

	owner_slot(o, 0, 0, 3000, owner_memory(SIZE_1G, 0));
	for (unsigned int round = 0; round < 3; round++) {
		for (uint64_t i = 0; i < 3000; i++)
			assert_non_null(owner_touch(o, i, true));
		mmu_zap_all_by_walk(o->mmu);
		assert_int_equal(owner_stats(o).mapped[MMU_4K], 0);
		assert_int_equal(owner_level(o, 5), 0);
	}
	assert_int_equal(owner_stats(o).generation, 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		owner_test(removes_exactly_its_range),
		owner_test(no_fault_gets_through_between_begin_and_end),
		owner_test(several_at_once_may_overlap),
		owner_test(a_range_without_slots),
		owner_test(an_alias_loses_the_page_too),
		owner_test(begin_waits_for_a_vcpu_in_guest_mode),
		owner_test(leaving_acknowledges_as_well),
		owner_test(far_more_requests_than_the_ring_holds),
		owner_test(a_flush_takes_out_its_range_only),
		owner_test(zap_all_drops_everything_at_the_next_checkpoint),
		owner_test(sync_waits_for_the_reload),
		owner_test(zapping_by_walk_has_the_same_result),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
