/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * argp names neither the option that it refuses nor lets its caller phrase the error.  So
 * it runs silently, and where it refuses, the options are scanned once more with
 * getopt_long(), which says which one it was.
 */
#include "cli/options.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/size.h"
#include "cli/cli.h"

#define OPTIONS_MAX     40
#define NAME_MAX_LENGTH 63

/* How a parser ends argp_parse() early. */
#define ENDED_BY_HELP  EALREADY
#define ENDED_BY_ERROR ECANCELED

static const struct argp_option help_options[] = {
	{"help", 'h', NULL, 0, "Print this help and exit", -1}, {0}};

struct parsing {
	const struct options_spec *spec;
	void *input;
};

static error_t parse_help(int key, char *arg, struct argp_state *state)
{
	const struct options_spec *spec = state->input;

	if (key != 'h')
		return ARGP_ERR_UNKNOWN;
	argp_help(state->root_argp, stdout, ARGP_HELP_STD_HELP & ~ARGP_HELP_EXIT_OK,
		(char *)spec->name);
	return ENDED_BY_HELP;
}

static error_t parse_own(int key, char *arg, struct argp_state *state)
{
	const struct parsing *parsing = state->input;
	const struct argp_option *option = parsing->spec->options;

	if (key == ARGP_KEY_INIT) {
		state->child_inputs[0] = (void *)parsing->spec;
		return 0;
	}
	if (key == ARGP_KEY_ARG && parsing->spec->args)
		return parsing->spec->take(OPTIONS_ARG, arg, parsing->input) ? 0 : ENDED_BY_ERROR;
	if (key == ARGP_KEY_ARG) {
		log_error("'%s': not expected here (see %s --help)", arg, parsing->spec->name);
		return ENDED_BY_ERROR;
	}
	while (option && option->name && option->key != key)
		option++;
	if (!option || !option->name)
		return ARGP_ERR_UNKNOWN;
	return parsing->spec->take(key, arg, parsing->input) ? 0 : ENDED_BY_ERROR;
}

/* Turns argp's options into getopt's. */
static void to_getopt(
	const struct argp_option *from, struct option *longs, size_t *count, char *shorts)
{
	for (; from && from->name && *count < OPTIONS_MAX; from++) {
		char letter[] = {from->key < 128 ? (char)from->key : '\0', '\0'};

		longs[(*count)++] = (struct option){
			.name = from->name, .has_arg = from->arg != NULL, .val = from->key};
		strcat(shorts, letter);
		if (letter[0] && from->arg)
			strcat(shorts, ":");
	}
}

/* Logs which option of @argv is bad. */
static void log_bad_option(const struct options_spec *spec, int argc, char **argv)
{
	struct option longs[OPTIONS_MAX + 1] = {0};
	char shorts[2 + 2 * OPTIONS_MAX] = ":";
	size_t count = 0;
	int found;

	to_getopt(spec->options, longs, &count, shorts);
	to_getopt(help_options, longs, &count, shorts);
	opterr = 0;
	optind = 0;
	do
		found = getopt_long(argc, argv, shorts, longs, NULL);
	while (found != -1 && found != '?' && found != ':');
	if (found == ':')
		log_error("%s: needs a value (see %s --help)", argv[optind - 1], spec->name);
	else if (optopt && strncmp(argv[optind - 1], "--", 2) != 0)
		log_error("-%c: no such option (see %s --help)", optopt, spec->name);
	else if (optopt)
		log_error("%s: takes no value (see %s --help)", argv[optind - 1], spec->name);
	else
		log_error("%s: no such option, or short for several (see %s --help)",
			argv[optind - 1], spec->name);
}

bool options_parse(
	const struct options_spec *spec, int argc, char **argv, void *input, int *ret_status)
{
	static const struct argp help_argp = {.options = help_options, .parser = parse_help};
	const struct argp_child children[] = {{.argp = &help_argp}, {0}};
	const struct argp argp = {
		.options = spec->options,
		.parser = parse_own,
		.args_doc = spec->args,
		.doc = spec->doc,
		.children = children,
	};
	struct parsing parsing = {.spec = spec, .input = input};
	error_t err = argp_parse(
		&argp, argc, argv, ARGP_NO_ERRS | ARGP_NO_EXIT | ARGP_NO_HELP, NULL, &parsing);

	if (err == 0)
		return true;
	*ret_status = err == ENDED_BY_HELP ? CLI_OK : CLI_USAGE;
	if (err == ENOMEM)
		log_error("%s: no memory to parse options (free some memory)", spec->name);
	else if (err != ENDED_BY_HELP && err != ENDED_BY_ERROR)
		log_bad_option(spec, argc, argv);
	return false;
}

bool options_size(const char *option, const char *arg, uint64_t *ret)
{
	int err = size_parse(arg, strlen(arg), ret);

	if (err == -ERANGE)
		log_error("%s %s: does not fit 64 bits (give a smaller size)", option, arg);
	else if (err)
		log_error("%s %s: not a size (give a number with K, M, G or T)", option, arg);
	return err == 0;
}

bool options_number(
	const char *option, const char *arg, unsigned int min, unsigned int max, unsigned int *ret)
{
	bool digits = *arg && strspn(arg, "0123456789") == strlen(arg);
	unsigned long number = digits ? strtoul(arg, NULL, 10) : 0;

	if (!digits || number < min || number > max) {
		log_error(
			"%s %s: not in range (give a number from %u to %u)", option, arg, min, max);
		return false;
	}
	*ret = (unsigned int)number;
	return true;
}

bool options_name(const char *option, const char *arg, const char **ret)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				      "0123456789._-";
	size_t length = strlen(arg);

	if (length == 0 || length > NAME_MAX_LENGTH || arg[0] == '.' ||
		strspn(arg, allowed) != length) {
		log_error("%s %s: not a name (give 1 to %d of A-Z a-z 0-9 . _ -, "
			  "not starting with a dot)",
			option, arg, NAME_MAX_LENGTH);
		return false;
	}
	*ret = arg;
	return true;
}

/* Logs that @arg is none of @words. */
static void log_bad_word(const char *option, const char *arg, const char *const *words)
{
	char all[128] = "";

	for (size_t i = 0; words[i]; i++) {
		size_t used = strlen(all);
		const char *before = i == 0 ? "" : words[i + 1] ? ", " : " or ";

		snprintf(all + used, sizeof(all) - used, "%s%s", before, words[i]);
	}
	log_error("%s %s: not known (give %s)", option, arg, all);
}

bool options_word(const char *option, const char *arg, const char *const *words, unsigned int *ret)
{
	for (unsigned int i = 0; words[i]; i++) {
		if (strcmp(words[i], arg) == 0) {
			*ret = i;
			return true;
		}
	}
	log_bad_word(option, arg, words);
	return false;
}
