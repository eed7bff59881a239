/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "uv/sweeper.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/failpoint.h"
#include "base/log.h"
#include "os/clock.h"
#include "uv/executor.h"
#include "uv/publish.h"
#include "uv/seal.h"
#include "uv/stale.h"

/* A PERFORM that waits for its end. */
struct job {
	struct job *next;
	uint32_t seq;
	sweep_done_fn done;
	struct dying *only; /* the set-aside incarnation it began, besides leftovers */
};

struct sweeper {
	struct uv_vm *vm;
	pthread_t thread;
	pthread_mutex_t lock; /* inside vm->lock */
	pthread_cond_t work;
	struct job *jobs; /* guarded by lock; the first is under way */
	bool poked;       /* guarded by lock */
	bool quit;        /* guarded by lock */
	_Atomic bool cancel;
};

static void wipe_and_discard(
	struct uv_vm *vm, struct dying *d, const struct window *w, uint64_t offset, uint64_t bytes)
{
	int ret = failpoint("uv-sweep-wipe");

	if (ret == 0 && (vm->flags & ABI_VM_WIPE_OFF) == 0)
		window_wipe(w->base + offset, bytes);
	if (ret == 0)
		ret = window_discard(w, offset, bytes);
	if (ret < 0)
		d->quarantined += bytes;
}

/*
 * Does one chunk of @d, at most 2M.  Returns its bytes (0: a window was finished), or
 * -ENODATA when nothing is left.
 */
static int64_t sweep_chunk(struct uv_vm *vm, struct dying *d)
{
	struct window *w;
	uint64_t bytes, left;
	int ret;

	while (d->slot < SLOTS_MAX && d->window[d->slot].base == NULL)
		d->slot++;
	if (d->slot == SLOTS_MAX)
		return -ENODATA;
	if (d->sealed[d->slot] != NULL) {
		if (!seal_table_free_some(d->sealed[d->slot]))
			d->sealed[d->slot] = NULL;
		return 0;
	}
	w = &d->window[d->slot];
	if (d->secret[d->slot]) {
		ret = window_next_resident(w, d->offset, w->bytes, &d->offset, &bytes);
		if (ret == 0) {
			wipe_and_discard(vm, d, w, d->offset, bytes);
			d->offset += bytes;
			left = atomic_load(&d->left);
			atomic_store(&d->left, bytes < left ? left - bytes : 0);
			return (int64_t)bytes;
		}
		if (ret != -ENXIO)
			d->quarantined += w->bytes - d->offset;
	}
	/* A window that holds quarantined memory stays mapped, so that nobody gets it. */
	if (d->quarantined == 0 && window_unmap(w) < 0)
		d->quarantined += w->bytes;
	if (d->memfd[d->slot] >= 0)
		close(d->memfd[d->slot]);
	d->memfd[d->slot] = -1;
	d->slot++;
	d->offset = 0;
	return 0;
}

static uint64_t rate(uint64_t bytes, uint64_t since_ns)
{
	uint64_t ns = clock_ns() - since_ns;

	return ns == 0 ? 0 : (uint64_t)((double)bytes * 1e9 / (double)ns);
}

/* Sweeps @d until done or *cancel.  Returns 0, -ECANCELED or -EUCLEAN; adds to *f. */
static int sweep(
	struct uv_vm *vm, struct dying *d, const _Atomic bool *cancel, struct abi_perform_ret *f)
{
	uint64_t start = clock_ns(), swept = 0;
	int64_t n;

	f->incarnation = d->inc.number;
	/* Before its memory: nothing may reach that any more, nor be told of its end. */
	if (d->remains != NULL)
		d->executor->bury(d->remains);
	d->remains = NULL;
	while ((n = sweep_chunk(vm, d)) >= 0) {
		swept += (uint64_t)n;
		publish_progress(vm, (uint64_t)n, d->left, rate(swept, start));
		if (cancel != NULL && atomic_load(cancel)) {
			f->bytes += swept;
			f->duration_ns += clock_ns() - start;
			return -ECANCELED;
		}
	}
	f->bytes += swept;
	f->quarantined += d->quarantined;
	f->duration_ns += clock_ns() - start;
	return d->quarantined > 0 ? -EUCLEAN : 0;
}

