/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "uv/copy.h"

#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "os/futex.h"
#include "uv/share_auto.h"
#include "uv/status.h"

/* A request in private memory. */
struct request {
	uint32_t count;
	struct abi_copy segment[ABI_COPY_SEGMENTS];
};

/* Takes the request over: what the hypervisor writes to it from now on counts no more. */
static int take(const struct abi_vcpu_page *page, struct request *ret)
{
	uint64_t bytes = 0;

	ret->count = __atomic_load_n(&page->copy_count, __ATOMIC_RELAXED);
	if (ret->count < 1 || ret->count > ABI_COPY_SEGMENTS)
		return -EINVAL;
	memcpy(ret->segment, page->copy, ret->count * sizeof(ret->segment[0]));
	/* The compiler shall not look there again. */
	__asm__ volatile("" : : "r"(ret) : "memory");
	for (uint32_t i = 0; i < ret->count; i++)
		bytes += ret->segment[i].bytes;
	return bytes > ABI_COPY_DATA ? -EINVAL : 0;
}

/* All pages that a segment touches are shared memory.  Caller holds vm->memory. */
static int check_segment(const struct uv_vm *vm, const struct abi_copy *s)
{
	struct gfn_range r = {.start = gpa_to_gfn(gpa(s->gpa))};
	uint64_t end;
	int ret;

	if (s->bytes == 0 || s->to_guest > 1)
		return -EINVAL;
	if (!checked_add(s->gpa, s->bytes, &end) || end > GPA_END)
		return -ERANGE;
	r.count = ((end - 1) >> PAGE_SHIFT) - r.start.v + 1;
	ret = slots_check_covered(&vm->slots, r);
	if (ret == 0 && !attr_all_shared(vm->attr, r))
		ret = -EPERM;
	return ret;
}

/* A VM that is not secure has no shared page, and all of its requests end here. */
static int check(const struct uv_vm *vm, const struct request *q)
{
	int ret = 0;

	for (uint32_t i = 0; i < q->count && ret == 0; i++)
		ret = check_segment(vm, &q->segment[i]);
	return ret;
}

static void copy_segment(struct uv_vm *vm, const struct abi_copy *s, uint8_t *data)
{
	for (uint32_t done = 0; done < s->bytes;) {
		uint64_t n;
		uint8_t *p = uv_vm_address(vm, gpa(s->gpa + done), s->bytes - done, &n);

		if (s->to_guest == 1)
			memcpy(p, data + done, n);
		else
			memcpy(data + done, p, n);
		done += (uint32_t)n;
	}
}

static int perform(struct uv_vcpu *v)
{
	struct uv_vm *vm = v->vm;
	struct request q;
	uint8_t *data = v->copy_data;
	int ret = take(v->page, &q);

	if (ret < 0)
		return ret;
	pthread_rwlock_rdlock(&vm->memory);
	ret = check(vm, &q);
	for (uint32_t i = 0; i < q.count && ret == 0; i++) {
		copy_segment(vm, &q.segment[i], data);
		share_auto_used(vm->share_auto, gpa(q.segment[i].gpa), q.segment[i].bytes);
		data += q.segment[i].bytes;
	}
	pthread_rwlock_unlock(&vm->memory);
	return ret;
}

bool copy_serve(struct uv_vcpu *v)
{
	struct abi_vcpu_page *page = v->page;
	uint32_t seq = __atomic_load_n(&page->copy_seq, __ATOMIC_ACQUIRE);

	if (seq == v->copy_seq)
		return false;
	v->copy_seq = seq;
	page->copy_status = status_of(perform(v));
	__atomic_store_n(&page->copy_done, seq, __ATOMIC_RELEASE);
	futex_ring(&page->bell, &page->reply_sleeps);
	return true;
}
