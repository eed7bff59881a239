/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A line on a terminal that says how much is still to be forgotten, redrawn by a thread of its
 * own while there is anything.  It is always the last line, and gone when others write.
 */
#ifndef VMM_PROGRESS_H
#define VMM_PROGRESS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define PROGRESS_UNKNOWN UINT64_MAX

/* Bytes still to forget; PROGRESS_UNKNOWN if there are some.  Called on the line's thread. */
typedef uint64_t (*progress_left_fn)(void *ctx);

struct progress {
	FILE *out; /* NULL: no terminal, no line */
	progress_left_fn left;
	void *ctx;
	pthread_t thread;
	bool running; /* the thread's owner only */

	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool stopping;    /* Guarded by lock. */
	bool shown;       /* Guarded by lock. */
	uint64_t last;    /* Bytes that were left ... */
	uint64_t last_ns; /* ... then; the thread's own. */
};

void progress_init(struct progress *p, FILE *out, progress_left_fn left, void *ctx);
void progress_fini(struct progress *p);

/*
 * Draws the line from now on, until progress_stop().  Without a thread there is none.
 * Not for two threads at once; nothing to do if it is on, or off.
 */
void progress_start(struct progress *p);
void progress_stop(struct progress *p);

/* Somebody is about to write to the terminal.  Any thread. */
void progress_hide(struct progress *p);

#endif
