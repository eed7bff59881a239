/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Stale shared backing: pages of a slot's memfd that no GFN shows any more.  They hold
 * what was shared once; the sweeper gives them back in batches.  A page that is shared
 * again is taken off first, so that its new content is never discarded.
 */
#ifndef UV_STALE_H
#define UV_STALE_H

#include "uv/vm.h"

/* Offsets and sizes in bytes of the slot's memfd.  0 or -ENOMEM, nothing changed then. */
int stale_add(struct uv_vm *vm, struct slot_memory *m, uint64_t offset, uint64_t bytes);

/* Waits for a discard of these very pages that is under way.  0 or -ENOMEM. */
int stale_take_back(struct uv_vm *vm, struct slot_memory *m, uint64_t offset, uint64_t bytes);

/* Discards now, in the calling thread.  0 or a negative errno. */
int stale_discard_now(struct uv_vm *vm, struct slot_memory *m, uint64_t offset, uint64_t bytes);

/* Discards one batch of any slot.  True if there was one. */
bool stale_discard_some(struct uv_vm *vm);

/* Bytes that wait in all slots. */
uint64_t stale_bytes(struct uv_vm *vm);

#endif
