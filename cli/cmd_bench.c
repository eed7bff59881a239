/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* lethe bench: measures this machine, question by question. */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "bench/bench.h"
#include "bench/report.h"
#include "cli/cli.h"
#include "cli/options.h"

#define QUESTIONS_MAX 32

enum bench_key { KEY_QUICK = 'q', KEY_JSON = 'j', KEY_HTML = 0x100 };

struct bench_options {
	bool quick;
	const char *json, *html; /* NULL: not wanted */
	const struct bench_question *question[QUESTIONS_MAX];
	size_t count; /* 0: all */
};

static void log_unknown(const char *name)
{
	char all[256] = "";

	for (const struct bench_question *q = bench_questions; q->name; q++) {
		size_t used = strlen(all);

		snprintf(all + used, sizeof(all) - used, "%s%s", used ? ", " : "", q->name);
	}
	log_error("%s: no such question (give some of %s)", name, all);
}

static bool take_question(struct bench_options *options, const char *name)
{
	for (const struct bench_question *q = bench_questions; q->name; q++) {
		if (strcmp(q->name, name) != 0)
			continue;
		if (options->count < QUESTIONS_MAX)
			options->question[options->count++] = q;
		return true;
	}
	log_unknown(name);
	return false;
}

static bool take(int key, const char *arg, void *input)
{
	struct bench_options *options = input;

	switch (key) {
	case KEY_QUICK:
		options->quick = true;
		return true;
	case KEY_JSON:
		options->json = arg;
		return true;
	case KEY_HTML:
		options->html = arg;
		return true;
	default:
		return take_question(options, arg);
	}
}

static void take_all(struct bench_options *options)
{
	for (const struct bench_question *q = bench_questions; q->name; q++)
		options->question[options->count++] = q;
}

/* Writes the document with @write, if one is wanted. */
static bool save(int (*write)(const struct bench *, const struct bench_machine *, const char *),
	const struct bench *bench, const struct bench_machine *machine, const char *path)
{
	int err = path ? write(bench, machine, path) : 0;

	if (err)
		log_error("%s: %s (the results are lost: give another file)", path, strerror(-err));
	return err == 0;
}

int cmd_bench(int argc, char **argv)
{
	static const struct argp_option argp_options[] = {
		{"quick", KEY_QUICK, NULL, 0, "Smaller sizes and fewer runs", 0},
		{"json", KEY_JSON, "FILE", 0, "Write the results as JSON", 0},
		{"html", KEY_HTML, "FILE", 0, "Write the results as one HTML page", 0}, {0}};
	static const struct options_spec spec = {
		.name = "lethe bench",
		.doc = "Measure this machine: all questions, or the given ones of protect, reboot, "
		       "shutdown, sweep, zap, convert, fault, seal, exit.",
		.args = "[QUESTION...]",
		.options = argp_options,
		.take = take,
	};
	struct bench_options options = {0};
	struct bench_machine machine;
	struct bench bench = {0};
	bool saved;
	int status;

	if (!options_parse(&spec, argc, argv, &options, &status))
		return status;
	if (options.count == 0)
		take_all(&options);
	bench.quick = options.quick;
	bench_machine_describe(&machine);
	for (size_t i = 0; i < options.count; i++)
		bench_run(&bench, options.question[i]);
	bench_table(&bench, &machine, stdout);
	saved = save(bench_json, &bench, &machine, options.json);
	saved = save(bench_html, &bench, &machine, options.html) && saved;
	status = saved && !bench.failed ? CLI_OK : CLI_FAILED;
	bench_free(&bench);
	return status;
}
