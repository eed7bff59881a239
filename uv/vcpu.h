/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vCPU threads: starting, pausing, stopping, and exits to the hypervisor.
 *
 * A vCPU is inside while it may touch guest memory, else outside: waiting for the
 * hypervisor, asleep, paused, or ended.  Pausing waits until all are outside and keeps
 * them there; as no one waits for the hypervisor while inside, a hypervisor that never
 * answers cannot delay a pause or a stop.
 */
#ifndef UV_VCPU_H
#define UV_VCPU_H

#include "uv/vm.h"

/* Creates all vCPU threads, ended, waiting for a start.  0 or -errno, none left then. */
int vcpus_create(struct uv_vm *vm);

/* Ends and joins all vCPU threads. */
void vcpus_destroy(struct uv_vm *vm);

/* Lets ended vCPUs run from their reset state; returns when vCPU 0 is on its way. */
void vcpus_start(struct uv_vm *vm);

/*
 * Makes every vCPU leave guest code for this incarnation and waits for it, but for
 * @self (NULL: none), which is the caller's own and outside.
 */
void vcpus_stop(struct uv_vm *vm, struct uv_vcpu *self);

/* True if a stop had not been asked for before: the caller is the one who stops. */
bool vcpus_claim_stop(struct uv_vm *vm);

/*
 * Keeps all vCPUs outside until vcpus_resume().  Nests.  False if one waits inside for a
 * sealed page, which the caller may have to bring first: nothing is paused then, but for a
 * while vCPUs that come out stay there, so that the next try finds none that waits for yet
 * another page.
 */
bool vcpus_pause(struct uv_vm *vm) __attribute__((warn_unused_result));
void vcpus_resume(struct uv_vm *vm);

/*
 * Goes inside, waiting while paused.  False if the vCPU must stop; it stays outside.
 */
bool vcpu_enter(struct uv_vcpu *v);
void vcpu_leave(struct uv_vcpu *v);

/* Between two accesses: honours a pause.  False if the vCPU must stop (then outside). */
bool vcpu_checkpoint(struct uv_vcpu *v);

/* Outside only: sleeps, or until a stop.  False if the vCPU must stop. */
bool vcpu_sleep(struct uv_vcpu *v, uint64_t ns);

/* Outside only: returns when @count vCPUs have called it with @key.  False: must stop. */
bool vcpu_barrier(struct uv_vcpu *v, uint64_t key, unsigned int count);

struct exit_reply {
	uint32_t status; /* enum abi_status, as the hypervisor says */
	uint64_t value;
};

/*
 * Posts an exit.  @data_size bytes of v->buffer go along.  Outside only.
 */
void vcpu_exit_post(
	struct uv_vcpu *v, enum abi_exit_type type, const uint64_t arg[6], uint32_t data_size);

/* Waits for the answer to the last posted exit.  False if the vCPU must stop. */
bool vcpu_exit_wait(struct uv_vcpu *v, struct exit_reply *ret);

#endif
