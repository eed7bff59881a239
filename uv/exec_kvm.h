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

struct kvm_faults;

struct kvm_exec {
	int kvm_fd;
	struct kvm_faults *faults; /* NULL: sealed pages are not possible here */
	struct kvm_cpuid2 *cpuid;
	struct kvm_machine *machine; /* NULL: none yet.  Guarded by vm->lock. */
	bool has_state[ABI_MAX_VCPUS];
	struct abi_vcpu_state state[ABI_MAX_VCPUS];
};

/*
 * Demand paging (uv/exec_kvm_fault.c).  Starts the thread that serves faults: 0 or -errno.
 * The end: no vCPU runs; NULL is allowed.
 */
int kvm_faults_new(struct uv_vm *vm, struct kvm_faults **ret);
void kvm_faults_free(struct kvm_faults *f);

/* A new machine, whose vCPUs have not run. */
void kvm_faults_begin(struct kvm_faults *f);

/* True once a vCPU may have been given pages that are not the guest's: it must end. */
bool kvm_faults_given_up(const struct kvm_faults *f);

/* The slot's window, or that of all slots, is none of the guest's memory any more. */
void kvm_faults_forget(struct kvm_faults *f, unsigned int slot);
void kvm_faults_forget_all(struct kvm_faults *f);

/* The executor's functions of these names. */
int kvm_seal_begin(struct uv_vm *vm, unsigned int slot, struct gfn_range range);
int kvm_page_put(struct uv_vm *vm, unsigned int slot, uint64_t offset, const uint8_t *pages,
	uint64_t bytes, uint64_t *ret_bytes);
void kvm_range_end(struct uv_vm *vm, struct gfn_range range);
void kvm_settle(struct uv_vm *vm, unsigned int slot, uint64_t offset, uint64_t bytes);
bool kvm_may_wait(struct uv_vm *vm);
bool kvm_waits(struct uv_vm *vm);
void kvm_give_up(struct uv_vm *vm);

/* Sets the registers of a new vCPU.  0 or -errno. */
int kvm_exec_set_registers(int vcpu_fd, const struct abi_vcpu_state *s);

/* Serves one exit of KVM_RUN.  False if the vCPU has ended; it is outside then. */
bool kvm_exec_serve(struct uv_vcpu *v, int vcpu_fd, struct kvm_run *run);

#endif
