/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A meter: bytes per second over the last second in which there was work.
 *
 * Time between works does not count, so that what is shown after a pause is how fast the
 * work goes, not how rarely it comes.  Guarded by the owner's lock.
 */
#ifndef UV_METER_H
#define UV_METER_H

#include <stdint.h>

#define METER_SLOTS 8

struct meter {
	unsigned int active; /* works under way */
	uint64_t offset_ns;  /* between the clock and the meter's own, which stops in pauses */
	uint64_t seen_ns;
	uint64_t slot;                   /* the one that fills */
	uint64_t bytes[METER_SLOTS + 1]; /* of an eighth of a second each */
};

/* Work begins, or ends, at @now: nanoseconds of a clock that never goes back. */
void meter_begin(struct meter *m, uint64_t now);
void meter_end(struct meter *m, uint64_t now);

/* @bytes were done until @now; between meter_begin() and meter_end(). */
void meter_add(struct meter *m, uint64_t now, uint64_t bytes);

/* Bytes per second; 0 as long as nothing is known. */
uint64_t meter_rate(const struct meter *m);

#endif
