/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where everything of the PC lies in guest physical memory.
 *
 *   0x000001000  GDT of the first instruction
 *   0x000002000  PVH start info, its memory map and module list (ELF kernels)
 *   0x000003000  boot_params, the "zero page" (bzImage kernels)
 *   0x000004000  page tables: identity map of the first 4 GiB in 2 MiB pages
 *   0x000010000  command line, up to 64 KiB with its NUL
 *   0x00009fc00  end of conventional memory
 *   0x0000e0000  ACPI tables, up to 1 MiB
 *   0x000100000  the kernel and, as high as it fits below 3 GiB, the initrd
 *   0x0c0000000  the hole: I/O APIC, local APICs, what KVM needs for real mode
 *   0x100000000  memory that did not fit below the hole
 *
 * Each item begins a page of its own, so that a list of whole pages names it exactly.
 */
#ifndef VMM_PC_MEMORY_H
#define VMM_PC_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#define PC_GDT_GPA        0x1000u
#define PC_START_INFO_GPA 0x2000u
#define PC_ZERO_PAGE_GPA  0x3000u
#define PC_TABLES_GPA     0x4000u
#define PC_CMDLINE_GPA    0x10000u
#define PC_CMDLINE_MAX    0x10000u /* bytes, with the NUL */
#define PC_LOW_END        0x9fc00u
#define PC_BIOS_GPA       0xe0000u
#define PC_HIGH_GPA       0x100000u
#define PC_HOLE_GPA       0xc0000000u
#define PC_HOLE_END       0x100000000ull

#define PC_IOAPIC_GPA     0xfec00000u
#define PC_LOCAL_APIC_GPA 0xfee00000u

#define PC_MEMORY_MIN (2u << 20)
#define PC_SLOTS_MAX  2
#define PC_E820_MAX   4

struct pc_slot {
	uint64_t gpa;
	uint64_t bytes;
};

struct pc_memory {
	struct pc_slot slots[PC_SLOTS_MAX]; /* in order of address */
	size_t slot_count;
};

enum pc_e820_type { PC_E820_RAM = 1, PC_E820_RESERVED = 2 };

/* As in boot_params. */
struct pc_e820_entry {
	uint64_t gpa;
	uint64_t bytes;
	uint32_t type; /* enum pc_e820_type */
} __attribute__((packed));

/*
 * Lays @bytes of memory out around the hole below 4 GiB.
 * -EINVAL less than PC_MEMORY_MIN or not whole pages; -ERANGE an address would reach 2^48.
 */
int pc_memory_layout(uint64_t bytes, struct pc_memory *ret);

/* Where the memory that begins at 0 ends. */
uint64_t pc_memory_low_end(const struct pc_memory *memory);

/* Describes @memory as firmware would; returns the number of entries. */
size_t pc_memory_e820(const struct pc_memory *memory, struct pc_e820_entry ret[PC_E820_MAX]);

#endif
