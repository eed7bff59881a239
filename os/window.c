/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "os/window.h"

#include <assert.h>
#include <errno.h>
#ifdef __SSE2__
#include <immintrin.h>
#endif
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/failpoint.h"
#include "base/types.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif

/* What one step of wiping writes. */
#define WIPE_LINE 64

#define PROT_RW   (PROT_READ | PROT_WRITE)
#define ANONYMOUS (MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)

/* Reserves @bytes of address space at a multiple of 2M. */
static int reserve(uint64_t bytes, uint8_t **ret)
{
	uint64_t padded, skip;
	uint8_t *raw;

	if (bytes == 0 || __builtin_add_overflow(bytes, SIZE_2M, &padded))
		return -EINVAL;
	raw = mmap(NULL, padded, PROT_NONE, ANONYMOUS, -1, 0);
	if (raw == MAP_FAILED)
		return -errno;
	skip = -(uintptr_t)raw & (SIZE_2M - 1);
	if (skip > 0)
		munmap(raw, skip);
	munmap(raw + skip + bytes, padded - skip - bytes);
	*ret = raw + skip;
	return 0;
}

/* Advice that private guest memory needs.  All but DONTDUMP and DONTFORK may be missing. */
static int protect_private(uint8_t *base, uint64_t bytes)
{
	if (madvise(base, bytes, MADV_DONTDUMP) < 0 || madvise(base, bytes, MADV_DONTFORK) < 0)
		return -errno;
	(void)madvise(base, bytes, MADV_HUGEPAGE);
	(void)madvise(base, bytes, MADV_UNMERGEABLE);
#ifdef MLOCK_ONFAULT
	(void)mlock2(base, bytes, MLOCK_ONFAULT);
#endif
	return 0;
}

