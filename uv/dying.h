/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Incarnations on their way out.  core/incarnation.h has the rules of the queue that they wait
 * in; here is what each takes along.  uv/sweep.h destroys one.
 */
#ifndef UV_DYING_H
#define UV_DYING_H

#include "uv/vm.h"

/* An incarnation that leaves, with the memory that it takes along. */
struct dying {
	struct incarnation inc; /* first: core/ links these */
	struct window window[SLOTS_MAX];
	int memfd[SLOTS_MAX];
	bool secret[SLOTS_MAX]; /* private memory: to be wiped.  Else only unmapped. */
	struct seal_table *sealed[SLOTS_MAX];
	void *remains; /* of the executor */
	const struct executor *executor;
	bool background;       /* nobody performs this one: the sweeper takes it when idle */
	unsigned int slot;     /* where the sweeper goes on: its window is what is left of it */
	_Atomic uint64_t left; /* bytes still to destroy, an estimate: read while sweeping */
	uint64_t quarantined;
};

/* An empty struct dying for incarnation @number, or NULL. */
struct dying *dying_new(uint64_t number);

/* Frees @d, or NULL; its windows and descriptors must be gone or quarantined. */
void dying_free(struct dying *d);

/* Bytes still to destroy.  Caller holds vm->lock. */
uint64_t dying_bytes(const struct uv_vm *vm);

/*
 * Queues @d as a leftover: for the sweeper as soon as it is idle (@background), or for
 * the next who destroys.  Caller holds vm->lock.
 */
void dying_leave(struct uv_vm *vm, struct dying *d, bool background);

#endif
