/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A tree of 16-way nodes over the GFNs.  An entry is one word: an attribute for all that it
 * stands for, or the address of a node or leaf (core/attr_leaf.h) with its level.  A leaf is
 * level 0 and spans 2^12 pages, a node of level n 2^(12 + 4n); level 6 spans all GFNs.  The
 * root grows as high as the highest GFN that is not private needs.
 *
 * Invariants, which attr_test.c checks:
 *   - no node but the root has 16 equal attributes, no leaf is all one attribute: what
 *     became one attribute again costs nothing;
 *   - the root, if it is a node, is no higher than it must be;
 *   - beyond what the root spans all is private.
 *
 * A change builds what will be different beside what is there, then publishes it by one
 * store, of the entry that spans all of the range; so it fails before or not at all, and a
 * reader sees all of it or nothing.  Merging neighbours afterwards shows every page as it
 * was.  What is replaced may have readers in it: it is retired, and freed when the owner
 * says so.  An acquire load of an entry pairs with the release store in publish().
 */
#include "core/attr.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "core/attr_leaf.h"

#define NODE_SHIFT 4
#define FANOUT     (1u << NODE_SHIFT)
#define LEVEL_MAX  6u
#define ALL_PAGES  ((uint64_t)1 << (LEAF_SHIFT + NODE_SHIFT * LEVEL_MAX))

_Static_assert(ALL_PAGES == GFN_END, "the highest root spans all GFNs");

/* Bit 0 set: attribute << 1.  Else an address that is a multiple of 16, and level << 1. */
typedef uint64_t entry_t;

struct node {
	struct attr_block block;
	_Atomic entry_t entry[FANOUT];
};

struct attr_map {
	_Atomic entry_t root;
	uint64_t count[ATTR_COUNT]; /* pages, but for PRIVATE, which is not counted */
	size_t bytes;               /* all that is allocated */
	size_t retired_bytes;       /* of these */
	struct attr_block *retired;
};

static entry_t uniform(enum page_attr attr)
{
	return (entry_t)attr << 1 | 1;
}

static bool is_uniform(entry_t e)
{
	return (e & 1) != 0;
}

static enum page_attr attr_of(entry_t e)
{
	return (enum page_attr)(e >> 1);
}

static unsigned int level_of(entry_t e)
{
	return e >> 1 & 7;
}

static void *block_of(entry_t e)
{
	return (void *)(uintptr_t)(e & ~(entry_t)15); // NOLINT(performance-no-int-to-ptr)
}

static entry_t entry_of(const void *block, unsigned int level)
{
	assert(((uintptr_t)block & 15) == 0);
	return (uintptr_t)block | level << 1;
}

/* A node or leaf of @level spans 1 << this pages. */
static unsigned int shift_of(unsigned int level)
{
	return LEAF_SHIFT + NODE_SHIFT * level;
}

static uint64_t span_of(unsigned int level)
{
	return (uint64_t)1 << shift_of(level);
}

static entry_t load(const _Atomic entry_t *at)
{
	return atomic_load_explicit(at, memory_order_acquire);
}

/* From here on readers find @e and all that it leads to. */
static void publish(_Atomic entry_t *at, entry_t e)
{
	atomic_store_explicit(at, e, memory_order_release);
}

/* The @i-th part of what @e, of @level, spans. */
static entry_t child_of(entry_t e, unsigned int i)
{
	return is_uniform(e) ? e : load(&((struct node *)block_of(e))->entry[i]);
}

/* ---- readers ---- */

/* A run that holds page @at, maximal or not; one that has no end ends at UINT64_MAX. */
static struct attr_run piece_at(const struct attr_map *map, uint64_t at)
{
	entry_t e = load(&map->root);
	uint64_t end = UINT64_MAX;
	unsigned int leaf_end;
	enum page_attr attr;

	if (!is_uniform(e) && at >= span_of(level_of(e)))
		e = uniform(ATTR_PRIVATE);
	while (!is_uniform(e) && level_of(e) > 0) {
		unsigned int shift = shift_of(level_of(e) - 1);

		end = ((at >> shift) + 1) << shift;
		e = child_of(e, at >> shift & (FANOUT - 1));
	}
	if (is_uniform(e))
		return (struct attr_run){at, end, attr_of(e)};
	attr = leaf_get(block_of(e), at & (LEAF_PAGES - 1), &leaf_end);
	return (struct attr_run){at, align_down(at, LEAF_PAGES) + leaf_end, attr};
}

