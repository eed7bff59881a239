/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bzImage loading (Linux Documentation/arch/x86/boot.rst) and what both kinds share.
 *
 * A bzImage is a setup part of (1 + setup_sects) * 512 bytes, which only a BIOS boot
 * runs, and the protected-mode kernel, whose 64-bit entry lies 512 bytes in.  The setup
 * header at 0x1f1 says what the kernel needs; it is copied into boot_params and completed.
 *
 * The kernel goes to its preferred address: it would unpack itself there anyway, so
 * placing it lower makes no smaller guest possible.  init_size bytes from there are its
 * own; the initrd goes above, at the top of the memory below the hole.
 */
#include "vmm/pc_boot_impl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

#define SECTOR           512u
#define ENTRY_64         0x200u
#define HDRS_MAGIC       0x53726448u /* "HdrS" */
#define BOOT_FLAG        0xaa55u
#define PROTOCOL_2_12    0x020cu
#define XLF_KERNEL_64    (1u << 0)
#define LOADED_HIGH      (1u << 0)
#define CAN_USE_HEAP     (1u << 7)
#define LOADER_UNDEFINED 0xffu

/* Offsets in a bzImage's first sectors and, the same, in boot_params. */
enum {
	HDR_START = 0x1f1, /* u8 setup_sects */
	HDR_BOOT_FLAG = 0x1fe,
	HDR_JUMP_LENGTH = 0x201, /* u8: the header ends at 0x202 plus this */
	HDR_MAGIC = 0x202,
	HDR_VERSION = 0x206,
	HDR_LOADER = 0x210,    /* u8 */
	HDR_LOADFLAGS = 0x211, /* u8 */
	HDR_RAMDISK_IMAGE = 0x218,
	HDR_RAMDISK_SIZE = 0x21c,
	HDR_CMDLINE = 0x228,
	HDR_INITRD_ADDR_MAX = 0x22c,
	HDR_XLOADFLAGS = 0x236,
	HDR_CMDLINE_SIZE = 0x238,
	HDR_PREF_ADDRESS = 0x258,
	HDR_INIT_SIZE = 0x260,
	HDR_END_MIN = 0x264,
	HDR_END_MAX = 0x290,
	/* of boot_params only */
	PARAMS_ACPI_RSDP = 0x070,
	PARAMS_E820_COUNT = 0x1e8, /* u8 */
	PARAMS_E820 = 0x2d0
};

/* The GDT that the boot protocol asks for: flat code at 0x10, flat data at 0x18. */
#define BOOT_CS 0x10u
#define BOOT_DS 0x18u

#define CR0_PE    (1ull << 0)
#define CR0_ET    (1ull << 4)
#define CR0_NE    (1ull << 5)
#define CR0_WP    (1ull << 16)
#define CR0_PG    (1ull << 31)
#define CR4_PAE   (1ull << 5)
#define EFER_LME  (1ull << 8)
#define EFER_LMA  (1ull << 10)
#define RFLAGS_1  (1ull << 1) /* always set */
#define PTE_TABLE 0x3ull      /* present, writable */
#define PTE_LARGE 0x83ull

/* What the setup header asks for. */
struct setup_header {
	size_t setup_bytes; /* before the protected-mode kernel */
	size_t header_end;
	uint64_t pref_address;
	uint64_t init_size;
	uint64_t initrd_addr_max;
	uint64_t cmdline_size;
};

int pc_boot_fail(struct pc_boot *boot, int err, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(boot->error, boot->error_size, format, args);
	va_end(args);
	return err;
}

int pc_boot_add(struct pc_boot *boot, uint64_t gpa, const void *data, size_t bytes)
{
	if (bytes == 0)
		return 0;
	if (boot->blob_count == PC_BLOBS_MAX)
		return pc_boot_fail(boot, -ENOEXEC, "kernel image: too many segments");
	boot->blobs[boot->blob_count++] = (struct pc_blob){gpa, data, bytes};
	return 0;
}

int pc_boot_set_cmdline(struct pc_boot *boot, uint64_t max)
{
	size_t bytes = strlen(boot->input.cmdline);

	if (max > PC_CMDLINE_MAX - 1)
		max = PC_CMDLINE_MAX - 1;
	if (bytes > max)
		return pc_boot_fail(boot, -E2BIG,
			"command line: %zu bytes, and this kernel takes at most %" PRIu64, bytes,
			max);
	memcpy(boot->cmdline, boot->input.cmdline, bytes + 1);
	boot->cmdline_bytes = bytes + 1;
	return 0;
}

