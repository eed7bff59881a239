/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "uv/sweep.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "base/failpoint.h"
#include "os/clock.h"
#include "os/crew.h"
#include "os/pressure.h"
#include "uv/executor.h"
#include "uv/publish.h"
#include "uv/seal.h"
#include "uv/dying.h"

/* How often to look at memory pressure, and to write figures for `lethe ps`. */
#define LOOK_MS 100

/* How long a sweep lasts before it is worth the price of a PSI trigger (os/pressure.h). */
#define ARM_NS NS_PER_SEC

/* Given back in one call: below a millisecond, even in 4K pages. */
#define GIVE_BACK_BYTES (4 * WIPER_CHUNK)

/* Of memory that is not to be wiped, in one chunk. */
#define PLAIN_CHUNK (32 * SIZE_2M)

/* ---- figures and pressure ---- */

/* Bytes that the sweep has done since it last said so, and what is left of all. */
static void announce(struct sweep *s)
{
	struct uv_vm *vm = s->vm;
	uint64_t bytes = s->bytes - s->announced, left, rate;

	pthread_mutex_lock(&vm->lock);
	meter_add(&vm->meter, clock_ns(), bytes);
	rate = meter_rate(&vm->meter);
	left = dying_bytes(vm);
	pthread_mutex_unlock(&vm->lock);
	s->announced = s->bytes;
	publish_progress(vm, bytes, left, rate);
}

/* Half of the processors while memory is short, all of them when there is hardly any. */
static unsigned int helpers_for(enum pressure level)
{
	unsigned int all = crew_threads(), half = all / 2 > 2 ? all / 2 : 2;

	return level == PRESSURE_NONE ? 0 : level == PRESSURE_HIGH && all > half ? all : half;
}

static void look(struct sweep *s)
{
	uint64_t now = clock_ns();
	enum pressure level;

	if (now - s->looked_ns < LOOK_MS * NS_PER_MS)
		return;
	s->looked_ns = now;
	level = pressure_level(&s->vm->meminfo);
	publish_pressure(s->vm, level);
	if (s->dying != NULL)
		announce(s);
	publish_flush(s->vm);
	if (!s->paced)
		return;
	s->urgent = level != PRESSURE_NONE;
	wipers_help(s->wipers, helpers_for(level));
	if (now - s->started_ns >= ARM_NS)
		pressure_arm(&s->vm->meminfo);
}

/* Sleeps until wipers are done, somebody wakes this thread, memory gets short, or to look. */
static void sleep_until_woken(struct sweep *s)
{
	struct meminfo *m = &s->vm->meminfo;
	struct pollfd fds[1 + PRESSURE_FDS] = {{.fd = s->wipers->wake_fd, .events = POLLIN}};
	unsigned int n = s->paced ? pressure_fds(m, fds + 1) : 0;

	if (poll(fds, 1 + n, LOOK_MS) > 0) {
		if (fds[0].revents != 0)
			wipers_awake(s->wipers);
		pressure_polled(m, fds + 1, n);
	}
}

static bool is_cancelled(const struct sweep *s)
{
	return s->cancel != NULL && atomic_load(s->cancel);
}

/* ---- chunks ---- */

static uint64_t count_resident(const struct wiper_chunk *c)
{
	uint64_t pages = 0;

	for (uint64_t i = 0; i < c->bytes / PAGE_SIZE; i++)
		pages += c->page[i] & 1;
	return pages * PAGE_SIZE;
}

/* Puts the next chunk of window @w into the queue.  False when there is no room or no more. */
static bool put_one(struct sweep *s, const struct window *w, bool secret)
{
	uint64_t limit = secret ? WIPER_CHUNK : PLAIN_CHUNK, left = w->bytes - s->ahead;
	struct wiper_chunk *c = left == 0 ? NULL : wipers_room(s->wipers);

	if (c == NULL)
		return false;
	c->base = w->base + s->ahead;
	c->bytes = left < limit ? left : limit;
	c->resident = 0;
	c->result = 0;
	if (secret) {
		c->result = window_residency(w, s->ahead, c->bytes, c->page);
		c->resident = c->result < 0 ? c->bytes : count_resident(c);
	}
	c->wipe = c->resident > 0 && (s->vm->flags & ABI_VM_WIPE_OFF) == 0;
	s->ahead += c->bytes;
	wipers_put(s->wipers, c->result < 0 || (secret && c->resident == 0));
	return true;
}

/* Chunks at the front of a window that end in the same way. */
struct run {
	uint64_t bytes, resident;
};

/* A part of the window is dealt with, which held @resident bytes. */
static void note_gone(struct sweep *s, uint64_t bytes, uint64_t resident)
{
	uint64_t left = s->dying->left;

	s->ahead -= bytes;
	s->bytes += resident;
	s->dying->left = resident < left ? left - resident : 0;
}

