/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/progress.h"

#include "base/size.h"
#include "os/clock.h"

/* What is forgotten sooner than this is not worth a line. */
#define REDRAW_NS (250 * NS_PER_MS)

/* To the line's beginning, and clear it. */
#define CLEAR_LINE "\r\033[K"

void progress_init(struct progress *p, FILE *out, progress_left_fn left, void *ctx)
{
	pthread_condattr_t monotonic;

	*p = (struct progress){.out = out, .left = left, .ctx = ctx};
	pthread_mutex_init(&p->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&p->changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
}

void progress_fini(struct progress *p)
{
	progress_stop(p);
	pthread_cond_destroy(&p->changed);
	pthread_mutex_destroy(&p->lock);
}

static void hide_locked(struct progress *p)
{
	if (!p->shown)
		return;
	fputs(CLEAR_LINE, p->out);
	fflush(p->out);
	p->shown = false;
}

/* What is known by now: bytes, and from the second time on how fast they become less. */
static void draw_locked(struct progress *p, uint64_t left)
{
	uint64_t now = clock_ns(), done = p->last > left ? p->last - left : 0;
	char bytes[32], rate[32], eta[32];

	fputs(CLEAR_LINE "lethe: forgetting", p->out);
	if (left == PROGRESS_UNKNOWN)
		fputs(" the guest's memory", p->out);
	else
		fprintf(p->out, " %s", size_format(left, bytes, sizeof(bytes)));
	if (left != PROGRESS_UNKNOWN && p->last != PROGRESS_UNKNOWN && done > 0) {
		double per_second = (double)done * 1e9 / (double)(now - p->last_ns);

		fprintf(p->out, ", %s/s, %s left",
			size_format((uint64_t)per_second, rate, sizeof(rate)),
			duration_format(
				(uint64_t)((double)left * 1e9 / per_second), eta, sizeof(eta)));
	}
	fflush(p->out);
	p->last = left;
	p->last_ns = now;
	p->shown = true;
}

static void *progress_main(void *arg)
{
	struct progress *p = arg;

	pthread_mutex_lock(&p->lock);
	while (!p->stopping) {
		struct timespec until = clock_deadline(REDRAW_NS);
		uint64_t left;

		pthread_cond_timedwait(&p->changed, &p->lock, &until);
		if (p->stopping)
			break;
		/* It may have to wait for the ultravisor; who wants to write must not. */
		pthread_mutex_unlock(&p->lock);
		left = p->left(p->ctx);
		pthread_mutex_lock(&p->lock);
		if (left > 0 && !p->stopping)
			draw_locked(p, left);
		else
			hide_locked(p);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

void progress_start(struct progress *p)
{
	if (p->out == NULL || p->running)
		return;
	p->stopping = false;
	p->last = PROGRESS_UNKNOWN;
	p->running = pthread_create(&p->thread, NULL, progress_main, p) == 0;
}

void progress_stop(struct progress *p)
{
	if (!p->running)
		return;
	pthread_mutex_lock(&p->lock);
	p->stopping = true;
	hide_locked(p);
	pthread_cond_signal(&p->changed);
	pthread_mutex_unlock(&p->lock);
	pthread_join(p->thread, NULL);
	p->running = false;
}

void progress_hide(struct progress *p)
{
	if (p->out == NULL)
		return;
	pthread_mutex_lock(&p->lock);
	hide_locked(p);
	pthread_mutex_unlock(&p->lock);
}
