/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "core/pending.h"

#include <assert.h>
#include <errno.h>

bool pending_overlaps(const struct pending_set *p, struct gfn_range range)
{
	for (unsigned int i = 0; i < PENDING_MAX; i++) {
		struct gfn_range other = p->range[i];

		if ((p->used & ((uint64_t)1 << i)) != 0 && range.start.v < range_end(other) &&
			other.start.v < range_end(range))
			return true;
	}
	return false;
}

int pending_begin(struct pending_set *p, unsigned int vcpu, struct gfn_range range)
{
	assert(vcpu < PENDING_MAX && (p->used & ((uint64_t)1 << vcpu)) == 0);
	if (pending_overlaps(p, range))
		return -EAGAIN;
	p->used |= (uint64_t)1 << vcpu;
	p->range[vcpu] = range;
	return 0;
}

void pending_end(struct pending_set *p, unsigned int vcpu)
{
	p->used &= ~((uint64_t)1 << vcpu);
}
