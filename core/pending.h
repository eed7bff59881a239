/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Conversions under way.  A vCPU has at most one; two that overlap are never under way
 * together: the later is refused with -EAGAIN.  Guarded by the owner's lock.
 */
#ifndef CORE_PENDING_H
#define CORE_PENDING_H

#include "base/types.h"

#define PENDING_MAX 64

struct pending_set {
	uint64_t used; /* bit per vCPU */
	struct gfn_range range[PENDING_MAX];
};

/* Marks @range as being converted by @vcpu.  0; -EAGAIN if it overlaps another's. */
int pending_begin(struct pending_set *p, unsigned int vcpu, struct gfn_range range);

/* Whether any page of @range is being converted. */
bool pending_overlaps(const struct pending_set *p, struct gfn_range range);

/* Ends @vcpu's conversion, whether it was committed or not. */
void pending_end(struct pending_set *p, unsigned int vcpu);

#endif
