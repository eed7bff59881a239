/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "uv/share_list.h"

#include "os/futex.h"

/*
 * The generation is odd while the list changes, and nothing that comes after is done before
 * it is: the other side's barrier is in hv/copy.c.
 */
static void begin_change(struct uv_vm *vm)
{
	vm->mapped.generation++;
	__atomic_store_n(&vm->mapped_shown->generation, vm->mapped.generation, __ATOMIC_SEQ_CST);
	memory_barrier();
}

static void end_change(struct uv_vm *vm)
{
	struct abi_share_page *shown = vm->mapped_shown;

	for (uint32_t i = 0; i < vm->mapped.count; i++) {
		__atomic_store_n(&shown->range[i].gpa, vm->mapped.range[i].gpa, __ATOMIC_RELAXED);
		__atomic_store_n(
			&shown->range[i].bytes, vm->mapped.range[i].bytes, __ATOMIC_RELAXED);
	}
	__atomic_store_n(&shown->count, vm->mapped.count, __ATOMIC_RELAXED);
	vm->mapped.generation++;
	__atomic_store_n(&shown->generation, vm->mapped.generation, __ATOMIC_RELEASE);
}

static void append(struct abi_share_page *list, uint64_t start, uint64_t end)
{
	if (start < end && list->count < ABI_SHARE_RANGES)
		list->range[list->count++] = (struct abi_range){start, end - start};
}

void share_list_add(struct uv_vm *vm, struct gfn_range range)
{
	struct abi_share_page *list = &vm->mapped;
	uint64_t start = gfn_to_gpa(range.start).v, end = start + range_bytes(range);
	uint32_t left = 0;

	begin_change(vm);
	/* Neighbours become a part of it. */
	for (uint32_t i = 0; i < list->count; i++) {
		struct abi_range old = list->range[i];

		if (old.gpa > end || old.gpa + old.bytes < start) {
			list->range[left++] = old;
			continue;
		}
		start = old.gpa < start ? old.gpa : start;
		end = old.gpa + old.bytes > end ? old.gpa + old.bytes : end;
	}
	list->count = left;
	append(list, start, end);
	end_change(vm);
}

void share_list_remove(struct uv_vm *vm, struct gfn_range range)
{
	uint64_t start = gfn_to_gpa(range.start).v, end = start + range_bytes(range);
	struct abi_share_page old = vm->mapped;
	bool hit = false;

	for (uint32_t i = 0; i < old.count; i++)
		hit = hit ||
		      (old.range[i].gpa < end && old.range[i].gpa + old.range[i].bytes > start);
	if (!hit)
		return;
	begin_change(vm);
	vm->mapped.count = 0;
	for (uint32_t i = 0; i < old.count; i++) {
		uint64_t from = old.range[i].gpa, to = from + old.range[i].bytes;

		append(&vm->mapped, from, to < start ? to : start);
		append(&vm->mapped, from > end ? from : end, to);
	}
	end_change(vm);
}
