/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* uv calls: the connection, the VM as a whole, and its vCPUs. */
#include <errno.h>
#include <unistd.h>

#include "uv/dispatch.h"
#include "uv/executor.h"
#include "uv/stale.h"
#include "uv/sweeper.h"
#include "uv/vcpu.h"

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
	for (unsigned int i = 0; i < vm->vcpu_count && ret == 0; i++)
		ret = vm->executor->vcpu_reset(&vm->vcpu[i]);
	if (ret == 0 && !vm_state_set_phase(&vm->state, PHASE_RUNNING))
		ret = -EPROTO;
	if (ret == 0)
		uv_vm_publish(vm);
	pthread_mutex_unlock(&vm->lock);
	if (ret < 0)
		return ret;
	vcpus_start(vm);
	pthread_mutex_lock(&vm->run_lock);
	c->result->vm_start.first_instruction_ns = vm->first_instruction_ns;
	pthread_mutex_unlock(&vm->run_lock);
	return 0;
}

/* RUNNING => STOPPED; a TRANSIENT switch is given up. */
int call_vm_stop(struct uv_vm *vm, const struct call *c)
{
	int ret = 0;

	vcpus_stop(vm, NULL);
	pthread_mutex_lock(&vm->lock);
	if (vm->state.phase != PHASE_STOPPED && !vm_state_set_phase(&vm->state, PHASE_STOPPED))
		ret = -EPROTO;
	uv_vm_publish(vm);
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
	info->shared_pages =
		range_map_count(vm->attr, ATTR_COPIED) + range_map_count(vm->attr, ATTR_MAPPED);
	info->set_aside_bytes = sweep_left(vm);
	info->quarantined_bytes = vm->quarantined_bytes;
	pthread_mutex_unlock(&vm->lock);
	info->stale_bytes = stale_bytes(vm);
	return 0;
}
