/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Arithmetic on untrusted numbers: every function says whether the result is exact. */
#ifndef BASE_CHECKED_H
#define BASE_CHECKED_H

#include <errno.h>

#include "base/types.h"

static inline bool checked_add(uint64_t a, uint64_t b, uint64_t *ret_sum)
{
	return !__builtin_add_overflow(a, b, ret_sum);
}

static inline bool checked_mul(uint64_t a, uint64_t b, uint64_t *ret_product)
{
	return !__builtin_mul_overflow(a, b, ret_product);
}

/* Rounds @x up to a multiple of @to (a power of two).  False if it does not fit. */
static inline bool checked_align_up(uint64_t x, uint64_t to, uint64_t *ret)
{
	uint64_t sum;

	if (!checked_add(x, to - 1, &sum))
		return false;
	*ret = align_down(sum, to);
	return true;
}

/*
 * Turns an untrusted byte range into whole pages.
 * Returns 0; -EINVAL if @bytes is 0 or either number is not a multiple of 4096;
 * -ERANGE if the range wraps or ends above 2^48.  *ret is untouched on failure.
 */
static inline int checked_gfn_range(uint64_t start, uint64_t bytes, struct gfn_range *ret)
{
	uint64_t end;

	if (bytes == 0 || ((start | bytes) & PAGE_MASK) != 0)
		return -EINVAL;
	if (!checked_add(start, bytes, &end) || end > GPA_END)
		return -ERANGE;
	ret->start = gfn(start >> PAGE_SHIFT);
	ret->count = bytes >> PAGE_SHIFT;
	return 0;
}

#endif
