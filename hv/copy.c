/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The quick ways to shared memory of a protected VM, without a call: through the mapping of
 * this process where pages are mapped, and by the vCPU that waits for this thread.
 */
#include <errno.h>
#include <sched.h>
#include <string.h>

#include "hv/vm.h"
#include "os/futex.h"

/* As in hv/vcpu.c. */
#define COPY_SPINS  200
#define COPY_YIELDS 200

/* ---- mapped pages ---- */

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
	const struct abi_share_page *list =
		(const void *)((uint8_t *)vm->pages + ABI_SHARE_OFFSET(vm->vcpus));
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
} open_at;

void hv_copy_open(struct lethe_vm *vm, unsigned int vcpu)
{
	open_at.vm_id = vm->id;
	open_at.vcpu = vcpu;
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
	page->copy_count = (uint32_t)count;
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
	unsigned int spins = 0;

	for (;;) {
		uint32_t bell = __atomic_load_n(&page->bell, __ATOMIC_ACQUIRE);

		if (__atomic_load_n(&page->copy_done, __ATOMIC_ACQUIRE) == seq)
			return true;
		if (__atomic_load_n(&page->exit_seq, __ATOMIC_ACQUIRE) != seen ||
			__atomic_load_n(&page->served_seq, __ATOMIC_ACQUIRE) != seen)
			return false;
		if (spins++ < COPY_SPINS)
			cpu_relax();
		else if (spins < COPY_SPINS + COPY_YIELDS)
			sched_yield();
		else
			futex_sleep(&page->bell, bell, &page->reply_sleeps);
	}
}

/* A negative errno for an abi status; what is none of those is -EIO. */
static int errno_of(uint32_t status)
{
	switch (status) {
#define X(name, number, error, text) \
	case number:                 \
		return -error;
		ABI_STATUS_TABLE(X)
#undef X
	default:
		return -EIO;
	}
}

int hv_copy_by_vcpu(struct lethe_vm *vm, const struct lethe_copy *piece, size_t count)
{
	struct abi_vcpu_page *page;
	struct vcpu_local *l;
	uint8_t *data;
	int ret;

	if (open_at.vm_id != vm->id)
		return -ENODATA;
	page = (struct abi_vcpu_page *)((uint8_t *)vm->pages +
					(size_t)open_at.vcpu * ABI_EXIT_PAGE);
	data = (uint8_t *)vm->pages + ABI_COPY_OFFSET(vm->vcpus) +
	       (size_t)open_at.vcpu * ABI_COPY_DATA;
	l = &vm->local[open_at.vcpu];
	/* One that was given up may still be served: not into the next one's data. */
	if (__atomic_load_n(&page->copy_done, __ATOMIC_ACQUIRE) != l->copy_seq)
		return -ENODATA;
	fill_request(page, data, piece, count);
	__atomic_store_n(&page->copy_seq, ++l->copy_seq, __ATOMIC_RELEASE);
	futex_ring(&page->reply_bell, &page->sleeps);
	if (!wait_for_copy(page, l->copy_seq, l->seen))
		return -ENODATA;
	ret = errno_of(page->copy_status);
	if (ret == 0)
		take_results(data, piece, count);
	return ret;
}
