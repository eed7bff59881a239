/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A map from 64-bit keys to small values, kept as maximal runs.
 *
 * Keys without an entry have value 0.  Two neighbouring runs never hold the same
 * value, so a map of one value over a terabyte is one run.  Lookup and update are
 * O(log runs) plus the runs that an update replaces.
 *
 * Not thread-safe: the owner locks.  No syscalls beyond malloc.
 */
#ifndef BASE_RANGE_MAP_H
#define BASE_RANGE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct range_map;

struct range_run {
	uint64_t start;
	uint64_t end; /* one past the last key */
	uint32_t value;
};

/* Returns a new empty map, or NULL when memory is short. */
struct range_map *range_map_new(void);

/* Frees @map; NULL is allowed. */
void range_map_free(struct range_map *map);

/* The value at @key. */
uint32_t range_map_get(const struct range_map *map, uint64_t key);

/*
 * Gives every key of [start, end) the value @value (0 removes).
 * Returns 0; -EINVAL if start >= end; -ENOMEM.  On failure nothing has changed.
 */
int range_map_set(struct range_map *map, uint64_t start, uint64_t end, uint32_t value);

/*
 * Finds the first run with a non-zero value that ends after @from, clipped to
 * start no earlier than @from.  Returns false when there is none; *ret is then
 * untouched.
 */
bool range_map_next(const struct range_map *map, uint64_t from, struct range_run *ret);

/*
 * The run that holds @key, zero runs included, clipped to [key, limit).
 * The way to walk a range completely: key = run.end until limit.
 */
struct range_run range_map_run_at(const struct range_map *map, uint64_t key, uint64_t limit);

/* True if every key of [start, end) has @value. */
bool range_map_all(const struct range_map *map, uint64_t start, uint64_t end, uint32_t value);

/* How many non-zero runs, how many bytes of heap. */
size_t range_map_runs(const struct range_map *map);
size_t range_map_bytes(const struct range_map *map);

/* Removes everything.  Cannot fail. */
void range_map_clear(struct range_map *map);

#endif
