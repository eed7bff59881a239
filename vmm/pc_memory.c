/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The memory slots of the PC and the e820 map that describes them.
 *
 * The first slot also backs the range between conventional memory and 1 MiB, which a PC
 * gives to video memory and firmware: there the ACPI tables lie, and the rest of it is
 * merely left out of the map or reserved.
 */
#include "vmm/pc_memory.h"

#include <errno.h>

#include "base/checked.h"
#include "base/types.h"

int pc_memory_layout(uint64_t bytes, struct pc_memory *ret)
{
	uint64_t low = bytes < PC_HOLE_GPA ? bytes : PC_HOLE_GPA;
	uint64_t end;

	if (bytes < PC_MEMORY_MIN || (bytes & PAGE_MASK) != 0)
		return -EINVAL;
	if (!checked_add(PC_HOLE_END, bytes - low, &end) || end > GPA_END)
		return -ERANGE;
	*ret = (struct pc_memory){
		.slots = {{.gpa = 0, .bytes = low}, {.gpa = PC_HOLE_END, .bytes = bytes - low}},
		.slot_count = bytes > low ? 2 : 1,
	};
	return 0;
}

uint64_t pc_memory_low_end(const struct pc_memory *memory)
{
	return memory->slots[0].bytes;
}

size_t pc_memory_e820(const struct pc_memory *memory, struct pc_e820_entry ret[PC_E820_MAX])
{
	size_t count = 0;

	ret[count++] = (struct pc_e820_entry){0, PC_LOW_END, PC_E820_RAM};
	ret[count++] =
		(struct pc_e820_entry){PC_BIOS_GPA, PC_HIGH_GPA - PC_BIOS_GPA, PC_E820_RESERVED};
	ret[count++] = (struct pc_e820_entry){
		PC_HIGH_GPA, pc_memory_low_end(memory) - PC_HIGH_GPA, PC_E820_RAM};
	for (size_t i = 1; i < memory->slot_count; i++)
		ret[count++] = (struct pc_e820_entry){
			memory->slots[i].gpa, memory->slots[i].bytes, PC_E820_RAM};
	return count;
}
