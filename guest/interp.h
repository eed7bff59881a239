/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The workload interpreter: one vCPU's run through a workload.
 *
 * Everything it needs of its machine is in struct guest_env, so the same code is a
 * native thread's body (software executor) and a KVM guest.  It reads its program from
 * guest memory at GUEST_TEXT_GPA, one line at a time, into its own buffer: the text may
 * be changed by others, and a bad line then stops the VM, nothing worse.
 *
 * Freestanding: no libc, no heap, integers only, about 4 KiB of stack.
 */
#ifndef GUEST_INTERP_H
#define GUEST_INTERP_H

#include "abi/guestcall.h"
#include "guest/workload.h"

struct guest_env {
	void *ctx;

	/*
	 * Gives access to guest memory at @gpa: returns a host pointer and in *ret_len how
	 * many of the @want bytes may be used there (at least 1, never more than @want; up
	 * to the end of a page at least).  The pointer is good until release().  Returns
	 * NULL if the vCPU must stop now: the interpreter then returns at once, without
	 * another call.
	 */
	uint8_t *(*translate)(
		void *ctx, uint64_t gpa, uint64_t want, bool write, uint64_t *ret_len);
	void (*release)(void *ctx);

	/*
	 * A guest call (abi/guestcall.h), buffers being plain pointers.  GUEST_CALL_STOPPED
	 * if the vCPU must stop now (also the normal outcome of REBOOT, POWEROFF, STOP,
	 * HALT): the interpreter returns at once.
	 */
	int64_t (*call)(
		void *ctx, enum guest_call nr, uint64_t a0, uint64_t a1, uint64_t a2, uint64_t a3);
};

#define GUEST_CALL_STOPPED INT64_MIN

/*
 * Runs this vCPU's operations, from the start or from where the last REBOOT left off
 * (BOOTINFO), until HALT, a stop, or the machine ends it.  A failed check, a refused
 * call or a bad line ends in a STOP call whose text names line, operation and address.
 */
void guest_interp_run(const struct guest_env *env);

#endif
