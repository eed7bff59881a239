/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "uv/wiper.h"

#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/failpoint.h"
#include "os/futex.h"
#include "os/window.h"

/* The owner is woken for so many chunks at once. */
#define WAKE_FOR (WIPER_QUEUE / 4)

static struct wiper_chunk *at(struct wipers *w, unsigned int position)
{
	return &w->chunk[position % WIPER_QUEUE];
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

void wipers_awake(struct wipers *w)
{
	uint64_t count;

	if (read(w->wake_fd, &count, sizeof(count)) < 0)
		assert(errno == EAGAIN || errno == EINTR);
}

/* Wipes the resident pages.  No lock is held. */
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

/* Caller holds the lock. */
static struct wiper_chunk *begin(struct wipers *w)
{
	while (w->next != w->end && at(w, w->next)->state == CHUNK_DONE)
		w->next++;
	if (w->next == w->end)
		return NULL;
	at(w, w->next)->state = CHUNK_BEGUN;
	return at(w, w->next++);
}

/* Whether there is enough for the owner to be woken.  Caller holds the lock. */
static bool enough(struct wipers *w)
{
	unsigned int n = w->first;

	while (n != w->end && at(w, n)->state == CHUNK_DONE)
		n++;
	return n == w->end || n - w->first >= WAKE_FOR;
}

/* Does one chunk.  False if there is none. */
static bool work(struct wipers *w)
{
	struct wiper_chunk *c;
	bool wake;
	int ret;

	pthread_mutex_lock(&w->lock);
	c = begin(w);
	pthread_mutex_unlock(&w->lock);
	if (c == NULL)
		return false;
	ret = wipe(c);
	pthread_mutex_lock(&w->lock);
	c->result = ret;
	c->state = CHUNK_DONE;
	wake = w->owner_waits && enough(w);
	if (wake)
		w->owner_waits = false;
	pthread_mutex_unlock(&w->lock);
	if (wake)
		wipers_wake(w);
	return true;
}

bool wipers_work(struct wipers *w)
{
	return work(w);
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
		if (atomic_load(&w->wanted) > 0 || !work(w))
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
		if (!work(w))
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

struct wiper_chunk *wipers_room(struct wipers *w)
{
	/* Only the owner moves these two. */
	return w->end - w->first == WIPER_QUEUE ? NULL : at(w, w->end);
}

void wipers_put(struct wipers *w, bool done)
{
	pthread_mutex_lock(&w->lock);
	at(w, w->end)->state = done ? CHUNK_DONE : CHUNK_WAITS;
	w->end++;
	pthread_mutex_unlock(&w->lock);
	if (done)
		return;
	if (w->helpers > 0)
		stir(&w->helper_word, 1);
	else if (w->has_idle)
		stir(&w->idle_word, 1);
}

const struct wiper_chunk *wipers_done(struct wipers *w)
{
	struct wiper_chunk *c = NULL;

	pthread_mutex_lock(&w->lock);
	if (w->first != w->end && at(w, w->first)->state == CHUNK_DONE)
		c = at(w, w->first);
	pthread_mutex_unlock(&w->lock);
	return c;
}

void wipers_take(struct wipers *w)
{
	pthread_mutex_lock(&w->lock);
	assert(at(w, w->first)->state == CHUNK_DONE);
	if (w->next == w->first)
		w->next++;
	w->first++;
	pthread_mutex_unlock(&w->lock);
}

bool wipers_empty(struct wipers *w)
{
	return w->first == w->end;
}

uint64_t wipers_withdraw(struct wipers *w)
{
	uint64_t bytes = 0;

	pthread_mutex_lock(&w->lock);
	/* Chunks are begun in order: behind the first that waits, nobody is at work. */
	while (w->next != w->end && at(w, w->next)->state == CHUNK_DONE)
		w->next++;
	while (w->end != w->next)
		bytes += at(w, --w->end)->bytes;
	pthread_mutex_unlock(&w->lock);
	return bytes;
}

bool wipers_expect(struct wipers *w)
{
	bool wait;

	pthread_mutex_lock(&w->lock);
	wait = w->first != w->end && at(w, w->first)->state != CHUNK_DONE;
	w->owner_waits = wait;
	pthread_mutex_unlock(&w->lock);
	return wait;
}

void wipers_init_alone(struct wipers *w)
{
	*w = (struct wipers){.wake_fd = -1};
	pthread_mutex_init(&w->lock, NULL);
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

void wipers_fini(struct wipers *w)
{
	assert(wipers_empty(w));
	wipers_help(w, 0);
	atomic_store(&w->quit, true);
	stir(&w->idle_word, 1);
	if (w->has_idle)
		pthread_join(w->idle, NULL);
	if (w->wake_fd >= 0)
		close(w->wake_fd);
	pthread_mutex_destroy(&w->lock);
}
