/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* uv calls: memslots. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/log.h"
#include "os/memfd.h"
#include "uv/dispatch.h"
#include "uv/executor.h"
#include "uv/publish.h"
#include "uv/seal.h"
#include "uv/share_auto.h"
#include "uv/share_list.h"
#include "uv/slot.h"
#include "uv/stale.h"
#include "uv/sweeper.h"
#include "uv/vcpu.h"

/* The slot's memory, which the executor has no more, goes to @d. */
static void slot_take(struct uv_vm *vm, unsigned int id, struct dying *d)
{
	struct slot_memory *m = &vm->memory_of[id];

	d->window[id] = m->window;
	d->secret[id] = vm->state.security == SECURITY_SECURE;
	d->sealed[id] = m->sealed;
	free(m->idle);
	d->memfd[id] = m->memfd;
	stale_forget(vm, m);
	pthread_mutex_lock(&vm->stale_lock);
	*m = (struct slot_memory){.memfd = -1};
	pthread_mutex_unlock(&vm->stale_lock);
}

/* Takes slot @id from the table and the executor.  0 or a negative errno, nothing changed. */
static int hide_slot(struct uv_vm *vm, unsigned int id)
{
	int ret;

	slots_remove(&vm->slots, id);
	ret = vm->executor->slot_changed != NULL ? vm->executor->slot_changed(vm, id) : 0;
	if (ret < 0)
		slots_add(&vm->slots, id, vm->slots.slot[id].range);
	return ret;
}

void dying_take_all(struct uv_vm *vm, struct dying *d)
{
	/* First: from here on, what the hypervisor keeps of this incarnation is noise. */
	seal_free(vm->seal);
	vm->seal = NULL;
	d->left = uv_vm_current(vm);
	d->executor = vm->executor;
	if (vm->executor->retire != NULL)
		d->remains = vm->executor->retire(vm);
	pthread_rwlock_wrlock(&vm->memory);
	share_list_remove(vm, (struct gfn_range){gfn(0), GFN_END});
	share_auto_forget(vm->share_auto);
	for (unsigned int i = 0; i < SLOTS_MAX; i++) {
		if (!vm->slots.slot[i].used)
			continue;
		/* No vCPU runs, nor will one before the executor's reset() has made up for it. */
		if (hide_slot(vm, i) < 0) {
			log_warn("slot %u could not be taken from the executor yet", i);
			slots_remove(&vm->slots, i);
		}
		slot_take(vm, i, d);
	}
	attr_clear(vm->attr);
	attr_map_reclaim(vm->attr);
	pthread_rwlock_unlock(&vm->memory);
}

/* A window for a new slot: private at once in a protected VM, else the memfd itself. */
static int make_memory(struct uv_vm *vm, int memfd, uint64_t bytes, struct slot_memory *ret)
{
	struct slot_memory m = {.memfd = memfd, .stale = range_map_new()};
	int err;

	if (m.stale == NULL)
		return -ENOMEM;
	if (vm->state.security == SECURITY_SECURE)
		err = window_private(bytes, &m.window);
	else
		err = window_shared(memfd, bytes, &m.window);
	if (err < 0) {
		range_map_free(m.stale);
		return err;
	}
	*ret = m;
	return 0;
}

static int add(struct uv_vm *vm, unsigned int id, struct gfn_range range, int memfd)
{
	struct slot_memory m;
	int ret = slots_check_add(&vm->slots, id, range);

	if (ret == 0)
		ret = make_memory(vm, memfd, range_bytes(range), &m);
	if (ret < 0)
		return ret;

	pthread_rwlock_wrlock(&vm->memory);
	slots_add(&vm->slots, id, range);
	pthread_mutex_lock(&vm->stale_lock);
	vm->memory_of[id] = m;
	pthread_mutex_unlock(&vm->stale_lock);
	if (vm->executor->slot_changed != NULL)
		ret = vm->executor->slot_changed(vm, id);
	if (ret < 0) {
		slots_remove(&vm->slots, id);
		(void)window_unmap(&m.window);
		range_map_free(m.stale);
		pthread_mutex_lock(&vm->stale_lock);
		vm->memory_of[id] = (struct slot_memory){.memfd = -1};
		pthread_mutex_unlock(&vm->stale_lock);
	}
	pthread_rwlock_unlock(&vm->memory);
	return ret;
}

