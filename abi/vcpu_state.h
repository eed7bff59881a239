/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The state of an x86-64 vCPU at its first instruction, as far as it differs from reset:
 * what VCPU_STATE sets and the measurement covers.  Once a VM is protected nobody but the
 * guest changes registers, and nobody but the ultravisor reads them.
 */
#ifndef ABI_VCPU_STATE_H
#define ABI_VCPU_STATE_H

#include <stdint.h>

/* A segment register with its hidden part. */
struct abi_segment {
	uint64_t base;
	uint32_t limit; /* bytes - 1 */
	uint16_t selector;
	uint8_t type;  /* as in a descriptor */
	uint8_t flags; /* ABI_SEG_* */
};

#define ABI_SEG_PRESENT      1u
#define ABI_SEG_CODE_OR_DATA 2u /* the descriptor's S bit */
#define ABI_SEG_DEFAULT_32   4u
#define ABI_SEG_LONG         8u
#define ABI_SEG_GRANULAR     16u

struct abi_vcpu_state {
	uint32_t vcpu;     /* IN */
	uint32_t reserved; /* IN: 0 */
	uint64_t rip, rsp, rflags, rax, rbx, rcx, rdx, rsi, rdi;
	uint64_t cr0, cr3, cr4, efer;
	uint64_t gdt_base, gdt_limit;
	struct abi_segment cs, data, tr; /* data: ds, es, fs, gs and ss */
};

#endif