enum page_attr attr_get(const struct attr_map *map, gfn_t gfn)
{
	return piece_at(map, gfn.v).attr;
}

struct attr_run attr_run_at(const struct attr_map *map, uint64_t at, uint64_t limit)
{
	struct attr_run run = piece_at(map, at);

	while (run.end < limit) {
		struct attr_run next = piece_at(map, run.end);

		if (next.attr != run.attr)
			break;
		run.end = next.end;
	}
	if (run.end > limit)
		run.end = limit;
	return run;
}

bool attr_all(const struct attr_map *map, struct gfn_range range, enum page_attr attr)
{
	struct attr_run run = attr_run_at(map, range.start.v, range_end(range));

	return run.attr == attr && run.end == range_end(range);
}

bool attr_all_shared(const struct attr_map *map, struct gfn_range range)
{
	uint64_t at = range.start.v, end = range_end(range);

	while (at < end) {
		struct attr_run run = piece_at(map, at);

		if (!attr_is_shared(run.attr))
			return false;
		at = run.end;
	}
	return true;
}

bool attr_none(const struct attr_map *map, struct gfn_range range, enum page_attr attr)
{
	uint64_t at = range.start.v, end = range_end(range);

	while (at < end) {
		struct attr_run run = piece_at(map, at);

		if (run.attr == attr)
			return false;
		at = run.end;
	}
	return true;
}

/* ---- what a change builds ---- */

static size_t bytes_of(entry_t e)
{
	return level_of(e) > 0 ? sizeof(struct node) : leaf_bytes(block_of(e));
}

static void free_block(struct attr_map *map, entry_t e)
{
	map->bytes -= bytes_of(e);
	free(block_of(e));
}

static void retire_block(struct attr_map *map, entry_t e)
{
	struct attr_block *block = block_of(e);

	map->retired_bytes += bytes_of(e);
	block->next = map->retired;
	map->retired = block;
}

/* Calls @how for all blocks of @gone that are not in @kept, which spans the same pages. */
static void drop(struct attr_map *map, entry_t gone, entry_t kept,
	void (*how)(struct attr_map *map, entry_t e))
{
	if (is_uniform(gone) || gone == kept)
		return;
	for (unsigned int i = 0; i < FANOUT && level_of(gone) > 0; i++)
		drop(map, child_of(gone, i), child_of(kept, i), how);
	how(map, gone);
}

/* A node of @level with @child.  0 or -ENOMEM. */
static int make_node(
	struct attr_map *map, unsigned int level, const entry_t child[FANOUT], entry_t *ret)
{
	struct node *node = malloc(sizeof(*node));

	if (node == NULL)
		return -ENOMEM;
	map->bytes += sizeof(*node);
	for (unsigned int i = 0; i < FANOUT; i++)
		atomic_init(&node->entry[i], child[i]);
	*ret = entry_of(node, level);
	return 0;
}

static bool all_equal(const entry_t child[FANOUT])
{
	for (unsigned int i = 0; i < FANOUT; i++) {
		if (!is_uniform(child[i]) || child[i] != child[0])
			return false;
	}
	return true;
}

static bool has_children(entry_t e, const entry_t child[FANOUT])
{
	for (unsigned int i = 0; i < FANOUT; i++) {
		if (child_of(e, i) != child[i])
			return false;
	}
	return true;
}

static int build_leaf(struct attr_map *map, entry_t old, uint64_t start, uint64_t end,
	enum page_attr attr, entry_t *ret)
{
	struct leaf *before = is_uniform(old) ? NULL : block_of(old), *after;
	int err = leaf_set(before, before == NULL ? attr_of(old) : ATTR_PRIVATE,
		(unsigned int)start, (unsigned int)end, attr, &after);

	if (err < 0)
		return err;
	if (after != NULL && after != before)
		map->bytes += leaf_bytes(after);
	*ret = after == NULL ? uniform(attr) : entry_of(after, 0);
	return 0;
}

static int build(struct attr_map *map, entry_t old, unsigned int level, uint64_t start,
	uint64_t end, enum page_attr attr, entry_t *ret);

