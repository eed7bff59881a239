/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/vm_list.h"

#include <string.h>

#include "base/log.h"
#include "base/size.h"

#define SIZE_BYTES 16
#define CELL_BYTES 32

bool vm_list_get(struct lethe_ps_entry **ret_entries, size_t *ret_count)
{
	if (lethe_ps(ret_entries, ret_count) == 0)
		return true;
	log_error("cannot list VMs: %s (name a directory of your own in LETHE_RUNTIME_DIR)",
		lethe_error());
	return false;
}

bool vm_list_eta(const struct lethe_ps_entry *entry, uint64_t *ret_ns)
{
	double ns = 0;

	if (entry->forget_bytes > 0 && entry->forget_rate == 0)
		return false;
	if (entry->forget_bytes > 0)
		ns = (double)entry->forget_bytes * 1e9 / (double)entry->forget_rate;
	if (ns >= 1e18)
		return false;
	*ret_ns = (uint64_t)ns;
	return true;
}

/* "80M/s" and "2.5s"; "-" where nothing is to be forgotten, "?" where that takes nobody knows. */
static void format_forgetting(const struct lethe_ps_entry *entry, char *rate, char *eta)
{
	char text[SIZE_BYTES];
	uint64_t ns;

	if (entry->forget_bytes == 0) {
		snprintf(rate, CELL_BYTES, "-");
		snprintf(eta, CELL_BYTES, "-");
		return;
	}
	snprintf(rate, CELL_BYTES, "%s/s", size_format(entry->forget_rate, text, sizeof(text)));
	if (!vm_list_eta(entry, &ns)) {
		snprintf(eta, CELL_BYTES, "?");
		return;
	}
	duration_format(ns, eta, CELL_BYTES);
	/* One word, for those who cut columns. */
	if (strchr(eta, ' ') != NULL)
		memmove(strchr(eta, ' '), strchr(eta, ' ') + 1, strlen(strchr(eta, ' ')));
}

static void print_one(FILE *out, const struct lethe_ps_entry *entry)
{
	char memory[SIZE_BYTES], resident[SIZE_BYTES], forget[SIZE_BYTES];
	char rate[CELL_BYTES], eta[CELL_BYTES];

	format_forgetting(entry, rate, eta);
	fprintf(out, "%-20s %-10s %-4s %5u %8s %8s %6llu %8s %9s %7s %-8s %7d ", entry->name,
		entry->state, entry->executor, entry->vcpus,
		size_format(entry->memory_bytes, memory, sizeof(memory)),
		size_format(entry->resident_bytes, resident, sizeof(resident)),
		(unsigned long long)entry->incarnation,
		size_format(entry->forget_bytes, forget, sizeof(forget)), rate, eta,
		entry->pressure, (int)entry->uv_pid);
	if (entry->hv_alive)
		fprintf(out, "%7d\n", (int)entry->hv_pid);
	else
		fprintf(out, "%7s\n", "-");
}

void vm_list_print(FILE *out, const struct lethe_ps_entry *entries, size_t count)
{
	fprintf(out, "%-20s %-10s %-4s %5s %8s %8s %6s %8s %9s %7s %-8s %7s %7s\n", "NAME", "STATE",
		"EXEC", "VCPUS", "MEMORY", "RESIDENT", "REBOOT", "FORGET", "RATE", "ETA",
		"PRESSURE", "UV", "HV");
	for (size_t i = 0; i < count; i++)
		print_one(out, &entries[i]);
}
