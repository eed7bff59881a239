/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * malloc() that fails when the test says so, in a program linked with -Wl,--wrap=malloc.
 * Included by the one source file of such a test.
 */
#ifndef TEST_LIMITED_MALLOC_H
#define TEST_LIMITED_MALLOC_H

#include <stddef.h>

static long allocations_left = -1; /* -1: no limit */

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);

void *__wrap_malloc(size_t size)
{
	if (allocations_left == 0)
		return NULL;
	if (allocations_left > 0)
		allocations_left--;
	return __real_malloc(size);
}

#endif
