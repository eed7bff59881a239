/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the loaders of the two image kinds share; for pc_boot.c and pc_elf.c. */
#ifndef VMM_PC_BOOT_IMPL_H
#define VMM_PC_BOOT_IMPL_H

#include "base/types.h"
#include "vmm/pc_acpi.h"
#include "vmm/pc_boot.h"

#define PC_IDENTITY_GIB 4
#define PC_TABLE_PAGES  (2 + PC_IDENTITY_GIB)

struct pc_boot {
	struct pc_boot_input input;
	struct pc_cpu_state cpu;
	uint64_t kernel_end;  /* no initrd below */
	uint64_t initrd_max;  /* nor any byte of it at or above */
	uint64_t initrd_gpa;  /* 0: none */
	size_t cmdline_bytes; /* with the NUL */
	size_t acpi_bytes;
	char *error;
	size_t error_size;
	struct pc_blob blobs[PC_BLOBS_MAX];
	size_t blob_count;

	/* What the blobs below the kernel point to. */
	uint64_t gdt[4];
	uint64_t tables[PC_TABLE_PAGES][512];
	uint8_t params[PAGE_SIZE] __attribute__((aligned(8))); /* boot_params or PVH start info */
	uint8_t acpi[PC_ACPI_MAX];
	char cmdline[PC_CMDLINE_MAX];
};

/* Writes the line that pc_boot_prepare hands out; returns @err. */
int pc_boot_fail(struct pc_boot *boot, int err, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Adds a blob; empty ones are left out.  -ENOEXEC too many of them. */
int pc_boot_add(struct pc_boot *boot, uint64_t gpa, const void *data, size_t bytes);

/* Checks @max (bytes without NUL) and keeps a copy of the command line. */
int pc_boot_set_cmdline(struct pc_boot *boot, uint64_t max);

/* Places the initrd as high as it fits between kernel_end and initrd_max. */
int pc_boot_place_initrd(struct pc_boot *boot);

/* Whether this is an ELF file at all. */
bool pc_elf_recognize(const void *image, size_t bytes);

/* Loads input.kernel by PVH: blobs, registers, start info, initrd. */
int pc_elf_load(struct pc_boot *boot);

#endif
