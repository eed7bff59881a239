/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The quick ways to shared memory of a protected VM, without a call: through the mapping of
 * this process where pages are mapped, and by the vCPU that waits for this thread.
 */
#include <errno.h>
#include <string.h>

#include "hv/vm.h"
#include "os/futex.h"

/* ---- mapped pages ---- */

static const struct abi_share_page *list_of(const struct lethe_vm *vm)
{
	return (const void *)((uint8_t *)vm->pages + ABI_SHARE_OFFSET(vm->vcpus));
}

static bool is_listed(const struct abi_share_page *list, uint64_t at, size_t bytes)
{
	uint32_t count = __atomic_load_n(&list->count, __ATOMIC_RELAXED);

	for (uint32_t i = 0; i < count && i < ABI_SHARE_RANGES; i++) {
		uint64_t start = __atomic_load_n(&list->range[i].gpa, __ATOMIC_RELAXED);
		uint64_t size = __atomic_load_n(&list->range[i].bytes, __ATOMIC_RELAXED);

		if (at >= start && at - start < size && bytes <= size - (at - start))
			return true;
	}
	return false;
}

/* The list is what it was when its generation was @seen, and so is what it lists. */
static bool is_still(const struct abi_share_page *list, uint32_t seen)
{
	memory_barrier();
	return __atomic_load_n(&list->generation, __ATOMIC_RELAXED) == seen;
}

bool hv_copy_direct(struct lethe_vm *vm, uint64_t at, uint8_t *data, size_t bytes, bool to_guest)
{
	const struct abi_share_page *list = list_of(vm);
	uint32_t seen = __atomic_load_n(&list->generation, __ATOMIC_ACQUIRE);

	if (bytes == 0)
		return true;
	if ((seen & 1) != 0 || !is_listed(list, at, bytes) || !is_still(list, seen))
		return false;
	hv_copy_mapping(vm, at, data, bytes, to_guest);
	return is_still(list, seen);
}

/* ---- by a vCPU ---- */

/* The vCPU that waits for this thread, of the VM that has this number; 0: none. */
static _Thread_local struct {
	uint64_t vm_id;
	unsigned int vcpu;
	/* Of what it has brought along, what was not read yet: each byte is as of the exit. */
	uint64_t gpa;
	uint32_t bytes, offset;
} open_at;

void hv_copy_open(struct lethe_vm *vm, unsigned int vcpu, uint64_t gpa, uint32_t bytes)
{
	open_at.vm_id = vm->id;
	open_at.vcpu = vcpu;
	open_at.gpa = gpa;
	open_at.bytes = bytes <= ABI_COPY_DATA ? bytes : 0;
	open_at.offset = 0;
}

void hv_copy_close(void)
{
	open_at.vm_id = 0;
}

static void fill_request(
	struct abi_vcpu_page *page, uint8_t *data, const struct lethe_copy *piece, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		page->copy[i] = (struct abi_copy){
			piece[i].gpa, (uint32_t)piece[i].bytes, piece[i].to_guest};
		if (piece[i].to_guest)
			memcpy(data, piece[i].data, piece[i].bytes);
		data += piece[i].bytes;
	}
}

static void take_results(const uint8_t *data, const struct lethe_copy *piece, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (!piece[i].to_guest)
			memcpy(piece[i].data, data, piece[i].bytes);
		data += piece[i].bytes;
	}
}

/* False if the vCPU has gone away from the exit @seen, and serves nobody. */
static bool wait_for_copy(struct abi_vcpu_page *page, uint32_t seq, uint32_t seen)
{
	unsigned int steps = 0;

	for (;;) {
		uint32_t bell = __atomic_load_n(&page->bell, __ATOMIC_ACQUIRE);

		if (__atomic_load_n(&page->copy_done, __ATOMIC_ACQUIRE) == seq)
			return true;
		if (__atomic_load_n(&page->exit_seq, __ATOMIC_ACQUIRE) != seen ||
			__atomic_load_n(&page->served_seq, __ATOMIC_ACQUIRE) != seen)
			return false;
		futex_await(&page->bell, bell, &page->reply_sleeps, &steps);
	}
}

/* The data area of the open vCPU. */
static uint8_t *data_of(struct lethe_vm *vm)
{
	return (uint8_t *)vm->pages + ABI_COPY_OFFSET(vm->vcpus) +
	       (size_t)open_at.vcpu * ABI_COPY_DATA;
}

/* The next bytes of what the vCPU has brought along; each is read there once only. */
static bool take_brought(struct lethe_vm *vm, const struct lethe_copy *c)
{
	if (c->to_guest || c->gpa != open_at.gpa || c->bytes > open_at.bytes)
		return false;
	memcpy(c->data, data_of(vm) + open_at.offset, c->bytes);
	open_at.gpa += c->bytes;
	open_at.offset += (uint32_t)c->bytes;
	open_at.bytes -= (uint32_t)c->bytes;
	return true;
}

/* The vCPU may still be at a request that was given up, and would find another's data. */
static bool is_free(const struct abi_vcpu_page *page, const struct vcpu_local *l)
{
	return __atomic_load_n(&page->copy_done, __ATOMIC_ACQUIRE) == l->copy_seq;
}

int hv_copy_by_vcpu(struct lethe_vm *vm, const struct lethe_copy *piece, size_t count)
{
	struct abi_vcpu_page *page;
	struct vcpu_local *l;
	int ret;

	if (open_at.vm_id != vm->id)
		return -ENODATA;
	if (count == 1 && take_brought(vm, piece))
		return 0;
	page = hv_vcpu_page(vm, open_at.vcpu);
	l = &vm->local[open_at.vcpu];
	if (!is_free(page, l))
		return -ENODATA;
	open_at.bytes = 0;
	fill_request(page, data_of(vm), piece, count);
	page->copy_count = (uint32_t)count;
	__atomic_store_n(&page->copy_seq, ++l->copy_seq, __ATOMIC_RELEASE);
	futex_ring(&page->reply_bell, &page->sleeps);
	if (!wait_for_copy(page, l->copy_seq, l->seen))
		return -ENODATA;
	ret = conn_errno(page->copy_status);
	if (ret == 0)
		take_results(data_of(vm), piece, count);
	return ret;
}

/* True if all of it fits one request, and none of it is within reach of this process. */
static bool is_for_vcpu(struct lethe_vm *vm, const struct lethe_copy *piece, size_t count)
{
	const struct abi_share_page *list = list_of(vm);
	size_t bytes = 0;

	for (size_t i = 0; i < count && bytes <= ABI_COPY_DATA; i++) {
		if (!piece[i].to_guest || piece[i].bytes == 0)
			return false;
		bytes += piece[i].bytes;
	}
	return count <= ABI_COPY_SEGMENTS && bytes <= ABI_COPY_DATA &&
	       __atomic_load_n(&list->count, __ATOMIC_RELAXED) == 0;
}

int hv_copy_then(struct lethe_vm *vm, const struct lethe_copy *piece, size_t count)
{
	struct abi_vcpu_page *page;

	if (open_at.vm_id != vm->id || !lethe_vm_is_protected(vm) || !is_for_vcpu(vm, piece, count))
		return lethe_mem_copy(vm, piece, count);
	page = hv_vcpu_page(vm, open_at.vcpu);
	if (!is_free(page, &vm->local[open_at.vcpu]))
		return lethe_mem_copy(vm, piece, count);
	fill_request(page, data_of(vm), piece, count);
	page->reply_copies = (uint32_t)count;
	return 0;
}
