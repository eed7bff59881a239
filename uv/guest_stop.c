/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "uv/guest_stop.h"

#include <string.h>

#include "base/log.h"
#include "uv/publish.h"
#include "uv/vcpu.h"

/* Caller holds vm->lock. */
static void set_stopped(struct uv_vm *vm)
{
	if (vm->state.phase != PHASE_STOPPED && !vm_state_set_phase(&vm->state, PHASE_STOPPED))
		log_error("a VM did not stop");
	publish_vm(vm);
}

bool guest_stop_others(struct uv_vcpu *v)
{
	struct uv_vm *vm = v->vm;

	if (!vcpus_claim_stop(vm))
		return false;
	vcpus_stop(vm, v);
	pthread_mutex_lock(&vm->lock);
	set_stopped(vm);
	pthread_mutex_unlock(&vm->lock);
	return true;
}

void guest_end(
	struct uv_vcpu *v, enum abi_exit_type type, const uint64_t arg[6], uint32_t data_size)
{
	if (guest_stop_others(v))
		vcpu_exit_post(v, type, arg, data_size);
}

void guest_stop(struct uv_vcpu *v, enum abi_stop reason, uint64_t gpa, const char *text)
{
	size_t size = strnlen(text, sizeof(v->buffer));

	vcpu_leave(v);
	memcpy(v->buffer, text, size);
	guest_end(v, ABI_EXIT_STOPPED, (uint64_t[6]){reason, gpa}, (uint32_t)size);
}

void guest_stop_all(struct uv_vm *vm, enum abi_stop reason, uint64_t gpa, const char *text)
{
	struct uv_vcpu *v = &vm->vcpu[0];
	size_t size = strnlen(text, sizeof(v->buffer));
	enum vm_phase phase;

	pthread_mutex_lock(&vm->lock);
	phase = vm->state.phase;
	pthread_mutex_unlock(&vm->lock);
	if (phase == PHASE_STOPPED || (phase == PHASE_RUNNING && !vcpus_claim_stop(vm)))
		return;
	vcpus_stop(vm, NULL);
	/* In one: vCPU 0 is nobody's until the VM can be started again. */
	pthread_mutex_lock(&vm->lock);
	set_stopped(vm);
	memcpy(v->buffer, text, size);
	vcpu_exit_post(v, ABI_EXIT_STOPPED, (uint64_t[6]){reason, gpa}, (uint32_t)size);
	pthread_mutex_unlock(&vm->lock);
}
