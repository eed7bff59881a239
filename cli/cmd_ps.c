/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* lethe ps: the VMs that run, and those still being forgotten. */
#include <jansson.h>
#include <stdlib.h>

#include "base/log.h"
#include "cli/cli.h"
#include "cli/options.h"
#include "cli/vm_list.h"

static json_t *eta_json(const struct lethe_ps_entry *entry)
{
	uint64_t ns;

	return vm_list_eta(entry, &ns) ? json_integer((json_int_t)ns) : json_null();
}

static json_t *entry_json(const struct lethe_ps_entry *entry)
{
	return json_pack("{s:s, s:s, s:i, s:i, s:b, s:s, s:s, s:i, s:I, s:I, s:I, s:I, s:I, s:I, "
			 "s:I, s:I, s:I, s:o}",
		"name", entry->name, "state", entry->state, "uv_pid", (int)entry->uv_pid, "hv_pid",
		(int)entry->hv_pid, "hv_alive", (int)entry->hv_alive, "executor", entry->executor,
		"pressure", entry->pressure, "vcpus", (int)entry->vcpus, "memory_bytes",
		(json_int_t)entry->memory_bytes, "resident_bytes",
		(json_int_t)entry->resident_bytes, "forget_bytes", (json_int_t)entry->forget_bytes,
		"forgotten_bytes", (json_int_t)entry->forgotten_bytes, "forget_rate",
		(json_int_t)entry->forget_rate, "stale_bytes", (json_int_t)entry->stale_bytes,
		"quarantined_bytes", (json_int_t)entry->quarantined_bytes, "incarnation",
		(json_int_t)entry->incarnation, "started_ns", (json_int_t)entry->started_ns,
		"eta_ns", eta_json(entry));
}

static int print_json(const struct lethe_ps_entry *entries, size_t count)
{
	json_t *vms = json_array();
	json_t *document;
	int err;

	for (size_t i = 0; i < count; i++)
		json_array_append_new(vms, entry_json(&entries[i]));
	document = json_pack("{s:i, s:o}", "schema", 1, "vms", vms);
	err = document ? json_dumpf(document, stdout, JSON_INDENT(1)) : -1;
	json_decref(document);
	if (err) {
		log_error("standard output: cannot write JSON (free some memory or disk space)");
		return CLI_FAILED;
	}
	putchar('\n');
	return CLI_OK;
}

static bool take(int key, const char *arg, void *input)
{
	*(bool *)input = true;
	return true;
}

int cmd_ps(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{"json", 'j', NULL, 0, "Print one JSON document", 0}, {0}};
	static const struct options_spec spec = {
		.name = "lethe ps",
		.doc = "List the VMs that run, and those still being forgotten.",
		.options = options,
		.take = take,
	};
	struct lethe_ps_entry *entries;
	bool json = false;
	size_t count;
	int status;

	if (!options_parse(&spec, argc, argv, &json, &status))
		return status;
	if (!vm_list_get(&entries, &count))
		return CLI_FAILED;
	if (json) {
		status = print_json(entries, count);
	} else {
		vm_list_print(stdout, entries, count);
		status = CLI_OK;
	}
	free(entries);
	return status;
}
