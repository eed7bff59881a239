/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "uv/stale.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/failpoint.h"
#include "base/log.h"
#include "os/clock.h"
#include "os/memfd.h"
#include "uv/sweeper.h"

/* One batch: short enough that a vCPU which waits for its end hardly notices. */
#define BATCH_BYTES (64 * PAGE_SIZE)

/* What a batch is looked for in. */
#define LOOK_PAGES (((uint64_t)64 << 20) / PAGE_SIZE)

/* When the queue is worked off. */
#define QUEUE_PAGES (((uint64_t)64 << 20) / PAGE_SIZE)
#define AGE_NS      NS_PER_SEC

#define RETRY_NS NS_PER_SEC

/* ---- the queue; all of it under stale_lock ---- */

static uint64_t queued_pages(const struct uv_vm *vm)
{
	uint64_t pages = 0;

	for (unsigned int i = 0; i < SLOTS_MAX; i++)
		pages += vm->memory_of[i].stale_pages;
	return pages;
}

static uint64_t queued_in(const struct slot_memory *m, uint64_t start, uint64_t end)
{
	struct range_run run = {.end = start};
	uint64_t pages = 0;

	while (run.end < end && range_map_next(m->stale, run.end, &run) && run.start < end)
		pages += (run.end < end ? run.end : end) - run.start;
	return pages;
}

static int set(struct slot_memory *m, uint64_t start, uint64_t end, bool queued)
{
	uint64_t before = queued_in(m, start, end);
	int ret = range_map_set(m->stale, start, end, queued);

	if (ret == 0)
		m->stale_pages += (queued ? end - start : 0) - before;
	return ret;
}

/* The queue is worked off from when it is due until it is empty. */
static bool is_due(struct uv_vm *vm, uint64_t now)
{
	struct discard *d = &vm->discard;
	uint64_t pages = queued_pages(vm);

	if (pages == 0)
		d->draining = false;
	else if (pages >= QUEUE_PAGES || now - d->since_ns >= AGE_NS ||
		 __atomic_load_n(&vm->status->pressure, __ATOMIC_RELAXED) > 0)
		d->draining = true;
	return d->draining && now >= d->retry_ns;
}

/* Notes that there is more.  True if the sweeper must hear of it. */
static bool note_added(struct uv_vm *vm, bool was_empty)
{
	struct discard *d = &vm->discard;
	bool was_draining = d->draining, was_armed = d->armed;

	if (was_empty)
		d->since_ns = clock_ns();
	d->armed = true;
	return !was_armed || (is_due(vm, d->since_ns) && !was_draining);
}

int stale_add(struct uv_vm *vm, struct slot_memory *m, uint64_t offset, uint64_t bytes)
{
	bool poke = false, was_empty;
	int ret;

	pthread_mutex_lock(&vm->stale_lock);
	was_empty = queued_pages(vm) == 0;
	ret = set(m, offset >> PAGE_SHIFT, (offset + bytes) >> PAGE_SHIFT, true);
	if (ret == 0)
		poke = note_added(vm, was_empty);
	pthread_mutex_unlock(&vm->stale_lock);
	if (poke)
		sweeper_poke(vm->sweeper);
	return ret;
}

int stale_take_back(struct uv_vm *vm, struct slot_memory *m, uint64_t offset, uint64_t bytes)
{
	uint64_t start = offset >> PAGE_SHIFT, end = (offset + bytes) >> PAGE_SHIFT;
	struct discard *d = &vm->discard;
	int ret;

	pthread_mutex_lock(&vm->stale_lock);
	/* First, so that the batch under way is the last that can have them. */
	ret = set(m, start, end, false);
	while (ret == 0 && d->slot == m && start < d->end && d->start < end)
		pthread_cond_wait(&d->ended, &vm->stale_lock);
	pthread_mutex_unlock(&vm->stale_lock);
	return ret;
}

int stale_discard_now(struct uv_vm *vm, struct slot_memory *m, uint64_t offset, uint64_t bytes)
{
	int ret = memfd_discard(m->memfd, offset, bytes);

	return ret < 0 ? ret : stale_take_back(vm, m, offset, bytes);
}

void stale_forget(struct uv_vm *vm, struct slot_memory *m)
{
	pthread_mutex_lock(&vm->stale_lock);
	if (vm->discard.slot == m)
		vm->discard.slot = NULL;
	range_map_free(m->stale);
	m->stale = NULL;
	m->stale_pages = 0;
	pthread_mutex_unlock(&vm->stale_lock);
}

struct range_run stale_run_at(
	struct uv_vm *vm, const struct slot_memory *m, uint64_t at, uint64_t end)
{
	struct range_run run;

	pthread_mutex_lock(&vm->stale_lock);
	run = range_map_run_at(m->stale, at, end);
	pthread_mutex_unlock(&vm->stale_lock);
	return run;
}

/* A slot that has just turned secure is queued whole, however little of it there is. */
static uint64_t waiting_in(const struct slot_memory *m)
{
	uint64_t held, queued = m->stale_pages << PAGE_SHIFT;

	if (queued == 0 || memfd_resident(m->memfd, &held) < 0)
		return queued;
	return queued < held ? queued : held;
}

