/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Memory of memslots: adding, taking away, handing over to an incarnation that leaves. */
#ifndef UV_SLOT_H
#define UV_SLOT_H

#include "uv/vm.h"

/* An empty struct dying for incarnation @number, or NULL. */
struct dying *dying_new(uint64_t number);

/*
 * Queues @d as a leftover: for the sweeper as soon as it is idle (@background), or for
 * the next who destroys.  Caller holds vm->lock.
 */
void dying_leave(struct uv_vm *vm, struct dying *d, bool background);

/*
 * Moves the whole incarnation to @d: what the executor has of it, all slots, attributes.
 * Caller holds vm->lock, vCPUs have ended.  Cannot fail.
 */
void dying_take_all(struct uv_vm *vm, struct dying *d);

#endif
