/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A zap that comes in the middle of a fault's commit: the windows are some nanoseconds wide, so
 * each is set up by hand, with the fault's own functions.
 */
#include "mmu/fault.c"
#include "test/unit/mmu/owner.h"

/* A vCPU that has taken up a root, in guest mode and in the gate, when a zap comes. */
struct scene {
	struct owner *o;
	struct vcpu *v;
	struct fault f;
	entry_t *entry; /* where it is about to install, in the old tree */
	rmap_t *word;
};

/* Page 5 of slot 0 is about to be mapped; page 4 beside it is. */
static void set_scene(struct scene *s, struct owner *o)
{
	uint64_t len;
	unsigned int level;

	*s = (struct scene){.o = o, .v = vcpu_of(o->vcpu), .f = {.frame = 5, .write = true}};
	owner_slot(o, 0, 0, 2 * 512, owner_memory(SIZE_1G, 0));
	mmu_vcpu_enter(o->vcpu);
	assert_non_null(mmu_vcpu_translate(o->vcpu, gpa(0x4000), true, &len));
	assert_int_equal(fault_prepare(s->v, &s->f), 0);
	gate_enter(s->v);
	assert_ptr_equal(current_root(s->v), atomic_load(&o->mmu->root));
	assert_true(table_walk(s->v->root, 4, &s->entry, &level) != 0);
	s->entry++;
	s->word = rmap_word_make(s->v, s->f.view->slot, 5, MMU_4K);
}

static void end_scene(struct scene *s)
{
	gate_leave(s->v);
	mmu_vcpu_leave(s->o->vcpu);
}

static void a_leaf_under_the_current_root_stays(void **state)
{
	struct scene s;

	set_scene(&s, *state);
	assert_true(put_leaf(s.v, &s.f, s.entry, 0, MMU_4K));
	assert_true(entry_is_leaf(atomic_load(s.entry)));
	assert_int_equal(atomic_load(s.word), (uintptr_t)s.entry);
	end_scene(&s);
	assert_int_equal(owner_stats(s.o).mapped[MMU_4K], 2);
}

static void a_leaf_that_a_zap_overtook_is_taken_back(void **state)
{
	struct scene s;

	set_scene(&s, *state);
	mmu_zap_all(s.o->mmu);
	assert_false(put_leaf(s.v, &s.f, s.entry, 0, MMU_4K));
	assert_int_equal(atomic_load(s.entry), 0);
	assert_int_equal(atomic_load(s.word), 0);
	assert_int_equal(owner_stats(s.o).mapped[MMU_4K], 1);
	end_scene(&s);
}

static void a_fault_does_not_go_on_under_an_obsolete_root(void **state)
{
	struct scene s;

	set_scene(&s, *state);
	mmu_zap_all(s.o->mmu);
	assert_true(root_is_obsolete(s.v));
	assert_int_equal(install(s.v, &s.f, MMU_4K), 0); /* took up the new one */
	assert_int_equal(s.v->root->generation, 2);
	assert_int_equal(atomic_load(s.entry), 0);
	assert_true(atomic_load(s.word) != 0);
	end_scene(&s);
	assert_int_equal(owner_level(s.o, 5), MMU_4K);
}

/* The new tree's entry @newer for page 5, as another vCPU's fault has made it since. */
static uint64_t install_newer(struct scene *s, entry_t *newer)
{
	uint64_t value = leaf_value(&s->f, MMU_4K, false);

	atomic_store(newer, value);
	atomic_store(s->word, (uint64_t)(uintptr_t)newer);
	return value;
}

static void the_old_never_displaces_the_new(void **state)
{
	static _Alignas(8) entry_t newer;
	struct scene s;
	uint64_t value;

	set_scene(&s, *state);
	mmu_zap_all(s.o->mmu);
	value = install_newer(&s, &newer);
	assert_int_equal(rmap_add(s.v, s.word, s.entry, MMU_4K), -ESTALE);
	assert_false(put_leaf(s.v, &s.f, s.entry, 0, MMU_4K));
	assert_int_equal(atomic_load(&newer), value);
	assert_int_equal(atomic_load(s.word), (uintptr_t)&newer);
	assert_int_equal(atomic_load(s.entry), 0);
	atomic_store(s.word, 0);
	end_scene(&s);
}

static void the_new_displaces_the_old(void **state)
{
	static _Alignas(8) entry_t older;
	struct scene s;
	uint64_t before;

	set_scene(&s, *state);
	install_newer(&s, &older); /* left from a tree before this one */
	count_own(&s.v->installed[MMU_4K], 1);
	before = owner_stats(s.o).displaced;
	assert_true(put_leaf(s.v, &s.f, s.entry, 0, MMU_4K));
	assert_int_equal(atomic_load(&older), 0);
	assert_int_equal(atomic_load(s.word), (uintptr_t)s.entry);
	end_scene(&s);
	assert_int_equal(owner_stats(s.o).displaced, before + 1);
	assert_int_equal(owner_stats(s.o).mapped[MMU_4K], 2);
}

static void a_split_that_a_zap_overtook_is_undone(void **state)
{
	static _Alignas(8) entry_t newer;
	struct owner *o = *state;
	entry_t *entry = NULL;
	unsigned int level;
	struct scene s;
	uint64_t value, len;

	o->max_level = MMU_2M;
	set_scene(&s, o);
	gate_leave(s.v);
	assert_non_null(mmu_vcpu_translate(o->vcpu, gpa(512 << PAGE_SHIFT), true, &len));
	gate_enter(s.v);
	value = table_walk(s.v->root, 512, &entry, &level);
	assert_int_equal(level, MMU_2M);
	mmu_zap_all(o->mmu);
	s.f.frame = 512 + 9;
	s.word = rmap_word_make(s.v, s.f.view->slot, 512 + 9, MMU_4K);
	install_newer(&s, &newer);
	assert_false(large_split(s.v, s.f.view->slot, 512 + 9, entry, value));
	assert_int_equal(atomic_load(entry), value);
	for (uint64_t i = 0; i < 512; i++)
		assert_int_equal(atomic_load(rmap_word(s.f.view->slot, 512 + i, MMU_4K)),
			i == 9 ? (uintptr_t)&newer : 0);
	atomic_store(s.word, 0);
	end_scene(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		owner_test(a_leaf_under_the_current_root_stays),
		owner_test(a_leaf_that_a_zap_overtook_is_taken_back),
		owner_test(a_fault_does_not_go_on_under_an_obsolete_root),
		owner_test(the_old_never_displaces_the_new),
		owner_test(the_new_displaces_the_old),
		owner_test(a_split_that_a_zap_overtook_is_undone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
