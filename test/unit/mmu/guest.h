/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A vCPU on a thread of its own that does one thing at a time, as told, and stays in guest
 * mode in between: what a vCPU must not do, but a test needs.
 */
#ifndef TEST_MMU_GUEST_H
#define TEST_MMU_GUEST_H

#include <semaphore.h>

#include "test/unit/mmu/owner.h"

enum guest_order {
	GUEST_ENTER,
	GUEST_TOUCH,
	GUEST_CHECKPOINT,
	GUEST_WAIT,
	GUEST_LEAVE,
	GUEST_QUIT
};

struct guest {
	pthread_t thread;
	struct mmu_vcpu *vcpu;
	sem_t go, done;
	enum guest_order order;
	uint64_t frame; /* TOUCH */
	bool write;
	uint8_t *host; /* its result */
};

/* Starts it, outside guest mode. */
void guest_start(struct guest *g, struct mmu *mmu);

/* Gives an order; waits until it is carried out. */
void guest_post(struct guest *g, enum guest_order order);
void guest_done(struct guest *g);
void guest_do(struct guest *g, enum guest_order order);
uint8_t *guest_touch(struct guest *g, uint64_t frame, bool write);

/* Ends it, from outside guest mode. */
void guest_stop(struct guest *g);

/* Runs @fn(@arg) on a thread of its own, for calls that wait for vCPUs. */
struct caller {
	pthread_t thread;
	void (*fn)(void *arg);
	void *arg;
	_Atomic bool returned;
};

void caller_start(struct caller *c, void (*fn)(void *arg), void *arg);
void caller_join(struct caller *c);

#endif
