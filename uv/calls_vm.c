/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* uv calls: the connection, the VM as a whole, and its vCPUs. */
#include <errno.h>
#include <unistd.h>

#include "uv/dispatch.h"
#include "uv/dying.h"
#include "uv/executor.h"
#include "uv/publish.h"
#include "uv/stale.h"
#include "uv/switch.h"
#include "uv/vcpu.h"
#include "uv/vm_life.h"

/* NEW => GREETED.  EPROTONOSUPPORT carries this side's version along. */
int call_hello(struct uv_vm *vm, const struct call *c)
{
	int ret = 0;

	c->result->hello = (struct abi_hello_ret){.version = ABI_VERSION, .pid = getpid()};
	if (c->args->hello.version != ABI_VERSION)
		return -EPROTONOSUPPORT;
	pthread_mutex_lock(&vm->lock);
	if (!vm_state_set_phase(&vm->state, PHASE_GREETED))
		ret = -EPROTO;
	pthread_mutex_unlock(&vm->lock);
	return ret;
}

/* GREETED => SETUP, NORMAL. */
int call_vm_create(struct uv_vm *vm, const struct call *c)
{
	return uv_vm_create(vm, &c->args->vm_create, c->fds);
}

/* SETUP => RUNNING: every vCPU goes on from its reset state. */
int call_vm_start(struct uv_vm *vm, const struct call *c)
{
	int ret = 0;

	pthread_mutex_lock(&vm->lock);
	if (vm->executor->reset != NULL)
		ret = vm->executor->reset(vm);
	if (ret == 0 && !vm_state_set_phase(&vm->state, PHASE_RUNNING))
		ret = -EPROTO;
	if (ret == 0)
		publish_vm(vm);
	pthread_mutex_unlock(&vm->lock);
	if (ret < 0)
		return ret;
	vcpus_start(vm);
	pthread_mutex_lock(&vm->run_lock);
	c->result->vm_start.first_instruction_ns = vm->first_instruction_ns;
	pthread_mutex_unlock(&vm->run_lock);
	return 0;
}

/* Whoever serves a vCPU learns that it has ended.  All vCPUs have; caller holds vm->lock. */
static void post_closed(struct uv_vm *vm)
{
	for (unsigned int i = 0; i < vm->vcpu_count; i++)
		vcpu_exit_post(&vm->vcpu[i], ABI_EXIT_CLOSED, (uint64_t[6]){0}, 0);
}

/* Any => STOPPED. */
int call_vm_stop(struct uv_vm *vm, const struct call *c)
{
	int ret = 0;

	vcpus_stop(vm, NULL);
	pthread_mutex_lock(&vm->lock);
	switch_abandon(vm);
	if (vm->state.phase != PHASE_STOPPED && !vm_state_set_phase(&vm->state, PHASE_STOPPED))
		ret = -EPROTO;
	publish_vm(vm);
	post_closed(vm);
	pthread_mutex_unlock(&vm->lock);
	return ret;
}

/* SETUP, NORMAL: what @vcpu finds at its first instruction. */
int call_vcpu_state(struct uv_vm *vm, const struct call *c)
{
	const struct abi_vcpu_state *state = &c->args->vcpu_state;
	int ret = 0;

	if (state->vcpu >= vm->vcpu_count)
		return -EINVAL;
	if (vm->executor->set_state == NULL)
		return -EOPNOTSUPP;
	pthread_mutex_lock(&vm->lock);
	if (vm->state.security != SECURITY_NORMAL || vm->state.phase != PHASE_SETUP)
		ret = -EPROTO;
	if (ret == 0)
		ret = vm->executor->set_state(vm, state);
	pthread_mutex_unlock(&vm->lock);
	return ret;
}

int call_irq_line(struct uv_vm *vm, const struct call *c)
{
	const struct abi_irq_line *line = &c->args->irq_line;
	int ret;

	if (line->irq > 23 || line->level > 1)
		return -EINVAL;
	if (vm->executor->irq_line == NULL)
		return -EOPNOTSUPP;
	pthread_mutex_lock(&vm->lock);
	ret = vm->executor->irq_line(vm, line->irq, line->level != 0);
	pthread_mutex_unlock(&vm->lock);
	return ret;
}

int call_info(struct uv_vm *vm, const struct call *c)
{
	struct abi_info_ret *info = &c->result->info;

	pthread_mutex_lock(&vm->lock);
	info->phase = vm->state.phase;
	info->security = vm->state.security;
	info->incarnation = vm->incarnation;
	info->shared_pages = attr_count(vm->attr, ATTR_COPIED) + attr_count(vm->attr, ATTR_MAPPED);
	info->set_aside_bytes = dying_bytes(vm);
	info->quarantined_bytes = vm->quarantined_bytes;
	info->sealed_pages = attr_count(vm->attr, ATTR_SEALED);
	info->policy_shares = vm->shares.policy_shares;
	info->policy_shared_bytes = vm->shares.policy_shared_bytes;
	info->policy_unshares = vm->shares.policy_unshares;
	info->policy_unshared_bytes = vm->shares.policy_unshared_bytes;
	info->auto_maps = vm->shares.auto_maps;
	info->auto_unmaps = vm->shares.auto_unmaps;
	info->mapped_pages = attr_count(vm->attr, ATTR_MAPPED);
	info->resident_bytes = uv_vm_current(vm);
	info->forgotten_bytes = __atomic_load_n(&vm->status->forgotten_bytes, __ATOMIC_RELAXED);
	info->forget_rate = __atomic_load_n(&vm->status->forget_rate, __ATOMIC_RELAXED);
	info->pressure = __atomic_load_n(&vm->status->pressure, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&vm->lock);
	info->stale_bytes = stale_bytes(vm);
	return 0;
}
