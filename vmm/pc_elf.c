/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ELF kernels by PVH (Xen docs/misc/pvh.pandoc, which Linux, BSDs and unikernels enter by).
 *
 * The entry is a 32-bit physical address in the note XEN_ELFNOTE_PHYS32_ENTRY; the kernel
 * finds itself there in flat protected mode without paging, ebx pointing to the start
 * info.  Segments go to their physical addresses.  Every number of the image is checked
 * before use: it is a file that anybody may have written.
 */
#include "vmm/pc_boot_impl.h"

#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/checked.h"

#define XEN_ELFNOTE_PHYS32_ENTRY 18u
#define START_INFO_MAGIC         0x336ec578u

#define CR0_PE   (1ull << 0)
#define CR0_ET   (1ull << 4)
#define RFLAGS_1 (1ull << 1)

/* Version 1.  The names are Xen's, without prefixes. */
struct start_info {
	uint32_t magic;
	uint32_t version;
	uint32_t flags;
	uint32_t nr_modules;
	uint64_t modlist_paddr;
	uint64_t cmdline_paddr;
	uint64_t rsdp_paddr;
	uint64_t memmap_paddr;
	uint32_t memmap_entries;
	uint32_t reserved;
};

struct start_module {
	uint64_t paddr;
	uint64_t size;
	uint64_t cmdline_paddr;
	uint64_t reserved;
};

struct start_memory {
	uint64_t addr;
	uint64_t size;
	uint32_t type; /* as e820 */
	uint32_t reserved;
};

/* The page at PC_START_INFO_GPA. */
struct start_page {
	struct start_info info;
	struct start_module initrd;
	struct start_memory memory[PC_E820_MAX];
};

_Static_assert(sizeof(struct start_info) == 56, "hvm_start_info version 1");
_Static_assert(sizeof(struct start_page) <= PAGE_SIZE, "one page");

bool pc_elf_recognize(const void *image, size_t bytes)
{
	return bytes >= SELFMAG && memcmp(image, ELFMAG, SELFMAG) == 0;
}

static bool in_image(const struct pc_boot *boot, uint64_t offset, uint64_t bytes)
{
	uint64_t end;

	return checked_add(offset, bytes, &end) && end <= boot->input.kernel_bytes;
}

static const uint8_t *image_at(const struct pc_boot *boot, uint64_t offset)
{
	return (const uint8_t *)boot->input.kernel + offset;
}

static int read_header(struct pc_boot *boot, Elf64_Ehdr *ret)
{
	Elf64_Ehdr header;

	if (!in_image(boot, 0, sizeof(header)))
		return pc_boot_fail(boot, -ENOEXEC, "kernel image: truncated ELF header");
	memcpy(&header, image_at(boot, 0), sizeof(header));
	if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB ||
		header.e_machine != EM_X86_64 || header.e_phentsize != sizeof(Elf64_Phdr))
		return pc_boot_fail(boot, -ENOEXEC, "kernel image: an ELF file, not for x86-64");
	if (!in_image(boot, header.e_phoff, (uint64_t)header.e_phnum * sizeof(Elf64_Phdr)))
		return pc_boot_fail(boot, -ENOEXEC, "kernel image: truncated ELF program headers");
	*ret = header;
	return 0;
}

static int load_segment(struct pc_boot *boot, const Elf64_Phdr *ph)
{
	uint64_t low_end = pc_memory_low_end(&boot->input.memory);
	uint64_t end;

	if (ph->p_filesz > ph->p_memsz || !in_image(boot, ph->p_offset, ph->p_filesz))
		return pc_boot_fail(boot, -ENOEXEC, "kernel image: truncated ELF segment");
	if (ph->p_paddr < PC_HIGH_GPA || !checked_add(ph->p_paddr, ph->p_memsz, &end))
		return pc_boot_fail(boot, -ENOEXEC, "kernel image: bad segment address 0x%" PRIx64,
			ph->p_paddr);
	if (end > low_end)
		return pc_boot_fail(boot, -ENOMEM,
			"kernel image: needs %" PRIu64 " bytes at 0x%" PRIx64
			", beyond the guest's memory (give it more)",
			ph->p_memsz, ph->p_paddr);
	if (end > boot->kernel_end)
		boot->kernel_end = end;
	return pc_boot_add(boot, ph->p_paddr, image_at(boot, ph->p_offset), ph->p_filesz);
}

