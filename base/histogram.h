/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Log-linear histogram of 64-bit samples: 64 powers of two, 16 steps each (about 6% error).
 * Fixed size, no allocation, adding is wait-free for one writer.
 */
#ifndef BASE_HISTOGRAM_H
#define BASE_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_STEPS 16

struct histogram {
	uint64_t count;
	uint64_t min, max, sum;
	uint32_t bucket[64 * HISTOGRAM_STEPS];
};

void histogram_reset(struct histogram *h);
void histogram_add(struct histogram *h, uint64_t sample);

/* The value below which @per_mille thousandths of the samples lie; 0 when empty. */
uint64_t histogram_quantile(const struct histogram *h, unsigned int per_mille);

#endif
