/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "uv/stale.h"

#include <errno.h>

#include "base/log.h"
#include "os/memfd.h"

/* One batch: short enough that a vCPU which waits for stale_lock does not notice. */
#define BATCH_PAGES 64

static int set(
	struct uv_vm *vm, struct slot_memory *m, uint64_t offset, uint64_t bytes, uint32_t value)
{
	int ret;

	pthread_mutex_lock(&vm->stale_lock);
	ret = range_map_set(m->stale, offset >> PAGE_SHIFT, (offset + bytes) >> PAGE_SHIFT, value);
	pthread_mutex_unlock(&vm->stale_lock);
	return ret;
}

int stale_add(struct uv_vm *vm, struct slot_memory *m, uint64_t offset, uint64_t bytes)
{
	return set(vm, m, offset, bytes, 1);
}

int stale_take_back(struct uv_vm *vm, struct slot_memory *m, uint64_t offset, uint64_t bytes)
{
	return set(vm, m, offset, bytes, 0);
}

int stale_discard_now(struct uv_vm *vm, struct slot_memory *m, uint64_t offset, uint64_t bytes)
{
	int ret = memfd_discard(m->memfd, offset, bytes);

	return ret < 0 ? ret : stale_take_back(vm, m, offset, bytes);
}

/* Takes the next stale run with memory out of @m and discards it.  Holds stale_lock. */
static bool discard_one(struct slot_memory *m)
{
	struct range_run run;
	uint64_t start, end, pages;

	if (m->memfd < 0 || !range_map_next(m->stale, 0, &run))
		return false;
	if (memfd_next_data(
		    m->memfd, run.start << PAGE_SHIFT, run.end << PAGE_SHIFT, &start, &end) < 0) {
		/* Nothing there: the whole run is done, however long. */
		start = end = run.end << PAGE_SHIFT;
	}
	pages = (end - start) >> PAGE_SHIFT;
	if (pages > BATCH_PAGES)
		end = start + (BATCH_PAGES << PAGE_SHIFT);
	if (end > start && memfd_discard(m->memfd, start, end - start) < 0)
		log_warn("stale shared memory could not be discarded");
	if (range_map_set(m->stale, run.start, end >> PAGE_SHIFT, 0) < 0)
		return false;
	return true;
}

bool stale_discard_some(struct uv_vm *vm)
{
	bool any = false;

	pthread_mutex_lock(&vm->stale_lock);
	for (unsigned int i = 0; i < SLOTS_MAX && !any; i++)
		any = discard_one(&vm->memory_of[i]);
	pthread_mutex_unlock(&vm->stale_lock);
	return any;
}

uint64_t stale_bytes(struct uv_vm *vm)
{
	uint64_t pages = 0;

	pthread_mutex_lock(&vm->stale_lock);
	for (unsigned int i = 0; i < SLOTS_MAX; i++) {
		if (vm->memory_of[i].stale != NULL)
			pages += range_map_count(vm->memory_of[i].stale, 1);
	}
	pthread_mutex_unlock(&vm->stale_lock);
	return pages << PAGE_SHIFT;
}
