/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The sweeper: the thread that does the linear work behind everybody's back.
 *
 * It destroys incarnations that are on their way out (uv/sweep.h) and discards stale shared
 * backing.  The thread itself has normal priority, so that a lock which a guest may wait for
 * is never held by one that waits for a processor; what it does is paced by a thread of idle
 * priority (uv/wiper.h), whose work is nearly all there is.  While memory is short, helpers
 * take the place of that one.
 */
#ifndef UV_SWEEPER_H
#define UV_SWEEPER_H

#include "uv/dying.h"

struct sweeper;

/* How a destroy ended.  Called without locks, on the thread that did it. */
typedef void (*sweep_done_fn)(
	struct uv_vm *vm, uint32_t seq, int result, const struct abi_perform_ret *figures);

/* 0 or a negative errno. */
int sweeper_new(struct uv_vm *vm, struct sweeper **ret);

/*
 * Ends the thread at its next chunk, whatever the idle wiper is at, and helpers.  What is
 * left stays queued in vm->dying.
 */
void sweeper_stop(struct sweeper *s);

/* Waits for the idle wiper's end and frees.  After sweeper_stop(). */
void sweeper_free(struct sweeper *s);

/* stale_due() has changed.  Takes no lock. */
void sweeper_poke(struct sweeper *s);

/* There is an incarnation to destroy that nobody performs. */
void sweeper_wake(struct sweeper *s);

/* Memory is short: what is stale shall not wait until a processor has nothing else to do. */
void sweeper_hurry(struct sweeper *s);

/*
 * PERFORM: destroys what is set aside and what was left of such before; @done is called
 * with @seq at the end.  Caller holds vm->lock.  0; -ENODATA nothing to destroy; -ENOMEM.
 */
int sweeper_perform(struct sweeper *s, uint32_t seq, sweep_done_fn done);

/* CANCEL.  -ENODATA when no perform is under way. */
int sweeper_cancel(struct sweeper *s);

/*
 * Destroys @d in the calling thread, to its end; 0 or -EUCLEAN.  @d is not queued.
 */
int sweep_now(struct uv_vm *vm, struct dying *d, struct abi_perform_ret *figures);

/*
 * Destroys all that is set aside or left, in the calling thread, but for what the sweeper
 * is at.  0 or -EUCLEAN; adds to *figures.
 */
int destroy_all_waiting(struct uv_vm *vm, struct abi_perform_ret *figures);

/* Wipes what is resident of a part of a window and gives it back.  0 or -errno. */
int sweep_release(struct uv_vm *vm, const struct window *w, uint64_t offset, uint64_t bytes);

#endif
