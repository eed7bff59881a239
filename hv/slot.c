/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Memslots: the hypervisor's mapping of the shared backing, and its GFN states. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/failpoint.h"
#include "hv/error.h"
#include "hv/pager.h"
#include "hv/vm.h"
#include "os/memfd.h"

/*
 * How often a call is made again that the ultravisor put off, and for how long pages that come
 * in are waited for between.
 */
#define TRIES    200
#define AWAIT_MS 5

struct slot *hv_find_slot(struct lethe_vm *vm, struct gfn_range r)
{
	for (unsigned int i = 0; i < ABI_MAX_SLOTS; i++) {
		struct slot *s = &vm->slot[i];

		if (s->used && r.start.v >= s->range.start.v && range_end(r) <= range_end(s->range))
			return s;
	}
	return NULL;
}

struct slot *hv_first_part(struct lethe_vm *vm, struct gfn_range r, struct gfn_range *ret)
{
	struct slot *s = hv_find_slot(vm, (struct gfn_range){r.start, 1});

	if (s == NULL)
		return NULL;
	*ret = r;
	if (range_end(r) > range_end(s->range))
		ret->count = range_end(s->range) - r.start.v;
	return s;
}

/* Frees what a slot holds: linear in what is resident. */
static void release_memory(struct slot *s)
{
	if (s->hva != NULL)
		munmap(s->hva, range_bytes(s->range));
	if (s->memfd >= 0)
		close(s->memfd);
	gfn_states_free(s->states);
	*s = (struct slot){.memfd = -1};
}

static int make_memory(struct lethe_vm *vm, struct gfn_range r, struct slot *ret)
{
	struct slot s = {.used = true, .range = r};
	void *hva = NULL;
	int err = failpoint("hv-slot-memfd");

	s.memfd = err < 0 ? err : memfd_new("lethe-slot", range_bytes(r));
	if (s.memfd < 0)
		return s.memfd;
	err = failpoint("hv-slot-map");
	if (err == 0)
		err = memfd_map(s.memfd, range_bytes(r), &hva);
	s.hva = hva;
	if (err == 0 && vm->is_protected) {
		s.states = gfn_states_new();
		err = s.states == NULL ? -ENOMEM : gfn_state_apply(s.states, r, GFN_INIT_DONE);
	}
	if (err < 0) {
		release_memory(&s);
		return err;
	}
	*ret = s;
	return 0;
}

/*
 * After a slot call: true if it is worth another try.  The ultravisor answers -EAGAIN while a
 * vCPU waits for a sealed page, which the pager is about to bring; it needs vm->lock for that,
 * so the caller must not hold it.
 */
static bool is_worth_a_try(const struct lethe_vm *vm, int ret, unsigned int *tries)
{
	return ret == -EAGAIN && vm->pager != NULL && ++*tries < TRIES &&
	       pager_await(vm->pager, AWAIT_MS);
}

static int add_slot(struct lethe_vm *vm, const struct abi_slot *args, struct gfn_range r)
{
	struct slot s;
	int ret;

	pthread_mutex_lock(&vm->lock);
	ret = vm->slot[args->id].used ? -EEXIST : make_memory(vm, r, &s);
	if (ret == 0) {
		ret = conn_call(vm->conn, ABI_CALL_SLOT_REGISTER, args, NULL, &s.memfd, 1);
		if (ret == 0)
			vm->slot[args->id] = s;
		else
			release_memory(&s);
	}
	pthread_mutex_unlock(&vm->lock);
	return ret;
}

int lethe_slot_add(struct lethe_vm *vm, unsigned int id, uint64_t start, uint64_t bytes)
{
	const struct abi_slot args = {.id = id, .gpa = start, .bytes = bytes};
	unsigned int tries = 0;
	struct gfn_range r;
	int ret = checked_gfn_range(start, bytes, &r);

	if (ret == 0 && id >= ABI_MAX_SLOTS)
		ret = -EINVAL;
	if (ret < 0)
		return fail(ret, "memslot %u: not a range of whole pages below 2^48", id);
	do
		ret = add_slot(vm, &args, r);
	while (is_worth_a_try(vm, ret, &tries));
	return ret < 0 ? fail(ret, "memslot %u could not be added: %s", id, strerror(-ret)) : 0;
}

/* What a thread of its own frees. */
struct remains {
	struct slot slot[ABI_MAX_SLOTS];
};

static void *release_remains(void *arg)
{
	struct remains *r = arg;

	for (unsigned int i = 0; i < ABI_MAX_SLOTS; i++) {
		if (r->slot[i].used)
			release_memory(&r->slot[i]);
	}
	free(r);
	return NULL;
}

static void release_behind(const struct slot *slots)
{
	struct remains *r = calloc(1, sizeof(*r));
	pthread_attr_t attr;
	pthread_t thread;

	if (r == NULL) {
		for (unsigned int i = 0; i < ABI_MAX_SLOTS; i++) {
			struct slot s = slots[i];

			if (s.used)
				release_memory(&s);
		}
		return;
	}
	for (unsigned int i = 0; i < ABI_MAX_SLOTS; i++)
		r->slot[i] = slots[i];
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	if (pthread_create(&thread, &attr, release_remains, r) != 0)
		release_remains(r);
	pthread_attr_destroy(&attr);
}

void hv_drop_slots(struct lethe_vm *vm)
{
	struct slot old[ABI_MAX_SLOTS];

	vm->life++;
	vm->has_policy = false;
	if (vm->pager != NULL)
		pager_reset(vm->pager);
	for (unsigned int i = 0; i < ABI_MAX_SLOTS; i++) {
		old[i] = vm->slot[i];
		vm->slot[i] = (struct slot){.memfd = -1};
	}
	release_behind(old);
}

