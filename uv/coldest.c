/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "uv/coldest.h"

#include <errno.h>
#include <stdlib.h>

#include "base/failpoint.h"
#include "uv/executor.h"

#define BLOCK_PAGES (SIZE_2M >> PAGE_SHIFT)
#define LOOK_MAX    4096u /* blocks in one call */
#define OLDEST      UINT8_MAX

struct block {
	uint8_t slot, age;
	uint32_t index; /* in the slot */
};

/*
 * Blocks of all slots are numbered through; the hand is such a number.  Only calls change
 * slots, and calls are performed by this thread, so the table is read without the lock.
 */
static uint64_t blocks_of(const struct uv_vm *vm, unsigned int slot)
{
	if (!vm->slots.slot[slot].used)
		return 0;
	return (vm->slots.slot[slot].range.count + BLOCK_PAGES - 1) / BLOCK_PAGES;
}

static uint64_t all_blocks(const struct uv_vm *vm)
{
	uint64_t all = 0;

	for (unsigned int i = 0; i < SLOTS_MAX; i++)
		all += blocks_of(vm, i);
	return all;
}

static struct block find_block(const struct uv_vm *vm, uint64_t number)
{
	unsigned int slot = 0;

	while (number >= blocks_of(vm, slot))
		number -= blocks_of(vm, slot++);
	return (struct block){.slot = (uint8_t)slot, .index = (uint32_t)number};
}

static struct gfn_range range_of(const struct uv_vm *vm, struct block b)
{
	struct gfn_range s = vm->slots.slot[b.slot].range;
	uint64_t first = b.index * BLOCK_PAGES;
	uint64_t n = s.count - first;

	return (struct gfn_range){gfn(s.start.v + first), n < BLOCK_PAGES ? n : BLOCK_PAGES};
}

/* Looks at the next @count blocks from the hand on, and ages them. */
static int look(struct uv_vm *vm, struct block *block, uint64_t count, uint64_t all)
{
	for (uint64_t i = 0; i < count; i++) {
		struct block *b = &block[i];
		struct slot_memory *m;

		*b = find_block(vm, (vm->coldest_hand + i) % all);
		m = &vm->memory_of[b->slot];
		if (vm->executor->age == NULL)
			continue;
		if (m->idle == NULL)
			m->idle = failpoint("uv-coldest") < 0 ? NULL
							      : calloc(blocks_of(vm, b->slot), 1);
		if (m->idle == NULL)
			return -ENOMEM;
		if (vm->executor->age(vm, range_of(vm, *b)) > 0)
			m->idle[b->index] = 0;
		else if (m->idle[b->index] < OLDEST)
			m->idle[b->index]++;
		b->age = m->idle[b->index];
	}
	return 0;
}

/* The oldest first, otherwise in their order: a counting sort. */
static void sort(const struct block *block, uint64_t count, struct block *ret)
{
	uint64_t place[OLDEST + 2] = {0};

	for (uint64_t i = 0; i < count; i++)
		place[OLDEST - block[i].age + 1]++;
	for (unsigned int i = 1; i < OLDEST + 2; i++)
		place[i] += place[i - 1];
	for (uint64_t i = 0; i < count; i++)
		ret[place[OLDEST - block[i].age]++] = block[i];
}

/*
 * What of @b is private and resident: its pages, and in *ret the range from the first to the
 * last of them.  Takes vm->lock.
 */
static uint64_t measure_block(struct uv_vm *vm, struct block b, struct gfn_range *ret)
{
	const struct window *w = &vm->memory_of[b.slot].window;
	uint64_t base = vm->slots.slot[b.slot].range.start.v;
	struct gfn_range r = range_of(vm, b);
	uint64_t pages = 0, first = 0, last = 0;

	pthread_mutex_lock(&vm->lock);
	for (uint64_t at = r.start.v; at < range_end(r);) {
		struct attr_run run = attr_run_at(vm->attr, at, range_end(r));
		uint64_t offset = (run.start - base) << PAGE_SHIFT, n;
		uint64_t end = (run.end - base) << PAGE_SHIFT;

		while (run.attr == ATTR_PRIVATE &&
			window_next_resident(w, offset, end, &offset, &n) == 0) {
			if (pages == 0)
				first = offset >> PAGE_SHIFT;
			pages += n >> PAGE_SHIFT;
			offset += n;
			last = offset >> PAGE_SHIFT;
		}
		at = run.end;
	}
	pthread_mutex_unlock(&vm->lock);
	if (pages > 0)
		*ret = (struct gfn_range){gfn(base + first), last - first};
	return pages;
}

/* Adds @r, to the last range if it goes on there.  False if there is no room. */
static bool add_range(struct abi_coldest_ret *ret, struct gfn_range r, bool may_join)
{
	struct abi_range *last = ret->count > 0 ? &ret->range[ret->count - 1] : NULL;
	uint64_t at = gfn_to_gpa(r.start).v;

	if (may_join && last != NULL && last->gpa + last->bytes == at) {
		last->bytes += range_bytes(r);
		return true;
	}
	if (ret->count == ABI_MAX_RANGES)
		return false;
	ret->range[ret->count++] = (struct abi_range){at, range_bytes(r)};
	return true;
}

/*
 * Takes from the sorted blocks until there is enough.  Returns how many were looked at.  Where
 * ages are known, those with nothing to give are first again the next time and do not count.
 */
static uint64_t choose(struct uv_vm *vm, const struct block *block, uint64_t count, uint64_t bytes,
	struct abi_coldest_ret *ret)
{
	bool by_address = vm->executor->age == NULL;
	uint64_t found = 0, i;

	for (i = 0; i < count && found < bytes; i++) {
		bool same_slot = i > 0 && block[i].slot == block[i - 1].slot;
		struct gfn_range r;
		uint64_t pages = measure_block(vm, block[i], &r);

		if (pages > 0 && !add_range(ret, r, same_slot))
			break;
		found += pages << PAGE_SHIFT;
		if (pages > 0 || by_address)
			ret->looked += range_bytes(range_of(vm, block[i]));
	}
	return i;
}

int coldest_find(struct uv_vm *vm, uint64_t bytes, struct abi_coldest_ret *ret)
{
	uint64_t all = all_blocks(vm), count = all < LOOK_MAX ? all : LOOK_MAX, used;
	struct block *block = calloc(count + 1, 2 * sizeof(*block));
	int err;

	if (block == NULL)
		return -ENOMEM;
	err = look(vm, block, count, all);
	if (err == 0) {
		sort(block, count, block + count);
		used = choose(vm, block + count, count, bytes, ret);
		if (vm->executor->age != NULL)
			used = count;
		vm->coldest_hand = all > 0 ? (vm->coldest_hand + used) % all : 0;
	}
	free(block);
	return err;
}
