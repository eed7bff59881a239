/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* lethe memory: the memory of a VM that runs. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/size.h"
#include "cli/cli.h"
#include "cli/options.h"
#include "cli/vm_control.h"

#define SLOTS_MAX  32
#define GPA_MAX    ((uint64_t)1 << 48)
#define PAGE_BYTES 4096
#define SIZE_BYTES 16

enum memory_key { KEY_JSON = 'j', KEY_AT = 0x100 };

struct memory_options {
	const char *name;    /* NULL: not given */
	const char *operand; /* SIZE, or SLOT|GPA; NULL: not given */
	bool takes_operand;
	bool json;
	bool has_gpa;
	uint64_t gpa;
};

static const struct argp_option json_option[] = {
	{"json", KEY_JSON, NULL, 0, "Print one JSON document", 0}, {0}};

/* ---- options ---- */

/* A multiple of 4K up to 256T. */
static bool take_pages(const char *option, const char *arg, uint64_t *ret)
{
	if (!options_size(option, arg, ret))
		return false;
	if (*ret % PAGE_BYTES) {
		log_error("%s %s: not whole pages (give a multiple of 4K)", option, arg);
		return false;
	}
	if (*ret > GPA_MAX) {
		log_error(
			"%s %s: beyond the guest's address space (give at most 256T)", option, arg);
		return false;
	}
	return true;
}

static bool take_argument(struct memory_options *options, const char *arg)
{
	if (!options->name)
		return options_name("NAME", arg, &options->name);
	if (options->operand || !options->takes_operand) {
		log_error("'%s': not expected here (see lethe memory --help)", arg);
		return false;
	}
	options->operand = arg;
	return true;
}

static bool take(int key, const char *arg, void *input)
{
	struct memory_options *options = input;

	switch (key) {
	case KEY_JSON:
		options->json = true;
		return true;
	case KEY_AT:
		options->has_gpa = true;
		return take_pages("--at", arg, &options->gpa);
	default:
		return take_argument(options, arg);
	}
}

/* Parses all of argv and sees that nothing is missing.  False: end with *ret_status. */
static bool parse(const struct options_spec *spec, int argc, char **argv,
	struct memory_options *options, int *ret_status)
{
	if (!options_parse(spec, argc, argv, options, ret_status))
		return false;
	if (options->name && (options->operand || !options->takes_operand))
		return true;
	log_error("%s: needs %s (see %s --help)", spec->name + strlen("lethe "), spec->args,
		spec->name);
	*ret_status = CLI_USAGE;
	return false;
}

/* ---- results ---- */

struct slot {
	int id;
	uint64_t gpa, bytes;
	bool added;
};

static bool read_slot(const json_t *from, struct slot *ret)
{
	json_int_t gpa, bytes;
	int added;

	if (json_unpack((json_t *)from, "{s:i, s:I, s:I, s:b}", "slot", &ret->id, "gpa", &gpa,
		    "bytes", &bytes, "added", &added) != 0)
		return false;
	ret->gpa = (uint64_t)gpa;
	ret->bytes = (uint64_t)bytes;
	ret->added = added;
	return true;
}

static bool print_slot(const json_t *result, const char *what)
{
	char size[SIZE_BYTES];
	struct slot slot;

	if (!read_slot(result, &slot))
		return false;
	printf("slot %d: %s at 0x%" PRIx64 " %s\n", slot.id,
		size_format(slot.bytes, size, sizeof(size)), slot.gpa, what);
	return true;
}

static bool print_slots(const json_t *result, const char *what)
{
	const json_t *slots = json_object_get(result, "slots");
	char size[SIZE_BYTES];
	struct slot slot;
	size_t index;
	json_t *one;

	if (!json_is_array(slots))
		return false;
	printf("%4s  %14s  %8s  %s\n", "SLOT", "GPA", "SIZE", "SINCE");
	json_array_foreach(slots, index, one)
	{
		if (!read_slot(one, &slot))
			return false;
		printf("%4d  0x%012" PRIx64 "  %8s  %s\n", slot.id, slot.gpa,
			size_format(slot.bytes, size, sizeof(size)), slot.added ? "added" : "boot");
	}
	return true;
}

/* Asks, and prints what comes by @print(result, @what) or as JSON.  Returns the status. */
static int ask(const struct memory_options *options, json_t *request,
	bool (*print)(const json_t *result, const char *what), const char *what)
{
	json_t *result = vm_control_ask(options->name, request);
	bool fine;

	if (!result)
		return CLI_FAILED;
	if (options->json) {
		fine = vm_control_print_json(result);
	} else {
		fine = print(result, what);
		if (!fine)
			vm_control_log_bad(options->name);
	}
	json_decref(result);
	return fine ? CLI_OK : CLI_FAILED;
}

/* ---- actions ---- */

static int memory_add(int argc, char **argv)
{
	static const struct argp_option add_options[] = {
		{"at", KEY_AT, "GPA", 0, "Guest physical address; else above all memory", 0},
		{"json", KEY_JSON, NULL, 0, "Print one JSON document", 0}, {0}};
	static const struct options_spec spec = {
		.name = "lethe memory add",
		.doc = "Add zeroed memory to a VM that runs; a secure one has it private at once.",
		.args = "NAME SIZE",
		.options = add_options,
		.take = take,
	};
	struct memory_options options = {.takes_operand = true};
	uint64_t bytes;
	int status;

	if (!parse(&spec, argc, argv, &options, &status))
		return status;
	if (!take_pages("SIZE", options.operand, &bytes))
		return CLI_USAGE;
	if (bytes == 0) {
		log_error("SIZE %s: nothing to add (give at least 4K)", options.operand);
		return CLI_USAGE;
	}
	if (options.has_gpa)
		return ask(&options,
			json_pack("{s:s, s:I, s:I}", "command", "memory-add", "bytes",
				(json_int_t)bytes, "gpa", (json_int_t)options.gpa),
			print_slot, "added");
	return ask(&options,
		json_pack("{s:s, s:I}", "command", "memory-add", "bytes", (json_int_t)bytes),
		print_slot, "added");
}

