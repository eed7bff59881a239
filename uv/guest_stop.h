/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Stopping the VM: from a guest's wish, or for what somebody finds wrong with it, to the exit
 * that says so.
 *
 * However many ask for it, one stops the VM.  All other vCPUs have ended before it is STOPPED,
 * and it is before the exit is posted: the answer may start the next incarnation at once.
 */
#ifndef UV_GUEST_STOP_H
#define UV_GUEST_STOP_H

#include "uv/vm.h"

/* The vCPU must stop: also how REBOOT, POWEROFF, STOP and HALT end. */
#define GUEST_CALL_ENDED INT64_MIN

/*
 * RUNNING => STOPPED, all vCPUs ended but for @v, which is the caller's own and outside.
 * False: somebody else stops the VM.
 */
bool guest_stop_others(struct uv_vcpu *v);

/* The same, and says so by an exit; @data_size bytes of v->buffer go along. */
void guest_end(
	struct uv_vcpu *v, enum abi_exit_type type, const uint64_t arg[6], uint32_t data_size);

/* Stops the whole VM for a reason that the hypervisor is told.  The vCPU is outside then. */
void guest_stop(struct uv_vcpu *v, enum abi_stop reason, uint64_t gpa, const char *text);

/*
 * Stops the VM, which no vCPU of it asked for, and says why by an exit of vCPU 0.  On a thread
 * that is no vCPU's, without locks.  Nothing happens if it has stopped or is about to.
 */
void guest_stop_all(struct uv_vm *vm, enum abi_stop reason, uint64_t gpa, const char *text);

#endif
