/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Wipers: threads that overwrite memory with zeros for whoever sweeps, and do nothing else.
 *
 * One of them has idle priority: it runs when nobody else wants the processor, and that is
 * what paces a sweep.  Helpers of normal priority come and go (an unprivileged thread cannot
 * leave idle priority); while there are any, the idle one rests.
 *
 * Who waits long for a processor must not make others wait.  So the idle wiper takes no lock
 * and makes no call that needs the address space's lock.  That is why finding and giving back
 * memory is not its work.  What it has begun, the owner takes over by wipers_take_over() when
 * it cannot wait: both wipe then, which harms nobody as long as the memory stays mapped.
 *
 * One thread, the owner, puts chunks in and takes them out, in the same order.  A chunk's
 * state says whose it is:
 *
 *	FREE   => WAITS, DONE          the owner puts it
 *	WAITS  => BEGUN                a helper or the owner, which are not long without a
 *	                               processor
 *	WAITS  => IDLE                 the idle wiper
 *	WAITS  => FREE                 the owner withdraws it
 *	BEGUN, IDLE => DONE => FREE    done, then taken out
 *	IDLE   => LEFT => FREE         taken over: another chunk has its place in the queue, and
 *	                               this one is free when the idle wiper is out of it
 */
#ifndef UV_WIPER_H
#define UV_WIPER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/types.h"

#define WIPER_CHUNK   SIZE_2M /* 25 to 250 us of wiping, see docs/decisions/0008-wiping.md */
#define WIPER_PAGES   (WIPER_CHUNK / PAGE_SIZE)
#define WIPER_QUEUE   32
#define WIPER_HELPERS 16

enum chunk_state { CHUNK_FREE, CHUNK_WAITS, CHUNK_BEGUN, CHUNK_IDLE, CHUNK_LEFT, CHUNK_DONE };

struct wiper_chunk {
	uint8_t *base;
	uint64_t bytes;    /* at most WIPER_CHUNK if it is to be wiped */
	uint64_t resident; /* bytes of these */
	bool wipe;
	int result;      /* 0 or a negative errno, once done */
	bool nothing;    /* was put as done; the owner's */
	bool taken_over; /* the idle wiper may still write zeros here; the owner's */
	_Atomic enum chunk_state state;
	unsigned char page[WIPER_PAGES]; /* bit 0: resident */
};

struct wiper_helper {
	struct wipers *wipers;
	unsigned int number;
	pthread_t thread;
};

struct wipers {
	int wake_fd; /* readable when the owner is to look; -1: no threads */
	bool has_idle;
	pthread_t idle;
	struct wiper_helper helper[WIPER_HELPERS];
	unsigned int helpers; /* that run; only the owner looks */

	/* Futex words: changed whenever there is something to do. */
	uint32_t idle_word, helper_word;
	_Atomic bool nudged, quit;
	_Atomic bool turn;           /* the idle wiper has had a processor since it was nudged */
	_Atomic unsigned int wanted; /* helpers */

	/* Only the owner changes these. */
	_Atomic unsigned int first, end; /* the oldest, behind the youngest */
	struct wiper_chunk *_Atomic ring[WIPER_QUEUE];
	struct wiper_chunk *spare; /* NULL: it has the place of the one that is left */
	struct wiper_chunk *left;  /* taken over; the idle wiper may be out of it */
	bool lingers;              /* that one is to be unmapped */

	_Atomic bool owner_waits;
	struct wiper_chunk chunk[WIPER_QUEUE + 1];
};

/* With an idle wiper or without, and perhaps helpers later.  0 or a negative errno. */
int wipers_init(struct wipers *w, bool idle);

/* Without any thread: all chunks are the owner's own work. */
void wipers_init_alone(struct wipers *w);

/* Lets the idle wiper end, and does not wait for that.  The queue is empty. */
void wipers_quit(struct wipers *w);

/* Ends all threads: waits for the idle one.  The queue is empty. */
void wipers_fini(struct wipers *w);

/* So many helpers, as far as there are threads to be had; at most WIPER_HELPERS. */
void wipers_help(struct wipers *w, unsigned int count);

/* The idle wiper shall note a turn and wake the owner.  From any thread, takes no lock. */
void wipers_nudge(struct wipers *w);

/* Wakes the owner.  From any thread. */
void wipers_wake(struct wipers *w);

/* A chunk to be filled in and put; NULL when the queue is full. */
struct wiper_chunk *wipers_room(struct wipers *w);

/* Queues what wipers_room() gave; @done: there is nothing to do. */
void wipers_put(struct wipers *w, bool done);

/* The oldest chunk if it is done, else NULL. */
const struct wiper_chunk *wipers_done(struct wipers *w);

/* Takes the oldest chunk, which is done, out. */
void wipers_take(struct wipers *w);

bool wipers_empty(struct wipers *w);

/* Takes back the youngest chunks, as far as nobody has begun them; returns their bytes. */
uint64_t wipers_withdraw(struct wipers *w);

/* Wipes the oldest chunk that nobody has begun, in this thread.  False if there is none. */
bool wipers_work(struct wipers *w);

/*
 * Wipes in this thread the chunk that the idle wiper has begun, which is then taken_over.
 * False if there is none.
 */
bool wipers_take_over(struct wipers *w);

/*
 * Chunk @c, which was taken over, is in no window any more: unmaps it, at the latest when the
 * owner wakes after the idle wiper is out of it.
 */
void wipers_linger(struct wipers *w, const struct wiper_chunk *c);

/*
 * Asks that wake_fd becomes readable when several chunks are done, or all.  False: the
 * oldest one is done already.
 */
bool wipers_expect(struct wipers *w);

/* Forgets that wake_fd was readable, and tidies up. */
void wipers_awake(struct wipers *w);

#endif
