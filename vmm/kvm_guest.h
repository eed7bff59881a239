/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The workload interpreter as a KVM guest: its image, page tables and registers. */
#ifndef VMM_KVM_GUEST_H
#define VMM_KVM_GUEST_H

#include "lethe/lethe.h"
#include "vmm/program.h"

/*
 * Loads what interprets @program where the vCPUs of @vm are KVM's: after its memory and before
 * its start, at every boot.  0; -ERANGE the program's addresses are beyond what the tables can
 * map; any errno of lethe_vm_load() and lethe_vcpu_set_state().
 */
int kvm_guest_load(struct lethe_vm *vm, const struct program *program);

#endif
