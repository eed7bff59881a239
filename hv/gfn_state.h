/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the hypervisor holds each GFN of a protected VM to be, per memslot.
 *
 * NORMAL, SECURE, SHARED, PAGED-OUT and the events that change them are those of the PPC
 * secure VM protocol (H_SVM_*).  Exactly one state per GFN, kept as ranges: a whole-slot
 * transition costs what it has ranges.  A normal VM keeps none.  These states save calls
 * and let devices fail early; the ultravisor believes its own.
 */
#ifndef HV_GFN_STATE_H
#define HV_GFN_STATE_H

#include "base/types.h"
#include "lethe/lethe.h"

enum gfn_event {
	GFN_PAGE_IN,        /* its content was made private by a page-in */
	GFN_PAGE_IN_SHARED, /* the guest shared it */
	GFN_UNSHARE,        /* the guest made it private, which it may have been */
	GFN_PAGE_OUT,       /* it was sealed and stored */
	GFN_INIT_DONE,      /* the switch ended, or its slot was hotplugged */
	GFN_DROP            /* abort, reset, release: nothing is known of it */
};

struct gfn_states;
struct gfn_saved;

struct gfn_states *gfn_states_new(void);
void gfn_states_free(struct gfn_states *s);

/* The state after @event, or -EINVAL where the protocol has no such edge. */
int gfn_state_next(enum lethe_gfn_state from, enum gfn_event event);

enum lethe_gfn_state gfn_state_get(const struct gfn_states *s, gfn_t gfn);

/*
 * Applies @event to every GFN of @r, or to none: -EINVAL if one of them has no such edge,
 * -ENOMEM.
 */
int gfn_state_apply(struct gfn_states *s, struct gfn_range r, enum gfn_event event);

/* The same, to those GFNs of @r that are in @only.  -EINVAL, -ENOMEM: to none of them. */
int gfn_state_apply_to(
	struct gfn_states *s, struct gfn_range r, enum lethe_gfn_state only, enum gfn_event event);

/*
 * What the GFNs of @r are now, to be put back if what is about to be applied does not
 * come to pass.  NULL when memory is short.  The caller frees it.
 */
struct gfn_saved *gfn_state_save(const struct gfn_states *s, struct gfn_range r);
void gfn_state_restore(struct gfn_states *s, const struct gfn_saved *saved);

/* True if all of @r is in @state. */
bool gfn_state_all(const struct gfn_states *s, struct gfn_range r, enum lethe_gfn_state state);

/* True if none of @r is in @state. */
bool gfn_state_none(const struct gfn_states *s, struct gfn_range r, enum lethe_gfn_state state);

/* How many ranges are kept. */
size_t gfn_state_ranges(const struct gfn_states *s);

#endif
