/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bench/bench.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/size.h"

const struct bench_question bench_questions[] = {
	{"protect", "how long a guest waits to turn secure", bench_protect, NULL},
	{"reboot", "how long a guest waits for its next life", bench_reboot, NULL},
	{"shutdown", "how long a supervisor waits, and for the memory", bench_shutdown, NULL},
	{"sweep", "how fast memory is destroyed", bench_sweep, NULL},
	{"zap", "how long dropping every mapping takes", bench_zap, NULL},
	{"convert", "what sharing pages for a transfer costs", bench_convert,
		"elsewhere, a 1 GiB guest under OVMF, which converts one or two pages for each "
		"transfer, booted in 103 s with shared pages discarded eagerly (3.2x), in 68 s with "
		"them kept (2.1x), and in 32 s with memory that needs no backing of its own for what "
		"is shared (1x)"},
	{"fault", "what one fault costs", bench_fault, NULL},
	{"seal", "how fast pages are sealed to be paged out", bench_seal, NULL},
	{"exit", "round trip between hypervisor and ultravisor", bench_exit, NULL},
	{0},
};

const char *bench_note(const struct bench *bench, size_t i)
{
	const char *name = bench->rows[i].question;

	if (i + 1 < bench->count && strcmp(bench->rows[i + 1].question, name) == 0)
		return NULL;
	for (const struct bench_question *q = bench_questions; q->name; q++) {
		if (strcmp(q->name, name) == 0)
			return q->note;
	}
	return NULL;
}

void bench_run(struct bench *bench, const struct bench_question *question)
{
	bench->question = question->name;
	question->run(bench);
	bench->question = NULL;
}

void bench_free(struct bench *bench)
{
	free(bench->rows);
	*bench = (struct bench){0};
}

void bench_sample(struct bench_samples *samples, double value)
{
	if (samples->count < BENCH_RUNS_MAX)
		samples->value[samples->count++] = value;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void summarize(struct bench_row *row, struct bench_samples *samples)
{
	unsigned int n = samples->count;

	qsort(samples->value, n, sizeof(samples->value[0]), compare);
	row->runs = n;
	row->min = samples->value[0];
	row->max = samples->value[n - 1];
	row->median = n % 2 ? samples->value[n / 2]
			    : (samples->value[n / 2 - 1] + samples->value[n / 2]) / 2;
}

static struct bench_row *new_row(struct bench *bench)
{
	if (bench->count == bench->room) {
		size_t room = bench->room ? 2 * bench->room : 64;
		struct bench_row *rows = realloc(bench->rows, room * sizeof(*rows));

		if (!rows) {
			if (!bench->failed)
				log_error("no memory for results (free some memory)");
			bench->failed = true;
			return NULL;
		}
		bench->rows = rows;
		bench->room = room;
	}
	return &bench->rows[bench->count++];
}

/* One line about what is under way, to standard error. */
__attribute__((format(printf, 2, 3))) static void progress(
	const struct bench *bench, const char *format, ...)
{
	va_list args;

	fprintf(stderr, "%s: ", bench->question);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

static void say_row(const struct bench *bench, const struct bench_row *row)
{
	char memory[32];

	if (row->missing[0])
		progress(bench, "%s: missing: %s", row->name, row->missing);
	else
		progress(bench, "%s (%s): %.6g %s", row->name,
			size_format(row->resident_bytes ? row->resident_bytes : row->memory_bytes,
				memory, sizeof(memory)),
			row->median, row->unit);
}

void bench_add(struct bench *bench, const struct bench_row *row, struct bench_samples *samples)
{
	struct bench_row *to = new_row(bench);

	if (!to)
		return;
	*to = *row;
	to->question = bench->question;
	if (samples->count)
		summarize(to, samples);
	else if (!to->missing[0])
		snprintf(to->missing, sizeof(to->missing), "not measured");
	say_row(bench, to);
}

void bench_missing(struct bench *bench, const struct bench_row *row, const char *format, ...)
{
	struct bench_samples none = {.count = 0};
	struct bench_row copy = *row;
	va_list args;

	va_start(args, format);
	vsnprintf(copy.missing, sizeof(copy.missing), format, args);
	va_end(args);
	bench_add(bench, &copy, &none);
}
