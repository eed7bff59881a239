/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The part of the question convert that is about the attribute map alone. */
#ifndef BENCH_CONVERT_MAP_H
#define BENCH_CONVERT_MAP_H

#include "bench/bench.h"

/* Adds PATTERN/map-bytes and PATTERN/map, and the same of the other structure as tree. */
void bench_convert_map(struct bench *bench);

#endif
