/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/vm_list.h"

#include "base/log.h"
#include "base/size.h"

#define SIZE_BYTES 16

bool vm_list_get(struct lethe_ps_entry **ret_entries, size_t *ret_count)
{
	if (lethe_ps(ret_entries, ret_count) == 0)
		return true;
	log_error(
		"cannot list VMs: %s (see whether the runtime directory is yours)", lethe_error());
	return false;
}

static void print_one(FILE *out, const struct lethe_ps_entry *entry)
{
	char memory[SIZE_BYTES], resident[SIZE_BYTES], forget[SIZE_BYTES], rate[SIZE_BYTES];

	fprintf(out, "%-20s %-10s %-4s %5u %8s %8s %6llu %8s %8s/s %-6s %7d ", entry->name,
		entry->state, entry->executor, entry->vcpus,
		size_format(entry->memory_bytes, memory, sizeof(memory)),
		size_format(entry->resident_bytes, resident, sizeof(resident)),
		(unsigned long long)entry->incarnation,
		size_format(entry->forget_bytes, forget, sizeof(forget)),
		size_format(entry->forget_rate, rate, sizeof(rate)), entry->pressure,
		(int)entry->uv_pid);
	if (entry->hv_alive)
		fprintf(out, "%7d\n", (int)entry->hv_pid);
	else
		fprintf(out, "%7s\n", "-");
}

void vm_list_print(FILE *out, const struct lethe_ps_entry *entries, size_t count)
{
	fprintf(out, "%-20s %-10s %-4s %5s %8s %8s %6s %8s %10s %-6s %7s %7s\n", "NAME", "STATE",
		"EXEC", "VCPUS", "MEMORY", "RESIDENT", "REBOOT", "FORGET", "RATE", "PRESS", "UV",
		"HV");
	for (size_t i = 0; i < count; i++)
		print_one(out, &entries[i]);
}
