/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "uv/convert.h"

#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "base/log.h"
#include "os/memfd.h"
#include "uv/executor.h"
#include "uv/guestcall.h"
#include "uv/pager.h"
#include "uv/stale.h"
#include "uv/status.h"
#include "uv/sweeper.h"
#include "uv/vcpu.h"

/* Finds the one slot of an untrusted range of a protected VM.  Caller holds vm->lock. */
static int check_range(struct uv_vm *vm, uint64_t start, uint64_t bytes, struct gfn_range *ret)
{
	struct gfn_range r;
	int err = checked_gfn_range(start, bytes, &r);

	if (err < 0)
		return err;
	if (vm->state.security != SECURITY_SECURE)
		return -ENODATA;
	err = slots_find_range(&vm->slots, r);
	if (err >= 0)
		*ret = r;
	return err;
}

static uint64_t offset_in(const struct uv_vm *vm, int slot, struct gfn_range r)
{
	return (r.start.v - vm->slots.slot[slot].range.start.v) << PAGE_SHIFT;
}

/* True if every page of @r is already what is asked for. */
static bool is_converted(const struct uv_vm *vm, struct gfn_range r, bool to_shared)
{
	return to_shared ? attr_all_shared(vm->attr, r) : attr_all(vm->attr, r, ATTR_PRIVATE);
}

/* Copies what is resident of a private part into the memfd, the rest of which is zero. */
static int copy_out(struct slot_memory *m, uint64_t offset, uint64_t bytes)
{
	uint64_t at = offset, n, end = offset + bytes;
	struct window view;
	int ret = memfd_discard(m->memfd, offset, bytes);

	if (ret < 0)
		return ret;
	ret = window_shared(m->memfd, m->window.bytes, &view);
	if (ret < 0)
		return ret;
	while ((ret = window_next_resident(&m->window, at, end, &at, &n)) == 0) {
		memcpy(view.base + at, m->window.base + at, n);
		at += n;
	}
	(void)window_unmap(&view);
	return ret == -ENXIO ? 0 : ret;
}

/*
 * private window => memfd laid over it, same content.  On failure the memfd part is
 * empty again and the window unchanged.  The private pages that the overlay frees are not
 * wiped: their content is the hypervisor's to read from here on.
 */
static int map_part(struct uv_vm *vm, struct slot_memory *m, uint64_t offset, uint64_t bytes)
{
	int ret = stale_take_back(vm, m, offset, bytes);

	if (ret == 0)
		ret = copy_out(m, offset, bytes);
	if (ret == 0)
		ret = window_overlay(&m->window, m->memfd, offset, bytes);
	if (ret < 0)
		(void)memfd_discard(m->memfd, offset, bytes);
	return ret;
}

/*
 * memfd laid over the window => private pages with the same content; the memfd part is
 * stale.  On failure nothing has changed.
 */
static int unmap_part(struct uv_vm *vm, struct slot_memory *m, uint64_t offset, uint64_t bytes)
{
	int ret = window_restore(&m->window, offset, bytes, m->window.base + offset);

	if (ret == 0 && stale_add(vm, m, offset, bytes) < 0)
		ret = memfd_discard(m->memfd, offset, bytes);
	return ret;
}

/*
 * Changes the mapping of every run of @r that is not @to_shared yet; with copied sharing
 * there is none, and a conversion is a change of attributes.  On failure *ret_done says
 * how far it came.  Caller holds lock and memory for writing.
 */
static int change_mappings(
	struct uv_vm *vm, int slot, struct gfn_range r, bool to_shared, uint64_t *ret_done)
{
	struct slot_memory *m = &vm->memory_of[slot];
	uint64_t base = vm->slots.slot[slot].range.start.v;
	int ret = 0;

