/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The attribute map against plain arrays: its answers, its shape and its size.
 *
 * The file under test is included, so that the tree's own invariants can be checked.
 * malloc is wrapped: the test decides which allocation fails.
 */
#include "core/attr.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "test/unit/limited_malloc.h"
#include "test/xorshift.h"

static uint64_t random_state;

static uint64_t random_below(uint64_t limit)
{
	return xorshift(&random_state) % limit;
}

static struct attr_map *new_map(void)
{
	struct attr_map *map = attr_map_new();

	assert_non_null(map);
	return map;
}

static void set(struct attr_map *map, uint64_t start, uint64_t end, enum page_attr attr)
{
	assert_int_equal(attr_set(map, (struct gfn_range){gfn(start), end - start}, attr), 0);
}

/* ---- the shape ---- */

/* Checks what is below @e, of @level; returns its bytes. */
static size_t check_tree(entry_t e, unsigned int level, bool is_root)
{
	size_t bytes = bytes_of(e);
	unsigned int equal = 1;

	assert_int_equal(level_of(e), level);
	if (level == 0) {
		unsigned int end;

		(void)leaf_get(block_of(e), 0, &end);
		assert_int_not_equal(end, LEAF_PAGES);
		return bytes;
	}
	for (unsigned int i = 0; i < FANOUT; i++) {
		entry_t child = child_of(e, i);

		equal += i > 0 && child == child_of(e, 0);
		if (!is_uniform(child))
			bytes += check_tree(child, level - 1, false);
	}
	/* A root may be of one attribute, if all beyond it is another. */
	assert_true(equal < FANOUT ||
		    (is_root && level < LEVEL_MAX && child_of(e, 0) != uniform(ATTR_PRIVATE)));
	return bytes;
}

/* No higher than it must be, and every byte accounted for. */
static void check_valid(struct attr_map *map)
{
	entry_t root = load(&map->root);
	size_t bytes = sizeof(*map);
	bool high = false;

	attr_map_reclaim(map);
	if (!is_uniform(root)) {
		bytes += check_tree(root, level_of(root), true);
		for (unsigned int i = 1; i < FANOUT; i++)
			high = high || child_of(root, i) != uniform(ATTR_PRIVATE);
		assert_true(high || level_of(root) == 1 || is_uniform(child_of(root, 0)));
	}
	assert_int_equal(attr_map_bytes(map), bytes);
}

static void check_empty(struct attr_map *map)
{
	check_valid(map);
	assert_int_equal(attr_map_bytes(map), sizeof(*map));
	for (unsigned int attr = 1; attr < ATTR_COUNT; attr++)
		assert_int_equal(attr_count(map, (enum page_attr)attr), 0);
}

/* ---- the questions ---- */

#define PAGES 5

static void check_all_ranges(const struct attr_map *map, uint64_t base, const enum page_attr *attr)
{
	for (uint64_t s = 0; s < PAGES; s++) {
		bool shared = true, none_released = true, all = true;

		for (uint64_t n = 1; s + n <= PAGES; n++) {
			enum page_attr a = attr[s + n - 1];
			struct gfn_range r = {gfn(base + s), n};

			shared = shared && (a == ATTR_COPIED || a == ATTR_MAPPED);
			none_released = none_released && a != ATTR_RELEASED;
			all = all && a == attr[s];
			assert_int_equal(attr_all_shared(map, r), shared);
			assert_int_equal(attr_none(map, r, ATTR_RELEASED), none_released);
			assert_int_equal(attr_all(map, r, attr[s]), all);
			assert_false(attr_all(map, r, (attr[s] + 1) % ATTR_COUNT));
		}
	}
}

/* Every map of all attributes over a few pages, at places where leaves and nodes meet. */
static void test_every_map(void **state)
{
	static const uint64_t bases[] = {100, LEAF_PAGES - 2, (1u << 16) - 3, GFN_END - PAGES};

	for (size_t b = 0; b < sizeof(bases) / sizeof(bases[0]); b++) {
		struct attr_map *map = new_map();

		for (unsigned int code = 0; code < 5 * 5 * 5 * 5 * 5; code++) {
			enum page_attr attr[PAGES];

			for (unsigned int i = 0, rest = code; i < PAGES; i++, rest /= 5) {
				attr[i] = (enum page_attr)(rest % 5);
				set(map, bases[b] + i, bases[b] + i + 1, attr[i]);
			}
			check_all_ranges(map, bases[b], attr);
			check_valid(map);
		}
		attr_map_free(map);
	}
}