int sweep_now(struct uv_vm *vm, struct dying *d, struct abi_perform_ret *figures)
{
	return sweep(vm, d, NULL, figures);
}

int sweep_release(struct uv_vm *vm, const struct window *w, uint64_t offset, uint64_t bytes)
{
	uint64_t at = offset, n, end = offset + bytes;
	int ret;

	while ((ret = window_next_resident(w, at, end, &at, &n)) == 0) {
		if ((vm->flags & ABI_VM_WIPE_OFF) == 0)
			window_wipe(w->base + at, n);
		ret = window_discard(w, at, n);
		if (ret < 0)
			return ret;
		at += n;
	}
	return ret == -ENXIO ? 0 : ret;
}

uint64_t sweep_left(const struct uv_vm *vm)
{
	uint64_t left = 0;

	for (const struct incarnation *i = vm->dying.first; i != NULL; i = i->next)
		left += ((const struct dying *)i)->left;
	return left;
}

void dying_free(struct dying *d)
{
	free(d);
}

/* The oldest leftover that is, or is not, for the background.  Caller holds vm->lock. */
static struct dying *find_left(const struct uv_vm *vm, bool background)
{
	for (struct incarnation *i = vm->dying.first; i != NULL; i = i->next) {
		if (i->state == INC_LEFT && ((struct dying *)i)->background == background)
			return (struct dying *)i;
	}
	return NULL;
}

/* The next incarnation that the current job is to destroy, now DESTROYING; or NULL. */
static struct dying *take_next(struct sweeper *s, struct job *job)
{
	struct uv_vm *vm = s->vm;
	struct dying *d = job->only;

	pthread_mutex_lock(&vm->lock);
	if (d == NULL) {
		d = find_left(vm, false);
		if (d != NULL && !incarnation_set_state(&d->inc, INC_DESTROYING))
			d = NULL;
	}
	job->only = NULL;
	pthread_mutex_unlock(&vm->lock);
	return d;
}

/* After sweep(): DONE ones go, quarantined ones are counted, cancelled ones stay. */
static void settle(struct uv_vm *vm, struct dying *d, int result)
{
	enum incarnation_state to = result == 0            ? INC_DONE
				    : result == -ECANCELED ? INC_LEFT
							   : INC_QUARANTINED;

	pthread_mutex_lock(&vm->lock);
	if (!incarnation_set_state(&d->inc, to))
		log_error("an incarnation ended in a wrong state");
	if (to != INC_LEFT) {
		incarnation_remove(&vm->dying, &d->inc);
		vm->quarantined_bytes += d->quarantined;
		dying_free(d);
	}
	uv_vm_publish(vm);
	pthread_mutex_unlock(&vm->lock);
}

static void run_job(struct sweeper *s, struct job *job)
{
	struct abi_perform_ret figures = {0};
	struct dying *d;
	int result = 0;

	while (result != -ECANCELED && (d = take_next(s, job)) != NULL) {
		int ret = sweep(s->vm, d, &s->cancel, &figures);

		settle(s->vm, d, ret);
		if (ret < 0)
			result = ret;
	}
	pthread_mutex_lock(&s->vm->lock);
	figures.left = sweep_left(s->vm);
	pthread_mutex_unlock(&s->vm->lock);

	pthread_mutex_lock(&s->lock);
	s->jobs = job->next;
	atomic_store(&s->cancel, s->quit);
	pthread_mutex_unlock(&s->lock);
	publish_flush(s->vm);
	job->done(s->vm, job->seq, result, &figures);
	free(job);
}

/* An incarnation that nobody performs, now DESTROYING; or NULL. */
static struct dying *take_background(struct uv_vm *vm)
{
	struct dying *d;

	pthread_mutex_lock(&vm->lock);
	d = find_left(vm, true);
	if (d != NULL && !incarnation_set_state(&d->inc, INC_DESTROYING))
		d = NULL;
	pthread_mutex_unlock(&vm->lock);
	return d;
}

static bool sweep_background(struct sweeper *s)
{
	struct abi_perform_ret unused = {0};
	struct dying *d = take_background(s->vm);

	if (d == NULL)
		return false;
	settle(s->vm, d, sweep(s->vm, d, &s->cancel, &unused));
	return true;
}

