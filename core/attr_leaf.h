/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The bottom of the attribute map: what 4096 neighbouring pages are.  Used by core/attr.c
 * alone.
 *
 * A leaf is a list of runs while these are few, two bytes each; else a bit plane or more: one
 * bit a page while two attributes occur in the leaf, two for up to four, three for all.  It
 * turns to planes above LEAF_RUNS_MAX runs, and back at LEAF_RUNS_BACK, so that a guest that
 * flips one page does not make it turn each time.
 *
 * Theory: a leaf never changes once made.  A change makes another one and lets the caller
 * decide when the old one goes, so readers need no lock and see all of a change or nothing.
 */
#ifndef CORE_ATTR_LEAF_H
#define CORE_ATTR_LEAF_H

#include "core/attr.h"

#define LEAF_SHIFT     12
#define LEAF_PAGES     (1u << LEAF_SHIFT)
#define LEAF_RUNS_MAX  240 /* what as many bytes as one plane hold, about */
#define LEAF_RUNS_BACK 120

/* There are so many attributes, in so many bits. */
#define ATTR_COUNT 5
#define ATTR_BITS  3

/* What leaves and nodes begin with: a link for those that wait to be freed. */
struct attr_block {
	struct attr_block *next;
};

struct leaf;

/*
 * Pages [@start, @end) of the leaf become @attr.  @old: the leaf until now, or NULL for one
 * that is all @base.  *ret: the new leaf, @old if that says so already, or NULL if all
 * pages are @attr now.  0; -ENOMEM, *ret untouched then.
 */
int leaf_set(struct leaf *old, enum page_attr base, unsigned int start, unsigned int end,
	enum page_attr attr, struct leaf **ret);

/* What page @at is, and in *ret_end the end of the run that it is in. */
enum page_attr leaf_get(const struct leaf *leaf, unsigned int at, unsigned int *ret_end);

/* Adds to @count how many pages of [@start, @end) are what. */
void leaf_tally(
	const struct leaf *leaf, unsigned int start, unsigned int end, uint64_t count[ATTR_COUNT]);

/* Bytes of @leaf. */
size_t leaf_bytes(const struct leaf *leaf);

#endif
