/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Changing what pages are - private, copied or mapped - and where they lie, with their
 * content, for a range that may span adjoining slots.
 *
 * Copied and private pages lie in the private window, so between these two only attributes
 * change.  Mapped pages lie in the slot's memfd, which is laid over the window.
 */
#ifndef UV_SHARE_MAP_H
#define UV_SHARE_MAP_H

#include "uv/vm.h"

/*
 * Makes all of @r, which is memory without released pages, @to: private, copied or mapped.
 * Content stays.  Caller holds vm->lock; its vCPU, if it is one, is outside.
 * 0; -EDEADLK as share_range_begin(); -ENOTRECOVERABLE, some pages are nowhere and the VM must
 * be stopped; another negative errno, nothing changed then.
 */
int share_change(struct uv_vm *vm, struct gfn_range r, enum page_attr to);

/* How much of @r, which is memory, is resident in private windows.  Caller holds vm->lock. */
uint64_t share_resident(struct uv_vm *vm, struct gfn_range r);

/*
 * No vCPU touches @r between the two.  Caller holds vm->lock, not vm->memory.  0; -EDEADLK a
 * vCPU waits inside for a sealed page: pager_wait(), without locks, and again.
 */
int share_range_begin(struct uv_vm *vm, struct gfn_range r);
void share_range_end(struct uv_vm *vm, struct gfn_range r);

#endif
