/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Faults, tables and the TLB as one vCPU sees them. */
#include "test/unit/mmu/owner.h"

#include <errno.h>

static void a_page_is_resolved_once(void **state)
{
	struct owner *o = *state;
	uint8_t *host = owner_memory(SIZE_2M, 0);

	owner_slot(o, 0, 100, 50, host);
	for (unsigned int i = 0; i < 5; i++)
		assert_ptr_equal(owner_touch(o, 107, i % 2), host + 7 * PAGE_SIZE);
	assert_int_equal(o->calls, 1);
	assert_int_equal(owner_level(o, 107), MMU_4K);
	assert_int_equal(owner_level(o, 108), 0);
}

static void offsets_inside_a_page(void **state)
{
	struct owner *o = *state;
	uint8_t *host = owner_memory(SIZE_2M, 0);
	uint64_t len = 0;

	owner_slot(o, 0, 0, 16, host);
	mmu_vcpu_enter(o->vcpu);
	for (unsigned int i = 0; i < 2; i++) { /* a miss, then a hit */
		assert_ptr_equal(
			mmu_vcpu_translate(o->vcpu, gpa(0x3ffd), true, &len), host + 0x3ffd);
		assert_int_equal(len, 3);
	}
	mmu_vcpu_leave(o->vcpu);
}

static int error_of(struct owner *o, uint64_t at, bool write)
{
	uint64_t len = 77;

	mmu_vcpu_enter(o->vcpu);
	assert_null(mmu_vcpu_translate(o->vcpu, gpa(at), write, &len));
	assert_int_equal(len, 77);
	mmu_vcpu_leave(o->vcpu);
	return mmu_vcpu_error(o->vcpu);
}

static void errors_reach_the_caller(void **state)
{
	struct owner *o = *state;

	owner_slot(o, 0, 1, 1, owner_memory(SIZE_2M, 0));
	assert_int_equal(error_of(o, 0, false), -ENOENT);
	assert_int_equal(error_of(o, 0x2000, false), -ENOENT);
	assert_int_equal(error_of(o, GPA_END | 0x1000, false), -ENOENT);
	assert_int_equal(error_of(o, UINT64_MAX, false), -ENOENT);
	o->fail = -EKEYREJECTED;
	assert_int_equal(error_of(o, 0x1000, false), -EKEYREJECTED);
	o->fail = 0;
	o->read_only = true;
	assert_int_equal(error_of(o, 0x1000, true), -EACCES);
	o->answer = (uint8_t *)(uintptr_t)0x1234;
	assert_int_equal(error_of(o, 0x1000, false), -EPROTO);
	o->answer = (uint8_t *)(uintptr_t)((uint64_t)1 << 48);
	assert_int_equal(error_of(o, 0x1000, false), -EPROTO);
	assert_int_equal(owner_stats(o).mapped[MMU_4K], 0);
}

static void a_high_address_is_no_alias_of_a_low_one(void **state)
{
	struct owner *o = *state;

	owner_slot(o, 0, 0, 4, owner_memory(SIZE_2M, 0));
	assert_non_null(owner_touch(o, 1, true));
	assert_int_equal(error_of(o, ((uint64_t)1 << 48) + 0x1000, false), -ENOENT);
	assert_int_equal(error_of(o, ((uint64_t)1 << 63) + 0x1000, true), -ENOENT);
}

static void read_only_turns_writable_by_a_fault(void **state)
{
	struct owner *o = *state;

	owner_slot(o, 0, 0, 4, owner_memory(SIZE_2M, 0));
	o->read_only = true;
	assert_non_null(owner_touch(o, 2, false));
	assert_false(owner_writable(o, 2));
	assert_null(owner_touch(o, 2, true));
	o->read_only = false;
	assert_non_null(owner_touch(o, 2, true));
	assert_true(owner_writable(o, 2));
	assert_int_equal(owner_stats(o).mapped[MMU_4K], 1);
}

static void entries_tell_access_and_writes(void **state)
{
	struct owner *o = *state;
	struct mmu_mapping m;

	o->shared = true;
	owner_slot(o, 0, 0, 4, owner_memory(SIZE_2M, 0));
	assert_non_null(owner_touch(o, 3, false));
	assert_int_equal(mmu_probe(o->mmu, gfn(3), &m), 0);
	assert_true(m.accessed && m.writable && m.shared && !m.dirty);
	assert_non_null(owner_touch(o, 3, true));
	assert_int_equal(mmu_probe(o->mmu, gfn(3), &m), 0);
	assert_true(m.dirty);
	assert_int_equal(o->calls, 1);
}

