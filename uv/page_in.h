/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The copy and the measurement of what a VM takes along into secure mode.
 *
 * SHA-384 over one sequence keeps one core busy, so a range is measured in two levels: it is
 * cut into chunks of 2M from its start, the digests of the chunks are computed at the same
 * time, and they are what the measurement gets, in order.  Who takes which chunk when makes
 * no difference.
 *
 * A chunk is copied and hashed in steps that fit into a cache.  Holes of the memfd are zeros
 * in the private window too, and neither is touched.  The hypervisor may write meanwhile;
 * what is hashed is the private copy.
 */
#ifndef UV_PAGE_IN_H
#define UV_PAGE_IN_H

#include "uv/vm.h"

#define PAGE_IN_CHUNK SIZE_2M

/*
 * Copies @range of slot @slot from the memfd into the window that is being filled, measures
 * it and counts it as paged in.  Caller holds vm->lock; the range lies in the slot, the
 * switch is under way and has not taken in any of it.
 *
 * 0 or a negative errno: nothing is measured or counted then, and the window is as empty
 * there as before.  Should it not be possible to empty it, the switch is abandoned.
 */
int page_in(struct uv_vm *vm, int slot, struct gfn_range range);

#endif