	for (uint64_t at = r.start.v; at < range_end(r) && ret == 0;) {
		struct attr_run run = attr_run_at(vm->attr, at, range_end(r));
		uint64_t offset = (run.start - base) << PAGE_SHIFT;
		uint64_t bytes = (run.end - run.start) << PAGE_SHIFT;

		*ret_done = run.start;
		if (to_shared && run.attr == ATTR_PRIVATE)
			ret = map_part(vm, m, offset, bytes);
		else if (!to_shared && run.attr == ATTR_MAPPED)
			ret = unmap_part(vm, m, offset, bytes);
		at = run.end;
	}
	if (ret == 0)
		*ret_done = range_end(r);
	return ret;
}

/*
 * Maps the runs of @r again as their attributes, which have not changed, say.  A run that
 * cannot be put back keeps its content in its new place; the guest sees no difference.
 */
static void undo_mappings(struct uv_vm *vm, int slot, struct gfn_range r, bool to_shared)
{
	struct slot_memory *m = &vm->memory_of[slot];
	uint64_t base = vm->slots.slot[slot].range.start.v;

	for (uint64_t at = r.start.v; at < range_end(r);) {
		struct attr_run run = attr_run_at(vm->attr, at, range_end(r));
		uint64_t offset = (run.start - base) << PAGE_SHIFT;
		uint64_t bytes = (run.end - run.start) << PAGE_SHIFT;
		int ret = 0;

		if (to_shared && run.attr == ATTR_PRIVATE)
			ret = unmap_part(vm, m, offset, bytes);
		else if (!to_shared && run.attr == ATTR_MAPPED)
			ret = map_part(vm, m, offset, bytes);
		if (ret < 0)
			log_error("a failed conversion could not be undone");
		at = run.end;
	}
}

/* The shared backing that an unshare left behind: now, or by the sweeper. */
static void discard(struct uv_vm *vm, int slot, struct gfn_range r)
{
	if ((vm->flags & ABI_VM_DISCARD_EAGER) == 0)
		sweeper_poke(vm->sweeper);
	else if (stale_discard_now(
			 vm, &vm->memory_of[slot], offset_in(vm, slot, r), range_bytes(r)) < 0)
		log_warn("stale shared memory is kept for the sweeper");
}

/* No vCPU touches @r from here to range_end_change(). */
static void range_begin(struct uv_vm *vm, struct gfn_range r)
{
	if (vm->executor->range_begin != NULL)
		vm->executor->range_begin(vm, r);
}

static void range_end_change(struct uv_vm *vm, struct gfn_range r)
{
	if (vm->executor->range_end != NULL)
		vm->executor->range_end(vm, r);
}

/*
 * private or shared => the other, for all of @r.  Copied sharing leaves the page where it
 * is, so vCPUs that use it need not be told.  Caller holds vm->lock.
 */
static int commit(struct uv_vm *vm, int slot, struct gfn_range r, bool to_shared)
{
	enum page_attr to = !to_shared                               ? ATTR_PRIVATE
			    : (vm->flags & ABI_VM_SHARE_MAPPED) != 0 ? ATTR_MAPPED
								     : ATTR_COPIED;
	bool mapped = (vm->flags & ABI_VM_SHARE_MAPPED) != 0;
	uint64_t done = r.start.v;
	int ret = 0;

	if (mapped)
		range_begin(vm, r);
	pthread_rwlock_wrlock(&vm->memory);
	if (mapped)
		ret = change_mappings(vm, slot, r, to_shared, &done);
	if (ret == 0)
		ret = attr_set(vm->attr, r, to);
	attr_map_reclaim(vm->attr);
	if (ret < 0)
		undo_mappings(vm, slot, (struct gfn_range){r.start, done - r.start.v}, to_shared);
	pthread_rwlock_unlock(&vm->memory);
	if (mapped) {
		range_end_change(vm, r);
		if (ret == 0 && !to_shared)
			discard(vm, slot, r);
	}
	return ret;
}

/* Checks and marks pending.  1: nothing to do; 0: go on with *ret; negative: refused. */
static int begin(
	struct uv_vcpu *v, uint64_t start, uint64_t bytes, bool to_shared, struct gfn_range *ret)
{
	struct uv_vm *vm = v->vm;
	struct gfn_range r;
	bool sealed;
	int err;

