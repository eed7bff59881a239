/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmm/pc_boot.c and vmm/pc_elf.c: good images, every kind of bad one, and what comes out. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <elf.h>

#include "base/types.h"
#include "vmm/pc_boot.h"

#define MIB          (1ull << 20)
#define SETUP_BYTES  1024u /* one setup sector */
#define CODE_BYTES   4096u
#define IMAGE_BYTES  (SETUP_BYTES + CODE_BYTES)
#define LOAD         (16 * MIB)
#define INIT_SIZE    (8 * MIB)
#define INITRD_BYTES 5000u

struct fixture {
	uint8_t image[IMAGE_BYTES];
	uint8_t initrd[INITRD_BYTES];
	struct pc_boot_input input;
	struct pc_boot *boot;
	char error[200];
};

static void put(struct fixture *f, size_t at, size_t bytes, uint64_t value)
{
	memcpy(f->image + at, &value, bytes);
}

static void make_bzimage(struct fixture *f)
{
	memset(f->image, 0xcc, sizeof(f->image));
	memset(f->image, 0, SETUP_BYTES);
	put(f, 0x1f1, 1, 1);               /* setup_sects */
	put(f, 0x1f4, 4, CODE_BYTES / 16); /* syssize */
	put(f, 0x1fe, 2, 0xaa55);          /* boot_flag */
	put(f, 0x201, 1, 0x66);            /* the header ends at 0x268 */
	put(f, 0x202, 4, 0x53726448);      /* "HdrS" */
	put(f, 0x206, 2, 0x020f);          /* version */
	put(f, 0x211, 1, 0x81);            /* loadflags */
	put(f, 0x22c, 4, 0x7fffffff);      /* initrd_addr_max */
	put(f, 0x236, 2, 1);               /* xloadflags */
	put(f, 0x238, 4, 100);             /* cmdline_size */
	put(f, 0x258, 8, LOAD);
	put(f, 0x260, 4, INIT_SIZE);
}

#define ELF_ENTRY (LOAD + 0x40)

/* Two segments of code at LOAD and LOAD + 4K (the latter mostly bss), and the note. */
static void make_elf(struct fixture *f)
{
	Elf64_Ehdr header = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB},
		.e_machine = EM_X86_64,
		.e_phoff = sizeof(header),
		.e_phentsize = sizeof(Elf64_Phdr),
		.e_phnum = 3};
	Elf64_Phdr ph[3] = {{.p_type = PT_LOAD,
				    .p_offset = 1024,
				    .p_filesz = 1024,
				    .p_memsz = 1024,
				    .p_paddr = LOAD},
		{.p_type = PT_NOTE, .p_offset = 512, .p_filesz = 40},
		{.p_type = PT_LOAD,
			.p_offset = 2048,
			.p_filesz = 100,
			.p_memsz = 2 * MIB,
			.p_paddr = LOAD + PAGE_SIZE}};
	/* Another note first: Xen's, of another type. */
	uint32_t notes[10] = {4, 4, 6, 0, 77, 4, 4, 18, 0, ELF_ENTRY};

	memcpy(&notes[3], "Xen", 4);
	memcpy(&notes[8], "Xen", 4);
	memset(f->image, 0xcc, sizeof(f->image));
	memcpy(f->image, &header, sizeof(header));
	memcpy(f->image + sizeof(header), ph, sizeof(ph));
	memcpy(f->image + 512, notes, sizeof(notes));
}

