/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where a VM is in its life, and what its memory is: two small state machines.
 *
 * Values are single bits, so that a call table can name sets of them.  They equal those
 * of abi/uvcall.h; the ultravisor's dispatch asserts that.
 *
 * Guarded by the owner's lock.  vm_state_set_phase() and vm_state_set_security() are the
 * only ways to change a state; the tables of legal edges are in vm_state.c and the test
 * test/unit/core/vm_state_test.c tries every pair.
 */
#ifndef CORE_VM_STATE_H
#define CORE_VM_STATE_H

#include <stdbool.h>

enum vm_phase {
	PHASE_NEW = 1,     /* connected.  Only HELLO. */
	PHASE_GREETED = 2, /* versions agree.  Only VM_CREATE. */
	PHASE_SETUP = 4,   /* memory may be added, loaded, protected; no vCPU has run */
	PHASE_RUNNING = 8, /* vCPU threads may be inside guest code */
	PHASE_STOPPED = 16 /* every vCPU thread has left guest code for good */
};

enum vm_security {
	SECURITY_NORMAL = 1,    /* memory is the hypervisor's */
	SECURITY_TRANSIENT = 2, /* private windows are being filled; vCPUs are paused */
	SECURITY_SECURE = 4     /* memory is private unless shared */
};

struct vm_state {
	enum vm_phase phase;
	enum vm_security security;
};

/* A connection without a VM. */
struct vm_state vm_state_initial(void);

/* Return false, changing nothing, if the edge is not legal.  The result must be checked. */
__attribute__((warn_unused_result)) bool vm_state_set_phase(struct vm_state *s, enum vm_phase to);
__attribute__((warn_unused_result)) bool vm_state_set_security(
	struct vm_state *s, enum vm_security to);

const char *vm_phase_name(enum vm_phase phase);
const char *vm_security_name(enum vm_security security);

#endif
