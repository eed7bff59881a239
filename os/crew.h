/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A crew: threads that share a piece of work with whoever has it done.
 *
 * crew_run() calls a function for each number below a count, in no order, on several
 * threads at once, one of which is the caller's.  Between runs the threads sleep.
 */
#ifndef OS_CREW_H
#define OS_CREW_H

#include <stdint.h>

/* More threads than this do not help what memory bandwidth bounds. */
#define CREW_MAX 16

struct crew;

/* Does number @index of the work.  0 or a negative errno. */
typedef int (*crew_fn)(void *ctx, uint64_t index);

/* How many threads may run at once here: at least 1, at most CREW_MAX. */
unsigned int crew_threads(void);

/*
 * A crew of @threads, from 1 to CREW_MAX, the one that calls crew_run() among them.
 * 0, -EINVAL, -ENOMEM or -EAGAIN (no more threads).
 */
int crew_new(unsigned int threads, struct crew **ret);

/* NULL is allowed.  No run is under way. */
void crew_free(struct crew *crew);

/*
 * Calls fn(ctx, i) once for each i < @count and returns when all calls have returned.  What
 * the caller wrote before is visible to them, and what they wrote to the caller after.
 * Once a call has failed no other begins, and the error of the first that failed is returned.
 * Runs that several threads ask for come one after the other; a call must not ask for one.
 */
int crew_run(struct crew *crew, crew_fn fn, void *ctx, uint64_t count);

#endif
