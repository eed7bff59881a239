/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The MMU against a flat array, in lockstep over random operations.
 *
 * The model knows for each frame which host page it must show, whether it is mapped, accessed
 * and writable, and whether the dirty log has it.  With 4K leaves only, the MMU must agree in
 * all of it after each operation.  With large leaves a mapping may appear with its
 * neighbours', so then what is mapped must be right, and what must not be mapped is not.
 *
 *	mmu_model_test [OPERATIONS [SEED]]
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mmu/mmu.h"
#include "test/xorshift.h"

#define FRAMES 4096
#define IDS    4

struct frame {
	uint8_t *host; /* NULL outside slots */
	bool mapped, writable, accessed, dirty, logged;
};

static struct {
	struct gfn_range range;
	uint8_t *host;
	bool live, logging;
} slot[IDS];

static struct frame model[FRAMES];
static uint64_t moved[FRAMES]; /* bytes that conversions have moved the page by */
static struct mmu *mmu;
static struct mmu_vcpu *vcpu;
static enum mmu_level max_level;
static uint64_t seed, step;

static uint64_t dice(uint64_t sides)
{
	return xorshift(&seed) % sides;
}

static void check(bool ok, const char *what, uint64_t frame)
{
	if (ok)
		return;
	fprintf(stderr, "mmu_model_test: %s at frame %llu in step %llu\n", what,
		(unsigned long long)frame, (unsigned long long)step);
	abort();
}

static struct gfn_range some_range(void)
{
	uint64_t start = dice(FRAMES), count = 1 + dice(dice(4) ? 20 : FRAMES);

	count = count < FRAMES - start ? count : FRAMES - start;
	return (struct gfn_range){gfn(start), count};
}

static int owner_of(uint64_t frame)
{
	for (int id = 0; id < IDS; id++) {
		if (slot[id].live && frame >= slot[id].range.start.v &&
			frame < range_end(slot[id].range))
			return id;
	}
	return -1;
}

static int resolve(void *ctx, gfn_t at, bool write, struct mmu_resolution *ret)
{
	*ret = (struct mmu_resolution){
		.host = model[at.v].host, .writable = true, .max_level = max_level};
	return 0;
}

static bool uniform(void *ctx, struct gfn_range range)
{
	for (uint64_t i = range.start.v + 1; i < range_end(range); i++) {
		if (moved[i] != moved[range.start.v])
			return false;
	}
	return true;
}

static void forget(uint64_t frame)
{
	model[frame].mapped = model[frame].writable = false;
	model[frame].accessed = model[frame].dirty = false;
}

static void forget_all(void)
{
	for (uint64_t i = 0; i < FRAMES; i++)
		forget(i);
}

/* Gives the frames of slot @id their host pages. */
static void place(unsigned int id)
{
	for (uint64_t i = 0; i < slot[id].range.count; i++) {
		uint64_t at = slot[id].range.start.v + i;

		forget(at);
		model[at].logged = false;
		model[at].host = slot[id].host + (i << PAGE_SHIFT) + moved[at];
	}
}

static void unplace(unsigned int id)
{
	for (uint64_t i = slot[id].range.start.v; i < range_end(slot[id].range); i++) {
		forget(i);
		model[i] = (struct frame){0};
	}
}

/* ---- operations ---- */

static void do_touch(void)
{
	uint64_t at = dice(FRAMES), len;
	bool write = dice(2);
	struct frame *f = &model[at];
	uint8_t *host;
	int id = owner_of(at);

	mmu_vcpu_enter(vcpu);
	host = mmu_vcpu_translate(vcpu, gpa(at << PAGE_SHIFT), write, &len);
	mmu_vcpu_leave(vcpu);
	check(host == f->host, "wrong host page", at);
	check(host || mmu_vcpu_error(vcpu) == -ENOENT, "wrong error", at);
	if (!host)
		return;
	f->writable |= f->mapped ? write : write || !slot[id].logging;
	f->logged |= write && slot[id].logging;
	f->mapped = f->accessed = true;
	f->dirty |= write;
}

static void do_zap(void)
{
	if (dice(2))
		mmu_zap_all(mmu);
	else
		mmu_zap_all_by_walk(mmu);
	forget_all();
}

static void do_convert(void)
{
	struct gfn_range range = some_range();
	uint64_t by = dice(3) * SIZE_1G;
	struct mmu_invalidation inv, also;
	bool twice = dice(2);

	mmu_invalidate_begin(mmu, &inv, range);
	if (twice)
		mmu_invalidate_begin(mmu, &also, some_range());
	for (uint64_t i = range.start.v; i < range_end(range); i++) {
		if (model[i].host)
			model[i].host += by - moved[i];
		moved[i] = by;
		forget(i);
	}
	mmu_large_update(mmu, range);
	mmu_invalidate_end(mmu, &inv);
	if (!twice)
		return;
	for (uint64_t i = also.range.start.v; i < range_end(also.range); i++)
		forget(i);
	mmu_invalidate_end(mmu, &also);
}

static void do_add_or_delete(void)
{
	unsigned int id = dice(IDS);
	struct mmu_invalidation inv;

	if (slot[id].live) {
		check(mmu_slot_delete(mmu, id) == 0, "delete", 0);
		unplace(id);
		slot[id].live = slot[id].logging = false;
		return;
	}
	slot[id].range = (struct gfn_range){gfn(id * 1024 + dice(3) * 100), 300 + dice(500)};
	if (id == 3) /* one that can have large leaves */
		slot[id].range = (struct gfn_range){gfn(3072), 1024};
	mmu_invalidate_begin(mmu, &inv, slot[id].range);
	check(mmu_slot_add(mmu, id, slot[id].range, slot[id].host) == 0, "add", 0);
	slot[id].live = true;
	place(id);
	mmu_large_rebuild(mmu, slot[id].range);
	mmu_invalidate_end(mmu, &inv);
}

