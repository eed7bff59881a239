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
static int take(const struct abi_vcpu_page *page, uint32_t count, struct request *ret)
{
	uint64_t bytes = 0;

	ret->count = count;
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

static int perform(struct uv_vcpu *v, uint32_t count)
{
	struct uv_vm *vm = v->vm;
	struct request q;
	uint8_t *data = v->copy_data;
	int ret = take(v->page, count, &q);

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
	page->copy_status =
		status_of(perform(v, __atomic_load_n(&page->copy_count, __ATOMIC_RELAXED)));
	__atomic_store_n(&page->copy_done, seq, __ATOMIC_RELEASE);
	futex_ring(&page->bell, &page->reply_sleeps);
	return true;
}

uint32_t copy_with_reply(struct uv_vcpu *v)
{
	uint32_t count = __atomic_load_n(&v->page->reply_copies, __ATOMIC_RELAXED);

	return count == 0 ? ABI_ST_OK : status_of(perform(v, count));
}

void copy_along(struct uv_vcpu *v, uint64_t start, uint64_t bytes)
{
	struct abi_copy s = {.gpa = start, .bytes = (uint32_t)bytes};
	struct uv_vm *vm = v->vm;

	if (bytes > ABI_COPY_DATA)
		return;
	pthread_rwlock_rdlock(&vm->memory);
	/* What is mapped is in the hypervisor's reach. */
	if (check_segment(vm, &s) == 0 &&
		attr_get(vm->attr, gpa_to_gfn(gpa(start))) == ATTR_COPIED) {
		copy_segment(vm, &s, v->copy_data);
		share_auto_used(vm->share_auto, gpa(start), bytes);
		v->copied = s.bytes;
	}
	pthread_rwlock_unlock(&vm->memory);
}
