/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ABI_VM_SHARE_AUTO: choosing between copied and mapped by what a range is used for.
 *
 * A range of some size is copied at first.  While it stays shared, what is copied of it is
 * counted; when that has cost several times what mapping it costs, which is a copy of what
 * is resident, it is mapped: whichever way it is used after that, the guest has not paid
 * much more than if its use had been known.  A page of it that turns private says that it
 * was wrong: each such flip of a mapped range doubles what it must be used before it is
 * mapped again, and after a few of them all of it is copied again.  So a range changes
 * between the two only ever more rarely.
 *
 * It is done on a thread of its own, a few megabytes at a time, each of them a change like a
 * guest's conversion: whole, with its content, between share_range_begin() and -end().
 */
#ifndef UV_SHARE_AUTO_H
#define UV_SHARE_AUTO_H

#include "uv/vm.h"

/* Starts the thread.  0 or a negative errno. */
int share_auto_new(struct uv_vm *vm, struct share_auto **ret);

/* Ends the thread.  NULL is allowed, here and below. */
void share_auto_free(struct share_auto *s);

/* All of @range is shared, or private, from now on.  Caller holds vm->lock. */
void share_auto_shared(struct share_auto *s, struct gfn_range range);
void share_auto_unshared(struct share_auto *s, struct gfn_range range);

/* @bytes at @a were copied for the hypervisor.  Caller holds vm->memory for reading. */
void share_auto_used(struct share_auto *s, gpa_t a, uint64_t bytes);

/* The incarnation ends: nothing is shared.  Caller holds vm->lock, and memory for writing. */
void share_auto_forget(struct share_auto *s);

#endif