static void test_default_is_private(void **state)
{
	struct gfn_range all = {gfn(0), GFN_END};
	struct attr_map *map = new_map();

	assert_false(attr_all_shared(map, all));
	assert_true(attr_all(map, all, ATTR_PRIVATE));
	assert_true(attr_none(map, all, ATTR_RELEASED));
	assert_int_equal(attr_run_at(map, 7, UINT64_MAX).end, UINT64_MAX);
	set(map, 0, GFN_END - 1, ATTR_COPIED);
	assert_false(attr_all_shared(map, all));
	set(map, GFN_END - 1, GFN_END, ATTR_MAPPED);
	assert_true(attr_all_shared(map, all));
	set(map, GFN_END - 1, GFN_END, ATTR_COPIED);
	assert_true(attr_all(map, all, ATTR_COPIED));
	assert_int_equal(attr_count(map, ATTR_COPIED), GFN_END);
	check_valid(map);
	assert_int_equal(attr_map_bytes(map), sizeof(*map));
	set(map, 0, GFN_END, ATTR_PRIVATE);
	check_empty(map);
	attr_map_free(map);
	attr_map_free(NULL);
}

static void test_shared_is_two_attributes(void **state)
{
	assert_false(attr_is_shared(ATTR_PRIVATE));
	assert_true(attr_is_shared(ATTR_COPIED));
	assert_true(attr_is_shared(ATTR_MAPPED));
	assert_false(attr_is_shared(ATTR_RELEASED));
	assert_false(attr_is_shared(ATTR_SEALED));
}

/* ---- every two ranges between places of interest ---- */

static const uint64_t points[] = {0, 1, LEAF_PAGES - 1, LEAF_PAGES, 2 * LEAF_PAGES,
	2 * LEAF_PAGES + 1, 1u << 16, (1u << 16) + 1, 1u << 17, 1u << 20, (1u << 20) + LEAF_PAGES,
	(uint64_t)1 << 32, GFN_END - 1, GFN_END};

#define POINTS (sizeof(points) / sizeof(points[0]))

/* Part i is [points[i], points[i + 1]). */
static void check_parts(const struct attr_map *map, const enum page_attr *part)
{
	uint64_t count[ATTR_COUNT] = {0};

	for (size_t i = 0; i + 1 < POINTS;) {
		size_t last = i;
		struct attr_run run;

		while (last + 2 < POINTS && part[last + 1] == part[i])
			last++;
		run = attr_run_at(map, points[i], GFN_END);
		assert_int_equal(run.start, points[i]);
		assert_int_equal(run.end, points[last + 1]);
		assert_int_equal(run.attr, part[i]);
		assert_int_equal(attr_get(map, gfn(run.end - 1)), part[i]);
		count[run.attr] += run.end - run.start;
		i = last + 1;
	}
	for (unsigned int attr = 1; attr < ATTR_COUNT; attr++)
		assert_int_equal(attr_count(map, (enum page_attr)attr), count[attr]);
}

static void set_parts(
	struct attr_map *map, enum page_attr *part, size_t first, size_t last, enum page_attr attr)
{
	set(map, points[first], points[last], attr);
	for (size_t i = first; i < last; i++)
		part[i] = attr;
}

static void check_two(size_t first, size_t last, enum page_attr attr)
{
	for (size_t a = 0; a + 1 < POINTS; a++) {
		for (size_t b = a + 1; b < POINTS; b++) {
			enum page_attr part[POINTS] = {ATTR_PRIVATE};
			struct attr_map *map = new_map();

			set_parts(map, part, first, last, ATTR_COPIED);
			set_parts(map, part, a, b, attr);
			check_parts(map, part);
			check_valid(map);
			set_parts(map, part, 0, POINTS - 1, ATTR_PRIVATE);
			check_empty(map);
			attr_map_free(map);
		}
	}
}

static void test_every_two_ranges(void **state)
{
	for (size_t a = 0; a + 1 < POINTS; a++) {
		for (size_t b = a + 1; b < POINTS; b++) {
			check_two(a, b, ATTR_RELEASED);
			check_two(a, b, ATTR_PRIVATE);
		}
	}
}

/* ---- random changes, page by page ---- */

#define WINDOW (18 * LEAF_PAGES)

struct model {
	struct attr_map *map;
	uint64_t base;
	uint8_t page[WINDOW];
};

