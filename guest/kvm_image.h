/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The workload guest for KVM on x86-64: the interpreter as a flat image, and how a vCPU
 * that runs it starts.
 *
 * Loading, the same at every boot: guest_kvm_image at GUEST_KVM_IMAGE_GPA, what
 * guest_kvm_tables() fills at GUEST_KVM_TABLES_GPA, struct guest_text and the text at
 * GUEST_TEXT_GPA (abi/guestcall.h).  The rest of the memory below GUEST_LOW_END is the
 * vCPUs' stacks and needs no content.
 *
 * Starting: every vCPU, none being special, in the state of guest_kvm_state(): 64-bit
 * mode, interrupts off, no IDT (an exception is a triple fault), no use of SSE or x87.  No
 * interrupt controller is needed.  Guest calls are the OUTs of abi/guestcall.h; a vCPU that
 * runs on after HALT, REBOOT, POWEROFF or STOP executes HLT.
 */
#ifndef GUEST_KVM_IMAGE_H
#define GUEST_KVM_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "abi/guestcall.h"
#include "abi/uvcall.h"
#include "abi/vcpu_state.h"

#define GUEST_KVM_TABLES_GPA 0x1000u
#define GUEST_KVM_TABLES_MAX 0xf000u
#define GUEST_KVM_IMAGE_GPA  0x10000u /* also the entry point */
#define GUEST_KVM_IMAGE_MAX  0x10000u
#define GUEST_KVM_STACKS_GPA 0x20000u
#define GUEST_KVM_STACK_SIZE 0x1800u

_Static_assert(GUEST_KVM_STACKS_GPA + ABI_MAX_VCPUS * GUEST_KVM_STACK_SIZE <= GUEST_TEXT_GPA,
	"stacks end below the text");

/* The image; text and read-only data, nothing that the guest changes. */
extern const uint8_t guest_kvm_image[];
extern const size_t guest_kvm_image_size;

/* Fills *ret, every field, for vCPU @vcpu, which is below ABI_MAX_VCPUS. */
void guest_kvm_state(unsigned int vcpu, struct abi_vcpu_state *ret);

/*
 * Fills @tables, GUEST_KVM_TABLES_MAX bytes, with page tables that map every address below
 * @memory_end to itself, in 2M pages up to 13G and in 1G pages above; *ret_bytes says how
 * many of the bytes, whole pages, are used and have to be loaded.
 * Returns 0; -ERANGE if @memory_end is 0 or above 7T, @tables then being untouched.
 */
int guest_kvm_tables(uint64_t memory_end, uint8_t *tables, size_t *ret_bytes);

/* Whether the tables for @memory_end need a CPU with 1G pages (CPUID 0x80000001 EDX 26). */
bool guest_kvm_needs_1g_pages(uint64_t memory_end);

#endif
