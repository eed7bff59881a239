/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A protected guest with much resident memory, life after life. */
#ifndef BENCH_LIFE_H
#define BENCH_LIFE_H

#include "bench/bench.h"
#include "bench/guest.h"

struct life_config {
	uint64_t resident_bytes; /* at least 4M; also the guest's memory */
	bool small_pages;        /* no transparent huge pages in the ultravisor */
	bool eager;              /* reboots destroy first */
	bool wipe_off;
};

/* What one reboot took. */
struct life_times {
	uint64_t guest_ns;      /* from the request to the next first instruction */
	uint64_t destroy_ns;    /* the destruction alone */
	uint64_t destroy_bytes; /* what it destroyed */
};

/*
 * Makes the guest and lets it fill its memory for the first time.  0 or a negative errno
 * with *ret_why, as guest_new().
 */
int life_begin(const struct life_config *config, struct guest *ret, const char **ret_why);

/*
 * Reboots the guest, which is ready to, and destroys its past; then, unless @last, lets it
 * fill its memory again.
 */
int life_reboot(
	const struct life_config *config, struct guest *guest, bool last, struct life_times *ret);

/*
 * Whether a guest of @resident_bytes fits into what memory is available now, with some to
 * spare; if not, says so in a row for @row.
 */
bool life_fits(struct bench *bench, const struct bench_row *row, uint64_t resident_bytes);

#endif
