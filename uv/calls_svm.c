/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * uv calls: the switch of a normal VM to secure.
 *
 * INIT_START pauses the vCPUs and gives each slot an empty private window; PAGE_IN
 * copies the pages that must keep their content and measures them; INIT_DONE makes the
 * private windows the guest's memory, so that all other pages are secure without a copy;
 * INIT_ABORT drops them.  Until INIT_DONE the guest's memory is untouched.
 *
 * While vCPUs run, the switch answers a guest's PROTECT: the pages taken in must be
 * exactly those that the guest named.  The hypervisor may write to its memory during
 * all this; what counts is the private copy, which is what is measured.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "os/clock.h"
#include "os/memfd.h"
#include "uv/dispatch.h"
#include "uv/executor.h"
#include "uv/measure.h"
#include "uv/page_in.h"
#include "uv/publish.h"
#include "uv/dying.h"
#include "uv/stale.h"
#include "uv/switch.h"
#include "uv/sweeper.h"
#include "uv/vcpu.h"

static void drop_filling(struct uv_vm *vm)
{
	for (unsigned int i = 0; i < SLOTS_MAX; i++) {
		struct window *w = &vm->memory_of[i].filling;

		if (w->base != NULL &&
			(sweep_release(vm, w, 0, w->bytes) < 0 || window_unmap(w) < 0)) {
			vm->quarantined_bytes += w->bytes;
			*w = (struct window){0};
		}
	}
	measure_free(vm->measure);
	range_map_free(vm->paged_in);
	vm->measure = NULL;
	vm->paged_in = NULL;
}

void switch_abandon(struct uv_vm *vm)
{
	if (vm->state.security != SECURITY_TRANSIENT)
		return;
	drop_filling(vm);
	if (!vm_state_set_security(&vm->state, SECURITY_NORMAL))
		log_error("a switch could not be abandoned");
	vcpus_resume(vm);
}

static int begin_measure(struct uv_vm *vm)
{
	int ret = measure_new(&vm->measure);

	if (ret == 0)
		ret = measure_add(vm->measure, MEASURE_VM, vm->vcpu_count, vm->executor->id);
	for (unsigned int i = 0; i < SLOTS_MAX && ret == 0; i++) {
		struct gfn_range r = vm->slots.slot[i].range;

		if (vm->slots.slot[i].used)
			ret = measure_add(
				vm->measure, MEASURE_SLOT, gfn_to_gpa(r.start).v, range_bytes(r));
	}
	if (ret == 0 && vm->executor->measure != NULL)
		ret = vm->executor->measure(vm, vm->measure);
	return ret;
}

/* All that a switch needs and that may fail.  Caller holds vm->lock. */
static int begin_filling(struct uv_vm *vm)
{
	int ret = begin_measure(vm);

	if (ret < 0)
		return ret;
	vm->paged_in = failpoint("uv-switch") < 0 ? NULL : range_map_new();
	if (vm->paged_in == NULL)
		return -ENOMEM;
	for (unsigned int i = 0; i < SLOTS_MAX && ret == 0; i++) {
		if (vm->slots.slot[i].used)
			ret = window_private(
				range_bytes(vm->slots.slot[i].range), &vm->memory_of[i].filling);
	}
	return ret;
}

/* NORMAL => TRANSIENT, vCPUs paused. */
int call_init_start(struct uv_vm *vm, const struct call *c)
{
	int ret = 0;

	if (!vcpus_pause(vm))
		return -EAGAIN;
	pthread_mutex_lock(&vm->lock);
	if (vm->state.security != SECURITY_NORMAL || vm->state.phase == PHASE_STOPPED ||
		(vm->state.phase == PHASE_RUNNING && !vm->switch_asked))
		ret = -EPROTO;
	else if (slots_pages(&vm->slots) == 0)
		ret = -ENOENT;
	vm->switch_start_ns = clock_ns();
	if (ret == 0) {
		vm->pages_copied = 0;
		ret = begin_filling(vm);
		if (ret < 0)
			drop_filling(vm);
	}
	if (ret == 0 && !vm_state_set_security(&vm->state, SECURITY_TRANSIENT))
		ret = -EPROTO;
	pthread_mutex_unlock(&vm->lock);
	if (ret < 0)
		vcpus_resume(vm);
	return ret;
}

static bool is_asked(const struct uv_vm *vm, struct gfn_range r)
{
	if (vm->state.phase == PHASE_SETUP)
		return true;
	for (uint32_t i = 0; i < vm->asked_count; i++) {
		struct gfn_range a;

		if (checked_gfn_range(vm->asked[i].gpa, vm->asked[i].bytes, &a) == 0 &&
			r.start.v >= a.start.v && range_end(r) <= range_end(a))
			return true;
	}
	return false;
}

