/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sizes as people write them: decimal or 0x hexadecimal with K, M, G, T (powers of 1024). */
#ifndef BASE_SIZE_H
#define BASE_SIZE_H

#include <stddef.h>
#include <stdint.h>

/*
 * Parses the @len bytes at @text, all of them: "4096", "0x1000", "8G".
 * Returns 0; -EINVAL if it is not a size; -ERANGE if it does not fit 64 bits.
 * Freestanding: used by the workload interpreter too.
 */
int size_parse(const char *text, size_t len, uint64_t *ret_bytes);

/* Writes "8G", "1.5G", "4K", "512B" into @buf; returns @buf. */
char *size_format(uint64_t bytes, char *buf, size_t len);

/* Writes "310 ns", "4.2 us", "1.3 ms", "2.5 s" into @buf; returns @buf. */
char *duration_format(uint64_t ns, char *buf, size_t len);

#endif
