/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * exit: how long an exit takes to the hypervisor and back, when the hypervisor has nothing
 * to do.  Measured from one PRINT of a guest to its next, so what the interpreter needs to
 * read two lines is in it.
 */
#include "bench/bench.h"

#include <stdlib.h>

#include "bench/guest.h"

#define EXITS_WARM  2000
#define EXITS       40000
#define EXITS_QUICK 10000

#define TEXT_OF(count) "loop " count "\nprint x\nend\npoweroff\n"

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* Fills @ns with the time from each of @count exits to the one after it. */
static int measure(struct guest *guest, uint64_t *ns, unsigned int count)
{
	uint64_t before = 0;
	int err = lethe_vm_start(guest->vm, NULL);

	for (unsigned int i = 0; i < EXITS_WARM && !err; i++)
		err = guest_run(guest);
	for (unsigned int i = 0; i <= count && !err; i++) {
		err = guest_run(guest);
		if (i > 0)
			ns[i - 1] = guest->exit.time_ns - before;
		before = guest->exit.time_ns;
	}
	return err;
}

void bench_exit(struct bench *bench)
{
	const struct lethe_vm_config config = {0};
	unsigned int count = (unsigned int)bench_size(bench, EXITS, EXITS_QUICK);
	unsigned int runs = bench->quick ? 3 : 7;
	struct bench_row row = {.name = "round-trip", .unit = "ns"};
	struct bench_samples medians = {0}, tails = {0};
	uint64_t *ns = calloc(count, sizeof(*ns));
	const char *why = "no memory";
	struct guest guest;

	for (unsigned int run = 0; run < runs && ns; run++) {
		if (guest_new(TEXT_OF("1000000"), 8 * MIB, &config, &guest, &why) != 0)
			break;
		if (measure(&guest, ns, count) == 0) {
			qsort(ns, count, sizeof(*ns), compare);
			bench_sample(&medians, (double)ns[count / 2]);
			bench_sample(&tails, (double)ns[(uint64_t)count * 99 / 100]);
		}
		guest_free(&guest);
	}
	free(ns);
	if (!medians.count) {
		bench_missing(bench, &row, "%s", why);
		return;
	}
	for (unsigned int i = 0; i < tails.count; i++)
		row.p99 += tails.value[i] / tails.count;
	bench_add(bench, &row, &medians);
}
