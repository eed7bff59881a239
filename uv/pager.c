/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "uv/pager.h"

#include <errno.h>

#include "os/clock.h"
#include "os/socket.h"
#include "uv/seal.h"

/* How long to wait before a full socket is tried again. */
#define SEND_AGAIN_NS (10 * NS_PER_MS)

/* The first sealed pages of @r in a row, as many as one event names.  Holds vm->lock. */
static bool find_sealed(const struct uv_vm *vm, struct gfn_range r, struct gfn_range *ret)
{
	for (uint64_t at = r.start.v; at < range_end(r);) {
		struct attr_run run = attr_run_at(vm->attr, at, range_end(r));

		if (run.attr == ATTR_SEALED) {
			uint64_t n = run.end - run.start;

			*ret = (struct gfn_range){
				gfn(run.start), n < ABI_SEALED_PAGES ? n : ABI_SEALED_PAGES};
			return true;
		}
		at = run.end;
	}
	return false;
}

/* Tells the hypervisor.  A socket that is closed is noticed where it is read from. */
static int send_wanted(struct uv_vm *vm, struct gfn_range r)
{
	const struct abi_event event = {.magic = ABI_EVENT_MAGIC,
		.type = ABI_EVENT_PAGE_WANTED,
		.gpa = gfn_to_gpa(r.start).v,
		.bytes = range_bytes(r)};
	const struct iovec iov = {(void *)&event, sizeof(event)};
	int ret;

	pthread_mutex_lock(&vm->send_lock);
	ret = socket_try_send(vm->socket, &iov, 1, NULL, 0);
	pthread_mutex_unlock(&vm->send_lock);
	return ret;
}

/*
 * Asks for those of the sealed pages @r that nobody has asked for: up to the first gap, as
 * the rest is looked at when these have come.  False if it could not.  Holds vm->lock.
 */
static bool ask(struct uv_vm *vm, struct gfn_range r)
{
	int slot = slots_find(&vm->slots, r.start);
	struct gfn_range s = vm->slots.slot[slot].range;
	struct seal_record *record = &vm->memory_of[slot].sealed->record[r.start.v - s.start.v];
	uint64_t first = 0, last, end = r.count;

	if (end > range_end(s) - r.start.v)
		end = range_end(s) - r.start.v;
	while (first < end && (record[first].version & SEAL_WANTED) != 0)
		first++;
	for (last = first; last < end && (record[last].version & SEAL_WANTED) == 0; last++)
		;
	if (first == end)
		return true;
	if (send_wanted(vm, (struct gfn_range){gfn(r.start.v + first), last - first}) == -EAGAIN)
		return false;
	for (uint64_t i = first; i < last; i++)
		record[i].version |= SEAL_WANTED;
	return true;
}

/* Waits until vm->arrivals is not @seen any more; not for long unless @asked. */
static bool wait_for_arrival(struct uv_vm *vm, uint64_t seen, bool asked)
{
	struct timespec deadline = clock_deadline(SEND_AGAIN_NS);
	bool go;
	int ret = 0;

	pthread_mutex_lock(&vm->run_lock);
	while (vm->arrivals == seen && !vm->stopping && !vm->quitting && ret != ETIMEDOUT) {
		if (asked)
			pthread_cond_wait(&vm->run_changed, &vm->run_lock);
		else
			ret = pthread_cond_timedwait(&vm->run_changed, &vm->run_lock, &deadline);
	}
	go = !vm->stopping && !vm->quitting;
	pthread_mutex_unlock(&vm->run_lock);
	return go;
}

bool pager_fetch(struct uv_vcpu *v, struct gfn_range range)
{
	struct uv_vm *vm = v->vm;
	struct gfn_range run;
	bool any, asked, go;
	uint64_t seen;

	do {
		/* Before the look: what comes after it is not missed. */
		pthread_mutex_lock(&vm->run_lock);
		seen = vm->arrivals;
		go = !vm->stopping && !vm->quitting;
		pthread_mutex_unlock(&vm->run_lock);

		pthread_mutex_lock(&vm->lock);
		any = go && find_sealed(vm, range, &run);
		asked = any && ask(vm, run);
		pthread_mutex_unlock(&vm->lock);
		if (any)
			go = wait_for_arrival(vm, seen, asked);
	} while (any && go);
	return go;
}

bool pager_want(struct uv_vm *vm, gfn_t gfn)
{
	struct gfn_range run;
	bool done;

	pthread_mutex_lock(&vm->lock);
	done = !find_sealed(vm, (struct gfn_range){gfn, 1}, &run) || ask(vm, run);
	pthread_mutex_unlock(&vm->lock);
	return done;
}

bool pager_wait(struct uv_vm *vm)
{
	uint64_t seen;

	pthread_mutex_lock(&vm->run_lock);
	seen = vm->arrivals;
	pthread_mutex_unlock(&vm->run_lock);
	return wait_for_arrival(vm, seen, false);
}

void pager_arrived(struct uv_vm *vm)
{
	pthread_mutex_lock(&vm->run_lock);
	vm->arrivals++;
	pthread_cond_broadcast(&vm->run_changed);
	pthread_mutex_unlock(&vm->run_lock);
}