/* What a leaf may take: runs, if they are few; else a plane or more; between, either. */
static size_t leaf_bound(const uint8_t *page)
{
	unsigned int runs = 1, used = 0;
	size_t planes, list;

	for (unsigned int i = 0; i < LEAF_PAGES; i++) {
		runs += i > 0 && page[i] != page[i - 1];
		used |= 1u << page[i];
	}
	used = (unsigned int)__builtin_popcount(used);
	list = 16 + runs * 2;
	planes = 16 + (used <= 2 ? 512 : used <= 4 ? 1024 : 1536);
	if (runs == 1)
		return 0;
	if (runs <= LEAF_RUNS_BACK)
		return list;
	return runs > LEAF_RUNS_MAX || planes > list ? planes : list;
}

static void check_size(const struct model *m)
{
	/* Nodes of each level: one for 16 leaves, and one at each end. */
	size_t bound = sizeof(struct attr_map) + LEVEL_MAX * 4 * sizeof(struct node);

	for (unsigned int i = 0; i < WINDOW; i += LEAF_PAGES)
		bound += leaf_bound(&m->page[i]);
	assert_true(attr_map_bytes(m->map) <= bound);
}

static void check_model(const struct model *m)
{
	uint64_t count[ATTR_COUNT] = {0};

	for (unsigned int i = 0; i < WINDOW;) {
		struct attr_run run = attr_run_at(m->map, m->base + i, m->base + WINDOW);
		unsigned int end = i;

		while (end < WINDOW && m->page[end] == m->page[i])
			end++;
		assert_int_equal(run.attr, m->page[i]);
		assert_int_equal(run.end, m->base + end);
		for (unsigned int probe = i; probe < end; probe += 1 + (end - i) / 5)
			assert_int_equal(attr_get(m->map, gfn(m->base + probe)), m->page[i]);
		count[run.attr] += end - i;
		i = end;
	}
	for (unsigned int attr = 1; attr < ATTR_COUNT; attr++)
		assert_int_equal(attr_count(m->map, (enum page_attr)attr), count[attr]);
}

static void change(struct model *m, unsigned int start, unsigned int end, enum page_attr attr)
{
	set(m->map, m->base + start, m->base + end, attr);
	memset(&m->page[start], attr, end - start);
}

/* Single pages mostly of one leaf, so that it gets dense, and long ranges seldom. */
static void change_randomly(struct model *m, unsigned int attributes)
{
	static const unsigned int lengths[] = {1, 1, 1, 2, 3, 64, LEAF_PAGES};
	enum page_attr attr = (enum page_attr)random_below(attributes);
	unsigned int count = 1 + (unsigned int)random_below(700);
	unsigned int leaf = (unsigned int)random_below(WINDOW / LEAF_PAGES) * LEAF_PAGES;
	unsigned int start = (unsigned int)random_below(WINDOW), end;

	if (random_below(4) == 0) {
		end = start + 1 + (unsigned int)random_below(WINDOW - start);
		change(m, start, end, attr);
		return;
	}
	for (unsigned int i = 0; i < count; i++) {
		start = leaf + (unsigned int)random_below(LEAF_PAGES);
		end = start + lengths[random_below(sizeof(lengths) / sizeof(lengths[0]))];
		change(m, start, end < WINDOW ? end : WINDOW,
			(enum page_attr)random_below(attributes));
	}
}

static void test_random(void **state)
{
	static const uint64_t bases[] = {0, (1u << 20) - 9 * LEAF_PAGES, GFN_END - WINDOW};
	static struct model m;

	random_state = 88172645463325252;
	for (size_t b = 0; b < sizeof(bases) / sizeof(bases[0]); b++) {
		for (unsigned int attributes = 2; attributes <= ATTR_COUNT; attributes++) {
			memset(&m, 0, sizeof(m));
			m.base = bases[b];
			m.map = new_map();
			for (unsigned int i = 0; i < 60; i++) {
				change_randomly(&m, attributes);
				check_valid(m.map);
				check_model(&m);
				check_size(&m);
			}
			attr_clear(m.map);
			check_empty(m.map);
			attr_map_free(m.map);
		}
	}
}

/* ---- size ---- */

