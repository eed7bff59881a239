/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * uv calls: the end of an incarnation.
 *
 * PREPARE moves all memory of a protected incarnation aside in constant time; PERFORM
 * destroys it from the sweeper; RESET is the old way, destroying before it answers.
 * After PREPARE or RESET the VM has no slots and is normal, ready to be set up again.
 */
#include <errno.h>

#include "base/failpoint.h"
#include "base/log.h"
#include "uv/dispatch.h"
#include "uv/publish.h"
#include "uv/slot.h"
#include "uv/sweeper.h"
#include "uv/switch.h"
#include "uv/vcpu.h"

/* What every process needs besides guest memory, generously. */
#define SLACK_BYTES (4ull << 20)

/* STOPPED or SETUP => SETUP, NORMAL, without memory.  Caller holds vm->lock. */
static void move_out(struct uv_vm *vm, struct dying *d)
{
	dying_take_all(vm, d);
	if (!vm_state_set_security(&vm->state, SECURITY_NORMAL) ||
		!vm_state_set_phase(&vm->state, PHASE_SETUP))
		log_error("an incarnation ended in a wrong state");
	vm->policy = (struct abi_policy){0};
	vm->incarnation++;
}

/*
 * Whether the next incarnation finds memory while this one still holds its own.  It may
 * need as much as this one did, and a little for page tables and what else there is.  A
 * cgroup that is large enough for all of the VM was made so that nothing is ever killed
 * for memory: there it may need all of it.
 */
static int check_room(const struct uv_vm *vm)
{
	uint64_t all = slots_pages(&vm->slots) << PAGE_SHIFT, need = uv_vm_current(vm);
	struct meminfo_now now;

	meminfo_read(&vm->meminfo, &now);
	need += need / 64 + SLACK_BYTES;
	all += all / 64 + SLACK_BYTES;
	if (need > now.available || (now.limit >= all ? all : need) > now.room)
		return -ENOMEM;
	return 0;
}

static int check_prepare(const struct uv_vm *vm)
{
	if ((vm->flags & ABI_VM_LAZY_OFF) != 0)
		return -EOPNOTSUPP;
	if (vm->state.phase == PHASE_RUNNING)
		return -EBUSY;
	if (vm->state.security != SECURITY_SECURE)
		return -ENODATA;
	if (incarnation_find(&vm->dying, INC_SET_ASIDE) != NULL)
		return -EALREADY;
	return check_room(vm);
}

/* A vCPU that has just posted the exit that led here may still be on its way out. */
static void wait_until_ended(struct uv_vm *vm)
{
	enum vm_phase phase;

	pthread_mutex_lock(&vm->lock);
	phase = vm->state.phase;
	pthread_mutex_unlock(&vm->lock);
	if (phase == PHASE_STOPPED)
		vcpus_stop(vm, NULL);
}

int call_prepare(struct uv_vm *vm, const struct call *c)
{
	struct dying *d;
	int ret;

	wait_until_ended(vm);
	pthread_mutex_lock(&vm->lock);
	ret = failpoint("uv-prepare");
	if (ret == 0)
		ret = check_prepare(vm);
	d = ret == 0 ? dying_new(vm->incarnation) : NULL;
	if (ret == 0 && d == NULL)
		ret = -ENOMEM;
	if (ret == 0) {
		c->result->prepare.incarnation = vm->incarnation;
		move_out(vm, d);
		c->result->prepare.resident = d->left;
		d->inc.state = INC_SET_ASIDE;
		ret = incarnation_push(&vm->dying, &d->inc);
		publish_vm(vm);
		(void)failpoint("uv-prepared");
	}
	pthread_mutex_unlock(&vm->lock);
	return ret;
}

static void answer_perform(
	struct uv_vm *vm, uint32_t seq, int result, const struct abi_perform_ret *figures)
{
	dispatch_answer(
		vm, ABI_CALL_PERFORM, seq, result, &(union call_result){.perform = *figures});
}

int call_perform(struct uv_vm *vm, const struct call *c)
{
	int ret = failpoint("uv-perform");

	if (ret < 0)
		return ret;
	pthread_mutex_lock(&vm->lock);
	ret = sweeper_perform(vm->sweeper, c->seq, answer_perform);
	pthread_mutex_unlock(&vm->lock);
	return ret == 0 ? CALL_LATER : ret;
}

int call_cancel(struct uv_vm *vm, const struct call *c)
{
	int ret = failpoint("uv-cancel");

	return ret < 0 ? ret : sweeper_cancel(vm->sweeper);
}

/* Destroys the oldest incarnation that nobody works on.  False when there is none. */
static bool destroy_waiting(struct uv_vm *vm, struct abi_perform_ret *figures, int *result)
{
	struct incarnation *inc;
	struct dying *d;
	int ret;

	pthread_mutex_lock(&vm->lock);
	inc = incarnation_find(&vm->dying, INC_LEFT);
	if (inc == NULL)
		inc = incarnation_find(&vm->dying, INC_SET_ASIDE);
	if (inc != NULL)
		incarnation_remove(&vm->dying, inc);
	d = (struct dying *)inc;
	vm->dying_now = d;
	pthread_mutex_unlock(&vm->lock);
	if (d == NULL)
		return false;
	ret = sweep_now(vm, d, figures);
	if (ret < 0)
		*result = ret;
	pthread_mutex_lock(&vm->lock);
	vm->dying_now = NULL;
	vm->quarantined_bytes += d->quarantined;
	pthread_mutex_unlock(&vm->lock);
	dying_free(d);
	return true;
}

/* Who is answered, or sees the process end, finds the figures in the status file. */
static void publish_result(struct uv_vm *vm)
{
	pthread_mutex_lock(&vm->lock);
	publish_vm(vm);
	pthread_mutex_unlock(&vm->lock);
	publish_flush(vm);
}

int destroy_all_waiting(struct uv_vm *vm, struct abi_perform_ret *figures)
{
	int result = 0;

	while (destroy_waiting(vm, figures, &result))
		;
	publish_result(vm);
	return result;
}

/*
 * Any => SETUP, NORMAL.  Private memory is destroyed before this answers; that of a
 * normal VM holds no secret and is left to the sweeper, but for the kill switch.
 */
int call_reset(struct uv_vm *vm, const struct call *c)
{
	bool leave = false;
	struct dying *d;
	int ret = failpoint("uv-reset");

	if (ret < 0)
		return ret;
	wait_until_ended(vm);
	pthread_mutex_lock(&vm->lock);
	d = vm->state.phase == PHASE_RUNNING ? NULL : dying_new(vm->incarnation);
	if (d == NULL)
		ret = vm->state.phase == PHASE_RUNNING ? -EBUSY : -ENOMEM;
	if (ret == 0) {
		switch_abandon(vm);
		leave = vm->state.security == SECURITY_NORMAL && (vm->flags & ABI_VM_LAZY_OFF) == 0;
		move_out(vm, d);
		dying_leave(vm, d, leave);
		publish_vm(vm);
		(void)failpoint("uv-was-reset");
	}
	pthread_mutex_unlock(&vm->lock);
	return ret < 0 || leave ? ret : destroy_all_waiting(vm, &c->result->perform);
}
