/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Linked with --wrap: a call of window_private() from another file comes to
 * __wrap_window_private(), and __real_window_private() is the function itself.
 */
#include "test/model/destroy_watch.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>

#include "os/window.h"

#define WINDOWS_MAX 256
#define PAGE        4096u

int __real_window_private(uint64_t bytes, struct window *ret);
int __real_window_shared(int memfd, uint64_t bytes, struct window *ret);
int __real_window_discard(const struct window *w, uint64_t offset, uint64_t bytes);
int __real_window_unmap(struct window *w);
int __real_window_trim(struct window *w, uint64_t bytes);
void __real_window_skip(struct window *w, uint64_t bytes);
int __wrap_window_private(uint64_t bytes, struct window *ret);
int __wrap_window_shared(int memfd, uint64_t bytes, struct window *ret);
int __wrap_window_discard(const struct window *w, uint64_t offset, uint64_t bytes);
int __wrap_window_unmap(struct window *w);
int __wrap_window_trim(struct window *w, uint64_t bytes);
void __wrap_window_skip(struct window *w, uint64_t bytes);
int __wrap_sched_setscheduler(pid_t pid, int policy, const struct sched_param *param);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
	struct window window; /* base NULL: free */
	bool is_private;
} known[WINDOWS_MAX];
static bool wiping = true;

void watch_expect_wiping(bool on)
{
	wiping = on;
}

unsigned int watch_windows(void)
{
	unsigned int count = 0;

	pthread_mutex_lock(&lock);
	for (unsigned int i = 0; i < WINDOWS_MAX; i++)
		count += known[i].window.base != NULL;
	pthread_mutex_unlock(&lock);
	return count;
}

/* The first resident page of @w in [at, end), or UINT64_MAX.  Without the window's help. */
static uint64_t next_resident(const struct window *w, uint64_t at, uint64_t end)
{
	unsigned char is_resident;

	for (; at < end; at += PAGE) {
		if (mincore(w->base + at, PAGE, &is_resident) == 0 && (is_resident & 1) != 0)
			return at;
	}
	return UINT64_MAX;
}

bool watch_any_private(void)
{
	bool any = false;

	pthread_mutex_lock(&lock);
	for (unsigned int i = 0; i < WINDOWS_MAX && !any; i++) {
		const struct window *w = &known[i].window;

		any = w->base != NULL && known[i].is_private &&
		      next_resident(w, 0, w->bytes) != UINT64_MAX;
	}
	pthread_mutex_unlock(&lock);
	return any;
}

static void note(const struct window *w, bool is_private)
{
	unsigned int i;

	pthread_mutex_lock(&lock);
	for (i = 0; i < WINDOWS_MAX && known[i].window.base != NULL; i++)
		;
	if (i == WINDOWS_MAX)
		model_die("more than %d windows at once", WINDOWS_MAX);
	known[i].window = *w;
	known[i].is_private = is_private;
	pthread_mutex_unlock(&lock);
}

/* The entry of a window that must be mapped.  Caller holds lock. */
static unsigned int find(const struct window *w, const char *what)
{
	for (unsigned int i = 0; i < WINDOWS_MAX; i++) {
		if (w->base != NULL && known[i].window.base == w->base &&
			known[i].window.bytes == w->bytes)
			return i;
	}
	model_die("%s of a window that is not mapped", what);
}

/* Memory that nothing was ever put into may be there: it is zero, too. */
static void check_wiped(const struct window *w, uint64_t offset, uint64_t end)
{
	uint64_t at = offset;

	for (; wiping && (at = next_resident(w, at, end)) != UINT64_MAX; at += PAGE) {
		for (uint64_t o = 0; o < PAGE; o += sizeof(uint64_t)) {
			if (*(const uint64_t *)(w->base + at + o) != 0)
				model_die("page %llu of a private window goes unwiped",
					(unsigned long long)(at / PAGE));
		}
	}
}

int __wrap_window_private(uint64_t bytes, struct window *ret)
{
	int err = __real_window_private(bytes, ret);

	if (err == 0)
		note(ret, true);
	return err;
}

int __wrap_window_shared(int memfd, uint64_t bytes, struct window *ret)
{
	int err = __real_window_shared(memfd, bytes, ret);

	if (err == 0)
		note(ret, false);
	return err;
}

int __wrap_window_discard(const struct window *w, uint64_t offset, uint64_t bytes)
{
	pthread_mutex_lock(&lock);
	if (offset > w->bytes || bytes > w->bytes - offset)
		model_die("a discard goes beyond its window");
	if (!known[find(w, "discard")].is_private)
		model_die("shared memory is discarded as if it were private");
	pthread_mutex_unlock(&lock);
	check_wiped(w, offset, offset + bytes);
	return __real_window_discard(w, offset, bytes);
}

/* The first @bytes of @w go. */
static void note_gone(const struct window *w, uint64_t bytes, const char *what)
{
	unsigned int i;
	bool is_private;

	pthread_mutex_lock(&lock);
	i = find(w, what);
	if (bytes > w->bytes)
		model_die("%s of more than a window", what);
	is_private = known[i].is_private;
	known[i].window.base = bytes == w->bytes ? NULL : w->base + bytes;
	known[i].window.bytes = w->bytes - bytes;
	pthread_mutex_unlock(&lock);
	if (is_private)
		check_wiped(w, 0, bytes);
}

int __wrap_window_unmap(struct window *w)
{
	if (w->base != NULL)
		note_gone(w, w->bytes, "unmap");
	return __real_window_unmap(w);
}

int __wrap_window_trim(struct window *w, uint64_t bytes)
{
	note_gone(w, bytes, "trim");
	return __real_window_trim(w, bytes);
}

/* The first part is wiped and goes later, by itself. */
void __wrap_window_skip(struct window *w, uint64_t bytes)
{
	const struct window part = {.base = w->base, .bytes = bytes};

	note_gone(w, bytes, "skip");
	note(&part, false);
	__real_window_skip(w, bytes);
}

/* The sweeper at normal priority: it would starve beside tests that keep the CPUs busy. */
int __wrap_sched_setscheduler(pid_t pid, int policy, const struct sched_param *param)
{
	errno = EPERM;
	return -1;
}
