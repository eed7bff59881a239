/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test/unit/mmu/guest.h"

static void carry_out(struct guest *g)
{
	uint64_t len;

	switch (g->order) {
	case GUEST_ENTER:
		mmu_vcpu_enter(g->vcpu);
		break;
	case GUEST_TOUCH:
		g->host = mmu_vcpu_translate(g->vcpu, gpa(g->frame << PAGE_SHIFT), g->write, &len);
		break;
	case GUEST_CHECKPOINT:
		mmu_vcpu_checkpoint(g->vcpu);
		break;
	case GUEST_WAIT:
		mmu_vcpu_wait(g->vcpu);
		break;
	case GUEST_LEAVE:
		mmu_vcpu_leave(g->vcpu);
		break;
	case GUEST_QUIT:
		break;
	}
}

static void *guest_thread(void *arg)
{
	struct guest *g = arg;
	bool quit = false;

	mmu_vcpu_attach(g->vcpu);
	while (!quit) {
		sem_wait(&g->go);
		quit = g->order == GUEST_QUIT;
		carry_out(g);
		if (quit)
			mmu_vcpu_detach(g->vcpu);
		sem_post(&g->done);
	}
	return NULL;
}

void guest_start(struct guest *g, struct mmu *mmu)
{
	*g = (struct guest){0};
	sem_init(&g->go, 0, 0);
	sem_init(&g->done, 0, 0);
	assert_int_equal(mmu_vcpu_new(mmu, &g->vcpu), 0);
	assert_int_equal(pthread_create(&g->thread, NULL, guest_thread, g), 0);
}

void guest_post(struct guest *g, enum guest_order order)
{
	g->order = order;
	sem_post(&g->go);
}

void guest_done(struct guest *g)
{
	sem_wait(&g->done);
}

void guest_do(struct guest *g, enum guest_order order)
{
	guest_post(g, order);
	guest_done(g);
}

uint8_t *guest_touch(struct guest *g, uint64_t frame, bool write)
{
	g->frame = frame;
	g->write = write;
	guest_do(g, GUEST_TOUCH);
	return g->host;
}

void guest_stop(struct guest *g)
{
	guest_do(g, GUEST_QUIT);
	pthread_join(g->thread, NULL);
	mmu_vcpu_free(g->vcpu);
	sem_destroy(&g->go);
	sem_destroy(&g->done);
}

static void *caller_thread(void *arg)
{
	struct caller *c = arg;

	c->fn(c->arg);
	atomic_store(&c->returned, true);
	return NULL;
}

void caller_start(struct caller *c, void (*fn)(void *arg), void *arg)
{
	c->fn = fn;
	c->arg = arg;
	atomic_store(&c->returned, false);
	assert_int_equal(pthread_create(&c->thread, NULL, caller_thread, c), 0);
}

void caller_join(struct caller *c)
{
	pthread_join(c->thread, NULL);
	assert_true(atomic_load(&c->returned));
}
