/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The range map: an AVL tree with one node a run, ordered by the run's start.
 *
 * Theory.  The tree is cut and put together with split() and join(), both O(log runs)
 * (Blelloch, Ferizovic, Sun: "Just Join for Parallel Ordered Sets").  An update splits
 * out the runs that start inside the range, trims the run that reaches into it, drops
 * the middle and joins what is left around the new run.
 *
 * The height is bounded by 1.44 log2(runs) whatever the order of the updates, so the
 * recursion below is bounded too: a hostile sequence of updates cannot exhaust the stack.
 *
 * Invariants, checked by test/unit/base/range_map_test.c:
 *  - runs are not empty, do not overlap, have a non-zero value, and no two touching
 *    runs have the same value;
 *  - the heights of a node's children differ by at most 1.
 *
 * An update needs at most two nodes that were not there (the new run, and the far end of
 * a run it falls into).  They are allocated before anything changes; after that nothing
 * can fail.
 */
#include "base/range_map.h"

#include <errno.h>
#include <stdlib.h>

#define NODES_PER_UPDATE 2

struct node {
	struct range_run run;
	uint32_t height; /* 1 for a leaf */
	struct node *left, *right;
};

struct range_map {
	struct node *root;
	struct node *spare; /* linked by ->right, at most NODES_PER_UPDATE */
	size_t spares;
	size_t runs;
};

static uint32_t height(const struct node *n)
{
	return n ? n->height : 0;
}

static struct node *link_node(struct node *left, struct node *n, struct node *right)
{
	n->left = left;
	n->right = right;
	n->height = 1 + (height(left) > height(right) ? height(left) : height(right));
	return n;
}

static struct node *rotate_left(struct node *n)
{
	struct node *r = n->right;

	return link_node(link_node(n->left, n, r->left), r, r->right);
}

static struct node *rotate_right(struct node *n)
{
	struct node *l = n->left;

	return link_node(l->left, l, link_node(l->right, n, n->right));
}

/* Restores the height rule at @n, whose subtrees obey it and differ by at most 2. */
static struct node *rebalance(struct node *n)
{
	struct node *l = n->left, *r = n->right;

	if (height(r) > height(l) + 1) {
		if (height(r->left) > height(r->right))
			n->right = rotate_right(r);
		return rotate_left(n);
	}
	if (height(l) > height(r) + 1) {
		if (height(l->right) > height(l->left))
			n->left = rotate_left(l);
		return rotate_right(n);
	}
	return link_node(l, n, r);
}

/* One tree of @left, @n and @right, in this order of keys.  O(difference of heights). */
static struct node *join(struct node *left, struct node *n, struct node *right)
{
	if (height(left) > height(right) + 1) {
		left->right = join(left->right, n, right);
		return rebalance(left);
	}
	if (height(right) > height(left) + 1) {
		right->left = join(left, n, right->left);
		return rebalance(right);
	}
	return link_node(left, n, right);
}

/* Parts @tree into the runs that start before @key and those that do not. */
static void split(
	struct node *tree, uint64_t key, struct node **ret_before, struct node **ret_after)
{
	struct node *inner;

	if (!tree) {
		*ret_before = NULL;
		*ret_after = NULL;
	} else if (tree->run.start < key) {
		split(tree->right, key, &inner, ret_after);
		*ret_before = join(tree->left, tree, inner);
	} else {
		split(tree->left, key, ret_before, &inner);
		*ret_after = join(inner, tree, tree->right);
	}
}

static struct node *first_of(struct node *tree)
{
	while (tree && tree->left)
		tree = tree->left;
	return tree;
}

static struct node *last_of(struct node *tree)
{
	while (tree && tree->right)
		tree = tree->right;
	return tree;
}

/* Takes the last node out of the non-empty @tree; returns the rest. */
static struct node *detach_last(struct node *tree, struct node **ret_last)
{
	if (!tree->right) {
		*ret_last = tree;
		return tree->left;
	}
	tree->right = detach_last(tree->right, ret_last);
	return rebalance(tree);
}

static struct node *join_pair(struct node *left, struct node *right)
{
	struct node *last;

	if (!left)
		return right;
	left = detach_last(left, &last);
	return join(left, last, right);
}

static int reserve_nodes(struct range_map *map)
{
	while (map->spares < NODES_PER_UPDATE) {
		struct node *n = malloc(sizeof(*n));

		if (!n)
			return -ENOMEM;
		n->right = map->spare;
		map->spare = n;
		map->spares++;
	}
	return 0;
}