/* Looks for the entry note in one PT_NOTE segment; leaves *entry alone if it is not there. */
static void find_entry(const struct pc_boot *boot, const Elf64_Phdr *ph, uint64_t *entry)
{
	uint64_t at = ph->p_offset, left = ph->p_filesz;

	if (!in_image(boot, at, left))
		return;
	while (left >= sizeof(Elf64_Nhdr)) {
		Elf64_Nhdr note;
		uint64_t name, desc;

		memcpy(&note, image_at(boot, at), sizeof(note));
		name = align_down((uint64_t)note.n_namesz + 3, 4);
		desc = align_down((uint64_t)note.n_descsz + 3, 4);
		if (sizeof(note) + name + desc > left)
			return;
		if (note.n_type == XEN_ELFNOTE_PHYS32_ENTRY && note.n_namesz == 4 &&
			memcmp(image_at(boot, at + sizeof(note)), "Xen", 4) == 0 &&
			(note.n_descsz == 4 || note.n_descsz == 8)) {
			*entry = 0;
			memcpy(entry, image_at(boot, at + sizeof(note) + name), note.n_descsz);
		}
		at += sizeof(note) + name + desc;
		left -= sizeof(note) + name + desc;
	}
}

static int load_segments(struct pc_boot *boot, const Elf64_Ehdr *header, uint64_t *ret_entry)
{
	uint64_t entry = 0;

	for (unsigned int i = 0; i < header->e_phnum; i++) {
		Elf64_Phdr ph;
		int err = 0;

		memcpy(&ph, image_at(boot, header->e_phoff + i * sizeof(ph)), sizeof(ph));
		if (ph.p_type == PT_LOAD && ph.p_memsz != 0)
			err = load_segment(boot, &ph);
		else if (ph.p_type == PT_NOTE)
			find_entry(boot, &ph, &entry);
		if (err)
			return err;
	}
	if (entry == 0)
		return pc_boot_fail(boot, -ENOEXEC,
			"kernel image: no PVH entry (Linux needs CONFIG_PVH; or give the bzImage)");
	if (entry < PC_HIGH_GPA || entry >= boot->kernel_end)
		return pc_boot_fail(boot, -ENOEXEC,
			"kernel image: PVH entry 0x%" PRIx64 " is outside the kernel", entry);
	*ret_entry = entry;
	return 0;
}

static void fill_start_info(struct pc_boot *boot)
{
	struct start_page *page = (struct start_page *)boot->params;
	struct pc_e820_entry e820[PC_E820_MAX];
	size_t count = pc_memory_e820(&boot->input.memory, e820);

	page->info = (struct start_info){
		.magic = START_INFO_MAGIC,
		.version = 1,
		.cmdline_paddr = PC_CMDLINE_GPA,
		.rsdp_paddr = PC_BIOS_GPA,
		.memmap_paddr = PC_START_INFO_GPA + offsetof(struct start_page, memory),
		.memmap_entries = (uint32_t)count,
	};
	if (boot->initrd_gpa) {
		page->info.nr_modules = 1;
		page->info.modlist_paddr = PC_START_INFO_GPA + offsetof(struct start_page, initrd);
		page->initrd.paddr = boot->initrd_gpa;
		page->initrd.size = boot->input.initrd_bytes;
	}
	for (size_t i = 0; i < count; i++)
		page->memory[i] = (struct start_memory){
			.addr = e820[i].gpa, .size = e820[i].bytes, .type = e820[i].type};
}

int pc_elf_load(struct pc_boot *boot)
{
	Elf64_Ehdr header = {0};
	uint64_t entry = 0;
	int err = read_header(boot, &header);

	if (!err)
		err = pc_boot_set_cmdline(boot, PC_CMDLINE_MAX - 1);
	if (!err)
		err = load_segments(boot, &header, &entry);
	boot->initrd_max = UINT32_MAX;
	if (!err)
		err = pc_boot_place_initrd(boot);
	if (err)
		return err;
	fill_start_info(boot);
	boot->cpu.rip = entry;
	boot->cpu.rbx = PC_START_INFO_GPA;
	boot->cpu.rflags = RFLAGS_1;
	boot->cpu.cr0 = CR0_PE | CR0_ET;
	return pc_boot_add(boot, PC_START_INFO_GPA, boot->params, sizeof(boot->params));
}