int pc_boot_place_initrd(struct pc_boot *boot)
{
	uint64_t end = pc_memory_low_end(&boot->input.memory);
	uint64_t bytes = boot->input.initrd_bytes;
	uint64_t lowest;

	if (!boot->input.initrd || bytes == 0)
		return 0;
	if (end > boot->initrd_max)
		end = boot->initrd_max;
	if (!checked_align_up(boot->kernel_end, PAGE_SIZE, &lowest) || lowest > end ||
		bytes > end - lowest)
		return pc_boot_fail(boot, -ENOMEM,
			"initrd: %" PRIu64
			" bytes do not fit between the kernel's end at 0x%" PRIx64 " and 0x%" PRIx64
			" (give the guest more memory)",
			bytes, boot->kernel_end, end);
	boot->initrd_gpa = align_down(end - bytes, PAGE_SIZE);
	return pc_boot_add(boot, boot->initrd_gpa, boot->input.initrd, bytes);
}

static uint64_t read_le(const void *image, size_t at, size_t bytes)
{
	const uint8_t *p = (const uint8_t *)image + at;
	uint64_t value = 0;

	for (size_t i = 0; i < bytes; i++)
		value |= (uint64_t)p[i] << (8 * i);
	return value;
}

static void write_le(uint8_t *params, size_t at, size_t bytes, uint64_t value)
{
	for (size_t i = 0; i < bytes; i++)
		params[at + i] = (uint8_t)(value >> (8 * i));
}

static int check_bzimage(struct pc_boot *boot, struct setup_header *ret)
{
	const void *image = boot->input.kernel;
	size_t bytes = boot->input.kernel_bytes;
	unsigned int version, sectors;

	if (bytes < HDR_END_MIN || read_le(image, HDR_BOOT_FLAG, 2) != BOOT_FLAG ||
		read_le(image, HDR_MAGIC, 4) != HDRS_MAGIC)
		return pc_boot_fail(
			boot, -ENOEXEC, "kernel image: neither a bzImage nor an ELF file");
	version = (unsigned int)read_le(image, HDR_VERSION, 2);
	if (version < PROTOCOL_2_12)
		return pc_boot_fail(boot, -ENOEXEC,
			"kernel image: boot protocol %u.%02u is too old, 2.12 is needed",
			version >> 8, version & 0xff);
	if (!(read_le(image, HDR_XLOADFLAGS, 2) & XLF_KERNEL_64) ||
		!(read_le(image, HDR_LOADFLAGS, 1) & LOADED_HIGH))
		return pc_boot_fail(boot, -ENOEXEC, "kernel image: no 64-bit kernel");

	sectors = (unsigned int)read_le(image, HDR_START, 1);
	ret->setup_bytes = (size_t)((sectors ? sectors : 4) + 1) * SECTOR;
	if (bytes <= ret->setup_bytes + ENTRY_64)
		return pc_boot_fail(
			boot, -ENOEXEC, "kernel image: truncated, only %zu bytes", bytes);
	ret->header_end = 0x202 + read_le(image, HDR_JUMP_LENGTH, 1);
	if (ret->header_end < HDR_END_MIN || ret->header_end > HDR_END_MAX)
		return pc_boot_fail(boot, -ENOEXEC, "kernel image: bad length of the setup header");
	ret->pref_address = read_le(image, HDR_PREF_ADDRESS, 8);
	ret->init_size = read_le(image, HDR_INIT_SIZE, 4);
	ret->initrd_addr_max = read_le(image, HDR_INITRD_ADDR_MAX, 4);
	ret->cmdline_size = read_le(image, HDR_CMDLINE_SIZE, 4);
	return 0;
}

static int check_truncated(struct pc_boot *boot, const struct setup_header *hdr)
{
	/* syssize, in units of 16 bytes, rounded up. */
	uint64_t wanted = read_le(boot->input.kernel, 0x1f4, 4) * 16;
	uint64_t have = boot->input.kernel_bytes - hdr->setup_bytes;

	if (have + 15 < wanted)
		return pc_boot_fail(boot, -ENOEXEC,
			"kernel image: truncated, %zu of %" PRIu64 " bytes",
			boot->input.kernel_bytes, hdr->setup_bytes + wanted);
	return 0;
}

