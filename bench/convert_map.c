/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What conversions cost the attribute map of a 1 TiB VM, by structure:
 *
 *   map   the one in use: a tree of runs and bit planes (core/attr.h)
 *   tree  a balanced tree of runs (base/range_map.h)
 *
 * STRUCTURE-bytes is what it weighs with the pattern in it; STRUCTURE what it takes to share
 * and unshare one range of the pattern, all being shared before the first is unshared,
 * beside 64 other shared ranges.
 */
#include "bench/convert_map.h"

#include <errno.h>

#include "base/range_map.h"
#include "base/types.h"
#include "core/attr.h"

#define MEMORY      (1024 * GIB)
#define OTHERS      64
#define OTHER_BYTES (64 * MIB)
#define CHANGES     20000 /* of a sample, about */

/* Ranges at @first, @first + @step, ...; in bytes.  Others lie between them. */
struct pattern {
	const char *name;
	uint64_t count, first, step, bytes;
};

static const struct pattern others = {"", OTHERS, 0, MEMORY / OTHERS, OTHER_BYTES};

static const struct pattern patterns[] = {
	{"ovmf-1", 1, GIB, 0, PAGE_SIZE},
	{"ovmf-2", 1, GIB, 0, 2 * PAGE_SIZE},
	{"swiotlb", OTHERS, GIB, MEMORY / OTHERS, OTHER_BYTES},
	{"alternating", GIB / PAGE_SIZE / 2, GIB, 2 * PAGE_SIZE, PAGE_SIZE},
	{"bulk-1g", 1, GIB, 0, GIB},
};

struct structure {
	const char *name;
	void *(*make)(void);
	void (*release)(void *map);
	int (*set)(void *map, struct gfn_range range, bool shared);
	size_t (*bytes)(const void *map);
};

static void *map_make(void)
{
	return attr_map_new();
}

static void map_release(void *map)
{
	attr_map_free(map);
}

static int map_set(void *map, struct gfn_range range, bool shared)
{
	int ret = attr_set(map, range, shared ? ATTR_COPIED : ATTR_PRIVATE);

	attr_map_reclaim(map);
	return ret;
}

static size_t map_bytes(const void *map)
{
	return attr_map_bytes(map);
}

static void *tree_make(void)
{
	return range_map_new();
}

static void tree_release(void *map)
{
	range_map_free(map);
}

static int tree_set(void *map, struct gfn_range range, bool shared)
{
	return range_map_set(map, range.start.v, range_end(range), shared ? ATTR_COPIED : 0);
}

static size_t tree_bytes(const void *map)
{
	return range_map_bytes(map);
}

static const struct structure structures[] = {
	{"map", map_make, map_release, map_set, map_bytes},
	{"tree", tree_make, tree_release, tree_set, tree_bytes},
};

static int fill(const struct structure *s, void *map, const struct pattern *p, bool shared)
{
	int err = 0;

	for (uint64_t i = 0; i < p->count && !err; i++)
		err = s->set(map,
			(struct gfn_range){
				gpa_to_gfn(gpa(p->first + i * p->step)), p->bytes >> PAGE_SHIFT},
			shared);
	return err;
}

static void measure_bytes(struct bench *bench, const struct structure *s, const struct pattern *p)
{
	struct bench_row row = {.unit = "bytes", .memory_bytes = MEMORY};
	struct bench_samples samples = {0};
	void *map = s->make();

	snprintf(row.name, sizeof(row.name), "%s/%s-bytes", p->name, s->name);
	if (map && fill(s, map, p, true) == 0)
		bench_sample(&samples, (double)s->bytes(map));
	s->release(map);
	bench_add(bench, &row, &samples);
}

static void measure_time(struct bench *bench, const struct structure *s, const struct pattern *p)
{
	struct bench_row row = {.unit = "ns", .memory_bytes = MEMORY};
	uint64_t times = bench_size(bench, CHANGES, CHANGES / 10) / p->count + 1;
	struct bench_samples samples = {0};
	void *map = s->make();
	int err = map ? fill(s, map, &others, true) : -ENOMEM;

	snprintf(row.name, sizeof(row.name), "%s/%s", p->name, s->name);
	for (unsigned int run = 0; run < (bench->quick ? 3 : 11) && !err; run++) {
		uint64_t start = clock_ns();

		for (uint64_t i = 0; i < times && !err; i++) {
			err = fill(s, map, p, true);
			if (!err)
				err = fill(s, map, p, false);
		}
		bench_sample(
			&samples, (double)(clock_ns() - start) / (double)times / (double)p->count);
	}
	s->release(map);
	bench_add(bench, &row, &samples);
}

void bench_convert_map(struct bench *bench)
{
	for (size_t p = 0; p < sizeof(patterns) / sizeof(patterns[0]); p++) {
		for (size_t s = 0; s < sizeof(structures) / sizeof(structures[0]); s++) {
			measure_bytes(bench, &structures[s], &patterns[p]);
			measure_time(bench, &structures[s], &patterns[p]);
		}
	}
}
