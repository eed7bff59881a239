/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Booting Linux directly: from a kernel image, an initrd and a command line to the bytes
 * that go into guest memory and the state of the first vCPU.
 *
 * Two ways in, told apart by the image itself:
 *   bzImage      Linux's 64-bit boot protocol (2.12 and later): long mode, identity map
 *   ELF vmlinux  PVH: 32-bit protected mode at the address that its Xen note names
 *
 * Nothing here touches a VM: the caller loads the blobs, protects their pages if it
 * wants to, and sets the registers.  The same input gives the same bytes, so a
 * measurement over them is reproducible.
 */
#ifndef VMM_PC_BOOT_H
#define VMM_PC_BOOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/pc_memory.h"

/* A segment register with its hidden part. */
struct pc_segment {
	uint16_t selector;
	uint64_t base;
	uint32_t limit; /* bytes - 1 */
	uint8_t type;   /* as in a descriptor: 0xb code, 0x3 data, 0xb busy TSS if !s */
	bool present, s, db, l, g;
};

/* The first vCPU at its first instruction.  Registers not named are 0. */
struct pc_cpu_state {
	uint64_t rip, rsp, rbx, rsi, rflags;
	uint64_t cr0, cr3, cr4, efer;
	struct pc_segment cs, tr;
	struct pc_segment data; /* ds, es, fs, gs, ss */
	uint64_t gdt_base;
	uint16_t gdt_limit;
};

/* Bytes for guest memory. */
struct pc_blob {
	uint64_t gpa;
	const void *data;
	size_t bytes;
};

struct pc_boot_input {
	const void *kernel; /* with the initrd, must stay as they are until pc_boot_free */
	size_t kernel_bytes;
	const void *initrd; /* NULL: none */
	size_t initrd_bytes;
	const char *cmdline;
	unsigned int vcpus;
	struct pc_memory memory;
};

#define PC_BLOBS_MAX 40

struct pc_boot;

/*
 * Prepares a boot.
 * -ENOEXEC the kernel is no image of these kinds, or is truncated; -E2BIG the command line
 * is too long; -ENOMEM kernel or initrd do not fit the guest's memory (or this process has
 * none left); -EINVAL a vCPU count that the tables cannot describe.
 * On failure @error holds one line that says what is wrong, without a newline.
 */
int pc_boot_prepare(
	const struct pc_boot_input *input, struct pc_boot **ret, char *error, size_t error_size);

void pc_boot_free(struct pc_boot *boot);

/* What to load, by rising address, without overlap.  Valid until pc_boot_free. */
const struct pc_blob *pc_boot_blobs(const struct pc_boot *boot, size_t *ret_count);

/*
 * The whole pages that the blobs touch, by rising address, without overlap: what a
 * protected VM must keep.  Returns how many of @ret were written.
 */
size_t pc_boot_pages(const struct pc_boot *boot, struct pc_slot ret[PC_BLOBS_MAX]);

const struct pc_cpu_state *pc_boot_cpu(const struct pc_boot *boot);

#endif
