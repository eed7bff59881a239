/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How much memory there is still to have: for the machine and for every cgroup that this
 * process is in, version 1 or 2.
 *
 * All files are opened once, before a sandbox closes, and read again at each question.  A
 * process that is moved to another cgroup afterwards keeps asking about the old one.
 */
#ifndef OS_MEMINFO_H
#define OS_MEMINFO_H

#include <stdbool.h>
#include <stdint.h>

/* Of nested cgroups, this many from the innermost one on count. */
#define MEMINFO_LEVELS 16

struct meminfo_level {
	int max, high; /* the limits; -1: none of that kind */
	int usage;
	int stat;      /* -1: nothing is known to be reclaimable */
	int events;    /* of this limit, not of those below; of version 2, -1: none */
	uint64_t hits; /* of the limits, when events was read last */
};

struct meminfo {
	int machine;
	int pressure[2]; /* PSI of the machine and the innermost cgroup; -1: none */
	bool armed;      /* these are triggers, see os/pressure.h */
	_Atomic uint64_t stalled_until_ns; /* clock_ns() */
	unsigned int levels;
	struct meminfo_level level[MEMINFO_LEVELS];
};

/* In bytes; UINT64_MAX where there is no limit. */
struct meminfo_now {
	uint64_t total, available; /* of the machine */
	uint64_t limit, room;      /* of the cgroup that has the least room left */
};

/*
 * Opens what is there.  @root is put before every absolute path: "" but in tests.
 * Never fails: what cannot be opened sets no limit.
 */
void meminfo_open(struct meminfo *m, const char *root);

void meminfo_close(struct meminfo *m);

/*
 * How often the limits of @l were hit so far, which poll() tells of with POLLPRI from then on.
 * False if nobody can tell (any more).
 */
bool meminfo_hits(const struct meminfo_level *l, uint64_t *ret);

/* A file that cannot be read or understood sets no limit. */
void meminfo_read(const struct meminfo *m, struct meminfo_now *ret);

#endif