static struct node *new_node(struct range_map *map, struct range_run run)
{
	struct node *n = map->spare;

	map->spare = n->right;
	map->spares--;
	map->runs++;
	n->run = run;
	return link_node(NULL, n, NULL);
}

static void free_tree(struct range_map *map, struct node *tree)
{
	if (!tree)
		return;
	free_tree(map, tree->left);
	free_tree(map, tree->right);
	free(tree);
	map->runs--;
}

struct range_map *range_map_new(void)
{
	return calloc(1, sizeof(struct range_map));
}

void range_map_free(struct range_map *map)
{
	if (!map)
		return;
	range_map_clear(map);
	while (map->spare) {
		struct node *n = map->spare;

		map->spare = n->right;
		free(n);
	}
	free(map);
}

void range_map_clear(struct range_map *map)
{
	free_tree(map, map->root);
	map->root = NULL;
}

/* The first run that ends after @key: it holds @key or lies above it. */
static const struct node *first_ending_after(const struct range_map *map, uint64_t key)
{
	const struct node *n = map->root, *found = NULL;

	while (n) {
		if (n->run.end > key) {
			found = n;
			n = n->left;
		} else {
			n = n->right;
		}
	}
	return found;
}

uint32_t range_map_get(const struct range_map *map, uint64_t key)
{
	const struct node *n = first_ending_after(map, key);

	return n && n->run.start <= key ? n->run.value : 0;
}

/* The part of @n's run from @end on, if the run reaches beyond it. */
static bool reaches_beyond(const struct node *n, uint64_t end, struct range_run *ret_rest)
{
	if (!n || n->run.end <= end)
		return false;
	*ret_rest = (struct range_run){end, n->run.end, n->run.value};
	return true;
}

/*
 * Merges @run with equal neighbours: the last run of *left, which ends at or before it,
 * and the first run of *right.  The merged nodes are dropped.
 */
static void absorb_neighbours(
	struct range_map *map, struct node **left, struct node **right, struct range_run *run)
{
	struct node *n = last_of(*left);

	if (n && n->run.end == run->start && n->run.value == run->value) {
		*left = detach_last(*left, &n);
		run->start = n->run.start;
		free_tree(map, link_node(NULL, n, NULL));
	}
	n = first_of(*right);
	if (n && n->run.start == run->end && n->run.value == run->value) {
		run->end = n->run.end;
		split(*right, n->run.start + 1, &n, right);
		free_tree(map, n);
	}
}

int range_map_set(struct range_map *map, uint64_t start, uint64_t end, uint32_t value)
{
	struct range_run run = {start, end, value}, rest;
	struct node *left, *middle, *right, *head;

	if (start >= end)
		return -EINVAL;
	if (range_map_all(map, start, end, value))
		return 0;
	if (reserve_nodes(map) != 0)
		return -ENOMEM;

	split(map->root, start, &left, &middle);
	split(middle, end, &middle, &right);
	head = last_of(left);
	if (reaches_beyond(head, end, &rest) || reaches_beyond(last_of(middle), end, &rest))
		right = join(NULL, new_node(map, rest), right);
	if (head && head->run.end > start)
		head->run.end = start;
	free_tree(map, middle);

	if (value == 0) {
		map->root = join_pair(left, right);
	} else {
		absorb_neighbours(map, &left, &right, &run);
		map->root = join(left, new_node(map, run), right);
	}
	return 0;
}

bool range_map_next(const struct range_map *map, uint64_t from, struct range_run *ret)
{
	const struct node *n = first_ending_after(map, from);

	if (!n)
		return false;
	*ret = n->run;
	if (ret->start < from)
		ret->start = from;
	return true;
}

struct range_run range_map_run_at(const struct range_map *map, uint64_t key, uint64_t limit)
{
	const struct node *n = first_ending_after(map, key);
	struct range_run run = {key, limit, 0};
	uint64_t end;

	if (!n)
		return run;
	end = n->run.start;
	if (n->run.start <= key) {
		run.value = n->run.value;
		end = n->run.end;
	}
	if (end < limit)
		run.end = end;
	return run;
}

bool range_map_all(const struct range_map *map, uint64_t start, uint64_t end, uint32_t value)
{
	struct range_run run = range_map_run_at(map, start, end);

	return run.value == value && run.end == end;
}

size_t range_map_runs(const struct range_map *map)
{
	return map->runs;
}

size_t range_map_bytes(const struct range_map *map)
{
	return sizeof(*map) + (map->runs + map->spares) * sizeof(struct node);
}