static void every_corner_of_the_address_space(void **state)
{
	static const uint64_t at[] = {0, BLOCK_2M - 1, BLOCK_2M, BLOCK_1G - 1, BLOCK_1G,
		512 * BLOCK_1G - 1, 512 * BLOCK_1G, GFN_END - 1};
	struct owner *o = *state;
	uint8_t *host = owner_memory(SIZE_1G, 0);

	for (unsigned int i = 0; i < 8; i++)
		owner_slot(o, i, at[i], 1, host + i * PAGE_SIZE);
	for (unsigned int i = 0; i < 8; i++)
		assert_ptr_equal(owner_touch(o, at[i], true), host + i * PAGE_SIZE);
	mmu_zap_all(o->mmu);
	for (unsigned int i = 0; i < 8; i++)
		assert_ptr_equal(owner_touch(o, at[i], true), host + i * PAGE_SIZE);
}

static void shadow_pages_know_their_place(void **state)
{
	struct owner *o = *state;
	uint64_t frame = 3 * 512 * BLOCK_1G + 5 * BLOCK_1G + 7 * BLOCK_2M + 9;
	unsigned int level = 0;
	entry_t *entry = NULL;
	const struct mmu_page *page;

	owner_slot(o, 0, frame, 1, owner_memory(SIZE_2M, 0));
	assert_non_null(owner_touch(o, frame, true));
	assert_true(table_walk(atomic_load(&o->mmu->root), frame, &entry, &level) != 0);
	page = page_of(entry);
	for (level = 1; level <= 4; level++, page = page->parent) {
		assert_int_equal(page->level, level);
		assert_int_equal(page->generation, 1);
		assert_int_equal(page->base, align_down(frame, (uint64_t)512 << (9 * (level - 1))));
	}
	assert_null(page);
}

static void the_tlb_drops_all_of_its_epochs(void **state)
{
	struct owner *o = *state;
	uint8_t *host = owner_memory(SIZE_1G, 0);

	owner_slot(o, 0, 0, BLOCK_1G, host);
	for (uint64_t i = 0; i < 3 * MMU_TLB_EPOCH_END; i++) {
		assert_ptr_equal(owner_touch(o, i % 9, true), host + (i % 9) * PAGE_SIZE);
		mmu_zap_all(o->mmu);
	}
	assert_int_equal(o->calls, 3 * MMU_TLB_EPOCH_END);
}

static void more_pages_than_the_tlb_has_room_for(void **state)
{
	struct owner *o = *state;
	uint8_t *host = owner_memory(SIZE_1G, 0);
	uint64_t count = 8 * MMU_TLB_SETS * MMU_TLB_WAYS, len;

	owner_slot(o, 0, 0, count, host);
	mmu_vcpu_enter(o->vcpu);
	for (unsigned int round = 0; round < 3; round++) {
		for (uint64_t i = 0; i < count; i++) {
			uint64_t frame = (i * 2654435761u) % count;

			assert_ptr_equal(mmu_vcpu_translate(o->vcpu, gpa(frame << PAGE_SHIFT),
						 round == 1, &len),
				host + (frame << PAGE_SHIFT));
			mmu_vcpu_checkpoint(o->vcpu);
		}
	}
	mmu_vcpu_leave(o->vcpu);
	assert_int_equal(o->calls, count);
}

static void a_vcpu_may_hold_several_pointers(void **state)
{
	struct owner *o = *state;
	uint8_t *host = owner_memory(SIZE_1G, 0);
	uint8_t *held[64];
	uint64_t len;

	owner_slot(o, 0, 0, 64, host);
	mmu_vcpu_enter(o->vcpu);
	for (uint64_t i = 0; i < 64; i++)
		held[i] = mmu_vcpu_translate(o->vcpu, gpa(i << PAGE_SHIFT), true, &len);
	assert_true(atomic_load(&vcpu_of(o->vcpu)->acked) != ACK_OUTSIDE);
	for (uint64_t i = 0; i < 64; i++)
		assert_ptr_equal(held[i], host + (i << PAGE_SHIFT));
	mmu_vcpu_leave(o->vcpu);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		owner_test(a_page_is_resolved_once),
		owner_test(offsets_inside_a_page),
		owner_test(errors_reach_the_caller),
		owner_test(a_high_address_is_no_alias_of_a_low_one),
		owner_test(read_only_turns_writable_by_a_fault),
		owner_test(entries_tell_access_and_writes),
		owner_test(every_corner_of_the_address_space),
		owner_test(shadow_pages_know_their_place),
		owner_test(the_tlb_drops_all_of_its_epochs),
		owner_test(more_pages_than_the_tlb_has_room_for),
		owner_test(a_vcpu_may_hold_several_pointers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
