/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Buckets.  Samples below HISTOGRAM_STEPS have a bucket each (row 0); a sample whose
 * highest bit is b >= 4 is in row b - 3, in the step that its next four bits name.
 * Row r > 0 therefore has steps of 2^(r - 1).
 */
#include "base/histogram.h"

#include <string.h>

#define STEP_BITS 4
#define BUCKETS   (64 * HISTOGRAM_STEPS)

_Static_assert(1 << STEP_BITS == HISTOGRAM_STEPS, "a row has 2^STEP_BITS steps");

static unsigned int bucket_of(uint64_t sample)
{
	unsigned int row;

	if (sample < HISTOGRAM_STEPS)
		return (unsigned int)sample;
	row = 63 - (unsigned int)__builtin_clzll(sample) - STEP_BITS + 1;
	return row * HISTOGRAM_STEPS + ((sample >> (row - 1)) & (HISTOGRAM_STEPS - 1));
}

/* The largest sample that belongs to @bucket. */
static uint64_t bucket_last(unsigned int bucket)
{
	unsigned int row = bucket / HISTOGRAM_STEPS;
	uint64_t first;

	if (row == 0)
		return bucket;
	first = (uint64_t)(HISTOGRAM_STEPS + bucket % HISTOGRAM_STEPS) << (row - 1);
	return first + (((uint64_t)1 << (row - 1)) - 1);
}

void histogram_reset(struct histogram *h)
{
	memset(h, 0, sizeof(*h));
}

void histogram_add(struct histogram *h, uint64_t sample)
{
	if (h->count == 0 || sample < h->min)
		h->min = sample;
	if (sample > h->max)
		h->max = sample;
	h->count++;
	h->sum += sample;
	h->bucket[bucket_of(sample)]++;
}

uint64_t histogram_quantile(const struct histogram *h, unsigned int per_mille)
{
	uint64_t rank, seen = 0, value;

	if (h->count == 0)
		return 0;
	if (per_mille >= 1000)
		return h->max;
	/* The rank-th smallest sample, counted from 1; split so that it cannot overflow. */
	rank = h->count / 1000 * per_mille + (h->count % 1000 * per_mille + 999) / 1000;
	if (rank <= 1)
		return h->min;
	for (unsigned int b = 0; b < BUCKETS; b++) {
		seen += h->bucket[b];
		if (seen < rank)
			continue;
		value = bucket_last(b);
		return value > h->max ? h->max : value < h->min ? h->min : value;
	}
	return h->max;
}
