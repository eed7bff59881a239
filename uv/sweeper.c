/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "uv/sweeper.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#include "base/failpoint.h"
#include "base/log.h"
#include "os/clock.h"
#include "os/crew.h"
#include "uv/publish.h"
#include "uv/stale.h"
#include "uv/sweep.h"

/* Batches of stale memory at a time: half a millisecond. */
#define DISCARD_TURN 16

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
	struct job *jobs;     /* guarded by lock; the first is under way */
	bool quit;            /* guarded by lock */
	_Atomic bool left;    /* there is an incarnation for the background */
	_Atomic bool cancel;
	struct wipers wipers;
	struct sweep sweep;
};

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
	/* What is in swap is not resident, and goes too. */
	return ret == -ENXIO ? window_discard(w, offset, bytes) : ret;
}

/*
 * Helpers when nothing of the VM runs any more: the processors that its vCPUs had are free.
 * Who waits for an answer to RESET does without, as that is the old way.
 */
static void begin_alone(const struct uv_vm *vm, struct wipers *w)
{
	unsigned int threads = vm->vcpu_count + 1;

	if (vm->sweeper != NULL || wipers_init(w, false) < 0) {
		wipers_init_alone(w);
		return;
	}
	if (threads > crew_threads())
		threads = crew_threads();
	wipers_help(w, threads - 1);
}

int sweep_now(struct uv_vm *vm, struct dying *d, struct abi_perform_ret *figures)
{
	struct wipers wipers;
	struct sweep sweep = {.vm = vm, .wipers = &wipers};
	int ret;

	begin_alone(vm, &wipers);
	ret = sweep_run(&sweep, d, figures);
	wipers_fini(&wipers);
	return ret;
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
	publish_vm(vm);
	pthread_mutex_unlock(&vm->lock);
}

static void run_job(struct sweeper *s, struct job *job)
{
	struct abi_perform_ret figures = {0};
	struct dying *d;
	int result = 0;

	while (result != -ECANCELED && (d = take_next(s, job)) != NULL) {
		int ret = sweep_run(&s->sweep, d, &figures);

		settle(s->vm, d, ret);
		if (ret < 0)
			result = ret;
	}
	pthread_mutex_lock(&s->vm->lock);
	figures.left = dying_bytes(s->vm);
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
	settle(s->vm, d, sweep_run(&s->sweep, d, &unused));
	publish_flush(s->vm);
	return true;
}

/* One turn at what is stale. */
static void discard_turn(struct sweeper *s)
{
	unsigned int n = 0;

	while (n < DISCARD_TURN && stale_discard_some(s->vm))
		n++;
}

enum duty { DUTY_NONE, DUTY_JOB, DUTY_QUIT };

static enum duty duty(struct sweeper *s, struct job **ret_job)
{
	enum duty d;

	pthread_mutex_lock(&s->lock);
	*ret_job = s->jobs;
	d = s->quit ? DUTY_QUIT : s->jobs != NULL ? DUTY_JOB : DUTY_NONE;
	pthread_mutex_unlock(&s->lock);
	return d;
}

static bool is_short(const struct uv_vm *vm)
{
	return __atomic_load_n(&vm->status->pressure, __ATOMIC_RELAXED) > 0;
}

/*
 * Discards what is stale, when it is due and nobody else wants a processor: the idle wiper
 * is asked for that and wakes this thread.  Else waits for work.
 */
static void rest(struct sweeper *s)
{
	struct pollfd p = {.fd = s->wipers.wake_fd, .events = POLLIN};
	bool turn = atomic_exchange(&s->wipers.turn, false);
	uint64_t due = stale_due(s->vm), now = clock_ns();
	int timeout = -1;

	wipers_help(&s->wipers, 0);
	if (due <= now && (turn || is_short(s->vm))) {
		discard_turn(s);
		return;
	}
	if (due <= now)
		wipers_nudge(&s->wipers);
	else if (due != UINT64_MAX)
		timeout = (int)((due - now) / NS_PER_MS) + 1;
	if (poll(&p, 1, timeout) > 0)
		wipers_awake(&s->wipers);
}

static void *sweeper_main(void *arg)
{
	struct sweeper *s = arg;
	struct job *job;
	enum duty d;

	while ((d = duty(s, &job)) != DUTY_QUIT) {
		if (d == DUTY_JOB) {
			run_job(s, job);
		} else if (atomic_exchange(&s->left, false)) {
			if (sweep_background(s))
				atomic_store(&s->left, true);
		} else {
			rest(s);
		}
	}
	return NULL;
}

int sweeper_new(struct uv_vm *vm, struct sweeper **ret)
{
	struct sweeper *s = calloc(1, sizeof(*s));
	int err = failpoint("uv-sweeper");

	if (s == NULL || err < 0) {
		free(s);
		return -ENOMEM;
	}
	err = wipers_init(&s->wipers, true);
	if (err < 0) {
		free(s);
		return err;
	}
	s->vm = vm;
	s->sweep =
		(struct sweep){.vm = vm, .wipers = &s->wipers, .cancel = &s->cancel, .paced = true};
	pthread_mutex_init(&s->lock, NULL);
	err = -pthread_create(&s->thread, NULL, sweeper_main, s);
	if (err < 0) {
		wipers_fini(&s->wipers);
		free(s);
		return err;
	}
	*ret = s;
	return 0;
}

/* Those that were never begun. */
static void drop_jobs(struct sweeper *s)
{
	struct job *job;

	while ((job = s->jobs) != NULL) {
		s->jobs = job->next;
		if (job->only != NULL && !incarnation_set_state(&job->only->inc, INC_LEFT))
			log_error("an unfinished incarnation was in a wrong state");
		free(job);
	}
}

void sweeper_stop(struct sweeper *s)
{
	pthread_mutex_lock(&s->lock);
	s->quit = true;
	atomic_store(&s->cancel, true);
	pthread_mutex_unlock(&s->lock);
	wipers_wake(&s->wipers);
	pthread_join(s->thread, NULL);
	wipers_quit(&s->wipers);
	drop_jobs(s);
}

void sweeper_free(struct sweeper *s)
{
	wipers_fini(&s->wipers);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

void sweeper_poke(struct sweeper *s)
{
	wipers_nudge(&s->wipers);
}

void sweeper_wake(struct sweeper *s)
{
	atomic_store(&s->left, true);
	wipers_wake(&s->wipers);
}

void sweeper_hurry(struct sweeper *s)
{
	wipers_wake(&s->wipers);
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
	pthread_mutex_unlock(&s->lock);
	wipers_wake(&s->wipers);
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
	wipers_wake(&s->wipers);
	return ret;
}