/* Waits for work, or until stale memory is due.  False when the sweeper is to end. */
static bool wait_for_work(struct sweeper *s, struct job **ret_job)
{
	uint64_t due = stale_due(s->vm);
	struct timespec until = {
		.tv_sec = (time_t)(due / NS_PER_SEC), .tv_nsec = (long)(due % NS_PER_SEC)};
	int ret = 0;
	bool go;

	pthread_mutex_lock(&s->lock);
	while (!s->quit && !s->poked && s->jobs == NULL && ret == 0) {
		if (due == UINT64_MAX)
			pthread_cond_wait(&s->work, &s->lock);
		else
			ret = pthread_cond_timedwait(&s->work, &s->lock, &until);
	}
	go = !s->quit;
	s->poked = false;
	*ret_job = s->jobs;
	pthread_mutex_unlock(&s->lock);
	return go;
}

static bool has_job(struct sweeper *s)
{
	bool yes;

	pthread_mutex_lock(&s->lock);
	yes = s->jobs != NULL || s->quit;
	pthread_mutex_unlock(&s->lock);
	return yes;
}

static void *sweeper_main(void *arg)
{
	struct sweeper *s = arg;
	struct job *job;

	/* Idle priority for this thread only; where that is refused, normal will do. */
	(void)sched_setscheduler(0, SCHED_IDLE, &(struct sched_param){0});
	while (wait_for_work(s, &job)) {
		if (job != NULL)
			run_job(s, job);
		while (!has_job(s) && (sweep_background(s) || stale_discard_some(s->vm)))
			;
	}
	return NULL;
}

int sweeper_new(struct uv_vm *vm, struct sweeper **ret)
{
	struct sweeper *s = calloc(1, sizeof(*s));
	int err = failpoint("uv-sweeper");
	pthread_condattr_t cond;

	if (s == NULL || err < 0) {
		free(s);
		return -ENOMEM;
	}
	s->vm = vm;
	pthread_mutex_init(&s->lock, NULL);
	pthread_condattr_init(&cond);
	pthread_condattr_setclock(&cond, CLOCK_MONOTONIC);
	pthread_cond_init(&s->work, &cond);
	pthread_condattr_destroy(&cond);
	err = -pthread_create(&s->thread, NULL, sweeper_main, s);
	if (err < 0) {
		free(s);
		return err;
	}
	*ret = s;
	return 0;
}

void sweeper_free(struct sweeper *s)
{
	struct job *job;

	pthread_mutex_lock(&s->lock);
	s->quit = true;
	atomic_store(&s->cancel, true);
	pthread_cond_signal(&s->work);
	pthread_mutex_unlock(&s->lock);
	pthread_join(s->thread, NULL);
	while ((job = s->jobs) != NULL) {
		s->jobs = job->next;
		if (job->only != NULL && !incarnation_set_state(&job->only->inc, INC_LEFT))
			log_error("an unfinished incarnation was in a wrong state");
		free(job);
	}
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->work);
	free(s);
}

void sweeper_poke(struct sweeper *s)
{
	pthread_mutex_lock(&s->lock);
	s->poked = true;
	pthread_cond_signal(&s->work);
	pthread_mutex_unlock(&s->lock);
}

int sweeper_perform(struct sweeper *s, uint32_t seq, sweep_done_fn done)
{
	struct uv_vm *vm = s->vm;
	struct dying *d = (struct dying *)incarnation_find(&vm->dying, INC_SET_ASIDE);
	struct job *job, **at = &s->jobs;

	if (d == NULL && find_left(vm, false) == NULL)
		return -ENODATA;
	job = calloc(1, sizeof(*job));
	if (job == NULL)
		return -ENOMEM;
	if (d != NULL && !incarnation_set_state(&d->inc, INC_DESTROYING)) {
		free(job);
		return -EPROTO;
	}
	*job = (struct job){.seq = seq, .done = done, .only = d};
	pthread_mutex_lock(&s->lock);
	while (*at != NULL)
		at = &(*at)->next;
	*at = job;
	pthread_cond_signal(&s->work);
	pthread_mutex_unlock(&s->lock);
	return 0;
}

int sweeper_cancel(struct sweeper *s)
{
	int ret = -ENODATA;

	pthread_mutex_lock(&s->lock);
	if (s->jobs != NULL) {
		atomic_store(&s->cancel, true);
		ret = 0;
	}
	pthread_mutex_unlock(&s->lock);
	return ret;
}
