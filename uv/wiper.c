/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "uv/wiper.h"

#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/failpoint.h"
#include "os/futex.h"
#include "os/window.h"

/* The owner is woken for so many chunks at once. */
#define WAKE_FOR (WIPER_QUEUE / 4)

static struct wiper_chunk *at(struct wipers *w, unsigned int position)
{
	return atomic_load(&w->ring[position % WIPER_QUEUE]);
}

static enum chunk_state state_at(struct wipers *w, unsigned int position)
{
	return atomic_load(&at(w, position)->state);
}

static bool change(struct wiper_chunk *c, enum chunk_state from, enum chunk_state to)
{
	return atomic_compare_exchange_strong(&c->state, &from, to);
}

static void stir(uint32_t *word, int count)
{
	__atomic_fetch_add(word, 1, __ATOMIC_SEQ_CST);
	futex_wake(word, count);
}

void wipers_wake(struct wipers *w)
{
	uint64_t one = 1;

	/* It cannot fail but by overflow, and then it is readable all the same. */
	if (w->wake_fd >= 0 && write(w->wake_fd, &one, sizeof(one)) < 0)
		assert(errno == EAGAIN);
}

/* If that fails, what stays mapped are zeros. */
static void unmap(const struct wiper_chunk *c)
{
	(void)window_unmap(&(struct window){.base = c->base, .bytes = c->bytes});
}

/* What was taken over is the owner's again if the idle wiper is out of it. */
static void reclaim(struct wipers *w)
{
	struct wiper_chunk *c = w->left;

	if (c == NULL || atomic_load(&c->state) != CHUNK_FREE)
		return;
	if (w->lingers)
		unmap(c);
	w->lingers = false;
	w->left = NULL;
	w->spare = c;
}

void wipers_awake(struct wipers *w)
{
	uint64_t count;

	if (read(w->wake_fd, &count, sizeof(count)) < 0)
		assert(errno == EAGAIN || errno == EINTR);
	reclaim(w);
}

/* Wipes the resident pages. */
static int wipe(const struct wiper_chunk *c)
{
	unsigned int pages = (unsigned int)(c->bytes / PAGE_SIZE), i, n;
	int ret = c->resident > 0 ? failpoint("uv-sweep-wipe") : 0;

	if (ret < 0 || !c->wipe)
		return ret;
	for (i = 0; i < pages; i += n) {
		for (n = 1; i + n < pages && ((c->page[i] ^ c->page[i + n]) & 1) == 0; n++)
			;
		if ((c->page[i] & 1) != 0)
			window_wipe(c->base + i * PAGE_SIZE, n * PAGE_SIZE);
	}
	return 0;
}

/* The oldest chunk that waits, now in state @to; or NULL.  From any thread. */
static struct wiper_chunk *begin(struct wipers *w, enum chunk_state to)
{
	unsigned int first = atomic_load(&w->first);

	for (unsigned int i = 0; i < WIPER_QUEUE; i++) {
		struct wiper_chunk *c = at(w, first + i);

		if (change(c, CHUNK_WAITS, to))
			return c;
	}
	return NULL;
}

/* Whether there is enough for the owner to be woken. */
static bool enough(struct wipers *w)
{
	unsigned int first = atomic_load(&w->first), end = atomic_load(&w->end), n = first;

	while (n != end && state_at(w, n) == CHUNK_DONE)
		n++;
	return n == end || n - first >= WAKE_FOR;
}

/*
 * Who is the last to be done with something that the owner waits for sees that it waits: the
 * owner says so before it looks, and a wiper is done before it looks.
 */
static void wake_owner(struct wipers *w)
{
	if (atomic_load(&w->owner_waits) && enough(w) && atomic_exchange(&w->owner_waits, false))
		wipers_wake(w);
}

/* The owner unmaps what lingers. */
static void wake_for_left(struct wipers *w, struct wiper_chunk *c)
{
	atomic_store(&c->state, CHUNK_FREE);
	wipers_wake(w);
}

static bool work(struct wipers *w, enum chunk_state as)
{
	struct wiper_chunk *c = begin(w, as);

	if (c == NULL)
		return false;
	c->result = wipe(c);
	if (change(c, as, CHUNK_DONE))
		wake_owner(w);
	else
		wake_for_left(w, c);
	return true;
}

bool wipers_work(struct wipers *w)
{
	return work(w, CHUNK_BEGUN);
}

static void *idle_main(void *arg)
{
	struct wipers *w = arg;
	uint32_t seen;

	/* For this thread only.  Where it is refused, normal priority will do. */
	(void)sched_setscheduler(0, SCHED_IDLE, &(struct sched_param){0});
	for (;;) {
		seen = __atomic_load_n(&w->idle_word, __ATOMIC_SEQ_CST);
		if (atomic_load(&w->quit))
			return NULL;
		if (atomic_exchange(&w->nudged, false)) {
			atomic_store(&w->turn, true);
			wipers_wake(w);
		}
		if (atomic_load(&w->wanted) > 0 || !work(w, CHUNK_IDLE))
			(void)futex_wait(&w->idle_word, seen, NULL);
	}
}

static void *helper_main(void *arg)
{
	const struct wiper_helper *h = arg;
	struct wipers *w = h->wipers;
	uint32_t seen;

	for (;;) {
		seen = __atomic_load_n(&w->helper_word, __ATOMIC_SEQ_CST);
		if (h->number >= atomic_load(&w->wanted))
			return NULL;
		if (!work(w, CHUNK_BEGUN))
			(void)futex_wait(&w->helper_word, seen, NULL);
	}
}