static Elf64_Phdr *program_header(struct fixture *f, size_t i)
{
	return (Elf64_Phdr *)(f->image + sizeof(Elf64_Ehdr)) + i;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	memset(f->initrd, 0xee, sizeof(f->initrd));
	f->input = (struct pc_boot_input){.kernel = f->image,
		.kernel_bytes = sizeof(f->image),
		.initrd = f->initrd,
		.initrd_bytes = sizeof(f->initrd),
		.cmdline = "console=ttyS0",
		.vcpus = 2};
	assert_int_equal(pc_memory_layout(64 * MIB, &f->input.memory), 0);
	make_bzimage(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	pc_boot_free(f->boot);
	free(f);
	return 0;
}

static int prepare(struct fixture *f)
{
	memset(f->error, 0, sizeof(f->error));
	pc_boot_free(f->boot);
	f->boot = NULL;
	return pc_boot_prepare(&f->input, &f->boot, f->error, sizeof(f->error));
}

/* It fails with @err, says @word, and hands nothing out. */
static void assert_refused(struct fixture *f, int err, const char *word)
{
	assert_int_equal(prepare(f), err);
	assert_null(f->boot);
	if (!strstr(f->error, word))
		fail_msg("\"%s\" does not say \"%s\"", f->error, word);
	assert_null(strchr(f->error, '\n'));
}

static const struct pc_blob *blob_at(struct fixture *f, uint64_t gpa)
{
	size_t count;
	const struct pc_blob *blobs = pc_boot_blobs(f->boot, &count);

	for (size_t i = 0; i < count; i++)
		if (blobs[i].gpa == gpa)
			return &blobs[i];
	fail_msg("no blob at 0x%llx", (unsigned long long)gpa);
	return NULL;
}

static uint64_t get(const struct pc_blob *blob, size_t at, size_t bytes)
{
	uint64_t value = 0;

	assert_true(at + bytes <= blob->bytes);
	memcpy(&value, (const uint8_t *)blob->data + at, bytes);
	return value;
}

static void assert_sorted_and_inside_memory(struct fixture *f)
{
	size_t count;
	const struct pc_blob *blobs = pc_boot_blobs(f->boot, &count);
	struct pc_slot pages[PC_BLOBS_MAX];
	size_t ranges = pc_boot_pages(f->boot, pages);
	uint64_t end = 0;

	for (size_t i = 0; i < count; i++) {
		assert_true(blobs[i].gpa >= end);
		end = blobs[i].gpa + blobs[i].bytes;
		assert_true(blobs[i].bytes > 0);
	}
	assert_true(end <= pc_memory_low_end(&f->input.memory));
	for (size_t i = 0; i < ranges; i++) {
		assert_int_equal((pages[i].gpa | pages[i].bytes) & PAGE_MASK, 0);
		if (i > 0)
			assert_true(pages[i].gpa > pages[i - 1].gpa + pages[i - 1].bytes);
	}
	for (size_t i = 0; i < count; i++) {
		size_t in = 0;

		for (size_t j = 0; j < ranges; j++)
			in += blobs[i].gpa >= pages[j].gpa &&
			      blobs[i].gpa + blobs[i].bytes <= pages[j].gpa + pages[j].bytes;
		assert_int_equal(in, 1);
	}
}

static void bzimage_gets_its_parameters(void **state)
{
	struct fixture *f = *state;
	uint64_t initrd = 64 * MIB - 2 * PAGE_SIZE;
	const struct pc_blob *params;

	assert_int_equal(prepare(f), 0);
	assert_sorted_and_inside_memory(f);
	params = blob_at(f, PC_ZERO_PAGE_GPA);
	assert_int_equal(get(params, 0x070, 8), PC_BIOS_GPA);
	assert_int_equal(get(params, 0x1e8, 1), 3);
	assert_int_equal(get(params, 0x202, 4), 0x53726448);
	assert_int_equal(get(params, 0x210, 1), 0xff);
	assert_int_equal(get(params, 0x211, 1), 0x01);
	assert_int_equal(get(params, 0x218, 4), initrd);
	assert_int_equal(get(params, 0x21c, 4), INITRD_BYTES);
	assert_int_equal(get(params, 0x228, 4), PC_CMDLINE_GPA);
	assert_int_equal(get(params, 0x2d0 + 40, 8), MIB);
	assert_int_equal(get(params, 0x2d0 + 48, 8), 63 * MIB);
	assert_ptr_equal(blob_at(f, initrd)->data, f->initrd);
	assert_ptr_equal(blob_at(f, LOAD)->data, f->image + SETUP_BYTES);
	assert_int_equal(blob_at(f, LOAD)->bytes, CODE_BYTES);
	assert_string_equal(blob_at(f, PC_CMDLINE_GPA)->data, "console=ttyS0");
	assert_memory_equal(blob_at(f, PC_BIOS_GPA)->data, "RSD PTR ", 8);
}

static void bzimage_starts_in_long_mode(void **state)
{
	struct fixture *f = *state;
	const struct pc_cpu_state *cpu;
	const struct pc_blob *tables;
	uint64_t entry;

	assert_int_equal(prepare(f), 0);
	cpu = pc_boot_cpu(f->boot);
	assert_int_equal(cpu->rip, LOAD + 0x200);
	assert_int_equal(cpu->rsi, PC_ZERO_PAGE_GPA);
	assert_int_equal(cpu->rflags, 2);
	assert_int_equal(cpu->cr0 & 0x80000001, 0x80000001);
	assert_int_equal(cpu->cr4, 0x20);
	assert_int_equal(cpu->efer, 0x500);
	assert_true(cpu->cs.l && !cpu->cs.db && cpu->cs.selector == 0x10);
	assert_int_equal(cpu->data.selector, 0x18);
	assert_int_equal(get(blob_at(f, cpu->gdt_base), 0x10, 8), 0x00af9b000000ffff);

	/* Walk to the last 2 MiB below 4 GiB. */
	tables = blob_at(f, cpu->cr3);
	entry = get(tables, 0, 8);
	assert_int_equal(entry & 0xfff, 3);
	entry = get(tables, (entry & ~PAGE_MASK) - cpu->cr3 + 3 * 8, 8);
	assert_int_equal(entry & 0xfff, 3);
	entry = get(tables, (entry & ~PAGE_MASK) - cpu->cr3 + 511 * 8, 8);
	assert_int_equal(entry, (4ull << 30) - SIZE_2M + 0x83);
}

static void initrd_is_optional(void **state)
{
	struct fixture *f = *state;

	f->input.initrd = NULL;
	assert_int_equal(prepare(f), 0);
	assert_int_equal(get(blob_at(f, PC_ZERO_PAGE_GPA), 0x218, 8), 0);
	f->input.initrd = f->initrd;
	f->input.initrd_bytes = 0;
	assert_int_equal(prepare(f), 0);
	assert_int_equal(get(blob_at(f, PC_ZERO_PAGE_GPA), 0x218, 8), 0);
}

static void initrd_stays_below_its_limit(void **state)
{
	struct fixture *f = *state;

	put(f, 0x22c, 4, 40 * MIB - 1);
	assert_int_equal(prepare(f), 0);
	assert_int_equal(get(blob_at(f, PC_ZERO_PAGE_GPA), 0x218, 4), 40 * MIB - 2 * PAGE_SIZE);
	put(f, 0x22c, 4, LOAD + INIT_SIZE + INITRD_BYTES - 2);
	assert_refused(f, -ENOMEM, "initrd");
	put(f, 0x22c, 4, 0xffffffff);
	assert_int_equal(prepare(f), 0);
	f->input.initrd_bytes = 64 * MIB;
	assert_refused(f, -ENOMEM, "initrd");
}

static void kernel_must_fit_memory_exactly(void **state)
{
	struct fixture *f = *state;

	f->input.initrd = NULL;
	assert_int_equal(pc_memory_layout(LOAD + INIT_SIZE, &f->input.memory), 0);
	assert_int_equal(prepare(f), 0);
	assert_int_equal(pc_memory_layout(LOAD + INIT_SIZE - PAGE_SIZE, &f->input.memory), 0);
	assert_refused(f, -ENOMEM, "memory");
	assert_int_equal(pc_memory_layout(PC_MEMORY_MIN, &f->input.memory), 0);
	assert_refused(f, -ENOMEM, "memory");
}

static void command_line_length_is_the_kernels(void **state)
{
	struct fixture *f = *state;
	static char line[PC_CMDLINE_MAX + 1];

	memset(line, 'x', 100);
	f->input.cmdline = line;
	assert_int_equal(prepare(f), 0);
	assert_int_equal(blob_at(f, PC_CMDLINE_GPA)->bytes, 101);
	line[100] = 'x';
	assert_refused(f, -E2BIG, "at most 100");
	put(f, 0x238, 4, UINT32_MAX);
	memset(line, 'x', PC_CMDLINE_MAX - 1);
	assert_int_equal(prepare(f), 0);
	line[PC_CMDLINE_MAX - 1] = 'x';
	assert_refused(f, -E2BIG, "command line");
}

static void vcpus_are_checked(void **state)
{
	struct fixture *f = *state;

	f->input.vcpus = 65;
	assert_refused(f, -EINVAL, "65 vCPUs");
}

static void bad_bzimages_are_refused(void **state)
{
	static const struct {
		size_t at, bytes;
		uint64_t value;
		int err;
		const char *word;
	} cases[] = {
		{0x1fe, 2, 0xaa56, -ENOEXEC, "neither a bzImage"},
		{0x202, 4, 0, -ENOEXEC, "neither a bzImage"},
		{0x206, 2, 0x020b, -ENOEXEC, "2.11"},
		{0x211, 1, 0, -ENOEXEC, "64-bit"},
		{0x236, 2, 0, -ENOEXEC, "64-bit"},
		{0x201, 1, 0x20, -ENOEXEC, "setup header"},
		{0x201, 1, 0xff, -ENOEXEC, "setup header"},
		{0x1f1, 1, 9, -ENOEXEC, "truncated"},
		{0x1f1, 1, 0, -ENOEXEC, "truncated"}, /* 0 means 4 */
		{0x1f4, 4, CODE_BYTES / 16 + 1, -ENOEXEC, "truncated"},
		{0x258, 8, 0, -ENOEXEC, "load address"},
		{0x258, 8, LOAD + 1, -ENOEXEC, "load address"},
		{0x258, 8, UINT64_MAX - PAGE_MASK, -ENOMEM, "memory"},
		{0x260, 4, UINT32_MAX, -ENOMEM, "memory"},
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		make_bzimage(f);
		put(f, cases[i].at, cases[i].bytes, cases[i].value);
		assert_refused(f, cases[i].err, cases[i].word);
	}
}

static void every_truncation_is_refused(void **state)
{
	struct fixture *f = *state;

	for (size_t bytes = 0; bytes <= IMAGE_BYTES - 16; bytes++) {
		/* In a block of its own, so that a sanitizer sees what is read beyond. */
		uint8_t *copy = malloc(bytes ? bytes : 1);

		memcpy(copy, f->image, bytes);
		f->input.kernel = copy;
		f->input.kernel_bytes = bytes;
		assert_refused(f, -ENOEXEC, "kernel image");
		free(copy);
	}
}

static void elf_starts_by_pvh(void **state)
{
	struct fixture *f = *state;
	const struct pc_cpu_state *cpu;
	const struct pc_blob *info;

	make_elf(f);
	assert_int_equal(prepare(f), 0);
	assert_sorted_and_inside_memory(f);
	cpu = pc_boot_cpu(f->boot);
	assert_int_equal(cpu->rip, ELF_ENTRY);
	assert_int_equal(cpu->rbx, PC_START_INFO_GPA);
	assert_int_equal(cpu->cr0, 0x11);
	assert_int_equal(cpu->cr4 | cpu->efer | cpu->cr3, 0);
	assert_true(cpu->cs.db && !cpu->cs.l);
	assert_int_equal(blob_at(f, LOAD)->bytes, 1024);
	assert_int_equal(blob_at(f, LOAD + PAGE_SIZE)->bytes, 100);
	info = blob_at(f, PC_START_INFO_GPA);
	assert_int_equal(get(info, 0, 8), 1ull << 32 | 0x336ec578);
	assert_int_equal(get(info, 12, 4), 1);
	assert_int_equal(get(info, get(info, 16, 8) - PC_START_INFO_GPA + 8, 8), INITRD_BYTES);
	assert_int_equal(get(info, 24, 8), PC_CMDLINE_GPA);
	assert_int_equal(get(info, 32, 8), PC_BIOS_GPA);
	assert_int_equal(get(info, 48, 4), 3);
	assert_int_equal(get(info, get(info, 40, 8) - PC_START_INFO_GPA + 8, 8), PC_LOW_END);
}

static void elf_initrd_stays_above_the_bss(void **state)
{
	struct fixture *f = *state;

	make_elf(f);
	assert_int_equal(pc_memory_layout(LOAD + 2 * MIB + 3 * PAGE_SIZE, &f->input.memory), 0);
	assert_int_equal(prepare(f), 0);
	assert_int_equal(pc_memory_layout(LOAD + 2 * MIB + 2 * PAGE_SIZE, &f->input.memory), 0);
	assert_refused(f, -ENOMEM, "initrd");
	assert_int_equal(pc_memory_layout(LOAD + 2 * MIB, &f->input.memory), 0);
	assert_refused(f, -ENOMEM, "memory");
}

static void bad_elf_headers_are_refused(void **state)
{
	struct fixture *f = *state;
	Elf64_Ehdr *header = (Elf64_Ehdr *)f->image;

	make_elf(f);
	header->e_ident[EI_CLASS] = ELFCLASS32;
	assert_refused(f, -ENOEXEC, "x86-64");
	make_elf(f);
	header->e_machine = EM_AARCH64;
	assert_refused(f, -ENOEXEC, "x86-64");
	make_elf(f);
	header->e_phoff = UINT64_MAX - 8;
	assert_refused(f, -ENOEXEC, "truncated");
	make_elf(f);
	header->e_phnum = UINT16_MAX;
	assert_refused(f, -ENOEXEC, "truncated");
	make_elf(f);
	header->e_phnum = 0;
	assert_refused(f, -ENOEXEC, "PVH");
	make_elf(f);
	f->input.kernel_bytes = 20;
	assert_refused(f, -ENOEXEC, "truncated");
}

static void bad_elf_segments_are_refused(void **state)
{
	struct fixture *f = *state;

	make_elf(f);
	program_header(f, 0)->p_offset = IMAGE_BYTES - 1023;
	assert_refused(f, -ENOEXEC, "truncated");
	make_elf(f);
	program_header(f, 0)->p_memsz = 1023;
	assert_refused(f, -ENOEXEC, "truncated");
	make_elf(f);
	program_header(f, 0)->p_paddr = 0x1000;
	assert_refused(f, -ENOEXEC, "segment address");
	make_elf(f);
	program_header(f, 0)->p_paddr = UINT64_MAX - 10;
	assert_refused(f, -ENOEXEC, "segment address");
	make_elf(f);
	program_header(f, 2)->p_paddr = LOAD + 1023;
	assert_refused(f, -ENOEXEC, "overlapping");
}

static void bad_elf_notes_are_refused(void **state)
{
	struct fixture *f = *state;

	make_elf(f);
	program_header(f, 1)->p_filesz = 39;
	assert_refused(f, -ENOEXEC, "PVH");
	make_elf(f);
	program_header(f, 1)->p_offset = UINT64_MAX - 4;
	assert_refused(f, -ENOEXEC, "PVH");
	make_elf(f);
	put(f, 512, 4, UINT32_MAX); /* the first note's name */
	assert_refused(f, -ENOEXEC, "PVH");
	make_elf(f);
	put(f, 512 + 36, 4, 0x1000);
	assert_refused(f, -ENOEXEC, "outside the kernel");
}

/* No image at all may do worse than being refused or placed inside memory. */
static void random_damage_is_harmless(void **state)
{
	struct fixture *f = *state;
	uint64_t seed = 1;

	for (unsigned int round = 0; round < 4000; round++) {
		if (round % 2)
			make_elf(f);
		else
			make_bzimage(f);
		for (unsigned int i = 0; i < 1 + round % 5; i++) {
			seed = seed * 6364136223846793005ull + 1442695040888963407ull;
			f->image[(seed >> 33) % 0x280] = (uint8_t)(seed >> 25);
		}
		if (prepare(f) == 0)
			assert_sorted_and_inside_memory(f);
		else
			assert_true(f->error[0] != '\0');
	}
}

int main(void)
{
#define UNIT(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		UNIT(bzimage_gets_its_parameters),
		UNIT(bzimage_starts_in_long_mode),
		UNIT(initrd_is_optional),
		UNIT(initrd_stays_below_its_limit),
		UNIT(kernel_must_fit_memory_exactly),
		UNIT(command_line_length_is_the_kernels),
		UNIT(vcpus_are_checked),
		UNIT(bad_bzimages_are_refused),
		UNIT(every_truncation_is_refused),
		UNIT(elf_starts_by_pvh),
		UNIT(elf_initrd_stays_above_the_bss),
		UNIT(bad_elf_headers_are_refused),
		UNIT(bad_elf_segments_are_refused),
		UNIT(bad_elf_notes_are_refused),
		UNIT(random_damage_is_harmless),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