/* Unmaps @r, or quarantines it if that fails. */
static void give_back(struct sweep *s, struct window *w, bool secret, struct run *r)
{
	int ret;

	if (r->bytes == 0)
		return;
	ret = secret ? failpoint("uv-sweep-give-back") : 0;
	if (ret == 0)
		ret = window_trim(w, r->bytes);
	if (ret < 0) {
		s->dying->quarantined += secret ? r->resident : r->bytes;
		window_skip(w, r->bytes);
	}
	note_gone(s, r->bytes, r->resident);
	*r = (struct run){0};
}

/* A chunk that stays mapped: for good if it failed, else until the idle wiper is out of it. */
static void leave(struct sweep *s, struct window *w, const struct wiper_chunk *c)
{
	if (c->result < 0)
		s->dying->quarantined += c->resident;
	window_skip(w, c->bytes);
	if (c->taken_over && c->result == 0)
		wipers_linger(s->wipers, c);
	note_gone(s, c->bytes, c->resident);
}

/* Takes the chunks that are done, from the front, and gives them back. */
static bool take_done(struct sweep *s, struct window *w, bool secret)
{
	const struct wiper_chunk *c = wipers_done(s->wipers);
	struct run r = {0};
	bool any = c != NULL;

	for (; c != NULL; c = wipers_done(s->wipers)) {
		if (c->result < 0 || c->taken_over) {
			give_back(s, w, secret, &r);
			leave(s, w, c);
		} else {
			r.bytes += c->bytes;
			r.resident += c->resident;
		}
		wipers_take(s->wipers);
		if (r.resident >= GIVE_BACK_BYTES)
			give_back(s, w, secret, &r);
	}
	give_back(s, w, secret, &r);
	return any;
}

/* One step: some chunks more in the queue, and some out of it. */
static void step(struct sweep *s, struct window *w, bool secret)
{
	while (!is_cancelled(s) && put_one(s, w, secret))
		;
	if (is_cancelled(s))
		s->ahead -= wipers_withdraw(s->wipers);
	if (!take_done(s, w, secret) && !wipers_empty(s->wipers)) {
		bool patient = s->paced && !s->urgent && !is_cancelled(s);

		if ((patient || !(wipers_work(s->wipers) || wipers_take_over(s->wipers))) &&
			wipers_expect(s->wipers))
			sleep_until_woken(s);
	}
	look(s);
}

/* 0 or -ECANCELED; the queue is empty then. */
static int sweep_window(struct sweep *s, struct window *w, bool secret)
{
	s->ahead = 0;
	while (w->base != NULL && !(is_cancelled(s) && wipers_empty(s->wipers)))
		step(s, w, secret);
	return w->base == NULL ? 0 : -ECANCELED;
}

/* What is no window of slot @i. */
static int sweep_rest(struct sweep *s, unsigned int i)
{
	struct dying *d = s->dying;

	while (d->sealed[i] != NULL && !is_cancelled(s)) {
		if (!seal_table_free_some(d->sealed[i]))
			d->sealed[i] = NULL;
	}
	if (d->sealed[i] != NULL)
		return -ECANCELED;
	if (d->memfd[i] >= 0)
		close(d->memfd[i]);
	d->memfd[i] = -1;
	return 0;
}

static int sweep_slots(struct sweep *s)
{
	struct dying *d = s->dying;
	int ret = 0;

	while (d->slot < SLOTS_MAX && ret == 0) {
		ret = sweep_window(s, &d->window[d->slot], d->secret[d->slot]);
		if (ret == 0)
			ret = sweep_rest(s, d->slot);
		if (ret == 0)
			d->slot++;
	}
	return ret;
}

static void meter(struct sweep *s, void (*change)(struct meter *m, uint64_t now))
{
	pthread_mutex_lock(&s->vm->lock);
	change(&s->vm->meter, clock_ns());
	pthread_mutex_unlock(&s->vm->lock);
}

int sweep_run(struct sweep *s, struct dying *d, struct abi_perform_ret *figures)
{
	int ret;

	s->dying = d;
	s->bytes = s->announced = 0;
	s->started_ns = clock_ns();
	figures->incarnation = d->inc.number;
	meter(s, meter_begin);
	/* Before its memory: nothing may reach that any more, nor be told of its end. */
	if (d->remains != NULL)
		d->executor->bury(d->remains);
	d->remains = NULL;
	ret = sweep_slots(s);
	announce(s);
	meter(s, meter_end);
	figures->bytes += s->bytes;
	figures->duration_ns += clock_ns() - s->started_ns;
	if (ret == 0) {
		figures->quarantined += d->quarantined;
		ret = d->quarantined > 0 ? -EUCLEAN : 0;
	}
	s->dying = NULL;
	return ret;
}
