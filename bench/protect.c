/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * protect: how long a running guest waits to turn secure, by the size of its memory: with 64
 * MiB of content that it names (lazy), or with all of its memory in use and named (eager: every
 * page is copied, as it was the old way).  Beyond what is worth waiting for, eager is
 * extrapolated from the two greatest sizes that were measured.  Beside it, what bounds the
 * necessary pages: SHA-384 and memcpy, each on one core.
 */
#include "bench/bench.h"

#include <inttypes.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "base/types.h"
#include "bench/guest.h"

#define NECESSARY_BYTES (64 * MIB)

/*
 * One switch of a new guest that uses @necessary bytes of its memory and names them.
 * 0 and *ret_ns, or a negative errno and *ret_why.
 */
static int switch_once(uint64_t memory, uint64_t necessary, uint64_t *ret_ns, const char **ret_why)
{
	const struct lethe_vm_config config = {0};
	struct guest guest;
	char text[160];
	int err;

	snprintf(text, sizeof(text),
		"write 1M %" PRIu64 "\nprotect 1M %" PRIu64 "\nprint secure\npoweroff\n", necessary,
		necessary);
	err = guest_new(text, memory, &config, &guest, ret_why);
	if (err)
		return err;
	err = lethe_vm_start(guest.vm, NULL);
	if (!err)
		err = guest_run(&guest);
	*ret_why = "the guest could not turn secure";
	*ret_ns = guest.protected_.duration_ns;
	guest_free(&guest);
	return err;
}

/* Returns the median, or 0. */
static double measure(struct bench *bench, const char *name, uint64_t memory, uint64_t necessary,
	unsigned int runs)
{
	struct bench_row row = {.unit = "ns", .memory_bytes = memory, .resident_bytes = necessary};
	struct bench_samples samples = {0};
	uint64_t ns;
	const char *why;

	snprintf(row.name, sizeof(row.name), "%s", name);
	for (unsigned int run = 0; run < runs; run++) {
		int err = switch_once(memory, necessary, &ns, &why);

		if (err) {
			bench_missing(bench, &row, "%s", why);
			return 0;
		}
		bench_sample(&samples, (double)ns);
	}
	bench_add(bench, &row, &samples);
	return bench->count ? bench->rows[bench->count - 1].median : 0;
}

static void extrapolate(
	struct bench *bench, uint64_t memory, const uint64_t size[2], const double ns[2])
{
	double per_byte = (ns[1] - ns[0]) / (double)(size[1] - size[0]);
	struct bench_row row = {.name = "eager",
		.unit = "ns",
		.memory_bytes = memory,
		.resident_bytes = memory - MIB,
		.extrapolated = true};
	struct bench_samples samples = {0};

	if (ns[0] <= 0 || per_byte <= 0) {
		bench_missing(bench, &row, "nothing to extrapolate from");
		return;
	}
	bench_sample(&samples, ns[1] + per_byte * (double)(memory - size[1]));
	bench_add(bench, &row, &samples);
}

/* ---- what bounds it ---- */

static void hash(uint8_t *to, const uint8_t *from, size_t bytes)
{
	unsigned int size;

	EVP_Digest(from, bytes, to, &size, EVP_sha384(), NULL);
}

static void copy(uint8_t *to, const uint8_t *from, size_t bytes)
{
	memcpy(to, from, bytes);
	__asm__ volatile("" : : "r"(to) : "memory");
}

static void measure_rate(struct bench *bench, const char *name,
	void (*work)(uint8_t *to, const uint8_t *from, size_t bytes), unsigned int runs)
{
	struct bench_row row = {.unit = "MB/s", .memory_bytes = NECESSARY_BYTES};
	uint8_t *from = malloc(NECESSARY_BYTES), *to = malloc(NECESSARY_BYTES);
	struct bench_samples samples = {0};

	snprintf(row.name, sizeof(row.name), "%s", name);
	if (from && to) {
		memset(from, 1, NECESSARY_BYTES);
		memset(to, 2, NECESSARY_BYTES);
		work(to, from, NECESSARY_BYTES);
		for (unsigned int run = 0; run < runs; run++) {
			uint64_t start = clock_ns();

			work(to, from, NECESSARY_BYTES);
			bench_sample(&samples, bench_rate(NECESSARY_BYTES, clock_ns() - start));
		}
	}
	free(from);
	free(to);
	bench_add(bench, &row, &samples);
}

/* The same figure as a rate, so that it can be read beside the two above. */
static void add_necessary_rate(struct bench *bench, double ns)
{
	struct bench_row row = {
		.name = "necessary", .unit = "MB/s", .memory_bytes = NECESSARY_BYTES};
	struct bench_samples samples = {0};

	if (ns > 0)
		bench_sample(&samples, bench_rate(NECESSARY_BYTES, (uint64_t)ns));
	bench_add(bench, &row, &samples);
}

void bench_protect(struct bench *bench)
{
	static const uint64_t sizes[] = {1 * GIB, 16 * GIB, 128 * GIB, 1024 * GIB};
	const size_t count = sizeof(sizes) / sizeof(sizes[0]);
	const uint64_t known[2] = {bench_size(bench, GIB / 2, GIB / 4), GIB};
	unsigned int runs = bench->quick ? 3 : 7;
	double best = 0, ns[2];

	for (size_t i = 0; i < count; i++) {
		double median = measure(bench, "lazy", sizes[i], NECESSARY_BYTES, runs);

		if (i == 0)
			best = median;
	}
	for (size_t i = 0; i < 2; i++)
		ns[i] = measure(bench, "eager", known[i], known[i] - MIB, bench->quick ? 1 : 3);
	for (size_t i = 1; i < count; i++)
		extrapolate(bench, sizes[i], known, ns);
	measure_rate(bench, "sha384", hash, runs);
	measure_rate(bench, "memcpy", copy, runs);
	add_necessary_rate(bench, best);
}