/* A range's content: taken from the hypervisor's memory, once. */
int call_page_in(struct uv_vm *vm, const struct call *c)
{
	const struct abi_page_in *a = &c->args->page_in;
	struct gfn_range r;
	int slot, ret = checked_gfn_range(a->gpa, a->bytes, &r);

	if (ret < 0)
		return ret;
	pthread_mutex_lock(&vm->lock);
	ret = slot = slots_find_range(&vm->slots, r);
	if (ret >= 0)
		ret = vm->state.security == SECURITY_TRANSIENT ? 0 : -EPROTO;
	if (ret == 0 && !is_asked(vm, r))
		ret = -EPERM;
	if (ret == 0 && !range_map_all(vm->paged_in, r.start.v, range_end(r), 0))
		ret = -EEXIST;
	if (ret == 0)
		ret = page_in(vm, slot, r);
	if (ret == 0)
		c->result->page_in.pages = r.count;
	pthread_mutex_unlock(&vm->lock);
	return ret;
}

/* What the guest named must all have been taken in, or it would lose content. */
static int check_complete(const struct uv_vm *vm)
{
	if (vm->state.security != SECURITY_TRANSIENT || vm->state.phase == PHASE_STOPPED)
		return -EPROTO;
	if (vm->state.phase == PHASE_SETUP)
		return 0;
	/* The guest has been told that it was refused. */
	if (!vm->switch_asked)
		return -EPROTO;
	for (uint32_t i = 0; i < vm->asked_count; i++) {
		uint64_t start = vm->asked[i].gpa >> PAGE_SHIFT;

		if (!range_map_all(
			    vm->paged_in, start, start + (vm->asked[i].bytes >> PAGE_SHIFT), 1))
			return -ENOENT;
	}
	return 0;
}

static void swap_window(struct slot_memory *m)
{
	struct window old = m->window;

	m->window = m->filling;
	m->filling = old;
}

/* Shows the executor the private windows.  All or none. */
static int swap_windows(struct uv_vm *vm)
{
	unsigned int i;
	int ret = 0;

	for (i = 0; i < SLOTS_MAX && ret == 0; i++) {
		if (!vm->slots.slot[i].used)
			continue;
		swap_window(&vm->memory_of[i]);
		if (vm->executor->slot_changed != NULL)
			ret = vm->executor->slot_changed(vm, i);
	}
	if (ret == 0)
		return 0;
	while (i-- > 0) {
		if (!vm->slots.slot[i].used)
			continue;
		swap_window(&vm->memory_of[i]);
		(void)vm->executor->slot_changed(vm, i);
	}
	return ret;
}

/* After the swap: the old windows and the content of the memfds are nobody's. */
static void leave_old_backing(struct uv_vm *vm, struct dying *d)
{
	for (unsigned int i = 0; i < SLOTS_MAX; i++) {
		struct slot_memory *m = &vm->memory_of[i];

		if (!vm->slots.slot[i].used)
			continue;
		d->window[i] = m->filling;
		m->filling = (struct window){0};
		if (stale_add(vm, m, 0, m->window.bytes) < 0)
			(void)memfd_discard(m->memfd, 0, m->window.bytes);
	}
	dying_leave(vm, d, true);
}

static void fill_result(struct uv_vm *vm, struct abi_init_done_ret *ret)
{
	ret->pages_copied = vm->pages_copied;
	ret->pages_secured = slots_pages(&vm->slots) - vm->pages_copied;
	ret->duration_ns = clock_ns() - vm->switch_start_ns;
}

/* TRANSIENT => SECURE; every page that was not taken in is private and zero. */
int call_init_done(struct uv_vm *vm, const struct call *c)
{
	struct dying *d;
	int ret;

	pthread_mutex_lock(&vm->lock);
	ret = check_complete(vm);
	d = ret == 0 ? dying_new(vm->incarnation) : NULL;
	if (ret == 0 && d == NULL)
		ret = -ENOMEM;
	if (ret == 0)
		ret = measure_finish(vm->measure, c->result->init_done.measurement);
	if (ret == 0) {
		pthread_rwlock_wrlock(&vm->memory);
		ret = swap_windows(vm);
		pthread_rwlock_unlock(&vm->memory);
	}
	if (ret == 0 && vm_state_set_security(&vm->state, SECURITY_SECURE)) {
		leave_old_backing(vm, d);
		drop_filling(vm);
		fill_result(vm, &c->result->init_done);
		vcpus_resume(vm);
		publish_vm(vm);
	} else {
		dying_free(d);
	}
	pthread_mutex_unlock(&vm->lock);
	return ret;
}

int call_init_abort(struct uv_vm *vm, const struct call *c)
{
	pthread_mutex_lock(&vm->lock);
	switch_abandon(vm);
	pthread_mutex_unlock(&vm->lock);
	return 0;
}
