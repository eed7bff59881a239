/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* lethe page-out: memory of a VM that runs goes, sealed, to its page store. */
#include <stdio.h>

#include "base/log.h"
#include "base/size.h"
#include "cli/cli.h"
#include "cli/options.h"
#include "cli/vm_control.h"

#define SIZE_BYTES 16

/* Beyond what any guest has; and so it fits the numbers of JSON. */
#define BYTES_MAX ((uint64_t)1 << 48)

struct page_out_options {
	const char *name; /* NULL: not given */
	const char *size; /* NULL: not given */
	uint64_t bytes;
	bool json;
};

static bool take_size(const char *arg, struct page_out_options *options)
{
	options->size = arg;
	if (!options_size("SIZE", arg, &options->bytes))
		return false;
	if (options->bytes == 0 || options->bytes > BYTES_MAX) {
		log_error("SIZE %s: not in range (give 1 to 256T)", arg);
		return false;
	}
	return true;
}

static bool take(int key, const char *arg, void *input)
{
	struct page_out_options *options = input;

	if (key == 'j') {
		options->json = true;
		return true;
	}
	if (!options->name)
		return options_name("NAME", arg, &options->name);
	if (!options->size)
		return take_size(arg, options);
	log_error("'%s': not expected here (see lethe page-out --help)", arg);
	return false;
}

/*
 * One request after another: each moves a part, so that others get their answers in between,
 * and an interrupt of this program ends the work.  Ends early when there is no more to move.
 */
static bool page_out(const struct page_out_options *options, uint64_t *ret_done)
{
	uint64_t done = 0;
	json_int_t part;
	int more = 1;

	while (more && done < options->bytes) {
		json_t *result = vm_control_ask(
			options->name, json_pack("{s:s, s:I}", "command", "page-out", "bytes",
					       (json_int_t)(options->bytes - done)));
		bool fine;

		if (!result)
			return false;
		fine = json_unpack(result, "{s:I, s:b}", "bytes", &part, "more", &more) == 0 &&
		       part >= 0;
		json_decref(result);
		if (!fine) {
			vm_control_log_bad(options->name);
			return false;
		}
		done += (uint64_t)part;
	}
	*ret_done = done;
	return true;
}

static bool print_json(const struct page_out_options *options, uint64_t done)
{
	json_t *document = json_pack("{s:s, s:I, s:I}", "name", options->name, "asked_bytes",
		(json_int_t)options->bytes, "bytes", (json_int_t)done);
	bool fine = vm_control_print_json(document);

	json_decref(document);
	return fine;
}

static void print_text(const struct page_out_options *options, uint64_t done)
{
	char size[SIZE_BYTES];

	printf("%s paged out%s\n", size_format(done, size, sizeof(size)),
		done < options->bytes ? ", no more is private and in use" : "");
}

int cmd_page_out(int argc, char **argv)
{
	static const struct argp_option argp_options[] = {
		{"json", 'j', NULL, 0, "Print one JSON document", 0}, {0}};
	static const struct options_spec spec = {
		.name = "lethe page-out",
		.doc = "Page out SIZE of a secure VM that runs: of what was not used for longest, "
		       "encrypted, to its --page-store.",
		.args = "NAME SIZE",
		.options = argp_options,
		.take = take,
	};
	struct page_out_options options = {0};
	uint64_t done;
	int status;

	if (!options_parse(&spec, argc, argv, &options, &status))
		return status;
	if (!options.size) {
		log_error("page-out: needs NAME SIZE (see lethe page-out --help)");
		return CLI_USAGE;
	}
	if (!page_out(&options, &done))
		return CLI_FAILED;
	if (options.json)
		return print_json(&options, done) ? CLI_OK : CLI_FAILED;
	print_text(&options, done);
	return CLI_OK;
}