static void do_move(void)
{
	unsigned int id = dice(3);
	gfn_t to = gfn(id * 1024 + (dice(2) ? 0 : dice(200)));
	struct mmu_invalidation inv;

	if (!slot[id].live)
		return;
	mmu_invalidate_begin(mmu, &inv, (struct gfn_range){to, slot[id].range.count});
	check(mmu_slot_move(mmu, id, to) == 0, "move", to.v);
	unplace(id);
	slot[id].range.start = to;
	slot[id].logging = false;
	place(id);
	mmu_large_rebuild(mmu, slot[id].range);
	mmu_invalidate_end(mmu, &inv);
}

static void do_log(void)
{
	unsigned int id = dice(IDS);

	if (!slot[id].live)
		return;
	slot[id].logging = !slot[id].logging;
	if (!slot[id].logging) {
		check(mmu_dirty_stop(mmu, id) == 0, "stop", 0);
		return;
	}
	check(mmu_dirty_start(mmu, id) == 0, "start", 0);
	for (uint64_t i = slot[id].range.start.v; i < range_end(slot[id].range); i++)
		model[i].writable = model[i].logged = false;
}

static void do_get_and_clear(void)
{
	unsigned int id = dice(IDS);
	uint64_t bitmap[FRAMES / 64], mask[FRAMES / 64];
	struct gfn_range all = {gfn(0), FRAMES};

	if (!slot[id].live || !slot[id].logging)
		return;
	check(mmu_dirty_get(mmu, id, all, bitmap) == 0, "get", 0);
	for (uint64_t i = 0; i < FRAMES / 64; i++)
		mask[i] = bitmap[i] & (dice(2) ? UINT64_MAX : dice(UINT64_MAX));
	check(mmu_dirty_clear(mmu, id, all, mask) == 0, "clear", 0);
	for (uint64_t i = 0; i < FRAMES; i++) {
		bool in = owner_of(i) == (int)id, set = bitmap[i / 64] >> (i % 64) & 1;

		check(set == (in && model[i].logged), "dirty log", i);
		if (mask[i / 64] >> (i % 64) & 1)
			model[i].writable = model[i].logged = false;
	}
}

static void do_age(void)
{
	struct gfn_range range = some_range();
	uint64_t young, expected = 0;

	mmu_reclaim_wait(mmu);
	young = mmu_age(mmu, range);
	for (uint64_t i = range.start.v; i < range_end(range); i++) {
		expected += model[i].accessed;
		model[i].accessed = false;
	}
	if (max_level == MMU_4K)
		check(young == expected, "age", range.start.v);
}

static void do_collapse(void)
{
	if (max_level != MMU_4K) {
		mmu_collapse(mmu, some_range());
		return;
	}
	mmu_large_disallow(mmu, gfn(dice(FRAMES)));
	for (uint64_t i = 0; i < FRAMES; i++)
		while (mmu_large_allow(mmu, gfn(i)) == 0)
			;
}

/* ---- comparison ---- */

static void compare_frame(uint64_t at)
{
	const struct frame *f = &model[at];
	struct mmu_mapping m = {0};
	bool found = mmu_probe(mmu, gfn(at), &m) == 0;

	if (found)
		check(m.host == f->host, "wrong mapping", at);
	if (max_level != MMU_4K)
		return;
	check(found == f->mapped, "mapped", at);
	check(m.writable == f->writable, "writable", at);
	check(m.accessed == f->accessed, "accessed", at);
	check(m.dirty == f->dirty, "dirty", at);
}

static void compare(void)
{
	uint64_t mapped = 0;
	struct mmu_stats s;

	for (uint64_t i = 0; i < FRAMES; i++) {
		compare_frame(i);
		mapped += model[i].mapped;
	}
	mmu_reclaim_wait(mmu);
	mmu_get_stats(mmu, &s);
	if (max_level == MMU_4K)
		check(s.mapped[MMU_4K] == mapped, "count of mappings", s.mapped[MMU_4K]);
}

static void do_something(void)
{
	switch (dice(100)) {
	case 0:
		do_zap();
		break;
	case 1 ... 8:
		do_convert();
		break;
	case 9 ... 10:
		do_add_or_delete();
		break;
	case 11:
		do_move();
		break;
	case 12 ... 13:
		do_log();
		break;
	case 14 ... 15:
		do_get_and_clear();
		break;
	case 16:
		do_age();
		break;
	case 17:
		do_collapse();
		break;
	default:
		do_touch();
	}
}

static void play(uint64_t operations)
{
	static const struct mmu_ops ops = {.resolve = resolve, .uniform = uniform};

	memset(model, 0, sizeof(model));
	memset(moved, 0, sizeof(moved));
	memset(slot, 0, sizeof(slot));
	for (unsigned int id = 0; id < IDS; id++)
		slot[id].host = (uint8_t *)(uintptr_t)((id + 1) * 8 * SIZE_1G);
	check(mmu_new(&(struct mmu_config){.ops = &ops}, &mmu) == 0, "new", 0);
	check(mmu_vcpu_new(mmu, &vcpu) == 0, "vcpu", 0);
	mmu_vcpu_attach(vcpu);
	for (step = 0; step < operations; step++) {
		do_something();
		if (step % 50 == 0)
			compare();
	}
	mmu_vcpu_detach(vcpu);
	mmu_vcpu_free(vcpu);
	mmu_free(mmu);
}

int main(int argc, char **argv)
{
	uint64_t operations = argc > 1 ? strtoull(argv[1], NULL, 0) : 20000;

	seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 42;
	max_level = MMU_4K;
	play(operations);
	max_level = MMU_2M;
	play(operations);
	return 0;
}
