/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "uv/convert.h"

#include <errno.h>

#include "base/checked.h"
#include "uv/guest_stop.h"
#include "uv/pager.h"
#include "uv/share_auto.h"
#include "uv/share_map.h"
#include "uv/status.h"
#include "uv/sweeper.h"
#include "uv/vcpu.h"

/* An untrusted range of a protected VM, all of it memory.  Caller holds vm->lock. */
static int check_range(struct uv_vm *vm, uint64_t start, uint64_t bytes, struct gfn_range *ret)
{
	struct gfn_range r;
	int err = checked_gfn_range(start, bytes, &r);

	if (err < 0)
		return err;
	if (vm->state.security != SECURITY_SECURE)
		return -ENODATA;
	err = slots_check_covered(&vm->slots, r);
	if (err == 0)
		*ret = r;
	return err;
}

/* True if every page of @r is already what is asked for. */
static bool is_converted(const struct uv_vm *vm, struct gfn_range r, bool to_shared)
{
	return to_shared ? attr_all_shared(vm->attr, r) : attr_all(vm->attr, r, ATTR_PRIVATE);
}

/* private or shared => the other, for all of @r.  Caller holds vm->lock. */
static int commit(struct uv_vm *vm, struct gfn_range r, bool to_shared)
{
	enum page_attr shared = (vm->flags & ABI_VM_SHARE_MAPPED) != 0 ? ATTR_MAPPED : ATTR_COPIED;
	int ret = share_change(vm, r, to_shared ? shared : ATTR_PRIVATE);

	if (ret == 0 && to_shared)
		share_auto_shared(vm->share_auto, r);
	else if (ret == 0)
		share_auto_unshared(vm->share_auto, r);
	return ret;
}

/* Pages of @r that are not shared yet. */
static uint64_t count_unshared(const struct uv_vm *vm, struct gfn_range r)
{
	uint64_t n = 0;

	for (uint64_t at = r.start.v; at < range_end(r);) {
		struct attr_run run = attr_run_at(vm->attr, at, range_end(r));

		n += attr_is_shared(run.attr) ? 0 : run.end - run.start;
		at = run.end;
	}
	return n;
}

/* Whether the hypervisor's standing word allows to share @r.  Caller holds vm->lock. */
static bool fits_policy(const struct uv_vm *vm, struct gfn_range r)
{
	uint64_t most = vm->policy.max_shared_bytes >> PAGE_SHIFT, shared;

	if (slots_pages(&vm->slots) <= most)
		return true;
	shared = attr_count(vm->attr, ATTR_COPIED) + attr_count(vm->attr, ATTR_MAPPED);
	return shared <= most && count_unshared(vm, r) <= most - shared;
}

/* True if a conversion of @r needs no word of the hypervisor.  Caller holds vm->lock. */
static bool is_allowed(const struct uv_vm *vm, struct gfn_range r, bool to_shared)
{
	for (uint32_t i = 0; i < vm->policy.count; i++) {
		const struct abi_range *p = &vm->policy.range[i];

		if (gfn_to_gpa(r.start).v >= p->gpa &&
			gfn_to_gpa(r.start).v + range_bytes(r) <= p->gpa + p->bytes)
			return !to_shared || fits_policy(vm, r);
	}
	return false;
}

static int commit_by_policy(struct uv_vm *vm, struct gfn_range r, bool to_shared)
{
	int ret = commit(vm, r, to_shared);

	if (ret == 0 && to_shared) {
		vm->shares.policy_shares++;
		vm->shares.policy_shared_bytes += range_bytes(r);
	} else if (ret == 0) {
		vm->shares.policy_unshares++;
		vm->shares.policy_unshared_bytes += range_bytes(r);
	}
	return ret;
}

/* A good range, as begin().  Caller holds vm->lock. */
static int begin_locked(struct uv_vcpu *v, struct gfn_range r, bool to_shared)
{
	struct uv_vm *vm = v->vm;
	int ret;

	if (is_converted(vm, r, to_shared))
		return 1;
	ret = pending_begin(&vm->pending, v->id, r);
	if (ret < 0 || !is_allowed(vm, r, to_shared))
		return ret;
	pending_end(&vm->pending, v->id);
	ret = commit_by_policy(vm, r, to_shared);
	return ret == 0 ? 1 : ret;
}

/*
 * Checks, and marks pending; what the policy allows is done at once.  1: nothing more to do;
 * 0: go on with *ret; negative: refused, or the policy's conversion failed.
 */
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
		if (err == 0 && !attr_none(vm->attr, r, ATTR_RELEASED))
			err = -EPERM;
		sealed = err == 0 && !attr_none(vm->attr, r, ATTR_SEALED);
		if (sealed)
			err = -ECANCELED;
		else if (err == 0)
			err = begin_locked(v, r, to_shared);
		pthread_mutex_unlock(&vm->lock);
	} while (sealed ? pager_fetch(v, r) : err == -EDEADLK && pager_wait(vm));
	if (err == 0)
		*ret = r;
	return err;
}

