/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test/unit/mmu/owner.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int resolve(void *ctx, gfn_t at, bool write, struct mmu_resolution *ret)
{
	struct owner *o = ctx;

	o->calls++;
	if (o->hook)
		o->hook(o, at);
	if (o->fail)
		return o->fail;
	for (unsigned int i = 0; i < OWNER_SLOTS; i++) {
		struct gfn_range range = o->slot[i].range;

		if (at.v < range.start.v || at.v >= range_end(range))
			continue;
		*ret = (struct mmu_resolution){
			.host = o->answer
					? o->answer
					: o->slot[i].host + ((at.v - range.start.v) << PAGE_SHIFT),
			.writable = !o->read_only,
			.shared = o->shared,
			.max_level = o->max_level,
		};
		return 0;
	}
	return -EFAULT;
}

static bool uniform(void *ctx, struct gfn_range range)
{
	struct owner *o = ctx;

	return !o->uniform || o->uniform(o, range);
}

static const struct mmu_ops ops = {.resolve = resolve, .uniform = uniform};

void owner_open(struct owner *o)
{
	*o = (struct owner){.max_level = MMU_4K};
	assert_int_equal(mmu_new(&(struct mmu_config){.ops = &ops, .ctx = o}, &o->mmu), 0);
	assert_int_equal(mmu_vcpu_new(o->mmu, &o->vcpu), 0);
	mmu_vcpu_attach(o->vcpu);
}

void owner_close(struct owner *o)
{
	struct mmu_stats s;

	mmu_vcpu_detach(o->vcpu);
	mmu_vcpu_free(o->vcpu);
	for (unsigned int i = 0; i < OWNER_SLOTS; i++)
		mmu_slot_delete(o->mmu, i);
	mmu_zap_all(o->mmu);
	mmu_reclaim_wait(o->mmu);
	s = owner_stats(o);
	for (unsigned int level = MMU_4K; level <= MMU_1G; level++)
		assert_int_equal(s.mapped[level], 0);
	assert_int_equal(s.table_pages + s.rmap_pages + s.large_pages + s.dirty_pages, 0);
	assert_int_equal(s.cached_pages, 0);
	assert_int_equal(s.slots + s.slots_dying + s.trees_waiting, 0);
	assert_int_equal(s.heap_objects, 1); /* the empty slot table */
	mmu_free(o->mmu);
}

uint8_t *owner_memory(uint64_t bytes, uint64_t offset)
{
	static uint64_t next = (uint64_t)1 << 44;
	uint64_t at = next + offset;

	next = align_down(at + bytes + 2 * SIZE_1G, SIZE_1G);
	return (uint8_t *)(uintptr_t)at;
}

void owner_slot(struct owner *o, unsigned int id, uint64_t start, uint64_t count, uint8_t *host)
{
	assert_int_equal(mmu_slot_add(o->mmu, id, frames(start, count), host), 0);
	o->slot[id].range = frames(start, count);
	o->slot[id].host = host;
}

uint8_t *owner_touch(struct owner *o, uint64_t frame, bool write)
{
	uint64_t len = 0;
	uint8_t *host;

	mmu_vcpu_enter(o->vcpu);
	host = mmu_vcpu_translate(o->vcpu, gpa(frame << PAGE_SHIFT), write, &len);
	if (host)
		assert_int_equal(len, PAGE_SIZE);
	mmu_vcpu_leave(o->vcpu);
	return host;
}

uint8_t *owner_touch_anew(struct owner *o, uint64_t frame, bool write)
{
	tlb_drop_all(vcpu_of(o->vcpu));
	return owner_touch(o, frame, write);
}

unsigned int owner_level(struct owner *o, uint64_t frame)
{
	struct mmu_mapping m;

	return mmu_probe(o->mmu, gfn(frame), &m) == 0 ? m.level : 0;
}

bool owner_writable(struct owner *o, uint64_t frame)
{
	struct mmu_mapping m;

	return mmu_probe(o->mmu, gfn(frame), &m) == 0 && m.writable;
}

struct mmu_stats owner_stats(struct owner *o)
{
	struct mmu_stats s;

	mmu_get_stats(o->mmu, &s);
	return s;
}

int owner_setup(void **state)
{
	struct owner *o = malloc(sizeof(*o));

	owner_open(o);
	*state = o;
	return 0;
}

int owner_teardown(void **state)
{
	owner_close(*state);
	free(*state);
	return 0;
}
