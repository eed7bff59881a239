/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "os/crew.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/failpoint.h"

struct crew {
	pthread_mutex_t turn; /* held over a run; outside lock */
	pthread_mutex_t lock;
	pthread_cond_t opened; /* a run began, or the end */
	pthread_cond_t left;   /* a helper has left the run */
	bool open;             /* helpers may join; guarded by lock */
	bool quit;             /* guarded by lock */
	unsigned int inside;   /* helpers in the run; guarded by lock */

	/* The run.  Written by its owner while nobody is inside. */
	crew_fn fn;
	void *ctx;
	uint64_t count;
	_Atomic uint64_t next;
	_Atomic int error;

	unsigned int helpers;
	pthread_t thread[CREW_MAX];
};

unsigned int crew_threads(void)
{
	cpu_set_t set;
	int n;

	if (sched_getaffinity(0, sizeof(set), &set) < 0)
		return 1;
	n = CPU_COUNT(&set);
	return n < 1 ? 1 : n > CREW_MAX ? CREW_MAX : (unsigned int)n;
}

static void work(struct crew *c)
{
	uint64_t i;

	while (atomic_load(&c->error) == 0 && (i = atomic_fetch_add(&c->next, 1)) < c->count) {
		int none = 0, ret = c->fn(c->ctx, i);

		if (ret < 0)
			(void)atomic_compare_exchange_strong(&c->error, &none, ret);
	}
}

static void *help(void *arg)
{
	struct crew *c = arg;

	pthread_mutex_lock(&c->lock);
	for (;;) {
		while (!c->quit && !c->open)
			pthread_cond_wait(&c->opened, &c->lock);
		if (c->quit)
			break;
		c->inside++;
		pthread_mutex_unlock(&c->lock);
		work(c);
		pthread_mutex_lock(&c->lock);
		/* Nothing is left to take: who has not come yet need not. */
		c->open = false;
		c->inside--;
		pthread_cond_signal(&c->left);
	}
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

static int start_helper(struct crew *c)
{
	int ret = failpoint("crew-thread");

	if (ret == 0)
		ret = -pthread_create(&c->thread[c->helpers], NULL, help, c);
	if (ret == 0)
		c->helpers++;
	return ret;
}

int crew_new(unsigned int threads, struct crew **ret)
{
	struct crew *c;
	int err = 0;

	if (threads < 1 || threads > CREW_MAX)
		return -EINVAL;
	c = failpoint("crew-new") < 0 ? NULL : calloc(1, sizeof(*c));
	if (c == NULL)
		return -ENOMEM;
	pthread_mutex_init(&c->turn, NULL);
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->opened, NULL);
	pthread_cond_init(&c->left, NULL);
	while (err == 0 && c->helpers < threads - 1)
		err = start_helper(c);
	if (err < 0) {
		crew_free(c);
		return err;
	}
	*ret = c;
	return 0;
}

void crew_free(struct crew *c)
{
	if (c == NULL)
		return;
	pthread_mutex_lock(&c->lock);
	c->quit = true;
	pthread_cond_broadcast(&c->opened);
	pthread_mutex_unlock(&c->lock);
	for (unsigned int i = 0; i < c->helpers; i++)
		pthread_join(c->thread[i], NULL);
	pthread_cond_destroy(&c->left);
	pthread_cond_destroy(&c->opened);
	pthread_mutex_destroy(&c->lock);
	pthread_mutex_destroy(&c->turn);
	free(c);
}

int crew_run(struct crew *c, crew_fn fn, void *ctx, uint64_t count)
{
	int ret;

	pthread_mutex_lock(&c->turn);
	c->fn = fn;
	c->ctx = ctx;
	c->count = count;
	atomic_store(&c->next, 0);
	atomic_store(&c->error, 0);
	if (count > 1) {
		pthread_mutex_lock(&c->lock);
		c->open = true;
		pthread_cond_broadcast(&c->opened);
		pthread_mutex_unlock(&c->lock);
	}
	work(c);
	pthread_mutex_lock(&c->lock);
	c->open = false;
	while (c->inside > 0)
		pthread_cond_wait(&c->left, &c->lock);
	pthread_mutex_unlock(&c->lock);
	ret = atomic_load(&c->error);
	pthread_mutex_unlock(&c->turn);
	return ret;
}
