/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Memory of memslots (uv/calls_slot.c), as far as others have it taken away. */
#ifndef UV_SLOT_H
#define UV_SLOT_H

#include "uv/dying.h"

/*
 * Moves the whole incarnation to @d: what the executor has of it, all slots, attributes.
 * Caller holds vm->lock, vCPUs have ended.  Cannot fail.
 */
void dying_take_all(struct uv_vm *vm, struct dying *d);

#endif