/* As build(), of a range that is not all of it.  @keep: a node even if it is all @attr. */
static int build_node(struct attr_map *map, entry_t old, unsigned int level, uint64_t start,
	uint64_t end, enum page_attr attr, bool keep, entry_t *ret)
{
	uint64_t span = span_of(level - 1);
	unsigned int first = (unsigned int)(start / span), last = (unsigned int)((end - 1) / span);
	entry_t child[FANOUT], e;
	int err = 0;

	for (unsigned int i = 0; i < FANOUT; i++)
		child[i] = child_of(old, i);
	for (unsigned int i = first; i <= last && err == 0; i++) {
		uint64_t base = i * span, from = start > base ? start - base : 0;
		uint64_t to = end < base + span ? end - base : span;

		err = build(map, child[i], level - 1, from, to, attr, &child[i]);
	}
	if (err == 0 && !keep && all_equal(child))
		e = uniform(attr);
	else if (err == 0 && !is_uniform(old) && has_children(old, child))
		e = old;
	else if (err == 0)
		err = make_node(map, level, child, &e);
	if (err == 0)
		*ret = e;
	for (unsigned int i = first; i <= last && err < 0; i++)
		drop(map, child[i], child_of(old, i), free_block);
	return err;
}

/*
 * What @old, of @level, is when [@start, @end) of it, counted from its beginning, is @attr.
 * What does not change is in the result as it was.  0; -ENOMEM, nothing is left then.
 */
static int build(struct attr_map *map, entry_t old, unsigned int level, uint64_t start,
	uint64_t end, enum page_attr attr, entry_t *ret)
{
	if (old == uniform(attr) || (start == 0 && end == span_of(level))) {
		*ret = uniform(attr);
		return 0;
	}
	if (level == 0)
		return build_leaf(map, old, start, end, attr, ret);
	return build_node(map, old, level, start, end, attr, false, ret);
}

/* Adds to @count what the pages [@start, @end) of @e, of @level, are. */
static void tally(
	entry_t e, unsigned int level, uint64_t start, uint64_t end, uint64_t count[ATTR_COUNT])
{
	uint64_t span = level > 0 ? span_of(level - 1) : 0;

	if (is_uniform(e)) {
		count[attr_of(e)] += end - start;
		return;
	}
	if (level == 0) {
		leaf_tally(block_of(e), (unsigned int)start, (unsigned int)end, count);
		return;
	}
	for (uint64_t i = start / span; i * span < end; i++) {
		uint64_t base = i * span;

		tally(child_of(e, (unsigned int)i), level - 1, start > base ? start - base : 0,
			end < base + span ? end - base : span, count);
	}
}

/* ---- the root ---- */

/* How high a root must be to span pages up to @end. */
static unsigned int level_for(uint64_t end)
{
	unsigned int level = 1;

	while (span_of(level) < end)
		level++;
	return level;
}

/* Beyond the root all is private, so only a root that spans everything may be all else. */
static bool may_merge_root(enum page_attr attr, unsigned int level)
{
	return attr == ATTR_PRIVATE || level == LEVEL_MAX;
}

/* Takes nodes away from above that say nothing. */
static void shrink(struct attr_map *map)
{
	entry_t e;

	while (!is_uniform(e = load(&map->root)) && level_of(e) > 1) {
		for (unsigned int i = 1; i < FANOUT; i++) {
			if (child_of(e, i) != uniform(ATTR_PRIVATE))
				return;
		}
		if (is_uniform(child_of(e, 0)))
			return;
		publish(&map->root, child_of(e, 0));
		retire_block(map, e);
	}
}

/* Puts nodes above a root that is a node, until it spans @end.  0 or -ENOMEM. */
static int grow(struct attr_map *map, uint64_t end)
{
	entry_t child[FANOUT], old, new;

	while (level_of(old = load(&map->root)) < level_for(end)) {
		for (unsigned int i = 0; i < FANOUT; i++)
			child[i] = child_of(old, i);
		/* Only a root may be a node of one attribute. */
		child[0] = all_equal(child) ? child[0] : old;
		for (unsigned int i = 1; i < FANOUT; i++)
			child[i] = uniform(ATTR_PRIVATE);
		if (make_node(map, level_of(old) + 1, child, &new) < 0) {
			shrink(map);
			return -ENOMEM;
		}
		publish(&map->root, new);
		if (child[0] != old)
			retire_block(map, old);
	}
	return 0;
}

/* ---- changes ---- */

/* An entry on the way from the root to where a change is published. */
struct place {
	_Atomic entry_t *at;
	unsigned int level; /* of the node or leaf that is or could be there */
};

