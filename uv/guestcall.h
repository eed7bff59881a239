/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Guest calls (abi/guestcall.h), as both executors deliver them. */
#ifndef UV_GUESTCALL_H
#define UV_GUESTCALL_H

#include "uv/vm.h"

/* The vCPU must stop: also how REBOOT, POWEROFF, STOP and HALT end. */
#define GUEST_CALL_ENDED INT64_MIN

/* How a call's buffer argument, if any, is described. */
struct guest_call_info {
	const char *name;  /* NULL: no such call */
	int buffer, count; /* which arguments; -1: no buffer */
	unsigned int element;
};

const struct guest_call_info *guest_call_info(uint64_t nr);

/*
 * Performs call @nr with @arg; a buffer's content is in v->buffer, @size bytes.  Called
 * on the vCPU's thread while it is inside; it is inside again on return, unless the
 * result is GUEST_CALL_ENDED.  BOOTINFO leaves its result in v->buffer.
 */
int64_t guest_call(struct uv_vcpu *v, uint64_t nr, const uint64_t arg[4], uint32_t size);

/*
 * The result of a call that the hypervisor refused with @status, which it may have made
 * up: always negative, so that no refusal looks like success to the guest.
 */
int64_t guest_call_refused(uint32_t status);

/* Stops the whole VM for a reason that the hypervisor is told.  The vCPU is outside then. */
void guest_stop(struct uv_vcpu *v, enum abi_stop reason, uint64_t gpa, const char *text);

/*
 * Stops the VM, which no vCPU of it asked for, and says why by an exit of vCPU 0.  On a thread
 * that is no vCPU's, without locks.  Nothing happens if it has stopped or is about to.
 */
void guest_stop_all(struct uv_vm *vm, enum abi_stop reason, uint64_t gpa, const char *text);

#endif
