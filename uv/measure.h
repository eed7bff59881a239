/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The measurement of a protected VM: SHA-384 over a sequence of records, each a type, its
 * numbers and its content, so that no two sequences look alike.  All numbers are 64-bit
 * little-endian.  docs/measurement.md has the format for verifiers.
 */
#ifndef UV_MEASURE_H
#define UV_MEASURE_H

#include <stdint.h>

#include "abi/uvcall.h"

struct measure;

/* 3 had the content of pages instead of digests: never again, or the two could be confused. */
enum measure_record { MEASURE_VM = 1, MEASURE_SLOT = 2, MEASURE_REGISTERS = 4, MEASURE_PAGES = 5 };

/*
 * Loads what the library needs from files, before the sandbox closes: no configuration
 * but the built-in one.  0 or -EIO.
 */
int measure_setup(void);

/* 0 or -ENOMEM. */
int measure_new(struct measure **ret);
void measure_free(struct measure *m);

/* Another measurement of all that @m has so far.  0 or -ENOMEM. */
int measure_copy(const struct measure *m, struct measure **ret);

/*
 * Begins a record.  After MEASURE_REGISTERS @b bytes of content follow through
 * measure_content(), after MEASURE_PAGES the digests of their chunks (uv/page_in.h).
 * 0 or -EIO.
 */
int measure_add(struct measure *m, enum measure_record type, uint64_t a, uint64_t b);
int measure_content(struct measure *m, const void *content, uint64_t bytes);

/* 0 or -EIO. */
int measure_finish(struct measure *m, uint8_t ret[ABI_MEASUREMENT_SIZE]);

#endif