static int map_private_at(uint8_t *at, uint64_t bytes)
{
	int ret = failpoint("window-private");

	if (ret < 0)
		return ret;
	if (mmap(at, bytes, PROT_RW, ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
		return -errno;
	return protect_private(at, bytes);
}

int window_private(uint64_t bytes, struct window *ret)
{
	uint8_t *base = NULL;
	int err = reserve(bytes, &base);

	if (err < 0)
		return err;
	err = map_private_at(base, bytes);
	if (err < 0) {
		munmap(base, bytes);
		return err;
	}
	*ret = (struct window){.base = base, .bytes = bytes};
	return 0;
}

int window_shared(int memfd, uint64_t bytes, struct window *ret)
{
	struct window w = {.bytes = bytes};
	int err = failpoint("window-shared");

	if (err == 0)
		err = reserve(bytes, &w.base);
	if (err < 0)
		return err;
	err = window_overlay(&w, memfd, 0, bytes);
	if (err < 0) {
		munmap(w.base, bytes);
		return err == -ENOTRECOVERABLE ? -ENOMEM : err;
	}
	*ret = w;
	return 0;
}

static int map_memfd_at(uint8_t *at, uint64_t bytes, int memfd, uint64_t offset, int how)
{
	if (mmap(at, bytes, PROT_RW, MAP_SHARED | MAP_NORESERVE | how, memfd, (off_t)offset) ==
		MAP_FAILED)
		return -errno;
	(void)madvise(at, bytes, MADV_DONTDUMP);
	(void)madvise(at, bytes, MADV_DONTFORK);
	return 0;
}

/*
 * What @err, of a change of mappings, means for the part that was to be replaced: without memory
 * for the new mapping, the kernel may have taken the old one away already.
 */
static int after_failure(const struct window *w, uint64_t offset, uint64_t bytes, int err)
{
	uint64_t unused;

	return window_resident(w, offset, offset + bytes, &unused) == -ENOMEM ? -ENOTRECOVERABLE
									      : err;
}

int window_overlay(const struct window *w, int memfd, uint64_t offset, uint64_t bytes)
{
	int err = failpoint("window-overlay");

	if (err < 0)
		return err;
	err = map_memfd_at(w->base + offset, bytes, memfd, offset, MAP_FIXED);
	return err < 0 ? after_failure(w, offset, bytes, err) : 0;
}

int window_mend(const struct window *w, int memfd, uint64_t offset, uint64_t bytes)
{
	return map_memfd_at(w->base + offset, bytes, memfd, offset, MAP_FIXED_NOREPLACE);
}

static bool is_zero(const uint8_t *page)
{
	const uint64_t *word = (const uint64_t *)page;
	uint64_t any = 0;

	for (unsigned int i = 0; i < PAGE_SIZE / sizeof(*word); i++)
		any |= word[i];
	return any == 0;
}

void window_copy(uint8_t *to, const uint8_t *from, uint64_t bytes)
{
	for (uint64_t o = 0; o < bytes; o += PAGE_SIZE) {
		if (!is_zero(from + o))
			memcpy(to + o, from + o, PAGE_SIZE);
	}
}

static void wipe_resident(const struct window *w)
{
	uint64_t at = 0, n;

	while (window_next_resident(w, at, w->bytes, &at, &n) == 0) {
		window_wipe(w->base + at, n);
		at += n;
	}
}

int window_restore(const struct window *w, uint64_t offset, uint64_t bytes, const uint8_t *source)
{
	struct window fresh;
	int err = window_private(bytes, &fresh);

	if (err < 0)
		return err;
	/*
	 * The source is memory that the hypervisor may write to meanwhile: what it writes
	 * after this look is simply lost, and what is copied is what counts.
	 */
	window_copy(fresh.base, source, bytes);
	if (mremap(fresh.base, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, w->base + offset) ==
		MAP_FAILED) {
		err = after_failure(w, offset, bytes, -errno);
		wipe_resident(&fresh);
		munmap(fresh.base, bytes);
		return err;
	}
	return 0;
}

int window_discard(const struct window *w, uint64_t offset, uint64_t bytes)
{
	int err = failpoint("window-discard");

	if (err < 0)
		return err;
	/* MADV_DONTNEED refuses locked memory.  Sanitizers turn munlock() into nothing. */
	(void)syscall(SYS_munlock, w->base + offset, bytes);
	if (madvise(w->base + offset, bytes, MADV_DONTNEED) < 0)
		return -errno;
	return 0;
}

int window_vacate(const struct window *w, uint64_t offset, uint64_t bytes)
{
	int err = failpoint("window-vacate");

	if (err < 0)
		return err;
	/* Linux 5.18 and later: without unlocking, which would split the mapping. */
	if (madvise(w->base + offset, bytes, MADV_DONTNEED_LOCKED) == 0)
		return 0;
	(void)syscall(SYS_munlock, w->base + offset, bytes);
	if (madvise(w->base + offset, bytes, MADV_DONTNEED) < 0)
		return -errno;
	(void)mlock2(w->base + offset, bytes, MLOCK_ONFAULT);
	return 0;
}

void window_populate(const struct window *w, uint64_t offset, uint64_t bytes)
{
	/* Linux 5.14 and later; before, and without memory, it comes fault by fault. */
	(void)madvise(w->base + offset, bytes, MADV_POPULATE_WRITE);
}

int window_forbid(const struct window *w, uint64_t offset, uint64_t bytes)
{
	int err = failpoint("window-forbid");

	if (err < 0)
		return err;
	return mprotect(w->base + offset, bytes, PROT_NONE) < 0 ? -errno : 0;
}

int window_next_resident(const struct window *w, uint64_t offset, uint64_t end,
	uint64_t *ret_offset, uint64_t *ret_bytes)
{
	enum { PAGES = SIZE_2M / PAGE_SIZE };
	unsigned char vec[PAGES];

	while (offset < end) {
		uint64_t limit = align_down(offset, SIZE_2M) + SIZE_2M;
		uint64_t pages, i, n;

		if (limit > end)
			limit = end;
		pages = (limit - offset) / PAGE_SIZE;
		if (mincore(w->base + offset, limit - offset, vec) < 0)
			return -errno;
		for (i = 0; i < pages && (vec[i] & 1) == 0; i++)
			;
		if (i < pages) {
			for (n = 1; i + n < pages && (vec[i + n] & 1) != 0; n++)
				;
			*ret_offset = offset + i * PAGE_SIZE;
			*ret_bytes = n * PAGE_SIZE;
			return 0;
		}
		offset = limit;
	}
	return -ENXIO;
}

int window_resident(const struct window *w, uint64_t offset, uint64_t end, uint64_t *ret_bytes)
{
	unsigned char vec[SIZE_2M / PAGE_SIZE];
	uint64_t total = 0;

	while (offset < end) {
		uint64_t bytes = end - offset < SIZE_2M ? end - offset : SIZE_2M;

		if (mincore(w->base + offset, bytes, vec) < 0)
			return -errno;
		for (uint64_t i = 0; i < bytes / PAGE_SIZE; i++)
			total += (vec[i] & 1) * PAGE_SIZE;
		offset += bytes;
	}
	*ret_bytes = total;
	return 0;
}

int window_residency(
	const struct window *w, uint64_t offset, uint64_t bytes, unsigned char *ret_page)
{
	return mincore(w->base + offset, bytes, ret_page) < 0 ? -errno : 0;
}

void window_skip(struct window *w, uint64_t bytes)
{
	assert(bytes <= w->bytes);
	*w = bytes == w->bytes
		     ? (struct window){0}
		     : (struct window){.base = w->base + bytes, .bytes = w->bytes - bytes};
}

int window_trim(struct window *w, uint64_t bytes)
{
	int err = failpoint("window-unmap");

	if (err < 0)
		return err;
	if (munmap(w->base, bytes) < 0)
		return -errno;
	window_skip(w, bytes);
	return 0;
}

int window_unmap(struct window *w)
{
	return w->base == NULL ? 0 : window_trim(w, w->bytes);
}

/* Past the caches: what is wiped is not read again soon, and lines need not be fetched. */
static void stream_zeros(uint8_t *start, uint64_t bytes)
{
#ifdef __SSE2__
	const __m128i zero = _mm_setzero_si128();

	for (uint64_t i = 0; i < bytes; i += WIPE_LINE) {
		for (unsigned int j = 0; j < WIPE_LINE; j += sizeof(zero))
			_mm_stream_si128((__m128i *)(start + i + j), zero);
	}
	_mm_sfence();
#else
	memset(start, 0, bytes);
#endif
}

void window_wipe(uint8_t *start, uint64_t bytes)
{
	uint64_t head = -(uintptr_t)start & (WIPE_LINE - 1), body;

	if (head > bytes)
		head = bytes;
	body = align_down(bytes - head, WIPE_LINE);
	memset(start, 0, head);
	stream_zeros(start + head, body);
	memset(start + head + body, 0, bytes - head - body);
	__asm__ volatile("" : : "r"(start) : "memory");
}
