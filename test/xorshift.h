/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Random numbers that are the same in each run: xorshift from a seed, which is not 0. */
#ifndef TEST_XORSHIFT_H
#define TEST_XORSHIFT_H

#include <stdint.h>

static inline uint64_t xorshift(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

#endif