static int memory_remove(int argc, char **argv)
{
	static const struct options_spec spec = {
		.name = "lethe memory remove",
		.doc = "Remove memory that was added, and that a secure guest has released.",
		.args = "NAME SLOT|GPA",
		.options = json_option,
		.take = take,
	};
	struct memory_options options = {.takes_operand = true};
	uint64_t which;
	int status;

	if (!parse(&spec, argc, argv, &options, &status))
		return status;
	if (!options_size("SLOT|GPA", options.operand, &which))
		return CLI_USAGE;
	if (which >= SLOTS_MAX && !take_pages("SLOT|GPA", options.operand, &which))
		return CLI_USAGE;
	return ask(&options,
		json_pack("{s:s, s:I}", "command", "memory-remove",
			which < SLOTS_MAX ? "slot" : "gpa", (json_int_t)which),
		print_slot, "removed");
}

static int memory_list(int argc, char **argv)
{
	static const struct options_spec spec = {
		.name = "lethe memory list",
		.doc = "List the memory slots of a VM that runs.",
		.args = "NAME",
		.options = json_option,
		.take = take,
	};
	struct memory_options options = {0};
	int status;

	if (!parse(&spec, argc, argv, &options, &status))
		return status;
	return ask(&options, json_pack("{s:s}", "command", "memory-list"), print_slots, NULL);
}

static const char *const audit_fields[] = {
	"private_bytes", "shared_bytes", "stale_bytes", "doubly_held_bytes", "paged_out_bytes"};

#define AUDIT_FIELDS (sizeof(audit_fields) / sizeof(audit_fields[0]))

/* Asks what each slot's memory is for, and adds that to it in @list. */
static bool audit_slots(const char *name, json_t *list)
{
	size_t index;
	json_t *slot;

	json_array_foreach(json_object_get(list, "slots"), index, slot)
	{
		json_t *sums =
			vm_control_ask(name, json_pack("{s:s, s:O?}", "command", "memory-audit",
						     "slot", json_object_get(slot, "slot")));
		bool fine = sums && json_object_update(slot, sums) == 0;

		json_decref(sums);
		if (!fine)
			return false;
	}
	return true;
}

static bool print_audit(const json_t *list)
{
	char text[SIZE_BYTES];
	struct slot slot;
	size_t index;
	json_t *one;

	printf("%4s  %14s  %8s  %8s  %8s  %8s  %8s  %8s\n", "SLOT", "GPA", "SIZE", "PRIVATE",
		"SHARED", "STALE", "DOUBLE", "PAGED");
	json_array_foreach(json_object_get(list, "slots"), index, one)
	{
		if (!read_slot(one, &slot))
			return false;
		printf("%4d  0x%012" PRIx64 "  %8s", slot.id, slot.gpa,
			size_format(slot.bytes, text, sizeof(text)));
		for (size_t i = 0; i < AUDIT_FIELDS; i++) {
			json_t *sum = json_object_get(one, audit_fields[i]);

			if (!json_is_integer(sum))
				return false;
			printf("  %8s",
				size_format((uint64_t)json_integer_value(sum), text, sizeof(text)));
		}
		putchar('\n');
	}
	return true;
}

static int memory_audit(int argc, char **argv)
{
	static const struct options_spec spec = {
		.name = "lethe memory audit",
		.doc = "Show what the memory of each slot is for, and free what is held twice.",
		.args = "NAME",
		.options = json_option,
		.take = take,
	};
	struct memory_options options = {0};
	json_t *list;
	bool fine;
	int status;

	if (!parse(&spec, argc, argv, &options, &status))
		return status;
	list = vm_control_ask(options.name, json_pack("{s:s}", "command", "memory-list"));
	fine = list && audit_slots(options.name, list);
	if (fine && options.json) {
		fine = vm_control_print_json(list);
	} else if (fine) {
		fine = print_audit(list);
		if (!fine)
			vm_control_log_bad(options.name);
	}
	json_decref(list);
	return fine ? CLI_OK : CLI_FAILED;
}

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *summary;
} actions[] = {
	{"add", memory_add, "NAME SIZE [--at GPA]: give it more"},
	{"remove", memory_remove, "NAME SLOT|GPA: take back what was added"},
	{"list", memory_list, "NAME: show its slots"},
	{"audit", memory_audit, "NAME: show what its memory is for"},
};

#define ACTION_COUNT (sizeof(actions) / sizeof(actions[0]))

static int print_help(void)
{
	printf("Usage: lethe memory ACTION NAME [OPTION...]\n"
	       "Change and show the memory of a VM that runs.\n\n");
	for (size_t i = 0; i < ACTION_COUNT; i++)
		printf("  %-8s %s\n", actions[i].name, actions[i].summary);
	printf("\nEach action takes --json and --help.\n");
	return CLI_OK;
}

int cmd_memory(int argc, char **argv)
{
	if (argc < 2) {
		log_error("memory: no action given (see lethe memory --help)");
		return CLI_USAGE;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
		strcmp(argv[1], "help") == 0)
		return print_help();
	for (size_t i = 0; i < ACTION_COUNT; i++) {
		if (strcmp(argv[1], actions[i].name) == 0)
			return actions[i].run(argc - 1, argv + 1);
	}
	log_error("memory %s: no such action (see lethe memory --help)", argv[1]);
	return CLI_USAGE;
}
