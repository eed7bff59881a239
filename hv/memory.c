/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Guest memory as devices and loaders see it.  In a normal VM that is the mapping of the
 * shared backing; in a protected one the ultravisor copies what is shared.
 */
#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "hv/error.h"
#include "hv/vm.h"

/* The whole pages that a byte range touches.  0 or -ERANGE. */
static int pages_of(uint64_t at, size_t bytes, struct gfn_range *ret)
{
	uint64_t end;

	if (!checked_add(at, bytes, &end) || end > GPA_END)
		return -ERANGE;
	ret->start = gpa_to_gfn(gpa(at));
	ret->count = bytes == 0 ? 0 : ((end - 1) >> PAGE_SHIFT) - ret->start.v + 1;
	return 0;
}

/*
 * Checks that all of @r is memory and, in a protected VM, shared.  Slots may adjoin.
 * Caller holds vm->lock.
 */
static int check(struct lethe_vm *vm, struct gfn_range r)
{
	while (r.count > 0) {
		struct slot *s = hv_find_slot(vm, (struct gfn_range){r.start, 1});
		struct gfn_range part = r;

		if (s == NULL)
			return -ENOENT;
		if (range_end(part) > range_end(s->range))
			part.count = range_end(s->range) - part.start.v;
		if (s->states != NULL && !gfn_state_all(s->states, part, LETHE_GFN_SHARED))
			return -EPERM;
		r.start.v += part.count;
		r.count -= part.count;
	}
	return 0;
}

/* Straight through the mapping.  Caller holds vm->lock and has checked the range. */
static void copy_mapped(struct lethe_vm *vm, uint64_t at, uint8_t *data, size_t bytes, bool write)
{
	while (bytes > 0) {
		struct slot *s = hv_find_slot(vm, (struct gfn_range){gpa_to_gfn(gpa(at)), 1});
		uint64_t offset = at - gfn_to_gpa(s->range.start).v;
		size_t n = range_bytes(s->range) - offset;

		if (n > bytes)
			n = bytes;
		if (write)
			memcpy(s->hva + offset, data, n);
		else
			memcpy(data, s->hva + offset, n);
		at += n;
		data += n;
		bytes -= n;
	}
}

static int copy_chunk(struct lethe_vm *vm, uint64_t at, uint8_t *data, size_t bytes, bool write)
{
	const struct abi_mem args = {.gpa = at, .bytes = (uint32_t)bytes};
	int ret;

	pthread_mutex_lock(&vm->bulk_lock);
	if (write)
		memcpy(vm->bulk, data, bytes);
	ret = hv_call(vm, write ? ABI_CALL_MEM_WRITE : ABI_CALL_MEM_READ, &args, NULL);
	if (ret == 0 && !write)
		memcpy(data, vm->bulk, bytes);
	pthread_mutex_unlock(&vm->bulk_lock);
	return ret;
}

static int copy_by_uv(struct lethe_vm *vm, uint64_t at, uint8_t *data, size_t bytes, bool write)
{
	int ret = 0;

	while (bytes > 0 && ret == 0) {
		size_t n = bytes < ABI_BULK_SIZE ? bytes : ABI_BULK_SIZE;

		ret = copy_chunk(vm, at, data, n, write);
		at += n;
		data += n;
		bytes -= n;
	}
	return ret;
}

static int access_memory(struct lethe_vm *vm, uint64_t at, uint8_t *data, size_t bytes, bool write)
{
	bool is_protected;
	struct gfn_range r;
	int ret = pages_of(at, bytes, &r);

	if (ret < 0)
		return fail(ret, "0x%llx: beyond 2^48", (unsigned long long)at);
	pthread_mutex_lock(&vm->lock);
	ret = check(vm, r);
	is_protected = vm->is_protected;
	if (ret == 0 && !is_protected)
		copy_mapped(vm, at, data, bytes, write);
	pthread_mutex_unlock(&vm->lock);
	if (ret == 0 && is_protected)
		ret = copy_by_uv(vm, at, data, bytes, write);
	return ret < 0 ? fail(ret, "0x%llx: %s", (unsigned long long)at,
				 ret == -EPERM ? "the page is private" : strerror(-ret))
		       : 0;
}

int lethe_mem_read(struct lethe_vm *vm, uint64_t at, void *data, size_t bytes)
{
	return access_memory(vm, at, data, bytes, false);
}

int lethe_mem_write(struct lethe_vm *vm, uint64_t at, const void *data, size_t bytes)
{
	return access_memory(vm, at, (uint8_t *)data, bytes, true);
}

int lethe_vm_load(struct lethe_vm *vm, uint64_t at, const void *data, size_t bytes)
{
	struct gfn_range r;
	int ret = pages_of(at, bytes, &r);

	pthread_mutex_lock(&vm->lock);
	if (ret == 0 && vm->is_protected)
		ret = -EPERM;
	if (ret == 0)
		ret = check(vm, r);
	if (ret == 0)
		copy_mapped(vm, at, (uint8_t *)data, bytes, true);
	pthread_mutex_unlock(&vm->lock);
	return ret < 0 ? fail(ret, "0x%llx: cannot be loaded: %s", (unsigned long long)at,
				 ret == -EPERM ? "the VM is protected" : strerror(-ret))
		       : 0;
}
