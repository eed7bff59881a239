/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* lethe bench: measures this machine, question by question. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "bench/bench.h"
#include "bench/report.h"
#include "cli/cli.h"
#include "cli/options.h"

#define QUESTIONS_MAX 32

enum bench_key { KEY_QUICK = 'q', KEY_JSON = 'j', KEY_HTML = 0x100 };

/* Where results go: open before anything is measured, and left as it was until then. */
struct result_file {
	const char *path; /* NULL: not wanted */
	int fd;
};

struct bench_options {
	bool quick;
	struct result_file json, html;
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
		options->json.path = arg;
		return true;
	case KEY_HTML:
		options->html.path = arg;
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

static bool open_result(struct result_file *file)
{
	if (!file->path)
		return true;
	file->fd = open(file->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
	if (file->fd < 0)
		log_error("%s: %s (give another file)", file->path, strerror(errno));
	return file->fd >= 0;
}

typedef int (*write_fn)(const struct bench *, const struct bench_machine *, FILE *);

/* Replaces what is in @file by the document that @write writes.  0 or a negative errno. */
static int replace(const struct result_file *file, write_fn write, const struct bench *bench,
	const struct bench_machine *machine)
{
	FILE *out;
	int err;

	/* A pipe or terminal has nothing to truncate: EINVAL. */
	if (ftruncate(file->fd, 0) != 0 && errno != EINVAL)
		return -errno;
	out = fdopen(file->fd, "w");
	if (!out)
		return -errno;
	err = write(bench, machine, out);
	if (fclose(out) != 0)
		err = -errno;
	return err;
}

static bool save(const struct result_file *file, write_fn write, const struct bench *bench,
	const struct bench_machine *machine)
{
	int err = file->path ? replace(file, write, bench, machine) : 0;

	if (err)
		log_error("%s: %s (its results are lost: make room, or give another file)",
			file->path, strerror(-err));
	return err == 0;
}

static int measure(const struct bench_options *options)
{
	struct bench bench = {.quick = options->quick};
	struct bench_machine machine;
	bool saved;

	bench_machine_describe(&machine);
	for (size_t i = 0; i < options->count; i++)
		bench_run(&bench, options->question[i]);
	bench_table(&bench, &machine, stdout);
	saved = save(&options->json, bench_json, &bench, &machine);
	saved = save(&options->html, bench_html, &bench, &machine) && saved;
	saved = saved && !bench.failed;
	bench_free(&bench);
	return saved ? CLI_OK : CLI_FAILED;
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
	int status;

	if (!options_parse(&spec, argc, argv, &options, &status))
		return status;
	if (options.count == 0)
		take_all(&options);
	if (!open_result(&options.json) || !open_result(&options.html))
		return CLI_USAGE;
	return measure(&options);
}
