/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * sweep: how fast memory that was set aside is destroyed, with wiping (wipe) and by giving it
 * back alone (release), in 2M and in 4K pages, beside memset() over memory that is there already
 * and what the kernel alone takes to give as much back in one call (munmap).  What a guest that
 * runs loses to it is in beside.c.
 */
#include "bench/bench.h"

#include <string.h>
#include <sys/mman.h>

#include "base/types.h"
#include "bench/beside.h"
#include "bench/life.h"

static void measure_sweep(
	struct bench *bench, const char *name, uint64_t bytes, bool wipe_off, bool small_pages)
{
	const struct life_config config = {
		.resident_bytes = bytes, .wipe_off = wipe_off, .small_pages = small_pages};
	struct bench_row row = {.unit = "MB/s", .memory_bytes = bytes, .resident_bytes = bytes};
	struct bench_samples samples = {0};
	unsigned int runs = bench->quick ? 3 : 5;
	struct life_times times;
	struct guest guest;
	const char *why;
	int err;

	snprintf(row.name, sizeof(row.name), "%s", name);
	if (!life_fits(bench, &row, bytes))
		return;
	err = life_begin(&config, &guest, &why);
	if (err) {
		bench_missing(bench, &row, "%s", why);
		return;
	}
	for (unsigned int run = 0; run < runs && !err; run++) {
		err = life_reboot(&config, &guest, run + 1 == runs, &times);
		if (!err)
			bench_sample(&samples, bench_rate(times.destroy_bytes, times.destroy_ns));
	}
	guest_free(&guest);
	bench_add(bench, &row, &samples);
}

static void measure_munmap(struct bench *bench, uint64_t bytes)
{
	struct bench_row row = {
		.name = "munmap", .unit = "MB/s", .memory_bytes = bytes, .resident_bytes = bytes};
	struct bench_samples samples = {0};

	if (!life_fits(bench, &row, bytes))
		return;
	for (unsigned int run = 0; run < (bench->quick ? 3 : 5); run++) {
		uint8_t *memory = mmap(
			NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		uint64_t start;

		if (memory == MAP_FAILED) {
			bench_missing(bench, &row, "no memory");
			return;
		}
		(void)madvise(memory, bytes, MADV_HUGEPAGE);
		for (uint64_t at = 0; at < bytes; at += PAGE_SIZE)
			memory[at] = 1;
		start = clock_ns();
		munmap(memory, bytes);
		bench_sample(&samples, bench_rate(bytes, clock_ns() - start));
	}
	bench_add(bench, &row, &samples);
}

static void measure_memset(struct bench *bench, uint64_t bytes)
{
	struct bench_row row = {
		.name = "memset", .unit = "MB/s", .memory_bytes = bytes, .resident_bytes = bytes};
	struct bench_samples samples = {0};
	void *memory;

	if (!life_fits(bench, &row, bytes))
		return;
	memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED) {
		bench_missing(bench, &row, "no memory");
		return;
	}
	(void)madvise(memory, bytes, MADV_HUGEPAGE);
	memset(memory, 1, bytes);
	for (unsigned int run = 0; run < (bench->quick ? 3 : 5); run++) {
		uint64_t start = clock_ns();

		memset(memory, 0, bytes);
		__asm__ volatile("" : : "r"(memory) : "memory");
		bench_sample(&samples, bench_rate(bytes, clock_ns() - start));
	}
	munmap(memory, bytes);
	bench_add(bench, &row, &samples);
}

void bench_sweep(struct bench *bench)
{
	uint64_t bytes = bench_size(bench, 4 * GIB, 1 * GIB);

	measure_sweep(bench, "wipe", bytes, false, false);
	measure_sweep(bench, "release", bytes, true, false);
	measure_sweep(bench, "wipe-4k", bytes / 4, false, true);
	measure_sweep(bench, "release-4k", bytes / 4, true, true);
	measure_memset(bench, bytes);
	measure_munmap(bench, bytes);
	bench_beside(bench, bytes);
}