static int place_bzimage(struct pc_boot *boot, const struct setup_header *hdr)
{
	uint64_t low_end = pc_memory_low_end(&boot->input.memory);
	size_t bytes = boot->input.kernel_bytes - hdr->setup_bytes;
	uint64_t size = hdr->init_size > bytes ? hdr->init_size : bytes;
	uint64_t load = hdr->pref_address;

	if (load < PC_HIGH_GPA || (load & PAGE_MASK) != 0)
		return pc_boot_fail(
			boot, -ENOEXEC, "kernel image: bad load address 0x%" PRIx64, load);
	if (load > low_end || size > low_end - load)
		return pc_boot_fail(boot, -ENOMEM,
			"kernel image: needs %" PRIu64 " bytes at 0x%" PRIx64
			", beyond the guest's memory (give it more)",
			size, load);
	boot->kernel_end = load + size;
	boot->initrd_max = hdr->initrd_addr_max + 1;
	boot->cpu.rip = load + ENTRY_64;
	return pc_boot_add(
		boot, load, (const uint8_t *)boot->input.kernel + hdr->setup_bytes, bytes);
}

static void fill_boot_params(struct pc_boot *boot, const struct setup_header *hdr)
{
	uint8_t *params = boot->params;
	struct pc_e820_entry e820[PC_E820_MAX];
	size_t count = pc_memory_e820(&boot->input.memory, e820);
	uint8_t loadflags;

	memcpy(params + HDR_START, (const uint8_t *)boot->input.kernel + HDR_START,
		hdr->header_end - HDR_START);
	loadflags = params[HDR_LOADFLAGS] & (uint8_t)~CAN_USE_HEAP;
	write_le(params, HDR_LOADER, 1, LOADER_UNDEFINED);
	write_le(params, HDR_LOADFLAGS, 1, loadflags);
	write_le(params, HDR_RAMDISK_IMAGE, 4, boot->initrd_gpa);
	write_le(params, HDR_RAMDISK_SIZE, 4, boot->initrd_gpa ? boot->input.initrd_bytes : 0);
	write_le(params, HDR_CMDLINE, 4, PC_CMDLINE_GPA);
	write_le(params, PARAMS_ACPI_RSDP, 8, PC_BIOS_GPA);
	write_le(params, PARAMS_E820_COUNT, 1, count);
	memcpy(params + PARAMS_E820, e820, count * sizeof(e820[0]));
}

static void fill_page_tables(struct pc_boot *boot)
{
	uint64_t(*t)[512] = boot->tables;

	t[0][0] = (PC_TABLES_GPA + PAGE_SIZE) | PTE_TABLE;
	for (uint64_t i = 0; i < PC_IDENTITY_GIB; i++) {
		t[1][i] = (PC_TABLES_GPA + (2 + i) * PAGE_SIZE) | PTE_TABLE;
		for (uint64_t j = 0; j < 512; j++)
			t[2 + i][j] = (i * SIZE_1G + j * SIZE_2M) | PTE_LARGE;
	}
}

static void set_long_mode(struct pc_boot *boot)
{
	struct pc_cpu_state *cpu = &boot->cpu;

	cpu->rsi = PC_ZERO_PAGE_GPA;
	cpu->rflags = RFLAGS_1;
	cpu->cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_WP | CR0_PG;
	cpu->cr3 = PC_TABLES_GPA;
	cpu->cr4 = CR4_PAE;
	cpu->efer = EFER_LME | EFER_LMA;
	cpu->cs.l = true;
	cpu->cs.db = false;
	boot->gdt[BOOT_CS / 8] = 0x00af9b000000ffffull;
}

/* The flat 32-bit segments with which both kinds of boot begin. */
static void set_flat_segments(struct pc_boot *boot)
{
	struct pc_cpu_state *cpu = &boot->cpu;

	cpu->cs = (struct pc_segment){.selector = BOOT_CS,
		.limit = UINT32_MAX,
		.type = 0xb,
		.present = true,
		.s = true,
		.db = true,
		.g = true};
	cpu->data = (struct pc_segment){.selector = BOOT_DS,
		.limit = UINT32_MAX,
		.type = 0x3,
		.present = true,
		.s = true,
		.db = true,
		.g = true};
	cpu->tr = (struct pc_segment){.limit = 0x67, .type = 0xb, .present = true};
	cpu->gdt_base = PC_GDT_GPA;
	cpu->gdt_limit = sizeof(boot->gdt) - 1;
	boot->gdt[BOOT_CS / 8] = 0x00cf9b000000ffffull;
	boot->gdt[BOOT_DS / 8] = 0x00cf93000000ffffull;
}

