/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "core/attr_leaf.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define WORDS (LEAF_PAGES / 64)

struct leaf {
	struct attr_block block;
	uint16_t runs;  /* 0: planes */
	uint8_t planes; /* 0: runs */
	/* With planes: what the number of a page, a bit from each plane, stands for. */
	uint8_t palette[ATTR_COUNT];
};

/* A run: its last page, and above that its attribute. */
typedef uint16_t run_t;

struct leaf_of_runs {
	struct leaf leaf;
	run_t run[];
};

struct leaf_of_planes {
	struct leaf leaf;
	uint64_t plane[][WORDS];
};

/* A leaf that is being worked on: plane b holds bit b of each page's attribute. */
struct draft {
	uint64_t bit[ATTR_BITS][WORDS];
};

_Static_assert(sizeof(struct leaf) == 16, "what the head costs");
_Static_assert(ATTR_SEALED == ATTR_COUNT - 1 && ATTR_COUNT <= 1 << ATTR_BITS, "all attributes");

static const run_t *runs_of(const struct leaf *leaf)
{
	return ((const struct leaf_of_runs *)leaf)->run;
}

static const uint64_t (*planes_of(const struct leaf *leaf))[WORDS]
{
	return (const uint64_t(*)[WORDS])((const struct leaf_of_planes *)leaf)->plane;
}

static run_t run_make(unsigned int end, enum page_attr attr)
{
	return (run_t)((end - 1) | (unsigned int)attr << LEAF_SHIFT);
}

static unsigned int run_end(run_t run)
{
	return (run & (LEAF_PAGES - 1)) + 1u;
}

static enum page_attr run_attr(run_t run)
{
	return (enum page_attr)(run >> LEAF_SHIFT);
}

static size_t bytes_of(unsigned int runs, unsigned int planes)
{
	return sizeof(struct leaf) + runs * sizeof(run_t) + planes * WORDS * sizeof(uint64_t);
}

size_t leaf_bytes(const struct leaf *leaf)
{
	return bytes_of(leaf->runs, leaf->planes);
}

static struct leaf *leaf_new(unsigned int runs, unsigned int planes)
{
	struct leaf *leaf = malloc(bytes_of(runs, planes));

	if (leaf != NULL)
		*leaf = (struct leaf){.runs = (uint16_t)runs, .planes = (uint8_t)planes};
	return leaf;
}

/* ---- runs ---- */

static struct leaf *new_of_runs(const run_t *run, unsigned int count)
{
	struct leaf *leaf = leaf_new(count, 0);

	if (leaf != NULL)
		memcpy(((struct leaf_of_runs *)leaf)->run, run, count * sizeof(*run));
	return leaf;
}

/* Appends pages up to @end, as @attr, to @count runs.  Returns how many there are then. */
static unsigned int push(run_t *run, unsigned int count, unsigned int end, enum page_attr attr)
{
	if (count > 0 && run_attr(run[count - 1]) == attr)
		count--;
	run[count] = run_make(end, attr);
	return count + 1;
}

/* The runs @from with [@start, @end) being @attr.  Returns how many, at most two more. */
static unsigned int splice(const run_t *from, unsigned int count, unsigned int start,
	unsigned int end, enum page_attr attr, run_t *to)
{
	unsigned int n = 0, first = 0;

	for (unsigned int i = 0; i < count; i++) {
		unsigned int last = run_end(from[i]);

		if (first < start)
			n = push(to, n, last < start ? last : start, run_attr(from[i]));
		if (first <= start && start < last)
			n = push(to, n, end, attr);
		if (last > end)
			n = push(to, n, last, run_attr(from[i]));
		first = last;
	}
	return n;
}

