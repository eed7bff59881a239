/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The test pattern, inline for the loops that fill and compare memory. */
#ifndef GUEST_PATTERN_H
#define GUEST_PATTERN_H

#include <stdint.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "pattern words are little-endian");

/* The step of the splitmix64 generator. */
#define PATTERN_STEP 0x9e3779b97f4a7c15u

static inline uint64_t pattern_mix(uint64_t x)
{
	uint64_t z = x + PATTERN_STEP;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

/* What seed and incarnation contribute: the word at GPA a is pattern_mix(a ^ this). */
static inline uint64_t pattern_key(uint64_t seed, uint64_t incarnation)
{
	return (seed << 32) ^ (incarnation << 56);
}

#endif
