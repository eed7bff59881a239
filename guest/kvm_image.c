/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How the workload guest's vCPUs start on x86-64: state and page tables.
 *
 * One PML4 page, then a PDPT page for every 512 GiB, then, up to 13 GiB of memory, a page
 * directory for every GiB.  Accessed and dirty bits are set from the start, so that the
 * CPU never writes to the tables.  The page size depends on nothing but the size of
 * memory: the same VM has the same tables, and so the same measurement, on every machine.
 */
#include <errno.h>
#include <string.h>

#include "base/types.h"
#include "guest/kvm_image.h"

#define ENTRIES 512

#define ENTRY_TABLE 0x27u /* present, writable, user, accessed */
#define ENTRY_PAGE  0xe7u /* the same, dirty, large page */

#define TABLE_PAGES (GUEST_KVM_TABLES_MAX / PAGE_SIZE)
#define MAX_WITH_2M ((TABLE_PAGES - 2) * SIZE_1G)
#define MAX_WITH_1G ((TABLE_PAGES - 1) * ENTRIES * SIZE_1G)

#define CR0_PE     (1u << 0)
#define CR0_MP     (1u << 1)
#define CR0_ET     (1u << 4)
#define CR0_NE     (1u << 5)
#define CR0_WP     (1u << 16)
#define CR0_PG     (1u << 31)
#define CR4_PAE    (1u << 5)
#define EFER_LME   (1u << 8)
#define EFER_LMA   (1u << 10)
#define RFLAGS_ONE (1u << 1)

bool guest_kvm_needs_1g_pages(uint64_t memory_end)
{
	return memory_end > MAX_WITH_2M;
}

static void set_entry(uint8_t *tables, uint64_t page, uint64_t index, uint64_t entry)
{
	memcpy(tables + page * PAGE_SIZE + index * sizeof(entry), &entry, sizeof(entry));
}

static uint64_t table_entry(uint64_t page)
{
	return (GUEST_KVM_TABLES_GPA + page * PAGE_SIZE) | ENTRY_TABLE;
}

/* Maps @gib GiB in 2M pages; returns how many table pages are in use. */
static uint64_t map_2m(uint8_t *tables, uint64_t gib)
{
	set_entry(tables, 0, 0, table_entry(1));
	for (uint64_t i = 0; i < gib; i++) {
		set_entry(tables, 1, i, table_entry(2 + i));
		for (uint64_t j = 0; j < ENTRIES; j++)
			set_entry(tables, 2 + i, j, (i * SIZE_1G + j * SIZE_2M) | ENTRY_PAGE);
	}
	return 2 + gib;
}

static uint64_t map_1g(uint8_t *tables, uint64_t gib)
{
	uint64_t pdpts = (gib + ENTRIES - 1) / ENTRIES;

	for (uint64_t i = 0; i < pdpts; i++)
		set_entry(tables, 0, i, table_entry(1 + i));
	for (uint64_t i = 0; i < gib; i++)
		set_entry(tables, 1 + i / ENTRIES, i % ENTRIES, (i * SIZE_1G) | ENTRY_PAGE);
	return 1 + pdpts;
}

int guest_kvm_tables(uint64_t memory_end, uint8_t *tables, size_t *ret_bytes)
{
	uint64_t gib, pages;

	if (memory_end == 0 || memory_end > MAX_WITH_1G)
		return -ERANGE;
	gib = (memory_end + SIZE_1G - 1) / SIZE_1G;
	memset(tables, 0, GUEST_KVM_TABLES_MAX);
	if (guest_kvm_needs_1g_pages(memory_end))
		pages = map_1g(tables, gib);
	else
		pages = map_2m(tables, gib);
	*ret_bytes = pages * PAGE_SIZE;
	return 0;
}

/* Types of a descriptor: 11 is execute, read, accessed, or a busy TSS; 3 read, write, accessed. */
void guest_kvm_state(unsigned int vcpu, struct abi_vcpu_state *ret)
{
	const uint8_t flat = ABI_SEG_PRESENT | ABI_SEG_CODE_OR_DATA | ABI_SEG_GRANULAR;

	*ret = (struct abi_vcpu_state){
		.vcpu = vcpu,
		.rip = GUEST_KVM_IMAGE_GPA,
		.rsp = GUEST_KVM_STACKS_GPA + ((uint64_t)vcpu + 1) * GUEST_KVM_STACK_SIZE,
		.rflags = RFLAGS_ONE,
		.cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG,
		.cr3 = GUEST_KVM_TABLES_GPA,
		.cr4 = CR4_PAE,
		.efer = EFER_LME | EFER_LMA,
		.cs = {.limit = UINT32_MAX,
			.selector = 8,
			.type = 11,
			.flags = flat | ABI_SEG_LONG},
		.data = {.limit = UINT32_MAX,
			.selector = 16,
			.type = 3,
			.flags = flat | ABI_SEG_DEFAULT_32},
		.tr = {.limit = 103, .selector = 24, .type = 11, .flags = ABI_SEG_PRESENT},
	};
}