static int slot_register(struct uv_vm *vm, const struct call *c)
{
	const struct abi_slot *a = &c->args->slot;
	struct gfn_range range;
	int ret = checked_gfn_range(a->gpa, a->bytes, &range);

	if (ret == 0)
		ret = memfd_check(c->fds[0], a->bytes);
	if (ret < 0)
		return ret;
	pthread_mutex_lock(&vm->lock);
	if (vm->state.security == SECURITY_TRANSIENT)
		ret = -EPROTO;
	if (ret == 0)
		ret = add(vm, a->id, range, c->fds[0]);
	publish_vm(vm);
	pthread_mutex_unlock(&vm->lock);
	return ret;
}

/* In a protected VM that has run, a slot goes only if the guest gave all of it up. */
static int check_remove(struct uv_vm *vm, unsigned int id)
{
	int ret = slots_check(&vm->slots, id);
	struct gfn_range r;

	if (ret < 0)
		return ret;
	if (vm->state.security == SECURITY_TRANSIENT)
		return -EPROTO;
	r = vm->slots.slot[id].range;
	if (vm->state.security == SECURITY_SECURE && !attr_all(vm->attr, r, ATTR_RELEASED))
		return -EBUSY;
	/* Else what the guest asked for this memory would be done to what comes after it. */
	if (pending_overlaps(&vm->pending, r))
		return -EAGAIN;
	/* Memory does not vanish under a running guest that was not asked. */
	if (vm->state.security == SECURITY_NORMAL && vm->state.phase == PHASE_RUNNING)
		return -EBUSY;
	return 0;
}

/* Gives slot @id this range, for the executor too. */
static int show_slot(struct uv_vm *vm, unsigned int id, struct gfn_range range)
{
	if (vm->slots.slot[id].used)
		slots_remove(&vm->slots, id);
	slots_add(&vm->slots, id, range);
	return vm->executor->slot_changed != NULL ? vm->executor->slot_changed(vm, id) : 0;
}

/* The slot's memory goes to @d, and its GFNs are private again.  Caller holds vm->lock. */
static int remove_slot(struct uv_vm *vm, unsigned int id, struct dying *d)
{
	struct gfn_range r = vm->slots.slot[id].range;
	int ret;

	pthread_rwlock_wrlock(&vm->memory);
	ret = hide_slot(vm, id);
	if (ret == 0)
		ret = attr_set(vm->attr, r, ATTR_PRIVATE);
	attr_map_reclaim(vm->attr);
	if (ret == 0)
		slot_take(vm, id, d);
	else if (!vm->slots.slot[id].used && show_slot(vm, id, r) < 0)
		log_error("slot %u could not be put back", id);
	pthread_rwlock_unlock(&vm->memory);
	return ret;
}

static int slot_unregister(struct uv_vm *vm, const struct call *c)
{
	unsigned int id = c->args->slot.id;
	struct dying *d;
	int ret;

	if (c->args->slot.gpa != 0 || c->args->slot.bytes != 0)
		return -EINVAL;
	pthread_mutex_lock(&vm->lock);
	ret = check_remove(vm, id);
	d = ret == 0 ? dying_new(vm->incarnation) : NULL;
	if (ret == 0 && d == NULL)
		ret = -ENOMEM;
	if (ret == 0)
		ret = remove_slot(vm, id, d);
	if (ret == 0)
		dying_leave(vm, d, true);
	else
		dying_free(d);
	publish_vm(vm);
	pthread_mutex_unlock(&vm->lock);
	return ret;
}