void wipers_help(struct wipers *w, unsigned int count)
{
	if (count > WIPER_HELPERS)
		count = WIPER_HELPERS;
	if (count == w->helpers)
		return;
	atomic_store(&w->wanted, count);
	if (count < w->helpers)
		stir(&w->helper_word, WIPER_HELPERS);
	while (w->helpers > count)
		pthread_join(w->helper[--w->helpers].thread, NULL);
	while (w->helpers < count) {
		struct wiper_helper *h = &w->helper[w->helpers];

		*h = (struct wiper_helper){.wipers = w, .number = w->helpers};
		if (pthread_create(&h->thread, NULL, helper_main, h) != 0)
			break;
		w->helpers++;
	}
	atomic_store(&w->wanted, w->helpers);
	if (w->helpers == 0)
		stir(&w->idle_word, 1);
}

void wipers_nudge(struct wipers *w)
{
	atomic_store(&w->nudged, true);
	stir(&w->idle_word, 1);
}

/* The chunk that the idle wiper has begun, replaced by another that says the same. */
static struct wiper_chunk *replace_idle(struct wipers *w)
{
	for (unsigned int n = w->first; n != w->end; n++) {
		struct wiper_chunk *c = at(w, n), *own;

		if (!change(c, CHUNK_IDLE, CHUNK_LEFT))
			continue;
		/* It has begun this one, so it is out of the one before. */
		reclaim(w);
		own = w->spare;
		own->base = c->base;
		own->bytes = c->bytes;
		own->resident = c->resident;
		own->wipe = c->wipe;
		own->nothing = false;
		/* What is not wiped, nobody writes to. */
		own->taken_over = c->wipe;
		memcpy(own->page, c->page, sizeof(own->page));
		atomic_store(&own->state, CHUNK_BEGUN);
		atomic_store(&w->ring[n % WIPER_QUEUE], own);
		w->spare = NULL;
		w->left = c;
		return own;
	}
	return NULL;
}

bool wipers_take_over(struct wipers *w)
{
	struct wiper_chunk *c = replace_idle(w);

	if (c == NULL)
		return false;
	c->result = wipe(c);
	atomic_store(&c->state, CHUNK_DONE);
	return true;
}

void wipers_linger(struct wipers *w, const struct wiper_chunk *c)
{
	if (w->left != NULL && w->left->base == c->base) {
		w->lingers = true;
		reclaim(w);
	} else {
		unmap(c);
	}
}

struct wiper_chunk *wipers_room(struct wipers *w)
{
	return w->end - w->first == WIPER_QUEUE ? NULL : at(w, w->end);
}

void wipers_put(struct wipers *w, bool done)
{
	struct wiper_chunk *c = at(w, w->end);

	c->nothing = done;
	c->taken_over = false;
	w->end++;
	atomic_store(&c->state, done ? CHUNK_DONE : CHUNK_WAITS);
	if (done)
		return;
	if (w->helpers > 0)
		stir(&w->helper_word, 1);
	else if (w->has_idle)
		stir(&w->idle_word, 1);
}

const struct wiper_chunk *wipers_done(struct wipers *w)
{
	return w->first != w->end && state_at(w, w->first) == CHUNK_DONE ? at(w, w->first) : NULL;
}

void wipers_take(struct wipers *w)
{
	assert(state_at(w, w->first) == CHUNK_DONE);
	atomic_store(&at(w, w->first)->state, CHUNK_FREE);
	w->first++;
}

bool wipers_empty(struct wipers *w)
{
	return w->first == w->end;
}

uint64_t wipers_withdraw(struct wipers *w)
{
	uint64_t bytes = 0;

	while (w->end != w->first) {
		struct wiper_chunk *c = at(w, w->end - 1);

		if (c->nothing)
			atomic_store(&c->state, CHUNK_FREE);
		else if (!change(c, CHUNK_WAITS, CHUNK_FREE))
			break;
		bytes += c->bytes;
		w->end--;
	}
	return bytes;
}

bool wipers_expect(struct wipers *w)
{
	atomic_store(&w->owner_waits, true);
	if (w->first != w->end && state_at(w, w->first) != CHUNK_DONE)
		return true;
	atomic_store(&w->owner_waits, false);
	return false;
}

void wipers_init_alone(struct wipers *w)
{
	memset(w, 0, sizeof(*w));
	w->wake_fd = -1;
	for (unsigned int i = 0; i < WIPER_QUEUE; i++)
		atomic_init(&w->ring[i], &w->chunk[i]);
	w->spare = &w->chunk[WIPER_QUEUE];
}

int wipers_init(struct wipers *w, bool idle)
{
	int ret = 0;

	wipers_init_alone(w);
	w->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (w->wake_fd < 0)
		ret = -errno;
	if (ret == 0 && idle)
		ret = -pthread_create(&w->idle, NULL, idle_main, w);
	w->has_idle = ret == 0 && idle;
	if (ret < 0)
		wipers_fini(w);
	return ret;
}

void wipers_quit(struct wipers *w)
{
	assert(wipers_empty(w));
	wipers_help(w, 0);
	atomic_store(&w->quit, true);
	stir(&w->idle_word, 1);
}

void wipers_fini(struct wipers *w)
{
	wipers_quit(w);
	if (w->has_idle)
		pthread_join(w->idle, NULL);
	reclaim(w);
	if (w->wake_fd >= 0)
		close(w->wake_fd);
}