/* The way to the lowest entry that spans all of [start, end).  Returns its length. */
static unsigned int find_place(struct attr_map *map, unsigned int root_level, uint64_t start,
	uint64_t end, struct place way[LEVEL_MAX + 1])
{
	struct place p = {&map->root, root_level};
	unsigned int n = 0;

	for (;;) {
		entry_t e = load(p.at);
		unsigned int shift = p.level > 0 ? shift_of(p.level - 1) : 0;

		way[n++] = p;
		if (is_uniform(e) || p.level == 0 || start >> shift != (end - 1) >> shift)
			return n;
		p.at = &((struct node *)block_of(e))->entry[start >> shift & (FANOUT - 1)];
		p.level--;
	}
}

/* Replaces nodes above a change that are one attribute now. */
static void merge(struct attr_map *map, const struct place *way, unsigned int n)
{
	entry_t child[FANOUT];

	while (n-- > 0) {
		entry_t e = load(way[n].at);

		for (unsigned int i = 0; i < FANOUT; i++)
			child[i] = child_of(e, i);
		if (!all_equal(child) ||
			(n == 0 && !may_merge_root(attr_of(child[0]), way[n].level)))
			return;
		publish(way[n].at, child[0]);
		retire_block(map, e);
	}
}

/* What is changed lies below a root of @root_level. */
static int set_below(struct attr_map *map, unsigned int root_level, uint64_t start, uint64_t end,
	enum page_attr attr)
{
	uint64_t before[ATTR_COUNT] = {0}, base;
	struct place way[LEVEL_MAX + 1], *p;
	unsigned int n = find_place(map, root_level, start, end, way);
	entry_t old, new;
	int ret;

	p = &way[n - 1];
	old = load(p->at);
	base = align_down(start, span_of(p->level));
	if (n == 1)
		ret = build_node(map, old, p->level, start, end, attr,
			!may_merge_root(attr, p->level), &new);
	else
		ret = build(map, old, p->level, start - base, end - base, attr, &new);
	if (ret < 0)
		return ret;
	tally(old, p->level, start - base, end - base, before);
	for (unsigned int i = 0; i < ATTR_COUNT; i++)
		map->count[i] -= before[i];
	map->count[attr] += end - start;
	publish(p->at, new);
	drop(map, old, new, retire_block);
	merge(map, way, n - 1);
	return 0;
}

int attr_set(struct attr_map *map, struct gfn_range range, enum page_attr attr)
{
	uint64_t start = range.start.v, end = range_end(range);
	entry_t root = load(&map->root);
	unsigned int level;
	int ret = 0;

	assert(range.count > 0 && end > start && end <= GFN_END && attr < ATTR_COUNT);
	if (root == uniform(attr))
		return 0;
	if (is_uniform(root)) {
		level = attr_of(root) == ATTR_PRIVATE ? level_for(end) : LEVEL_MAX;
	} else if (attr == ATTR_PRIVATE) {
		/* Beyond the root nothing is to be done. */
		level = level_of(root);
		if (start >= span_of(level))
			return 0;
		end = end < span_of(level) ? end : span_of(level);
	} else {
		ret = grow(map, end);
		level = level_of(load(&map->root));
	}
	if (ret == 0)
		ret = set_below(map, level, start, end, attr);
	shrink(map);
	return ret;
}

void attr_clear(struct attr_map *map)
{
	entry_t old = load(&map->root);

	publish(&map->root, uniform(ATTR_PRIVATE));
	drop(map, old, uniform(ATTR_PRIVATE), retire_block);
	for (unsigned int i = 0; i < ATTR_COUNT; i++)
		map->count[i] = 0;
}

void attr_map_reclaim(struct attr_map *map)
{
	struct attr_block *next;

	for (struct attr_block *b = map->retired; b != NULL; b = next) {
		next = b->next;
		free(b);
	}
	map->bytes -= map->retired_bytes;
	map->retired_bytes = 0;
	map->retired = NULL;
}

/* ---- the map ---- */

struct attr_map *attr_map_new(void)
{
	struct attr_map *map = malloc(sizeof(*map));

	if (map == NULL)
		return NULL;
	*map = (struct attr_map){.bytes = sizeof(*map)};
	atomic_init(&map->root, uniform(ATTR_PRIVATE));
	return map;
}

void attr_map_free(struct attr_map *map)
{
	if (map == NULL)
		return;
	attr_clear(map);
	attr_map_reclaim(map);
	free(map);
}

uint64_t attr_count(const struct attr_map *map, enum page_attr attr)
{
	return map->count[attr];
}

size_t attr_map_bytes(const struct attr_map *map)
{
	return map->bytes;
}