/* Whether slot @id may move to @to.  Its GFNs must be given up as if it were to go. */
static int check_move(struct uv_vm *vm, unsigned int id, struct gfn_range to)
{
	struct slot_table others = vm->slots;
	int ret = check_remove(vm, id);

	if (ret < 0)
		return ret;
	slots_remove(&others, id);
	return slots_check_add(&others, id, to);
}

/*
 * Shows slot @id at @to, in @fresh if that is a window: *fresh has the old one then.  Caller
 * holds vm->lock.  0 or a negative errno, nothing changed then.
 */
static int move_slot(struct uv_vm *vm, unsigned int id, struct gfn_range to, struct window *fresh)
{
	struct gfn_range from = vm->slots.slot[id].range;
	struct slot_memory *m = &vm->memory_of[id];
	struct window old = m->window;
	int ret;

	pthread_rwlock_wrlock(&vm->memory);
	if (fresh->base != NULL)
		m->window = *fresh;
	ret = show_slot(vm, id, to);
	if (ret == 0)
		ret = attr_set(vm->attr, from, ATTR_PRIVATE);
	attr_map_reclaim(vm->attr);
	if (ret < 0) {
		m->window = old;
		if (show_slot(vm, id, from) < 0)
			log_error("slot %u could not be put back", id);
	} else if (fresh->base != NULL) {
		*fresh = old;
	}
	pthread_rwlock_unlock(&vm->memory);
	return ret;
}

/* A protected slot is new where it comes to lie: private and zero. */
static int move_protected(struct uv_vm *vm, unsigned int id, struct gfn_range to)
{
	struct dying *d = dying_new(vm->incarnation);
	int ret = d == NULL ? -ENOMEM : window_private(range_bytes(to), &d->window[id]);

	if (ret == 0)
		ret = move_slot(vm, id, to, &d->window[id]);
	if (ret == 0) {
		d->secret[id] = true;
		dying_leave(vm, d, true);
		return 0;
	}
	if (d != NULL)
		(void)window_unmap(&d->window[id]);
	dying_free(d);
	return ret;
}

static int slot_move(struct uv_vm *vm, const struct call *c)
{
	const struct abi_slot_move *a = &c->args->slot_move;
	struct gfn_range to;
	int ret;

	pthread_mutex_lock(&vm->lock);
	ret = slots_check(&vm->slots, a->id);
	if (ret == 0)
		ret = checked_gfn_range(a->gpa, range_bytes(vm->slots.slot[a->id].range), &to);
	if (ret == 0)
		ret = check_move(vm, a->id, to);
	if (ret == 0 && vm->state.security == SECURITY_SECURE)
		ret = move_protected(vm, a->id, to);
	else if (ret == 0)
		ret = move_slot(vm, a->id, to, &(struct window){0});
	publish_vm(vm);
	pthread_mutex_unlock(&vm->lock);
	return ret;
}

/*
 * Performs a call that changes slots.  The kernel waits for vCPUs inside then, and one that
 * waits inside for a page needs this thread to bring it: all go outside first.
 */
static int change_slots(struct uv_vm *vm, const struct call *c,
	int (*perform)(struct uv_vm *vm, const struct call *c))
{
	const struct executor *x = vm->executor;
	bool pause = x->may_wait != NULL && x->may_wait(vm);
	int ret;

	if (pause && !vcpus_pause(vm))
		return -EAGAIN;
	ret = perform(vm, c);
	if (pause)
		vcpus_resume(vm);
	return ret;
}

int call_slot_register(struct uv_vm *vm, const struct call *c)
{
	return change_slots(vm, c, slot_register);
}

int call_slot_unregister(struct uv_vm *vm, const struct call *c)
{
	return change_slots(vm, c, slot_unregister);
}

int call_slot_move(struct uv_vm *vm, const struct call *c)
{
	return change_slots(vm, c, slot_move);
}