/* Every other page of a gigabyte; then with as many attributes as there are. */
static void test_worst_patterns(void **state)
{
	const uint64_t pages = SIZE_1G / PAGE_SIZE;
	struct attr_map *map = new_map();

	for (uint64_t page = 0; page < pages; page += 2)
		set(map, page, page + 1, ATTR_MAPPED);
	check_valid(map);
	assert_true(attr_map_bytes(map) * 8 <= pages * 11 / 10);
	for (uint64_t page = 0; page < pages; page++)
		set(map, page, page + 1, (enum page_attr)(page % ATTR_COUNT));
	check_valid(map);
	assert_true(attr_map_bytes(map) * 8 <= pages * 32 / 10);
	set(map, 0, pages, ATTR_COPIED);
	check_valid(map);
	assert_true(attr_map_bytes(map) <= sizeof(*map) + 2 * sizeof(struct node));
	set(map, 0, pages, ATTR_PRIVATE);
	check_empty(map);
	attr_map_free(map);
}

/* 64 ranges of odd sizes all over a terabyte. */
static void test_well_behaved_guest(void **state)
{
	const uint64_t step = ((uint64_t)1 << 28) / 64;
	struct attr_map *map = new_map();

	for (uint64_t i = 0; i < 64; i++)
		set(map, i * step + i * 77 + 1, i * step + i * 77 + 16384, ATTR_MAPPED);
	check_valid(map);
	assert_true(attr_map_bytes(map) <= 64 * 1024);
	for (uint64_t i = 0; i < 64; i++)
		set(map, i * step, (i + 1) * step, ATTR_PRIVATE);
	check_empty(map);
	attr_map_free(map);
}

/* A guest that flips a page at the border of the two kinds of leaf. */
static void test_hysteresis(void **state)
{
	struct attr_map *map = new_map();
	size_t list, planes;

	for (uint64_t i = 0; i < LEAF_RUNS_MAX / 2 - 1; i++)
		set(map, 2 * i + 1, 2 * i + 2, ATTR_COPIED);
	check_valid(map);
	list = attr_map_bytes(map);
	set(map, 4000, 4001, ATTR_COPIED);
	check_valid(map);
	planes = attr_map_bytes(map);
	assert_true(planes > list + 16);
	for (unsigned int runs = LEAF_RUNS_MAX + 1, i = 0; runs > LEAF_RUNS_BACK; i++) {
		assert_int_equal(attr_map_bytes(map), planes);
		set(map, 2 * i + 1, 2 * i + 2, ATTR_PRIVATE);
		check_valid(map);
		runs -= 2;
	}
	assert_true(attr_map_bytes(map) < list - LEAF_RUNS_BACK);
	attr_map_free(map);
}

/* ---- no memory ---- */

/* Each allocation of each change fails once: content, counts and size stay what they were. */
static void test_no_memory(void **state)
{
	static const struct {
		uint64_t start, end;
		enum page_attr attr;
	} changes[] = {{5, 6, ATTR_MAPPED}, {0, 1u << 16, ATTR_COPIED},
		{3, 1u << 18, ATTR_RELEASED}, {4000, GFN_END - 5, ATTR_MAPPED},
		{1u << 20, (1u << 20) + 1, ATTR_COPIED},
		{(1u << 20) - 70, (1u << 20) + 9000, ATTR_SEALED}, {7, GFN_END, ATTR_PRIVATE}};
	struct attr_map *map = new_map();

	for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
		struct gfn_range r = {gfn(changes[i].start), changes[i].end - changes[i].start};
		uint64_t before = attr_count(map, changes[i].attr);
		size_t bytes = attr_map_bytes(map);
		struct attr_run run = attr_run_at(map, changes[i].start, GFN_END);
		int ret = -ENOMEM;

		for (long nth = 0; ret == -ENOMEM; nth++) {
			assert_true(nth < 20);
			allocations_left = nth;
			ret = attr_set(map, r, changes[i].attr);
			allocations_left = -1;
			if (ret == 0)
				break;
			check_valid(map);
			assert_int_equal(attr_map_bytes(map), bytes);
			assert_int_equal(attr_count(map, changes[i].attr), before);
			assert_int_equal(attr_run_at(map, r.start.v, GFN_END).end, run.end);
			assert_int_equal(attr_run_at(map, r.start.v, GFN_END).attr, run.attr);
		}
		assert_int_equal(ret, 0);
		assert_true(attr_all(map, r, changes[i].attr));
		check_valid(map);
	}
	attr_map_free(map);
	allocations_left = 0;
	assert_null(attr_map_new());
	allocations_left = -1;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_map),
		cmocka_unit_test(test_default_is_private),
		cmocka_unit_test(test_shared_is_two_attributes),
		cmocka_unit_test(test_every_two_ranges),
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_worst_patterns),
		cmocka_unit_test(test_well_behaved_guest),
		cmocka_unit_test(test_hysteresis),
		cmocka_unit_test(test_no_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
