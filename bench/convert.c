/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * convert: what it costs a protected guest to let a device at its memory and take it back, by
 * how it does that and by how shared pages are served.  One operation is
 *
 *   ovmf-1, ovmf-2  a transfer of one or two pages: written, shared, complemented by the
 *                   device, checked, unshared; 16 buffers in turn, 100,000 transfers a run
 *   swiotlb         a transfer of 64K through a pool of 64 MiB that is shared once
 *   alternating     one page of every other page of 1 GiB: touched and shared, all of them,
 *                   before the device comes, and unshared after it has been at all of them
 *   bulk-1g         1 GiB of resident memory, shared and unshared; no transfer
 *
 * eager is the old way: the hypervisor is asked about each conversion, the shared backing is
 * laid over the window, and unsharing punches its hole before it returns.  Where it would
 * take too long, or more mappings than a process may have, a pattern is measured at two
 * smaller sizes and extrapolated.  On KVM everything is smaller, as some machines' KVM
 * interprets its guests; a row says how many operations one run had.  The rows about the
 * attribute map are in convert_map.c.
 */
#include "bench/bench.h"

#include <stdlib.h>
#include <string.h>

#include "base/types.h"
#include "bench/convert_map.h"
#include "bench/guest.h"
#include "vmm/dma.h"

#define BUFFERS      16
#define POOL_GPA     (2 * MIB)
#define POOL_CHUNK   (64 * KIB)
#define ENOUGH_NS    (10 * NS_PER_SEC) /* a row that took so long has no more runs */
#define OTHER_MEMORY (64 * MIB)        /* besides what a pattern spans */

struct size {
	unsigned int loops;
	uint64_t span; /* memory that is shared at a time, where the pattern has a choice */
};

struct pattern {
	const char *name;
	struct size full, quick, kvm;
	struct size part[2]; /* to extrapolate `full` from where mapping is the way; or none */
	uint64_t bytes_each; /* of the span, by operation; 0: the operations are each loop's */
	unsigned int operations;
	void (*write)(FILE *text, const struct size *size);
	int (*transfer)(struct guest *guest, uint64_t span); /* when the guest prints "transfer" */
};

struct mode {
	const char *name;
	struct lethe_vm_config config;
};

static const struct mode modes[] = {
	{"auto", {.share = LETHE_SHARE_AUTO}},
	{"copied", {.share = LETHE_SHARE_COPIED}},
	{"mapped", {.share = LETHE_SHARE_MAPPED}},
	{"eager", {.share = LETHE_SHARE_MAPPED, .discard_eager = true}},
};

/* All modes but eager let the ultravisor convert without asking. */
static const struct lethe_range everything = {.gpa = 0, .bytes = (uint64_t)1 << 48};

static void write_dma(FILE *text, unsigned int loops, unsigned int pages)
{
	fprintf(text, "print begin\nloop %u\n", loops);
	for (unsigned int i = 0; i < BUFFERS; i++)
		fprintf(text, "dma 0x%llx %uK 1\n",
			(unsigned long long)(POOL_GPA + i * 4 * PAGE_SIZE), pages * 4);
	fprintf(text, "end\n");
}

static void write_ovmf_1(FILE *text, const struct size *size)
{
	write_dma(text, size->loops, 1);
}

static void write_ovmf_2(FILE *text, const struct size *size)
{
	write_dma(text, size->loops, 2);
}

static void write_swiotlb(FILE *text, const struct size *size)
{
	fprintf(text, "share 2M %llu\nprint begin\nloop %u\nwrite 2M 64K\nprint transfer\nend\n",
		(unsigned long long)size->span, size->loops);
}

static void write_alternating(FILE *text, const struct size *size)
{
	unsigned long long span = size->span;

	fprintf(text,
		"print begin\nloop %u\ntouch 2M %llu 8K\nshare 2M %llu 8K\nprint transfer\n"
		"unshare 2M %llu 8K\nend\n",
		size->loops, span, span, span);
}

static void write_bulk(FILE *text, const struct size *size)
{
	unsigned long long span = size->span;

	fprintf(text,
		"touch 2M %llu 2M\nprint begin\nloop %u\nshare 2M %llu\nunshare 2M %llu\nend\n",
		span, size->loops, span, span);
}

static int transfer_pool(struct guest *guest, uint64_t span)
{
	return dma_complement(guest->vm, POOL_GPA, POOL_CHUNK);
}

static int transfer_alternating(struct guest *guest, uint64_t span)
{
	int err = 0;

	for (uint64_t at = 0; at < span && !err; at += 2 * PAGE_SIZE)
		err = dma_complement(guest->vm, POOL_GPA + at, PAGE_SIZE);
	return err;
}

static const struct pattern patterns[] = {
	{.name = "ovmf-1",
		.full = {6250, 0},
		.quick = {100, 0},
		.kvm = {1, 0},
		.operations = BUFFERS,
		.write = write_ovmf_1},
	{.name = "ovmf-2",
		.full = {6250, 0},
		.quick = {100, 0},
		.kvm = {1, 0},
		.operations = BUFFERS,
		.write = write_ovmf_2},
	{.name = "swiotlb",
		.full = {10000, 64 * MIB},
		.quick = {2000, 64 * MIB},
		.kvm = {4, 64 * MIB},
		.operations = 1,
		.write = write_swiotlb,
		.transfer = transfer_pool},
	{.name = "alternating",
		.full = {1, GIB},
		.quick = {1, 32 * MIB},
		.kvm = {1, 4 * MIB},
		.part = {{1, 16 * MIB}, {1, 64 * MIB}},
		.bytes_each = 2 * PAGE_SIZE,
		.write = write_alternating,
		.transfer = transfer_alternating},
	{.name = "bulk-1g",
		.full = {2, GIB},
		.quick = {1, GIB},
		.kvm = {1, GIB},
		.operations = 1,
		.write = write_bulk},
};