static int load_bzimage(struct pc_boot *boot)
{
	struct setup_header hdr = {0};
	int err = check_bzimage(boot, &hdr);

	if (!err)
		err = check_truncated(boot, &hdr);
	if (!err)
		err = pc_boot_set_cmdline(boot, hdr.cmdline_size);
	if (!err)
		err = place_bzimage(boot, &hdr);
	if (!err)
		err = pc_boot_place_initrd(boot);
	if (err)
		return err;
	fill_boot_params(boot, &hdr);
	fill_page_tables(boot);
	set_long_mode(boot);
	err = pc_boot_add(boot, PC_ZERO_PAGE_GPA, boot->params, sizeof(boot->params));
	if (!err)
		err = pc_boot_add(boot, PC_TABLES_GPA, boot->tables, sizeof(boot->tables));
	return err;
}

static int compare_blobs(const void *a, const void *b)
{
	uint64_t x = ((const struct pc_blob *)a)->gpa, y = ((const struct pc_blob *)b)->gpa;

	return x < y ? -1 : x > y;
}

/* ELF segments are placed by the image alone, so they can overlap. */
static int sort_blobs(struct pc_boot *boot)
{
	const struct pc_blob *b = boot->blobs;

	qsort(boot->blobs, boot->blob_count, sizeof(*b), compare_blobs);
	for (size_t i = 1; i < boot->blob_count; i++)
		if (b[i - 1].gpa + b[i - 1].bytes > b[i].gpa)
			return pc_boot_fail(boot, -ENOEXEC, "kernel image: overlapping segments");
	return 0;
}

static int prepare(struct pc_boot *boot)
{
	int err = pc_acpi_build(boot->input.vcpus, PC_BIOS_GPA, boot->acpi, &boot->acpi_bytes);

	if (err)
		return pc_boot_fail(boot, err, "%u vCPUs: 1 to %u are possible", boot->input.vcpus,
			PC_ACPI_VCPUS_MAX);
	set_flat_segments(boot);
	if (pc_elf_recognize(boot->input.kernel, boot->input.kernel_bytes))
		err = pc_elf_load(boot);
	else
		err = load_bzimage(boot);
	if (!err)
		err = pc_boot_add(boot, PC_GDT_GPA, boot->gdt, sizeof(boot->gdt));
	if (!err)
		err = pc_boot_add(boot, PC_CMDLINE_GPA, boot->cmdline, boot->cmdline_bytes);
	if (!err)
		err = pc_boot_add(boot, PC_BIOS_GPA, boot->acpi, boot->acpi_bytes);
	if (!err)
		err = sort_blobs(boot);
	return err;
}

int pc_boot_prepare(
	const struct pc_boot_input *input, struct pc_boot **ret, char *error, size_t error_size)
{
	struct pc_boot *boot = calloc(1, sizeof(*boot));
	int err;

	if (!boot) {
		snprintf(error, error_size, "out of memory");
		return -ENOMEM;
	}
	boot->input = *input;
	boot->error = error;
	boot->error_size = error_size;
	err = prepare(boot);
	if (err) {
		pc_boot_free(boot);
		return err;
	}
	*ret = boot;
	return 0;
}

void pc_boot_free(struct pc_boot *boot)
{
	free(boot);
}

const struct pc_blob *pc_boot_blobs(const struct pc_boot *boot, size_t *ret_count)
{
	*ret_count = boot->blob_count;
	return boot->blobs;
}

size_t pc_boot_pages(const struct pc_boot *boot, struct pc_slot ret[PC_BLOBS_MAX])
{
	size_t count = 0;

	for (size_t i = 0; i < boot->blob_count; i++) {
		const struct pc_blob *blob = &boot->blobs[i];
		uint64_t start = align_down(blob->gpa, PAGE_SIZE);
		uint64_t end = align_down(blob->gpa + blob->bytes + PAGE_MASK, PAGE_SIZE);
		struct pc_slot *last = count ? &ret[count - 1] : NULL;

		if (last && last->gpa + last->bytes >= start)
			last->bytes = end - last->gpa;
		else
			ret[count++] = (struct pc_slot){start, end - start};
	}
	return count;
}

const struct pc_cpu_state *pc_boot_cpu(const struct pc_boot *boot)
{
	return &boot->cpu;
}