/*
 * Ends the transaction: commits if the hypervisor accepted, the memory is still there and no
 * page was released meanwhile.
 */
static int end(struct uv_vcpu *v, struct gfn_range r, bool to_shared, int refused)
{
	struct uv_vm *vm = v->vm;
	int ret;

	do {
		ret = refused;
		pthread_mutex_lock(&vm->lock);
		if (ret == 0)
			ret = slots_check_covered(&vm->slots, r);
		if (ret == 0 && !attr_none(vm->attr, r, ATTR_RELEASED))
			ret = -EPERM;
		if (ret == 0)
			ret = commit(vm, r, to_shared);
		if (ret != -EDEADLK)
			pending_end(&vm->pending, v->id);
		pthread_mutex_unlock(&vm->lock);
		if (ret == -EDEADLK && !pager_wait(vm))
			refused = -ECANCELED;
	} while (ret == -EDEADLK);
	return ret;
}

/* The result of a conversion that ended with @err, if the guest can go on. */
static int64_t result_of(struct uv_vcpu *v, uint64_t start, int err)
{
	if (err != -ENOTRECOVERABLE)
		return -(int64_t)status_of(err);
	guest_stop(v, ABI_STOP_HOST, start, "a conversion failed half way");
	return GUEST_CALL_ENDED;
}

int64_t convert_by_guest(struct uv_vcpu *v, uint64_t start, uint64_t bytes, bool to_shared)
{
	struct exit_reply reply = {0};
	struct gfn_range r;
	int ret = begin(v, start, bytes, to_shared, &r);

	if (ret != 0)
		return ret > 0 ? 0 : result_of(v, start, ret);
	vcpu_exit_post(v, ABI_EXIT_CONVERT, (uint64_t[6]){start, bytes, to_shared}, 0);
	if (!vcpu_exit_wait(v, &reply)) {
		(void)end(v, r, to_shared, -ECANCELED);
		return GUEST_CALL_ENDED;
	}
	if (reply.status != ABI_ST_OK) {
		(void)end(v, r, to_shared, -ECANCELED);
		v->last_result = status_refused(reply.status);
		return v->last_result;
	}
	ret = end(v, r, to_shared, 0);
	if (ret == -ENOTRECOVERABLE)
		return result_of(v, start, ret);
	v->last_result = result_of(v, start, ret);
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

/* Destroys the content of @r, slot by slot, and lets nobody touch it. */
static int give_up_pages(struct uv_vm *vm, struct gfn_range r)
{
	int ret = 0;

	for (uint64_t at = r.start.v; at < range_end(r) && ret == 0;) {
		int id = slots_find(&vm->slots, gfn(at));
		struct gfn_range slot = vm->slots.slot[id].range;
		uint64_t end = range_end(r) < range_end(slot) ? range_end(r) : range_end(slot);
		const struct window *w = &vm->memory_of[id].window;
		uint64_t offset = (at - slot.start.v) << PAGE_SHIFT;

		ret = sweep_release(vm, w, offset, (end - at) << PAGE_SHIFT);
		if (ret == 0)
			ret = window_forbid(w, offset, (end - at) << PAGE_SHIFT);
		at = end;
	}
	return ret;
}

/*
 * private => released, without content.  -ENOTRECOVERABLE if that fails half way: there is no
 * telling what the guest would find.  Caller holds vm->lock.
 */
static int commit_release(struct uv_vm *vm, struct gfn_range r)
{
	int ret = share_range_begin(vm, r);

	if (ret < 0)
		return ret;
	pthread_rwlock_wrlock(&vm->memory);
	ret = attr_set(vm->attr, r, ATTR_RELEASED);
	attr_map_reclaim(vm->attr);
	if (ret == 0 && give_up_pages(vm, r) < 0)
		ret = -ENOTRECOVERABLE;
	pthread_rwlock_unlock(&vm->memory);
	share_range_end(vm, r);
	return ret;
}

int convert_release(struct uv_vm *vm, uint64_t start, uint64_t bytes)
{
	struct gfn_range r;
	int ret;

	do {
		pthread_mutex_lock(&vm->lock);
		ret = check_range(vm, start, bytes, &r);
		if (ret == 0)
			ret = is_none_shared(vm, r) ? commit_release(vm, r) : -EPERM;
		pthread_mutex_unlock(&vm->lock);
	} while (ret == -EDEADLK && pager_wait(vm));
	/* A vCPU may wait for one of them that was sealed. */
	pager_arrived(vm);
	return ret;
}

/* ---- the policy ---- */

int convert_set_policy(struct uv_vm *vm, const struct abi_policy *policy)
{
	if (policy->count > ABI_POLICY_RANGES)
		return -EINVAL;
	for (uint32_t i = 0; i < policy->count; i++) {
		struct gfn_range unused;
		int ret = checked_gfn_range(policy->range[i].gpa, policy->range[i].bytes, &unused);

		if (ret < 0)
			return ret;
	}
	pthread_mutex_lock(&vm->lock);
	vm->policy = *policy;
	pthread_mutex_unlock(&vm->lock);
	return 0;
}
