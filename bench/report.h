/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The results of a run for people and programs: a plain table, JSON, and one HTML page. */
#ifndef BENCH_REPORT_H
#define BENCH_REPORT_H

#include <stdio.h>

#include "bench/bench.h"

/* What was measured on. */
struct bench_machine {
	char kernel[128];
	char cpu[128];
	char thp[128];
	unsigned int cores;
	uint64_t memory_bytes;
};

void bench_machine_describe(struct bench_machine *ret);

void bench_table(const struct bench *bench, const struct bench_machine *machine, FILE *out);

/* Writes the document to @out, all of it but what the caller's fclose() may find.  0, -EIO,
 * -ENOMEM. */
int bench_json(const struct bench *bench, const struct bench_machine *machine, FILE *out);
int bench_html(const struct bench *bench, const struct bench_machine *machine, FILE *out);

#endif
