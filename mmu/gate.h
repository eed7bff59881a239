/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The fault gate: a reader-writer lock that costs its readers no shared cache line.
 *
 * Readers are faults, about to recheck and install.  The writer is whoever changes what a
 * fault rechecks (slots, invalidations, logging), with mmu->lock held.  Each
 * side announces itself first and looks at the other second, both sequentially consistent,
 * so at least one sees the other: the reader steps back, the writer waits.
 *
 * A reader is inside for some hundred nanoseconds (a few microseconds when it splits a
 * leaf), and neither allocates, sleeps nor calls the owner there.  A writer is inside for a
 * constant few stores.  If a reader's thread loses its CPU inside, the writer waits for it to
 * get it back; mmu_zap_all(), which must not, does without the gate.
 */
#ifndef MMU_GATE_H
#define MMU_GATE_H

#include <sched.h>

#include "mmu/internal.h"

#define GATE_SPINS 128

static inline void gate_pause(unsigned int *spins)
{
	if (++*spins % GATE_SPINS == 0)
		sched_yield();
	else
		mmu_relax();
}

static inline void gate_enter(struct vcpu *v)
{
	unsigned int spins = 0;

	for (;;) {
		atomic_store(&v->in_gate, 1);
		if (!atomic_load(&v->mmu->gate_closed))
			return;
		atomic_store_explicit(&v->in_gate, 0, memory_order_release);
		while (atomic_load_explicit(&v->mmu->gate_closed, memory_order_acquire))
			gate_pause(&spins);
	}
}

static inline void gate_leave(struct vcpu *v)
{
	atomic_store_explicit(&v->in_gate, 0, memory_order_release);
}

/* mmu->lock is held. */
static inline void gate_close(struct mmu *mmu)
{
	unsigned int spins = 0;

	atomic_store(&mmu->gate_closed, 1);
	for (unsigned int i = 0; i < mmu->vcpus; i++) {
		while (atomic_load(&mmu->vcpu[i]->in_gate))
			gate_pause(&spins);
	}
}

static inline void gate_open(struct mmu *mmu)
{
	atomic_store_explicit(&mmu->gate_closed, 0, memory_order_release);
}

#endif
