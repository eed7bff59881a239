/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The KVM executor's parts.  Not for other files. */
#ifndef UV_EXEC_KVM_H
#define UV_EXEC_KVM_H

#include <linux/kvm.h>

#include "uv/vm.h"

/*
 * One incarnation's KVM VM.  It is made with the first slot and retired with the
 * incarnation, so that a reboot starts from a VM without history and frees the old one's
 * tables, which is linear, elsewhere.
 */
struct kvm_machine {
	int vm_fd;
	unsigned int vcpus; /* made so far */
	int vcpu_fd[ABI_MAX_VCPUS];
	struct kvm_run *run[ABI_MAX_VCPUS];
	size_t run_size;
};

struct kvm_exec {
	int kvm_fd;
	struct kvm_cpuid2 *cpuid;
	struct kvm_machine *machine; /* NULL: none yet.  Guarded by vm->lock. */
	bool has_state[ABI_MAX_VCPUS];
	struct abi_vcpu_state state[ABI_MAX_VCPUS];
};

/* Sets the registers of a new vCPU.  0 or -errno. */
int kvm_exec_set_registers(struct uv_vm *vm, int vcpu_fd, const struct abi_vcpu_state *s);

/* Serves one exit of KVM_RUN.  False if the vCPU has ended; it is outside then. */
bool kvm_exec_serve(struct uv_vcpu *v, int vcpu_fd, struct kvm_run *run);

#endif
