/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The switch to secure: INIT_START, PAGE_IN of what must keep its content, INIT_DONE; or
 * INIT_ABORT, after which the VM is normal as before.
 */
#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "hv/error.h"
#include "hv/vm.h"

static int check_ranges(const struct lethe_range *ranges, size_t count)
{
	struct gfn_range a, b;

	if (count > ABI_MAX_RANGES)
		return fail(-EINVAL, "more than %u necessary ranges", ABI_MAX_RANGES);
	for (size_t i = 0; i < count; i++) {
		int ret = checked_gfn_range(ranges[i].gpa, ranges[i].bytes, &a);

		if (ret < 0)
			return fail(ret, "necessary range %zu is not made of whole pages", i);
		for (size_t j = 0; j < i; j++) {
			(void)checked_gfn_range(ranges[j].gpa, ranges[j].bytes, &b);
			if (a.start.v < range_end(b) && b.start.v < range_end(a))
				return fail(-EEXIST, "necessary ranges %zu and %zu overlap", j, i);
		}
	}
	return 0;
}

/* New states for every slot: necessary GFNs are paged in.  Caller holds vm->lock. */
static int make_states(struct lethe_vm *vm)
{
	for (unsigned int i = 0; i < ABI_MAX_SLOTS; i++) {
		if (!vm->slot[i].used)
			continue;
		vm->slot[i].states = gfn_states_new();
		if (vm->slot[i].states == NULL)
			return -ENOMEM;
	}
	return 0;
}

static void drop_states(struct lethe_vm *vm)
{
	for (unsigned int i = 0; i < ABI_MAX_SLOTS; i++) {
		gfn_states_free(vm->slot[i].states);
		vm->slot[i].states = NULL;
	}
}

static int page_in(struct lethe_vm *vm, const struct lethe_range *range)
{
	const struct abi_page_in args = {.gpa = range->gpa, .bytes = range->bytes};
	struct abi_page_in_ret unused;
	struct gfn_range r;
	struct slot *s;
	int ret = checked_gfn_range(range->gpa, range->bytes, &r);

	s = ret == 0 ? hv_find_slot(vm, r) : NULL;
	if (s == NULL)
		return ret < 0 ? ret : -ENOENT;
	ret = hv_call(vm, ABI_CALL_PAGE_IN, &args, &unused);
	return ret == 0 ? gfn_state_apply(s->states, r, GFN_PAGE_IN) : ret;
}

/* Everything that is still NORMAL is secure from here on. */
static int init_done(struct lethe_vm *vm, struct abi_init_done_ret *done)
{
	int ret = 0;

	for (unsigned int i = 0; i < ABI_MAX_SLOTS && ret == 0; i++) {
		if (vm->slot[i].used)
			ret = gfn_state_apply(vm->slot[i].states, vm->slot[i].range, GFN_INIT_DONE);
	}
	return ret == 0 ? hv_call(vm, ABI_CALL_INIT_DONE, NULL, done) : ret;
}

/* NORMAL => TRANSIENT => SECURE, or NORMAL again.  Caller holds vm->lock. */
static int switch_to_secure(struct lethe_vm *vm, const struct lethe_range *necessary, size_t count,
	struct abi_init_done_ret *done)
{
	int ret = vm->is_protected ? -EPROTO : make_states(vm);
	bool started = false;

	if (ret == 0) {
		ret = hv_call(vm, ABI_CALL_INIT_START, NULL, NULL);
		started = ret == 0;
	}
	for (size_t i = 0; i < count && ret == 0; i++)
		ret = page_in(vm, &necessary[i]);
	if (ret == 0)
		ret = init_done(vm, done);
	if (ret == 0) {
		vm->is_protected = true;
		return 0;
	}
	if (started)
		(void)hv_call(vm, ABI_CALL_INIT_ABORT, NULL, NULL);
	if (!vm->is_protected)
		drop_states(vm);
	return ret;
}

int lethe_vm_protect(struct lethe_vm *vm, const struct lethe_range *necessary, size_t count,
	struct lethe_protect_result *ret)
{
	struct abi_init_done_ret done;
	int err = check_ranges(necessary, count);

	if (err < 0)
		return err;
	pthread_mutex_lock(&vm->lock);
	err = switch_to_secure(vm, necessary, count, &done);
	pthread_mutex_unlock(&vm->lock);
	if (err < 0)
		return fail(err, "the VM could not turn secure: %s", strerror(-err));
	if (ret != NULL) {
		ret->duration_ns = done.duration_ns;
		ret->pages_copied = done.pages_copied;
		ret->pages_secured = done.pages_secured;
		memcpy(ret->measurement, done.measurement, sizeof(ret->measurement));
	}
	return 0;
}

bool lethe_vm_is_protected(const struct lethe_vm *vm)
{
	struct lethe_vm *locked = (struct lethe_vm *)vm;
	bool yes;

	pthread_mutex_lock(&locked->lock);
	yes = vm->is_protected;
	pthread_mutex_unlock(&locked->lock);
	return yes;
}
