/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The range map against a flat array of values, one a key.
 *
 * The file under test is included, so that the tree's own invariants can be checked.
 * malloc is wrapped: the test decides which allocation fails.
 */
#include "base/range_map.c"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "test/unit/limited_malloc.h"
#include "test/xorshift.h"

#define KEYS 512

static uint64_t random_state;

static uint64_t random_below(uint64_t limit)
{
	return xorshift(&random_state) % limit;
}

/* Checks order, maximality and heights below @n; returns the number of nodes. */
static size_t check_tree(const struct node *n, uint64_t *last_end, uint32_t *last_value)
{
	size_t nodes;

	if (!n)
		return 0;
	nodes = check_tree(n->left, last_end, last_value);
	assert_true(n->run.start < n->run.end);
	assert_true(n->run.value != 0);
	assert_true(*last_end < n->run.start ||
		    (*last_end == n->run.start && *last_value != n->run.value) ||
		    (*last_end == 0 && *last_value == 0));
	*last_end = n->run.end;
	*last_value = n->run.value;
	assert_true(height(n->left) <= height(n->right) + 1);
	assert_true(height(n->right) <= height(n->left) + 1);
	return nodes + 1 + check_tree(n->right, last_end, last_value);
}

static void check_valid(const struct range_map *map)
{
	uint64_t last_end = 0;
	uint32_t last_value = 0;

	assert_int_equal(check_tree(map->root, &last_end, &last_value), range_map_runs(map));
}

static void check_equal(const struct range_map *map, const uint32_t *model)
{
	size_t runs = 0;

	for (uint64_t key = 0; key < KEYS; key++) {
		assert_int_equal(range_map_get(map, key), model[key]);
		runs += model[key] != 0 && (key == 0 || model[key - 1] != model[key]);
	}
	assert_int_equal(range_map_runs(map), runs);
	check_valid(map);
}

/* The end of the model's run at @key, looking no further than @limit. */
static uint64_t model_run_end(const uint32_t *model, uint64_t key, uint64_t limit)
{
	uint64_t end = key + 1;

	while (end < limit && model[end] == model[key])
		end++;
	return end;
}

static void check_queries(const struct range_map *map, const uint32_t *model)
{
	uint64_t start = random_below(KEYS), end = start + 1 + random_below(KEYS - start);
	uint64_t run_end = model_run_end(model, start, end), next = start;
	struct range_run run = range_map_run_at(map, start, end);
	bool found;

	assert_int_equal(run.start, start);
	assert_int_equal(run.end, run_end);
	assert_int_equal(run.value, model[start]);
	assert_int_equal(range_map_all(map, start, end, model[start]), run_end == end);
	assert_false(range_map_all(map, start, end, model[start] + 1));

	while (next < KEYS && model[next] == 0)
		next++;
	found = range_map_next(map, start, &run);
	assert_int_equal(found, next < KEYS);
	if (!found)
		return;
	assert_int_equal(run.start, next);
	assert_int_equal(run.end, model_run_end(model, next, KEYS));
	assert_int_equal(run.value, model[next]);
}

static void random_update(struct range_map *map, uint32_t *model, uint64_t values)
{
	uint64_t start = random_below(KEYS);
	uint64_t span = random_below(4) == 0 ? KEYS - start : KEYS - start > 16 ? 16 : KEYS - start;
	uint64_t end = start + 1 + random_below(span);
	uint32_t value = (uint32_t)random_below(values);

	assert_int_equal(range_map_set(map, start, end, value), 0);
	for (uint64_t key = start; key < end; key++)
		model[key] = value;
}

static void test_random_sequences_match_array(void **state)
{
	for (uint64_t seed = 1; seed <= 60; seed++) {
		struct range_map *map = range_map_new();
		uint32_t model[KEYS] = {0};

		random_state = seed * 0x9e3779b97f4a7c15;
		assert_non_null(map);
		for (int i = 0; i < 300; i++) {
			random_update(map, model, 2 + seed % 4);
			check_equal(map, model);
			check_queries(map, model);
		}
		range_map_clear(map);
		memset(model, 0, sizeof(model));
		check_equal(map, model);
		range_map_free(map);
	}
}

static void test_failed_set_changes_nothing(void **state)
{
	unsigned int failures = 0;

	random_state = 42;
	for (int round = 0; round < 3000; round++) {
		struct range_map *map = range_map_new();
		uint32_t model[KEYS] = {0};
		uint64_t start = random_below(KEYS - 8);

		for (int i = 0; i < 12; i++)
			random_update(map, model, 4);
		allocations_left = (long)random_below(NODES_PER_UPDATE);
		if (range_map_set(map, start, start + 8, 5) == -ENOMEM)
			failures++;
		else
			for (uint64_t key = start; key < start + 8; key++)
				model[key] = 5;
		allocations_left = -1;
		check_equal(map, model);
		assert_int_equal(range_map_set(map, start, start + 8, 6), 0);
		range_map_free(map);
	}
	assert_true(failures > 100);
}

static void test_bad_range_is_refused(void **state)
{
	struct range_map *map = range_map_new();

	assert_int_equal(range_map_set(map, 5, 5, 1), -EINVAL);
	assert_int_equal(range_map_set(map, 6, 5, 1), -EINVAL);
	assert_int_equal(range_map_runs(map), 0);
	range_map_free(map);
	range_map_free(NULL);
}

static void test_whole_key_space(void **state)
{
	struct range_map *map = range_map_new();
	struct range_run run = {1, 2, 3};

	assert_int_equal(range_map_set(map, 0, UINT64_MAX, 7), 0);
	assert_int_equal(range_map_runs(map), 1);
	assert_true(range_map_all(map, 0, UINT64_MAX, 7));
	assert_int_equal(range_map_get(map, UINT64_MAX - 1), 7);
	assert_int_equal(range_map_get(map, UINT64_MAX), 0);
	assert_int_equal(range_map_set(map, 1, UINT64_MAX, 0), 0);
	assert_false(range_map_next(map, 1, &run));
	assert_int_equal(run.value, 3);
	assert_true(range_map_bytes(map) < 1024);
	range_map_free(map);
}

/* Both orders of insertion that would degenerate an unbalanced tree, and many runs. */
static void test_sorted_insertion_stays_balanced(void **state)
{
	const uint64_t runs = 100000;
	struct range_map *map = range_map_new();

	for (uint64_t i = 0; i < runs; i++)
		assert_int_equal(range_map_set(map, 2 * i, 2 * i + 1, 1), 0);
	check_valid(map);
	assert_true(map->root->height <= 24);
	assert_int_equal(range_map_set(map, 1, 2 * runs, 2), 0);
	assert_int_equal(range_map_runs(map), 2);
	range_map_clear(map);
	for (uint64_t i = runs; i > 0; i--)
		assert_int_equal(range_map_set(map, 2 * i, 2 * i + 1, 1), 0);
	check_valid(map);
	assert_int_equal(range_map_runs(map), runs);
	range_map_free(map);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random_sequences_match_array),
		cmocka_unit_test(test_failed_set_changes_nothing),
		cmocka_unit_test(test_bad_range_is_refused),
		cmocka_unit_test(test_whole_key_space),
		cmocka_unit_test(test_sorted_insertion_stays_balanced),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