	do {
		pthread_mutex_lock(&vm->lock);
		err = check_range(vm, start, bytes, &r);
		if (err >= 0 && !attr_none(vm->attr, r, ATTR_RELEASED))
			err = -EPERM;
		sealed = err >= 0 && !attr_none(vm->attr, r, ATTR_SEALED);
		if (sealed)
			err = -ECANCELED;
		else if (err >= 0)
			err = is_converted(vm, r, to_shared)
				      ? 1
				      : pending_begin(&vm->pending, v->id, r);
		pthread_mutex_unlock(&vm->lock);
	} while (sealed && pager_fetch(v, r));
	if (err == 0)
		*ret = r;
	return err;
}

/*
 * Ends the transaction: commits if the hypervisor accepted, the slot is still there and no
 * page was released meanwhile.
 */
static int end(struct uv_vcpu *v, struct gfn_range r, bool to_shared, int refused)
{
	struct uv_vm *vm = v->vm;
	int ret = refused;

	pthread_mutex_lock(&vm->lock);
	pending_end(&vm->pending, v->id);
	if (ret == 0)
		ret = slots_find_range(&vm->slots, r);
	if (ret >= 0 && !attr_none(vm->attr, r, ATTR_RELEASED))
		ret = -EPERM;
	if (ret >= 0)
		ret = commit(vm, ret, r, to_shared);
	pthread_mutex_unlock(&vm->lock);
	return ret;
}

int64_t convert_by_guest(struct uv_vcpu *v, uint64_t start, uint64_t bytes, bool to_shared)
{
	struct exit_reply reply = {0};
	struct gfn_range r;
	int ret = begin(v, start, bytes, to_shared, &r);

	if (ret != 0)
		return ret > 0 ? 0 : -(int64_t)status_of(ret);
	vcpu_exit_post(v, ABI_EXIT_CONVERT, (uint64_t[6]){start, bytes, to_shared}, 0);
	if (!vcpu_exit_wait(v, &reply)) {
		(void)end(v, r, to_shared, -ECANCELED);
		return GUEST_CALL_ENDED;
	}
	if (reply.status != ABI_ST_OK) {
		(void)end(v, r, to_shared, -ECANCELED);
		return guest_call_refused(reply.status);
	}
	ret = end(v, r, to_shared, 0);
	v->last_result = -(int64_t)status_of(ret);
	return v->last_result;
}

/* Every page of @r is private or released. */
static bool is_none_shared(const struct uv_vm *vm, struct gfn_range r)
{
	for (uint64_t at = r.start.v; at < range_end(r);) {
		struct attr_run run = attr_run_at(vm->attr, at, range_end(r));

		if (attr_is_shared(run.attr))
			return false;
		at = run.end;
	}
	return true;
}

/* private => released, without content.  Caller holds vm->lock. */
static int commit_release(struct uv_vm *vm, int slot, struct gfn_range r)
{
	const struct window *w = &vm->memory_of[slot].window;
	uint64_t offset = offset_in(vm, slot, r);
	int ret;

	range_begin(vm, r);
	pthread_rwlock_wrlock(&vm->memory);
	ret = attr_set(vm->attr, r, ATTR_RELEASED);
	attr_map_reclaim(vm->attr);
	if (ret == 0)
		ret = sweep_release(vm, w, offset, range_bytes(r));
	if (ret == 0)
		ret = window_forbid(w, offset, range_bytes(r));
	pthread_rwlock_unlock(&vm->memory);
	range_end_change(vm, r);
	return ret;
}

int convert_release(struct uv_vm *vm, uint64_t start, uint64_t bytes)
{
	struct gfn_range r;
	int slot, ret;

	pthread_mutex_lock(&vm->lock);
	ret = slot = check_range(vm, start, bytes, &r);
	if (ret >= 0)
		ret = is_none_shared(vm, r) ? commit_release(vm, slot, r) : -EPERM;
	pthread_mutex_unlock(&vm->lock);
	/* A vCPU may wait for one of them that was sealed. */
	pager_arrived(vm);
	return ret;
}
