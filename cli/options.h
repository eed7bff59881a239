/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Options of a subcommand: argp, with its errors turned into this program's one line.
 * Every subcommand takes --help besides its own.
 */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include <argp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OPTIONS_ARG (-1)

struct options_spec {
	const char *name; /* "lethe run" */
	const char *doc;
	const char *args; /* "[THING...]": take() gets each with key OPTIONS_ARG; NULL: none */
	const struct argp_option *options; /* ends with an empty one; NULL: none */
	/* Takes the option @key.  False: it is bad, and that was logged.  NULL if none. */
	bool (*take)(int key, const char *arg, void *input);
};

/*
 * Parses all of argv.  True: go on.  False: the program is to end with *ret_status, having
 * said what there is to say.
 */
bool options_parse(
	const struct options_spec *spec, int argc, char **argv, void *input, int *ret_status);

/* Values of options.  False: @arg is bad, and that was logged, @option being its name. */
bool options_size(const char *option, const char *arg, uint64_t *ret);
bool options_number(
	const char *option, const char *arg, unsigned int min, unsigned int max, unsigned int *ret);

/* The name of a VM. */
bool options_name(const char *option, const char *arg, const char **ret);

/* @arg is one of @words (up to a NULL); *ret is its index. */
bool options_word(const char *option, const char *arg, const char *const *words, unsigned int *ret);

#endif
