/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * convert: what it costs a protected guest to let a device at its memory and take it back, by
 * how it does that and by how shared pages are served.  One operation is
 *
 *   ovmf-1, ovmf-2  a transfer of one or two pages: written, shared, complemented by the
 *                   device, checked, unshared; 16 buffers in turn, 100,000 transfers in all
 *                   runs together
 *   swiotlb         a transfer of 64K through a pool that is shared once
 *   alternating     the same as ovmf-1, but 64 pages, every other one, are shared before the
 *                   device comes, and unshared after it has been at all of them
 *   bulk-1g         1 GiB of resident memory, shared and unshared; no transfer
 *
 * eager is the old way: the hypervisor is asked about each conversion, the shared backing is
 * laid over the window, and unsharing punches its hole before it returns.  The rows about
 * the attribute map are in convert_map.c.
 */
#include "bench/bench.h"

#include <stdlib.h>
#include <string.h>

#include "base/types.h"
#include "bench/convert_map.h"
#include "bench/guest.h"
#include "vmm/dma.h"

#define BUFFERS     16
#define POOL_GPA    (2 * MIB)
#define POOL_BYTES  (64 * MIB)
#define POOL_CHUNK  (64 * KIB)
#define ALTERNATING 64

struct pattern {
	const char *name;
	uint64_t memory_bytes;
	unsigned int loops, quick_loops;
	unsigned int operations; /* in each */
	void (*write)(FILE *text, unsigned int loops);
	int (*transfer)(struct guest *guest); /* when the guest prints "transfer" */
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

static void write_ovmf_1(FILE *text, unsigned int loops)
{
	write_dma(text, loops, 1);
}

static void write_ovmf_2(FILE *text, unsigned int loops)
{
	write_dma(text, loops, 2);
}

static void write_swiotlb(FILE *text, unsigned int loops)
{
	fprintf(text, "share 2M 64M\nprint begin\nloop %u\nwrite 2M 64K\nprint transfer\nend\n",
		loops);
}

static void write_alternating(FILE *text, unsigned int loops)
{
	static const char *const steps[] = {"write", "share", NULL, "unshare"};

	fprintf(text, "print begin\nloop %u\n", loops);
	for (size_t step = 0; step < sizeof(steps) / sizeof(steps[0]); step++) {
		if (!steps[step]) {
			fprintf(text, "print transfer\n");
			continue;
		}
		for (unsigned int i = 0; i < ALTERNATING; i++)
			fprintf(text, "%s 0x%llx 4K\n", steps[step],
				(unsigned long long)(POOL_GPA + i * 2 * PAGE_SIZE));
	}
	fprintf(text, "end\n");
}

static void write_bulk(FILE *text, unsigned int loops)
{
	fprintf(text, "touch 2M 1G 2M\nprint begin\nloop %u\nshare 2M 1G\nunshare 2M 1G\nend\n",
		loops);
}

static int transfer_pool(struct guest *guest)
{
	return dma_complement(guest->vm, POOL_GPA, POOL_CHUNK);
}

static int transfer_alternating(struct guest *guest)
{
	int err = 0;

	for (unsigned int i = 0; i < ALTERNATING && !err; i++)
		err = dma_complement(guest->vm, POOL_GPA + i * 2 * PAGE_SIZE, PAGE_SIZE);
	return err;
}

static const struct pattern patterns[] = {
	{"ovmf-1", 64 * MIB, 1250, 100, BUFFERS, write_ovmf_1, NULL},
	{"ovmf-2", 64 * MIB, 1250, 100, BUFFERS, write_ovmf_2, NULL},
	{"swiotlb", 128 * MIB, 10000, 2000, 1, write_swiotlb, transfer_pool},
	{"alternating", 64 * MIB, 30, 6, ALTERNATING, write_alternating, transfer_alternating},
	{"bulk-1g", GIB + 64 * MIB, 2, 1, 1, write_bulk, NULL},
};

/* Serves the guest up to the print of @word. */
static int run_to(struct guest *guest, const struct pattern *pattern, const char *word)
{
	int err = 0;

	while (!err) {
		err = guest_run(guest);
		if (err || strcmp(guest->exit.text, word) == 0)
			return err;
		if (pattern->transfer)
			err = pattern->transfer(guest);
	}
	return err;
}

static char *write_text(const struct pattern *pattern, unsigned int loops)
{
	char *text = NULL;
	size_t size;
	FILE *file = open_memstream(&text, &size);

	if (!file)
		return NULL;
	fprintf(file, "protect\n");
	pattern->write(file, loops);
	fprintf(file, "print end\npoweroff\n");
	fclose(file);
	return text;
}

/* Nanoseconds of one operation, or negative with *ret_why. */
static double measure_once(const struct pattern *pattern, const struct mode *mode,
	unsigned int loops, const char **ret_why)
{
	char *text = write_text(pattern, loops);
	struct guest guest;
	uint64_t begin = 0;
	int err;

	*ret_why = "no memory";
	if (!text)
		return -1;
	err = guest_new(text, pattern->memory_bytes, &mode->config, &guest, ret_why);
	free(text);
	if (err)
		return -1;
	*ret_why = "the guest did not come to its end";
	if (!mode->config.discard_eager)
		err = lethe_vm_set_policy(guest.vm, &everything, 1, UINT64_MAX);
	if (!err)
		err = lethe_vm_start(guest.vm, NULL);
	if (!err)
		err = run_to(&guest, pattern, "begin");
	begin = guest.exit.time_ns;
	if (!err)
		err = run_to(&guest, pattern, "end");
	guest_free(&guest);
	return err ? -1
		   : (double)(guest.exit.time_ns - begin) / ((double)loops * pattern->operations);
}

static void measure(struct bench *bench, const struct pattern *pattern, const struct mode *mode)
{
	struct bench_row row = {.unit = "ns", .memory_bytes = pattern->memory_bytes};
	unsigned int loops = bench->quick ? pattern->quick_loops : pattern->loops;
	struct bench_samples samples = {0};
	const char *why = "";

	snprintf(row.name, sizeof(row.name), "%s/%s", pattern->name, mode->name);
	for (unsigned int run = 0; run < (bench->quick ? 2 : 5); run++) {
		double ns = measure_once(pattern, mode, loops, &why);

		if (ns < 0) {
			bench_missing(bench, &row, "%s", why);
			return;
		}
		bench_sample(&samples, ns);
	}
	bench_add(bench, &row, &samples);
}

void bench_convert(struct bench *bench)
{
	for (size_t p = 0; p < sizeof(patterns) / sizeof(patterns[0]); p++) {
		for (size_t m = 0; m < sizeof(modes) / sizeof(modes[0]); m++)
			measure(bench, &patterns[p], &modes[m]);
	}
	bench_convert_map(bench);
}
