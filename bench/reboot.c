/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * reboot: how long a guest waits from its request to the first instruction of its next life,
 * when its memory is set aside (lazy) or destroyed first (eager), in 2M and in 4K pages.
 */
#include "bench/bench.h"
#include "bench/life.h"

/* Filling more in 4K pages takes longer than all the rest. */
#define SMALL_PAGES_MAX (4 * GIB)

static void measure(struct bench *bench, const char *name, const struct life_config *config)
{
	struct bench_row row = {.unit = "ns",
		.memory_bytes = config->resident_bytes,
		.resident_bytes = config->resident_bytes};
	unsigned int runs = bench->quick || config->resident_bytes > 8 * GIB ? 2 : 3;
	struct bench_samples samples = {0};
	struct life_times times;
	struct guest guest;
	const char *why;
	int err;

	snprintf(row.name, sizeof(row.name), "%s", name);
	if (!life_fits(bench, &row, config->resident_bytes))
		return;
	err = life_begin(config, &guest, &why);
	if (err) {
		bench_missing(bench, &row, "%s", why);
		return;
	}
	for (unsigned int run = 0; run < runs && !err; run++) {
		err = life_reboot(config, &guest, run + 1 == runs, &times);
		if (!err)
			bench_sample(&samples, (double)times.guest_ns);
	}
	guest_free(&guest);
	bench_add(bench, &row, &samples);
}

void bench_reboot(struct bench *bench)
{
	static const uint64_t full[] = {1 * GIB, 4 * GIB, 8 * GIB, 16 * GIB, 0};
	static const uint64_t quick[] = {256 * MIB, 1 * GIB, 0};
	static const struct {
		const char *name;
		bool eager, small_pages;
	} cases[] = {
		{"lazy", false, false},
		{"eager", true, false},
		{"lazy-4k", false, true},
		{"eager-4k", true, true},
	};

	for (unsigned int i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		for (const uint64_t *size = bench->quick ? quick : full; *size; size++) {
			if (cases[i].small_pages && *size > SMALL_PAGES_MAX)
				break;
			measure(bench, cases[i].name,
				&(struct life_config){.resident_bytes = *size,
					.eager = cases[i].eager,
					.small_pages = cases[i].small_pages});
		}
	}
}
