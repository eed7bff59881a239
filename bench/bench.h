/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Benchmarks: one file per question, each measured in one run beside a baseline that does
 * the same job the old way.
 *
 * A question adds rows; a row is the median, least and greatest of several runs.  What a
 * machine lacks becomes a row that says so, never a zero.  Nothing here decides whether a
 * number is good.
 */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "os/clock.h"

#define BENCH_RUNS_MAX 64
#define BENCH_NAME_MAX 48
#define BENCH_TEXT_MAX 160

#define GIB ((uint64_t)1 << 30)
#define MIB ((uint64_t)1 << 20)
#define KIB ((uint64_t)1 << 10)

struct bench_row {
	const char *question; /* filled by bench_add() */
	char name[BENCH_NAME_MAX];
	uint64_t memory_bytes, resident_bytes;
	const char *unit; /* "ns", "MB/s", "bytes" or "percent" */
	double median, min, max;
	unsigned int runs;
	/* What only some questions have; 0: not given. */
	uint64_t entries;
	unsigned int threads;
	uint64_t operations; /* in each run, where the figure is of one */
	const char *executor;
	double p99;
	bool extrapolated;            /* computed from smaller sizes, not measured */
	char missing[BENCH_TEXT_MAX]; /* why there is no number; empty: there is one */
};

struct bench {
	bool quick; /* smaller sizes, fewer runs */
	struct bench_row *rows;
	size_t count, room;
	const char *question; /* the one under way */
	bool failed;          /* out of memory for rows, or a question broke */
};

/* The samples of one row. */
struct bench_samples {
	double value[BENCH_RUNS_MAX];
	unsigned int count;
};

struct bench_question {
	const char *name;
	const char *summary;
	void (*run)(struct bench *bench);
	const char *note; /* what to compare its figures with, from elsewhere; or NULL */
};

/* Ends with an entry without a name. */
extern const struct bench_question bench_questions[];

/* The note of the question of row @i, if it is the last of its question's rows; else NULL. */
const char *bench_note(const struct bench *bench, size_t i);

/* Runs @question; progress goes to standard error. */
void bench_run(struct bench *bench, const struct bench_question *question);

/* Frees the rows. */
void bench_free(struct bench *bench);

/* Adds one sample; those beyond BENCH_RUNS_MAX are dropped. */
void bench_sample(struct bench_samples *samples, double value);

/*
 * Adds @row with the figures of @samples, which are sorted; no samples and no reason in
 * row->missing: "not measured".
 */
void bench_add(struct bench *bench, const struct bench_row *row, struct bench_samples *samples);

/* Adds a row without a number: @format says why. */
void bench_missing(struct bench *bench, const struct bench_row *row, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* @full, or @quick in a quick run. */
static inline uint64_t bench_size(const struct bench *bench, uint64_t full, uint64_t quick)
{
	return bench->quick ? quick : full;
}

/* MB/s (10^6) of @bytes in @ns. */
static inline double bench_rate(uint64_t bytes, uint64_t ns)
{
	return ns == 0 ? 0 : (double)bytes * 1e3 / (double)ns;
}

/* The questions. */
void bench_protect(struct bench *bench);
void bench_reboot(struct bench *bench);
void bench_shutdown(struct bench *bench);
void bench_sweep(struct bench *bench);
void bench_zap(struct bench *bench);
void bench_convert(struct bench *bench);
void bench_fault(struct bench *bench);
void bench_seal(struct bench *bench);
void bench_exit(struct bench *bench);

#endif