static uint64_t operations(const struct pattern *pattern, const struct size *size)
{
	return size->loops *
	       (pattern->bytes_each ? size->span / pattern->bytes_each : pattern->operations);
}

/* Serves the guest up to the print of @word. */
static int run_to(struct guest *guest, const struct pattern *pattern, const struct size *size,
	const char *word)
{
	int err = 0;

	while (!err) {
		err = guest_run(guest);
		if (err || strcmp(guest->exit.text, word) == 0)
			return err;
		if (pattern->transfer)
			err = pattern->transfer(guest, size->span);
	}
	return err;
}

static char *write_text(const struct pattern *pattern, const struct size *size)
{
	char *text = NULL;
	size_t length;
	FILE *file = open_memstream(&text, &length);

	if (!file)
		return NULL;
	fprintf(file, "protect\n");
	pattern->write(file, size);
	fprintf(file, "print end\npoweroff\n");
	fclose(file);
	return text;
}

/* Nanoseconds of all operations, or negative with *ret_why. */
static double measure_once(const struct pattern *pattern, const struct lethe_vm_config *config,
	const struct size *size, const char **ret_why)
{
	char *text = write_text(pattern, size);
	struct guest guest;
	uint64_t begin = 0;
	int err;

	*ret_why = "no memory";
	if (!text)
		return -1;
	err = guest_new(text, OTHER_MEMORY + size->span, config, &guest, ret_why);
	free(text);
	if (err)
		return -1;
	*ret_why = "the guest did not come to its end";
	if (!config->discard_eager)
		err = lethe_vm_set_policy(guest.vm, &everything, 1, UINT64_MAX);
	if (!err)
		err = lethe_vm_start(guest.vm, NULL);
	if (!err)
		err = run_to(&guest, pattern, size, "begin");
	begin = guest.exit.time_ns;
	if (!err)
		err = run_to(&guest, pattern, size, "end");
	guest_free(&guest);
	return err ? -1 : (double)(guest.exit.time_ns - begin);
}

static struct bench_row row_of(
	const struct pattern *pattern, const struct mode *mode, const struct size *size)
{
	struct bench_row row = {
		.unit = "ns",
		.memory_bytes = OTHER_MEMORY + size->span,
		.operations = operations(pattern, size),
		.executor = "sw",
	};

	snprintf(row.name, sizeof(row.name), "%s/%s", pattern->name, mode->name);
	return row;
}

/* Adds a row about *size; the median of one operation, or 0. */
static double measure(struct bench *bench, const struct pattern *pattern, const struct mode *mode,
	const struct size *size, enum lethe_executor executor)
{
	struct bench_row row = row_of(pattern, mode, size);
	struct lethe_vm_config config = mode->config;
	struct bench_samples samples = {0};
	unsigned int runs = bench->quick ? 2 : 3;
	uint64_t start = clock_ns();
	const char *why = "";

	config.executor = executor;
	if (executor == LETHE_EXECUTOR_KVM) {
		row.executor = "kvm";
		runs -= bench->quick;
	}
	for (unsigned int run = 0; run < runs; run++) {
		double ns;

		if (run > 0 && clock_ns() - start > ENOUGH_NS)
			break;
		ns = measure_once(pattern, &config, size, &why);

		if (ns < 0) {
			bench_missing(bench, &row, "%s", why);
			return 0;
		}
		bench_sample(&samples, ns / (double)row.operations);
	}
	bench_add(bench, &row, &samples);
	return bench->count ? bench->rows[bench->count - 1].median : 0;
}

/* The full size as the greater part, by operation; the lesser shows whether that is linear. */
static void extrapolate(struct bench *bench, const struct pattern *pattern, const struct mode *mode)
{
	struct bench_row row = row_of(pattern, mode, &pattern->full);
	struct bench_samples samples = {0};
	double ns = 0;

	for (unsigned int i = 0; i < 2; i++)
		ns = measure(bench, pattern, mode, &pattern->part[i], LETHE_EXECUTOR_SW);
	row.extrapolated = true;
	if (ns <= 0) {
		bench_missing(bench, &row, "nothing to extrapolate from");
		return;
	}
	bench_sample(&samples, ns);
	bench_add(bench, &row, &samples);
}

static void measure_sw(struct bench *bench, const struct pattern *pattern, const struct mode *mode)
{
	if (!bench->quick && pattern->part[0].loops && mode->config.share == LETHE_SHARE_MAPPED)
		extrapolate(bench, pattern, mode);
	else
		measure(bench, pattern, mode, bench->quick ? &pattern->quick : &pattern->full,
			LETHE_EXECUTOR_SW);
}

static void measure_kvm(struct bench *bench, const struct pattern *pattern, const struct mode *mode)
{
	struct bench_row row = row_of(pattern, mode, &pattern->kvm);

	if (lethe_executor_probe(LETHE_EXECUTOR_KVM) == 0) {
		measure(bench, pattern, mode, &pattern->kvm, LETHE_EXECUTOR_KVM);
		return;
	}
	row.executor = "kvm";
	bench_missing(bench, &row, "%s", lethe_error());
}

void bench_convert(struct bench *bench)
{
	const size_t mode_count = sizeof(modes) / sizeof(modes[0]);

	for (size_t p = 0; p < sizeof(patterns) / sizeof(patterns[0]); p++) {
		for (size_t m = 0; m < mode_count; m++)
			measure_sw(bench, &patterns[p], &modes[m]);
		for (size_t m = 0; m < mode_count; m++)
			measure_kvm(bench, &patterns[p], &modes[m]);
	}
	bench_convert_map(bench);
}
