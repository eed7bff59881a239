/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory pressure: whether somebody waits for memory, or soon will.
 *
 * There is pressure while little is left (of the machine, or below a cgroup's limit), and for
 * a while after the kernel said that tasks stalled for memory (PSI) or that a cgroup of
 * version 2 hit a limit (memory.events).  The latter two can be waited for.
 *
 * A PSI trigger is expensive to close (20 to 100 ms, the kernel waits for an RCU grace
 * period), and that delays the end of the process.  So there is none until pressure_arm().
 */
#ifndef OS_PRESSURE_H
#define OS_PRESSURE_H

#include <poll.h>
#include <stdbool.h>

#include "os/meminfo.h"

enum pressure {
	PRESSURE_NONE = 0,
	PRESSURE_RAISED = 1, /* less than an eighth is left, or tasks stalled */
	PRESSURE_HIGH = 2    /* less than a 32nd is left */
};

#define PRESSURE_FDS (2 + MEMINFO_LEVELS)

/* From now on stalls wake who polls.  What the kernel refuses is left out. */
void pressure_arm(struct meminfo *m);

/* Writes what is to be polled to @ret; returns how many, at most PRESSURE_FDS. */
unsigned int pressure_fds(const struct meminfo *m, struct pollfd *ret);

/* Takes note of what poll() found.  One thread at a time. */
void pressure_polled(struct meminfo *m, const struct pollfd *fds, unsigned int count);

/* Looks.  From any thread. */
enum pressure pressure_level(const struct meminfo *m);

#endif
