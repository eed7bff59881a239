/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bench/stage2.h"

#define CHECKPOINT_PAGES 64

/* Where no memory needs to be. */
#define HOST_BASE ((uintptr_t)1 << 44)

static int resolve(void *ctx, gfn_t at, bool write, struct mmu_resolution *ret)
{
	const struct stage2 *s = ctx;

	*ret = (struct mmu_resolution){
		.host = s->host + (at.v << PAGE_SHIFT), .writable = true, .max_level = s->level};
	return 0;
}

int stage2_open(struct stage2 *ret, uint64_t pages, enum mmu_level level, unsigned int vcpus)
{
	static const struct mmu_ops ops = {.resolve = resolve};
	int err;

	*ret = (struct stage2){.host = (uint8_t *)HOST_BASE, .level = level};
	err = mmu_new(&(struct mmu_config){.ops = &ops, .ctx = ret}, &ret->mmu);
	if (err)
		return err;
	err = mmu_slot_add(
		ret->mmu, 0, (struct gfn_range){.start = gfn(0), .count = pages}, ret->host);
	while (!err && ret->vcpus < vcpus) {
		err = mmu_vcpu_new(ret->mmu, &ret->vcpu[ret->vcpus]);
		ret->vcpus += err == 0;
	}
	if (err)
		stage2_close(ret);
	return err;
}

void stage2_close(struct stage2 *s)
{
	while (s->vcpus > 0)
		mmu_vcpu_free(s->vcpu[--s->vcpus]);
	mmu_free(s->mmu);
}

bool stage2_touch(
	struct stage2 *s, unsigned int vcpu, uint64_t start, uint64_t count, uint64_t stride)
{
	struct mmu_vcpu *v = s->vcpu[vcpu];
	uint64_t len;

	for (uint64_t i = 0; i < count; i++) {
		if (!mmu_vcpu_translate(v, gpa((start + i * stride) << PAGE_SHIFT), true, &len))
			return false;
		if (i % CHECKPOINT_PAGES == CHECKPOINT_PAGES - 1)
			mmu_vcpu_checkpoint(v);
	}
	return true;
}

bool stage2_fill(struct stage2 *s, unsigned int vcpu, uint64_t start, uint64_t count)
{
	bool ok;

	mmu_vcpu_attach(s->vcpu[vcpu]);
	mmu_vcpu_enter(s->vcpu[vcpu]);
	ok = stage2_touch(s, vcpu, start, count, 1);
	mmu_vcpu_leave(s->vcpu[vcpu]);
	mmu_vcpu_detach(s->vcpu[vcpu]);
	return ok;
}
