/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The lives of a VM that are on their way out.
 *
 * An incarnation that leaves the running VM is queued here until its memory is
 * destroyed.  The rules are those of the s390 PV commands PREPARE and PERFORM: at most
 * one is set aside whose destruction has not begun; once it has begun, the next may be
 * set aside; one whose destruction was cancelled is a leftover, never lost.
 *
 * Pure state: the memory itself belongs to whoever embeds struct incarnation.
 * Guarded by the owner's lock.
 */
#ifndef CORE_INCARNATION_H
#define CORE_INCARNATION_H

#include <stdbool.h>
#include <stdint.h>

enum incarnation_state {
	/* Waits for PERFORM.  At most one. */
	INC_SET_ASIDE = 0,
	/* Its destruction was cancelled, or nobody waits for it: any later destroy takes it. */
	INC_LEFT = 1,
	/* The sweeper works on it.  At most one. */
	INC_DESTROYING = 2,
	/* All memory is back.  To be freed. */
	INC_DONE = 3,
	/* A step failed: its memory stays mapped and is never used again. */
	INC_QUARANTINED = 4
};

struct incarnation {
	struct incarnation *next; /* older to newer */
	uint64_t number;
	enum incarnation_state state;
};

struct incarnation_queue {
	struct incarnation *first;
};

/* Returns false, changing nothing, if the edge is not legal. */
__attribute__((warn_unused_result)) bool incarnation_set_state(
	struct incarnation *inc, enum incarnation_state to);

/* Appends @inc, in state SET_ASIDE or LEFT.  0; -EALREADY if SET_ASIDE is taken. */
int incarnation_push(struct incarnation_queue *q, struct incarnation *inc);

/* The one in @state, the oldest first; NULL if none. */
struct incarnation *incarnation_find(
	const struct incarnation_queue *q, enum incarnation_state state);

/* Takes @inc out of the queue. */
void incarnation_remove(struct incarnation_queue *q, struct incarnation *inc);

#endif
