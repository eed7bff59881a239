/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "uv/page_in.h"

#include <errno.h>
#include <stdlib.h>

#include "base/failpoint.h"
#include "os/crew.h"
#include "os/memfd.h"
#include "uv/measure.h"
#include "uv/sweeper.h"
#include "uv/switch.h"

/* Copied and hashed together, so that the second reads from the cache. */
#define STEP (256 * 1024)

/* Chunks whose digests are kept until they can be added in order: 512M of memory. */
#define BATCH 256

struct digest {
	uint8_t byte[ABI_MEASUREMENT_SIZE];
};

/* Of a memfd: a hole from @from to @start, then data to @stop. */
struct extent {
	uint64_t from, start, stop;
};

/* A run of chunks under way.  Each thread writes the digests of its own chunks. */
struct batch {
	const struct slot_memory *memory;
	uint64_t offset; /* in the slot */
	uint64_t end;    /* of all chunks */
	/* Found last.  Looking again for each chunk would be quadratic in what is there. */
	pthread_mutex_t lock;
	struct extent seen; /* guarded by lock */
	struct digest digest[BATCH];
};

static const uint8_t zeros[16 * 1024];

/* SHA-384 of PAGE_IN_CHUNK zeros; test/unit/uv/page_in_test.c computes it. */
static const struct digest zero_chunk = {{0x6f, 0x71, 0xde, 0xe1, 0x9b, 0xa3, 0xfb, 0xdc, 0x5c,
	0x15, 0xe8, 0x57, 0xc9, 0x87, 0x27, 0xeb, 0x91, 0xc3, 0x18, 0x32, 0x1c, 0x1c, 0x8d, 0x5a,
	0x71, 0x6a, 0x6b, 0x5d, 0x1b, 0x04, 0x04, 0xac, 0xb2, 0xa6, 0x2f, 0xd9, 0x75, 0x56, 0x25,
	0x45, 0x70, 0x10, 0x13, 0xec, 0x7f, 0x99, 0x32, 0x9f}};

static int hash_zeros(struct measure *m, uint64_t bytes)
{
	int ret = 0;

	while (ret == 0 && bytes > 0) {
		uint64_t step = bytes < sizeof(zeros) ? bytes : sizeof(zeros);

		ret = measure_content(m, zeros, step);
		bytes -= step;
	}
	return ret;
}

static int copy_and_hash(
	struct measure *m, const struct slot_memory *memory, uint64_t offset, uint64_t end)
{
	int ret = 0;

	while (ret == 0 && offset < end) {
		uint64_t step = end - offset < STEP ? end - offset : STEP;

		ret = memfd_read(memory->memfd, offset, memory->filling.base + offset, step);
		if (ret == 0)
			ret = measure_content(m, memory->filling.base + offset, step);
		offset += step;
	}
	return ret;
}

/*
 * The first data at or after @at, clipped to @end; empty at @end if there is none before.  What
 * the hypervisor changes meanwhile makes no difference but to what is touched.
 */
static int next_data(
	struct batch *b, uint64_t at, uint64_t end, uint64_t *ret_start, uint64_t *ret_stop)
{
	struct extent e;
	int ret = 0;

	pthread_mutex_lock(&b->lock);
	e = b->seen;
	pthread_mutex_unlock(&b->lock);
	if (at < e.from || at >= e.stop) {
		ret = memfd_next_data(b->memory->memfd, at, b->end, &e.start, &e.stop);
		if (ret < 0 && ret != -ENXIO)
			return ret;
		e.from = at;
		if (ret == -ENXIO)
			e.start = e.stop = b->end;
		else if (e.stop <= e.start)
			e.stop = e.start + PAGE_SIZE;
		pthread_mutex_lock(&b->lock);
		b->seen = e;
		pthread_mutex_unlock(&b->lock);
	}
	*ret_start = e.start < at ? at : e.start < end ? e.start : end;
	*ret_stop = e.stop < end ? e.stop : end;
	return 0;
}

/* Adds [at, end) of the slot, which may have holes anywhere, to @m. */
static int take_parts(struct measure *m, struct batch *b, uint64_t at, uint64_t end)
{
	uint64_t start, stop;
	int ret = 0;

	while (ret == 0 && at < end) {
		ret = next_data(b, at, end, &start, &stop);
		if (ret == 0)
			ret = hash_zeros(m, start - at);
		if (ret == 0)
			ret = copy_and_hash(m, b->memory, start, stop);
		at = stop;
	}
	return ret;
}

static int hash_chunk(struct batch *b, uint64_t at, uint64_t end, struct digest *ret_digest)
{
	struct measure *m = NULL;
	int ret = measure_new(&m);

	if (ret == 0)
		ret = take_parts(m, b, at, end);
	if (ret == 0)
		ret = measure_finish(m, ret_digest->byte);
	measure_free(m);
	return ret;
}

static int take_chunk(void *ctx, uint64_t index)
{
	struct batch *b = ctx;
	uint64_t at = b->offset + index * PAGE_IN_CHUNK, start, stop;
	uint64_t end = b->end - at < PAGE_IN_CHUNK ? b->end : at + PAGE_IN_CHUNK;
	int ret = failpoint("uv-page-in");

	if (ret < 0)
		return ret;
	ret = next_data(b, at, end, &start, &stop);
	if (ret == 0 && end - at == PAGE_IN_CHUNK && start == end)
		b->digest[index] = zero_chunk;
	else if (ret == 0)
		ret = hash_chunk(b, at, end, &b->digest[index]);
	return ret;
}

/* Fills [at, end) of the slot's new window and adds its digests to @m. */
static int take_in(struct crew *crew, struct measure *m, const struct slot_memory *memory,
	uint64_t at, uint64_t end)
{
	struct batch *b = calloc(1, sizeof(*b));
	int ret = b == NULL ? -ENOMEM : 0;

	if (ret == 0)
		pthread_mutex_init(&b->lock, NULL);
	while (ret == 0 && at < end) {
		uint64_t chunks = (end - at + PAGE_IN_CHUNK - 1) / PAGE_IN_CHUNK;

		if (chunks > BATCH)
			chunks = BATCH;
		b->memory = memory;
		b->offset = at;
		b->end = end;
		ret = crew_run(crew, take_chunk, b, chunks);
		if (ret == 0)
			ret = measure_content(m, b->digest, chunks * sizeof(b->digest[0]));
		at += chunks * PAGE_IN_CHUNK;
	}
	free(b);
	return ret;
}

int page_in(struct uv_vm *vm, int slot, struct gfn_range r)
{
	const struct slot_memory *m = &vm->memory_of[slot];
	uint64_t at = (r.start.v - vm->slots.slot[slot].range.start.v) << PAGE_SHIFT;
	struct measure *after = NULL;
	int ret = measure_copy(vm->measure, &after);

	if (ret == 0)
		ret = measure_add(after, MEASURE_PAGES, gfn_to_gpa(r.start).v, range_bytes(r));
	if (ret == 0)
		ret = take_in(vm->crew, after, m, at, at + range_bytes(r));
	if (ret == 0)
		ret = range_map_set(vm->paged_in, r.start.v, range_end(r), 1);
	if (ret < 0) {
		measure_free(after);
		/* Or the guest would find there what nobody measured. */
		if (sweep_release(vm, &m->filling, at, range_bytes(r)) < 0)
			switch_abandon(vm);
		return ret;
	}
	measure_free(vm->measure);
	vm->measure = after;
	vm->pages_copied += r.count;
	return 0;
}
