/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Stale shared backing: pages of a slot's memfd that no GFN shows any more.  They hold
 * what was shared once, or what the hypervisor allocated beside a private page; the sweeper
 * gives them back.
 *
 * Lazily: an unshare only queues its range, merged with what is queued beside it, and a
 * page that is shared again is taken off the queue.  The queue is worked off when it has
 * become large (64 MiB), is about a second old, or memory is short.
 *
 * In batches, without a lock: stale_lock guards the queue and the marker of the batch under
 * way, and is not held while a batch is punched.  Who takes back pages of that very batch
 * waits for its end, which is at most 64 pages away; nobody else waits.  A batch that fails
 * stays queued and is tried again a second later.
 */
#ifndef UV_STALE_H
#define UV_STALE_H

#include "uv/vm.h"

/*
 * Queues a part.  Offsets and sizes in bytes of the slot's memfd.  Caller holds vm->lock.
 * 0 or -ENOMEM, nothing changed then.
 */
int stale_add(struct uv_vm *vm, struct slot_memory *m, uint64_t offset, uint64_t bytes);

/* Takes a part off the queue: it is to be shown again.  Caller as above.  0 or -ENOMEM. */
int stale_take_back(struct uv_vm *vm, struct slot_memory *m, uint64_t offset, uint64_t bytes);

/* Discards now, in the calling thread.  0 or a negative errno. */
int stale_discard_now(struct uv_vm *vm, struct slot_memory *m, uint64_t offset, uint64_t bytes);

/* The slot goes, and its queue with it.  Caller holds vm->lock. */
void stale_forget(struct uv_vm *vm, struct slot_memory *m);

/* The run of pages [@at, ...) up to @end, at most, that are queued (value 1) or not (0). */
struct range_run stale_run_at(
	struct uv_vm *vm, const struct slot_memory *m, uint64_t at, uint64_t end);

/* Bytes that wait in all slots. */
uint64_t stale_bytes(struct uv_vm *vm);

/* ---- for the sweeper ---- */

/* Discards one batch of any slot, if it is time.  False if there is nothing to do now. */
bool stale_discard_some(struct uv_vm *vm);

/*
 * When stale_discard_some() will have something to do, as of clock_ns(): 0 now, UINT64_MAX
 * not before the sweeper is poked.
 */
uint64_t stale_due(struct uv_vm *vm);

#endif