/* The index of the run that holds page @at. */
static unsigned int find_run(const struct leaf *leaf, unsigned int at)
{
	const run_t *run = runs_of(leaf);
	unsigned int low = 0, high = leaf->runs - 1u;

	while (low < high) {
		unsigned int middle = (low + high) / 2;

		if (run_end(run[middle]) > at)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

/* ---- planes ---- */

/* The bits of word @word that stand for pages of [@start, @end), which touches it. */
static uint64_t mask_of(unsigned int word, unsigned int start, unsigned int end)
{
	uint64_t mask = ~(uint64_t)0;

	if (start > word * 64)
		mask &= ~(uint64_t)0 << (start - word * 64);
	if (end < word * 64 + 64)
		mask &= ~(~(uint64_t)0 << (end - word * 64));
	return mask;
}

static void draft_set(struct draft *d, unsigned int start, unsigned int end, enum page_attr attr)
{
	for (unsigned int b = 0; b < ATTR_BITS; b++) {
		for (unsigned int w = start / 64; w * 64 < end; w++) {
			uint64_t mask = mask_of(w, start, end);

			if (((unsigned int)attr >> b & 1) != 0)
				d->bit[b][w] |= mask;
			else
				d->bit[b][w] &= ~mask;
		}
	}
}

static void draft_of_runs(const run_t *run, unsigned int count, struct draft *ret)
{
	unsigned int first = 0;

	memset(ret, 0, sizeof(*ret));
	for (unsigned int i = 0; i < count; i++) {
		draft_set(ret, first, run_end(run[i]), run_attr(run[i]));
		first = run_end(run[i]);
	}
}

/* The pages of word @w whose number in @planes planes is @number. */
static uint64_t match(
	const uint64_t (*plane)[WORDS], unsigned int planes, unsigned int w, unsigned int number)
{
	uint64_t pages = ~(uint64_t)0;

	for (unsigned int b = 0; b < planes; b++)
		pages &= (number >> b & 1) != 0 ? plane[b][w] : ~plane[b][w];
	return pages;
}

static unsigned int palette_size(unsigned int planes)
{
	return 1u << planes < ATTR_COUNT ? 1u << planes : ATTR_COUNT;
}

static void draft_of_leaf(const struct leaf *leaf, struct draft *ret)
{
	memset(ret, 0, sizeof(*ret));
	for (unsigned int i = 0; i < palette_size(leaf->planes); i++) {
		for (unsigned int w = 0; w < WORDS; w++) {
			uint64_t pages = match(planes_of(leaf), leaf->planes, w, i);

			for (unsigned int b = 0; b < ATTR_BITS; b++)
				ret->bit[b][w] |= (leaf->palette[i] >> b & 1) != 0 ? pages : 0;
		}
	}
}

/* The pages of word @w that differ from the page before. */
static uint64_t edges(const struct draft *d, unsigned int w)
{
	uint64_t differ = 0;

	for (unsigned int b = 0; b < ATTR_BITS; b++) {
		uint64_t before = w == 0 ? d->bit[b][0] & 1 : d->bit[b][w - 1] >> 63;

		differ |= d->bit[b][w] ^ (d->bit[b][w] << 1 | before);
	}
	return differ;
}

/* How many runs @d has; some number above @max if they are more than that. */
static unsigned int count_runs(const struct draft *d, unsigned int max)
{
	unsigned int runs = 1;

	for (unsigned int w = 0; w < WORDS && runs <= max; w++)
		runs += (unsigned int)__builtin_popcountll(edges(d, w));
	return runs;
}

static enum page_attr draft_get(const struct draft *d, unsigned int at)
{
	unsigned int attr = 0;

	for (unsigned int b = 0; b < ATTR_BITS; b++)
		attr |= (unsigned int)(d->bit[b][at / 64] >> at % 64 & 1) << b;
	return (enum page_attr)attr;
}

static unsigned int draft_runs(const struct draft *d, run_t *to)
{
	unsigned int n = 0;

	for (unsigned int w = 0; w < WORDS; w++) {
		for (uint64_t left = edges(d, w); left != 0; left &= left - 1) {
			unsigned int at = w * 64 + (unsigned int)__builtin_ctzll(left);

			n = push(to, n, at, draft_get(d, at - 1));
		}
	}
	return push(to, n, LEAF_PAGES, draft_get(d, LEAF_PAGES - 1));
}

/* The attributes that occur.  Returns how many. */
static unsigned int find_palette(const struct draft *d, uint8_t palette[ATTR_COUNT])
{
	unsigned int used = 0;

	for (unsigned int attr = 0; attr < ATTR_COUNT; attr++) {
		uint64_t any = 0;

		for (unsigned int w = 0; w < WORDS && any == 0; w++)
			any = match(d->bit, ATTR_BITS, w, attr);
		if (any != 0)
			palette[used++] = (uint8_t)attr;
	}
	return used;
}

static struct leaf *new_of_planes(const struct draft *d)
{
	uint8_t palette[ATTR_COUNT] = {0};
	unsigned int used = find_palette(d, palette);
	unsigned int planes = used <= 2 ? 1 : used <= 4 ? 2 : 3;
	struct leaf *leaf = leaf_new(0, planes);
	uint64_t(*plane)[WORDS];

	if (leaf == NULL)
		return NULL;
	memcpy(leaf->palette, palette, sizeof(palette));
	plane = ((struct leaf_of_planes *)leaf)->plane;
	memset(plane, 0, planes * sizeof(*plane));
	for (unsigned int i = 1; i < used; i++) {
		for (unsigned int w = 0; w < WORDS; w++) {
			uint64_t pages = match(d->bit, ATTR_BITS, w, palette[i]);

			for (unsigned int b = 0; b < planes; b++)
				plane[b][w] |= (i >> b & 1) != 0 ? pages : 0;
		}
	}
	return leaf;
}

/* ---- leaves ---- */

static int set_in_runs(const run_t *from, unsigned int count, unsigned int start, unsigned int end,
	enum page_attr attr, struct leaf **ret)
{
	run_t run[LEAF_RUNS_MAX + 2];
	unsigned int n = splice(from, count, start, end, attr, run);
	struct leaf *leaf = NULL;
	struct draft d;

	if (n > LEAF_RUNS_MAX) {
		draft_of_runs(run, n, &d);
		leaf = new_of_planes(&d);
	} else if (n > 1) {
		leaf = new_of_runs(run, n);
	}
	if (n > 1 && leaf == NULL)
		return -ENOMEM;
	*ret = leaf;
	return 0;
}

static int set_in_planes(const struct leaf *old, unsigned int start, unsigned int end,
	enum page_attr attr, struct leaf **ret)
{
	struct leaf *leaf = NULL;
	run_t run[LEAF_RUNS_BACK];
	struct draft d;
	unsigned int n;

	draft_of_leaf(old, &d);
	draft_set(&d, start, end, attr);
	n = count_runs(&d, LEAF_RUNS_BACK);
	if (n > LEAF_RUNS_BACK)
		leaf = new_of_planes(&d);
	else if (n > 1)
		leaf = new_of_runs(run, draft_runs(&d, run));
	if (n > 1 && leaf == NULL)
		return -ENOMEM;
	*ret = leaf;
	return 0;
}

int leaf_set(struct leaf *old, enum page_attr base, unsigned int start, unsigned int end,
	enum page_attr attr, struct leaf **ret)
{
	const run_t all = run_make(LEAF_PAGES, base);
	unsigned int same = 0;

	assert(start < end && end <= LEAF_PAGES);
	if (old == NULL)
		return set_in_runs(&all, 1, start, end, attr, ret);
	if (leaf_get(old, start, &same) == attr && same >= end) {
		*ret = old;
		return 0;
	}
	if (old->planes == 0)
		return set_in_runs(runs_of(old), old->runs, start, end, attr, ret);
	return set_in_planes(old, start, end, attr, ret);
}

static enum page_attr get_in_planes(const struct leaf *leaf, unsigned int at, unsigned int *ret_end)
{
	const uint64_t(*plane)[WORDS] = planes_of(leaf);
	uint64_t mask = ~(uint64_t)0 << at % 64;
	unsigned int number = 0, end = LEAF_PAGES;

	for (unsigned int b = 0; b < leaf->planes; b++)
		number |= (unsigned int)(plane[b][at / 64] >> at % 64 & 1) << b;
	for (unsigned int w = at / 64; w < WORDS && end == LEAF_PAGES; w++) {
		uint64_t others = ~match(plane, leaf->planes, w, number) & mask;

		if (others != 0)
			end = w * 64 + (unsigned int)__builtin_ctzll(others);
		mask = ~(uint64_t)0;
	}
	*ret_end = end;
	return (enum page_attr)leaf->palette[number];
}

enum page_attr leaf_get(const struct leaf *leaf, unsigned int at, unsigned int *ret_end)
{
	run_t run;

	if (leaf->planes > 0)
		return get_in_planes(leaf, at, ret_end);
	run = runs_of(leaf)[find_run(leaf, at)];
	*ret_end = run_end(run);
	return run_attr(run);
}

void leaf_tally(
	const struct leaf *leaf, unsigned int start, unsigned int end, uint64_t count[ATTR_COUNT])
{
	unsigned int next;

	if (leaf->planes == 0) {
		for (unsigned int at = start; at < end; at = next) {
			enum page_attr attr = leaf_get(leaf, at, &next);

			if (next > end)
				next = end;
			count[attr] += next - at;
		}
		return;
	}
	for (unsigned int i = 0; i < palette_size(leaf->planes); i++) {
		for (unsigned int w = start / 64; w * 64 < end; w++)
			count[leaf->palette[i]] += (uint64_t)__builtin_popcountll(
				match(planes_of(leaf), leaf->planes, w, i) &
				mask_of(w, start, end));
	}
}
