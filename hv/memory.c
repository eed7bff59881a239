/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Guest memory as devices and loaders see it.  In a normal VM that is the mapping of the
 * shared backing.  In a protected one, what is mapped is reached through that too, and the
 * rest is copied by the ultravisor: by the vCPU that waits for this thread, else by a call.
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
 * Checks that all of @r is memory and, in a protected VM, shared, unless a policy lets pages
 * be shared without a word to this side.  Slots may adjoin.  Caller holds vm->lock.
 */
static int check(struct lethe_vm *vm, struct gfn_range r)
{
	while (r.count > 0) {
		struct gfn_range part;
		struct slot *s = hv_first_part(vm, r, &part);

		if (s == NULL)
			return -ENOENT;
		if (s->states != NULL && !vm->has_policy &&
			!gfn_state_all(s->states, part, LETHE_GFN_SHARED))
			return -EPERM;
		r.start.v += part.count;
		r.count -= part.count;
	}
	return 0;
}

void hv_copy_mapping(struct lethe_vm *vm, uint64_t at, uint8_t *data, size_t bytes, bool write)
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

/* What there is no need to ask for is copied.  -ENODATA: the ultravisor must. */
static int copy_here(struct lethe_vm *vm, const struct lethe_copy *c)
{
	struct gfn_range r;
	int ret = pages_of(c->gpa, c->bytes, &r);

	if (ret < 0)
		return ret;
	pthread_mutex_lock(&vm->lock);
	ret = check(vm, r);
	if (ret == 0 && !vm->is_protected)
		hv_copy_mapping(vm, c->gpa, c->data, c->bytes, c->to_guest);
	else if (ret == 0 && !hv_copy_direct(vm, c->gpa, c->data, c->bytes, c->to_guest))
		ret = -ENODATA;
	pthread_mutex_unlock(&vm->lock);
	return ret;
}

/* Pieces that the ultravisor is to copy together. */
struct batch {
	struct lethe_copy piece[ABI_COPY_SEGMENTS];
	size_t count, bytes;
};

/* *ret_gpa: of the piece that failed, or of the first of those that failed together. */
static int flush(struct lethe_vm *vm, struct batch *b, uint64_t *ret_gpa)
{
	int ret = b->count == 0 ? 0 : hv_copy_by_vcpu(vm, b->piece, b->count);

	*ret_gpa = b->piece[0].gpa;
	if (ret == -ENODATA) {
		ret = 0;
		for (size_t i = 0; i < b->count && ret == 0; i++) {
			const struct lethe_copy *c = &b->piece[i];

			*ret_gpa = c->gpa;
			ret = copy_by_uv(vm, c->gpa, c->data, c->bytes, c->to_guest);
		}
	}
	b->count = 0;
	b->bytes = 0;
	return ret;
}

/* Adds @c to what waits; first copies that, if both are too much for one request. */
static int add(struct lethe_vm *vm, struct batch *b, const struct lethe_copy *c, uint64_t *ret_gpa)
{
	int ret = 0;

	if (b->count == ABI_COPY_SEGMENTS || b->bytes + c->bytes > ABI_COPY_DATA)
		ret = flush(vm, b, ret_gpa);
	if (ret == 0 && c->bytes > ABI_COPY_DATA) {
		*ret_gpa = c->gpa;
		return copy_by_uv(vm, c->gpa, c->data, c->bytes, c->to_guest);
	}
	if (ret == 0) {
		b->piece[b->count++] = *c;
		b->bytes += c->bytes;
	}
	return ret;
}

int lethe_mem_copy(struct lethe_vm *vm, const struct lethe_copy *piece, size_t count)
{
	struct batch b = {.count = 0};
	uint64_t at = 0;
	int ret = 0;

	for (size_t i = 0; i < count && ret == 0; i++) {
		ret = copy_here(vm, &piece[i]);
		if (ret == -ENODATA)
			ret = add(vm, &b, &piece[i], &at);
		else
			at = piece[i].gpa;
	}
	if (ret == 0)
		ret = flush(vm, &b, &at);
	if (ret == -ERANGE)
		return fail(ret, "0x%llx: beyond 2^48", (unsigned long long)at);
	return ret < 0 ? fail(ret, "0x%llx: %s", (unsigned long long)at,
				 ret == -EPERM ? "the page is private" : strerror(-ret))
		       : 0;
}

int lethe_mem_read(struct lethe_vm *vm, uint64_t at, void *data, size_t bytes)
{
	return lethe_mem_copy(vm, &(struct lethe_copy){.gpa = at, .data = data, .bytes = bytes}, 1);
}

int lethe_mem_write(struct lethe_vm *vm, uint64_t at, const void *data, size_t bytes)
{
	const struct lethe_copy piece = {
		.gpa = at, .data = (void *)data, .bytes = bytes, .to_guest = true};

	return lethe_mem_copy(vm, &piece, 1);
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
		hv_copy_mapping(vm, at, (uint8_t *)data, bytes, true);
	pthread_mutex_unlock(&vm->lock);
	return ret < 0 ? fail(ret, "0x%llx: cannot be loaded: %s", (unsigned long long)at,
				 ret == -EPERM ? "the VM is protected" : strerror(-ret))
		       : 0;
}
