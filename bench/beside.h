/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a running guest loses while the memory of its last life is destroyed. */
#ifndef BENCH_BESIDE_H
#define BENCH_BESIDE_H

#include "bench/bench.h"

/* Adds the rows guest-loss and wipe-beside, with @bytes of memory to destroy. */
void bench_beside(struct bench *bench, uint64_t bytes);

#endif