uint64_t stale_bytes(struct uv_vm *vm)
{
	uint64_t bytes = 0;

	pthread_mutex_lock(&vm->stale_lock);
	for (unsigned int i = 0; i < SLOTS_MAX; i++)
		bytes += waiting_in(&vm->memory_of[i]);
	pthread_mutex_unlock(&vm->stale_lock);
	return bytes;
}

/* ---- batches ---- */

/*
 * Of [start, *end), which shows no data: how far the next batch reaches.  False if there is
 * nothing in it.  Pages that were allocated and never written are no data, but memory.
 */
static bool look_into_hole(int fd, uint64_t start, uint64_t *end)
{
	uint64_t bytes = *end - start, held;

	while (memfd_held(fd, start, bytes, &held) == 0) {
		*end = start + bytes;
		if (held <= BATCH_BYTES)
			return held > 0;
		bytes = align_down(bytes / 2, PAGE_SIZE);
	}
	/* Nobody knows: so little that it may be full. */
	*end = bytes < BATCH_BYTES ? start + bytes : start + BATCH_BYTES;
	return memfd_resident(fd, &held) < 0 || held > 0;
}

/* Where the first batch of [start, *end) ends.  False if there is nothing in it. */
static bool find_batch(int fd, uint64_t start, uint64_t *end)
{
	uint64_t data, data_end;

	if (memfd_next_data(fd, start, *end, &data, &data_end) < 0)
		data = *end;
	if (data > start) {
		*end = data;
		return look_into_hole(fd, start, end);
	}
	*end = data_end - start < BATCH_BYTES ? data_end : start + BATCH_BYTES;
	return true;
}

/* Gives back a part of [start, *end) and says how far that came.  0 or -errno. */
static int punch(int fd, uint64_t start, uint64_t *end)
{
	int ret = failpoint("uv-stale-punch");

	if (ret == 0 && find_batch(fd, start, end))
		ret = memfd_discard(fd, start, *end - start);
	return ret;
}

static struct slot_memory *find_queued(struct uv_vm *vm, struct range_run *ret)
{
	for (unsigned int i = 0; i < SLOTS_MAX; i++) {
		struct slot_memory *m = &vm->memory_of[i];

		if (m->stale_pages > 0 && range_map_next(m->stale, 0, ret))
			return m;
	}
	return NULL;
}

/*
 * Marks what a batch is taken from.  *ret_fd: a descriptor of its own, since the slot may
 * go meanwhile.  False if it is not time, or not possible now.
 */
static bool begin_batch(struct uv_vm *vm, struct slot_memory **ret, int *ret_fd)
{
	struct discard *d = &vm->discard;
	struct range_run run;
	int fd = -1;

	pthread_mutex_lock(&vm->stale_lock);
	*ret = is_due(vm, clock_ns()) ? find_queued(vm, &run) : NULL;
	if (*ret != NULL) {
		fd = fcntl((*ret)->memfd, F_DUPFD_CLOEXEC, 0);
		if (fd < 0)
			d->retry_ns = clock_ns() + RETRY_NS;
	}
	if (fd >= 0) {
		d->slot = *ret;
		d->start = run.start;
		d->end = run.end - run.start < LOOK_PAGES ? run.end : run.start + LOOK_PAGES;
		*ret_fd = fd;
	}
	pthread_mutex_unlock(&vm->stale_lock);
	return fd >= 0;
}

/* Takes the batch, up to page @done, off the queue, if it did not fail. */
static void end_batch(struct uv_vm *vm, struct slot_memory *m, uint64_t done, int result)
{
	struct discard *d = &vm->discard;

	pthread_mutex_lock(&vm->stale_lock);
	/* Else the slot has gone, and its queue with it. */
	if (d->slot == m) {
		if (result == 0)
			result = set(m, d->start, done, false);
		if (result < 0)
			d->retry_ns = clock_ns() + RETRY_NS;
	}
	d->slot = NULL;
	pthread_cond_broadcast(&d->ended);
	pthread_mutex_unlock(&vm->stale_lock);
}

bool stale_discard_some(struct uv_vm *vm)
{
	struct slot_memory *m;
	uint64_t start, end;
	int fd, ret;

	if (!begin_batch(vm, &m, &fd))
		return false;
	/* Only this thread writes these. */
	start = vm->discard.start << PAGE_SHIFT;
	end = vm->discard.end << PAGE_SHIFT;
	ret = punch(fd, start, &end);
	close(fd);
	if (ret < 0)
		log_warn("stale shared memory could not be discarded yet");
	end_batch(vm, m, end >> PAGE_SHIFT, ret);
	return true;
}

uint64_t stale_due(struct uv_vm *vm)
{
	struct discard *d = &vm->discard;
	uint64_t now = clock_ns(), due = UINT64_MAX;

	pthread_mutex_lock(&vm->stale_lock);
	d->armed = queued_pages(vm) > 0;
	if (is_due(vm, now))
		due = 0;
	else if (d->armed)
		due = d->draining ? d->retry_ns : d->since_ns + AGE_NS;
	pthread_mutex_unlock(&vm->stale_lock);
	return due;
}
