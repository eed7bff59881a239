/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * uv calls: the audit of a slot's memory, a bounded part at a time.
 *
 * A page has its content in one place: the private window, or, if it is mapped, the memfd.
 * What the memfd holds besides is of no use: it was left behind and is queued already
 * (stale), or the hypervisor allocated it, before it gave the memfd away or afterwards
 * (doubly held).  The audit finds the latter and queues it too.  Nothing else changes.
 */
#include <errno.h>

#include "os/memfd.h"
#include "uv/dispatch.h"
#include "uv/stale.h"

/* What one call looks at: at most so much memory, and so many parts of it. */
#define AUDIT_PAGES ((uint64_t)16384)
#define AUDIT_PARTS 512

struct audit {
	struct uv_vm *vm;
	struct slot_memory *m;
	uint64_t base; /* the slot's first page */
	unsigned int parts;
	struct abi_audit_ret *found;
};

/* Bytes of memory in pages [@start, @end) of the memfd, written to or not. */
static int held_in(const struct audit *a, uint64_t start, uint64_t end, uint64_t *ret)
{
	uint64_t at = start << PAGE_SHIFT, stop = end << PAGE_SHIFT, to = at, total = 0;
	int err = memfd_held(a->m->memfd, at, stop - at, ret);

	if (err != -ENOSYS)
		return err;
	/* Before Linux 6.5: what was allocated and never written stays unseen. */
	while ((err = memfd_next_data(a->m->memfd, to, stop, &at, &to)) == 0)
		total += to - at;
	if (err == -ENXIO)
		*ret = total;
	return err == -ENXIO ? 0 : err;
}

/* Pages [@start, @end) have their content elsewhere: whatever the memfd holds is too much. */
static int audit_unused(struct audit *a, uint64_t start, uint64_t end, uint64_t *ret_done)
{
	uint64_t held = 0;
	int err = 0;

	while (err == 0 && start < end && a->parts++ < AUDIT_PARTS) {
		struct range_run run = stale_run_at(a->vm, a->m, start, end);

		err = held_in(a, start, run.end, &held);
		if (err == 0 && run.value == 0 && held > 0)
			err = stale_add(
				a->vm, a->m, start << PAGE_SHIFT, (run.end - start) << PAGE_SHIFT);
		if (err == 0 && run.value == 0)
			a->found->doubly_held += held;
		else if (err == 0)
			a->found->stale += held;
		start = run.end;
	}
	*ret_done = start;
	return err;
}

/* Pages [@start, @end) of the slot, all @attr.  *ret_done: where it gave up, or @end. */
static int audit_run(
	struct audit *a, uint64_t start, uint64_t end, enum page_attr attr, uint64_t *ret_done)
{
	bool in_memfd = attr == ATTR_MAPPED || a->vm->state.security != SECURITY_SECURE;
	uint64_t bytes = 0;
	int err;

	a->parts++;
	*ret_done = end;
	if (in_memfd) {
		err = held_in(a, start, end, &bytes);
	} else {
		err = audit_unused(a, start, end, ret_done);
		if (err == 0)
			err = window_resident(&a->m->window, start << PAGE_SHIFT,
				*ret_done << PAGE_SHIFT, &bytes);
	}
	if (in_memfd || attr_is_shared(attr))
		a->found->shared_resident += bytes;
	else
		a->found->private_resident += bytes;
	return err;
}

/* From page @start of the slot on.  *ret_done: where the next call goes on. */
static int audit_part(struct audit *a, uint64_t start, uint64_t end, uint64_t *ret_done)
{
	int err = 0;

	while (err == 0 && start < end && a->parts < AUDIT_PARTS) {
		struct attr_run run = attr_run_at(a->vm->attr, a->base + start, a->base + end);

		err = audit_run(a, start, run.end - a->base, run.attr, &start);
	}
	*ret_done = start;
	return err;
}

static int check(const struct uv_vm *vm, const struct abi_audit *args)
{
	int ret = slots_check(&vm->slots, args->id);

	if (ret < 0)
		return ret;
	if ((args->offset & PAGE_MASK) != 0)
		return -EINVAL;
	if (args->offset >= range_bytes(vm->slots.slot[args->id].range))
		return -ERANGE;
	return vm->state.security == SECURITY_TRANSIENT ? -EPROTO : 0;
}

int call_audit(struct uv_vm *vm, const struct call *c)
{
	const struct abi_audit *args = &c->args->audit;
	uint64_t start = args->offset >> PAGE_SHIFT, done;
	struct abi_audit_ret found = {0};
	int ret;

	pthread_mutex_lock(&vm->lock);
	ret = check(vm, args);
	if (ret == 0) {
		struct gfn_range slot = vm->slots.slot[args->id].range;
		struct audit a = {.vm = vm,
			.m = &vm->memory_of[args->id],
			.base = slot.start.v,
			.found = &found};
		uint64_t end = slot.count - start < AUDIT_PAGES ? slot.count : start + AUDIT_PAGES;

		ret = audit_part(&a, start, end, &done);
		found.next = done < slot.count ? done << PAGE_SHIFT : 0;
	}
	pthread_mutex_unlock(&vm->lock);
	if (ret == 0)
		c->result->audit = found;
	return ret;
}