/* 0 and the slot as it was in *ret_old; or a negative errno. */
static int remove_slot(struct lethe_vm *vm, unsigned int id, struct slot *ret_old)
{
	const struct abi_slot args = {.id = id};
	int ret;

	pthread_mutex_lock(&vm->lock);
	ret = vm->slot[id].used ? hv_call(vm, ABI_CALL_SLOT_UNREGISTER, &args, NULL) : -ENOENT;
	if (ret == 0) {
		*ret_old = vm->slot[id];
		vm->slot[id] = (struct slot){.memfd = -1};
		if (vm->pager != NULL)
			pager_forget(vm->pager, ret_old->range);
	}
	pthread_mutex_unlock(&vm->lock);
	return ret;
}

int lethe_slot_remove(struct lethe_vm *vm, unsigned int id)
{
	struct slot old[ABI_MAX_SLOTS] = {0};
	unsigned int tries = 0;
	int ret;

	if (id >= ABI_MAX_SLOTS)
		return fail(-ENOENT, "memslot %u: no such slot", id);
	do
		ret = remove_slot(vm, id, &old[id]);
	while (is_worth_a_try(vm, ret, &tries));
	if (ret < 0)
		return fail(ret, "memslot %u could not be removed: %s", id,
			ret == -EBUSY ? "the guest has not given all of it up" : strerror(-ret));
	release_behind(old);
	return 0;
}

/* What a slot is at @to, in a VM that is as @vm.  Only its states are new. */
static int make_moved(const struct lethe_vm *vm, struct slot *moved, struct gfn_range to)
{
	int ret = failpoint("hv-slot-move");

	moved->range = to;
	if (ret < 0 || !vm->is_protected)
		return ret;
	moved->states = gfn_states_new();
	ret = moved->states == NULL ? -ENOMEM : gfn_state_apply(moved->states, to, GFN_INIT_DONE);
	if (ret < 0)
		gfn_states_free(moved->states);
	return ret;
}

/* Caller holds vm->lock. */
static int move_slot(struct lethe_vm *vm, unsigned int id, uint64_t start)
{
	const struct abi_slot_move args = {.id = id, .gpa = start};
	struct slot moved = vm->slot[id];
	struct gfn_range to;
	int ret = moved.used ? 0 : -ENOENT;

	if (ret == 0)
		ret = checked_gfn_range(start, range_bytes(moved.range), &to);
	if (ret == 0)
		ret = make_moved(vm, &moved, to);
	if (ret < 0)
		return ret;
	ret = hv_call(vm, ABI_CALL_SLOT_MOVE, &args, NULL);
	if (ret < 0) {
		if (vm->is_protected)
			gfn_states_free(moved.states);
		return ret;
	}
	if (vm->pager != NULL)
		pager_forget(vm->pager, vm->slot[id].range);
	if (vm->is_protected)
		gfn_states_free(vm->slot[id].states);
	vm->slot[id] = moved;
	return 0;
}

int lethe_slot_move(struct lethe_vm *vm, unsigned int id, uint64_t start)
{
	unsigned int tries = 0;
	int ret = -ENOENT;

	do {
		pthread_mutex_lock(&vm->lock);
		if (id < ABI_MAX_SLOTS)
			ret = move_slot(vm, id, start);
		pthread_mutex_unlock(&vm->lock);
	} while (is_worth_a_try(vm, ret, &tries));
	return ret < 0 ? fail(ret, "memslot %u could not be moved: %s", id,
				 ret == -EBUSY ? "the guest has not given all of it up"
					       : strerror(-ret))
		       : 0;
}

int lethe_slot_mapping(struct lethe_vm *vm, unsigned int id, void **ret_hva, uint64_t *ret_bytes)
{
	int ret = -ENOENT;

	pthread_mutex_lock(&vm->lock);
	if (id < ABI_MAX_SLOTS && vm->slot[id].used) {
		*ret_hva = vm->slot[id].hva;
		*ret_bytes = range_bytes(vm->slot[id].range);
		ret = 0;
	}
	pthread_mutex_unlock(&vm->lock);
	return ret < 0 ? fail(ret, "memslot %u: no such slot", id) : 0;
}

/* Under a policy the states of this side lag behind: one byte tells. */
static enum lethe_gfn_state ask_uv(struct lethe_vm *vm, uint64_t at)
{
	const struct abi_mem args = {.gpa = at, .bytes = 1};
	int ret;

	pthread_mutex_lock(&vm->bulk_lock);
	ret = hv_call(vm, ABI_CALL_MEM_READ, &args, NULL);
	pthread_mutex_unlock(&vm->bulk_lock);
	return ret == 0 ? LETHE_GFN_SHARED : LETHE_GFN_SECURE;
}

int lethe_gfn_state(struct lethe_vm *vm, uint64_t at, enum lethe_gfn_state *ret)
{
	const struct gfn_range r = {gpa_to_gfn(gpa(at)), 1};
	enum lethe_gfn_state state = LETHE_GFN_NORMAL;
	struct slot *s;
	bool lags;
	int err = 0;

	pthread_mutex_lock(&vm->lock);
	s = hv_find_slot(vm, r);
	lags = vm->has_policy;
	if (s == NULL)
		err = -ENOENT;
	else if (s->states != NULL)
		state = gfn_state_get(s->states, r.start);
	pthread_mutex_unlock(&vm->lock);
	if (err == 0 && lags && (state == LETHE_GFN_SECURE || state == LETHE_GFN_SHARED))
		state = ask_uv(vm, at);
	if (err == 0)
		*ret = state;
	return err < 0 ? fail(err, "0x%llx: no memory there", (unsigned long long)at) : 0;
}
