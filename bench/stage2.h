/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A stage-2 MMU alone, with one slot from guest address 0 on and a vCPU for each thread.
 * The host memory behind it is never touched, so there is none: addresses will do.
 */
#ifndef BENCH_STAGE2_H
#define BENCH_STAGE2_H

#include "mmu/mmu.h"

#define STAGE2_THREADS 8

struct stage2 {
	struct mmu *mmu;
	struct mmu_vcpu *vcpu[STAGE2_THREADS];
	unsigned int vcpus;
	uint8_t *host;
	enum mmu_level level; /* the largest leaf */
};

/* 0 or a negative errno; *ret must not move until stage2_close(). */
int stage2_open(struct stage2 *ret, uint64_t pages, enum mmu_level level, unsigned int vcpus);

void stage2_close(struct stage2 *s);

/*
 * On vCPU @vcpu, which the calling thread has attached and entered: translates @count pages
 * from @start on, every @stride pages, with a checkpoint after each 64.  False: one failed.
 */
bool stage2_touch(
	struct stage2 *s, unsigned int vcpu, uint64_t start, uint64_t count, uint64_t stride);

/* The same from a thread outside guest mode. */
bool stage2_fill(struct stage2 *s, unsigned int vcpu, uint64_t start, uint64_t count);

#endif
