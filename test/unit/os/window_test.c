/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Windows: content survives exactly what it should, and what is discarded reads as
 * zeros.  A failpoint is chosen once per process, so each failing case runs in a child.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/types.h"
#include "os/memfd.h"
#include "os/window.h"

#define BYTES (3 * SIZE_2M)

/* A byte that tells its page, never 0. */
static uint8_t mark(uint64_t offset)
{
	return (uint8_t)(1 + (offset / PAGE_SIZE) % 251);
}

static void fill(uint8_t *base, uint64_t offset, uint64_t bytes)
{
	for (uint64_t o = offset; o < offset + bytes; o += PAGE_SIZE)
		memset(base + o, mark(o), PAGE_SIZE);
}

static void assert_bytes(const uint8_t *p, uint8_t value, uint64_t bytes)
{
	for (uint64_t i = 0; i < bytes; i++) {
		if (p[i] != value)
			fail_msg("byte %llu is %u, not %u", (unsigned long long)i, p[i], value);
	}
}

/* Pages of [offset, offset + bytes) are marked, or zero. */
static void assert_marked(const uint8_t *base, uint64_t offset, uint64_t bytes, bool marked)
{
	for (uint64_t o = offset; o < offset + bytes; o += PAGE_SIZE)
		assert_bytes(base + o, marked ? mark(o) : 0, PAGE_SIZE);
}

static uint64_t resident(const struct window *w)
{
	uint64_t bytes = UINT64_MAX;

	assert_int_equal(window_resident(w, 0, w->bytes, &bytes), 0);
	return bytes;
}

/* Small pages, so that residency is exact. */
static struct window private_small(uint64_t bytes)
{
	struct window w;

	assert_int_equal(window_private(bytes, &w), 0);
	(void)madvise(w.base, w.bytes, MADV_NOHUGEPAGE);
	return w;
}

static void unmap(struct window *w)
{
	assert_int_equal(window_unmap(w), 0);
	assert_null(w->base);
	assert_int_equal(w->bytes, 0);
}

static void test_private_is_zero_and_aligned(void **state)
{
	static const uint64_t sizes[] = {
		PAGE_SIZE, SIZE_2M - PAGE_SIZE, SIZE_2M, BYTES + PAGE_SIZE};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct window w;

		assert_int_equal(window_private(sizes[i], &w), 0);
		assert_int_equal(w.bytes, sizes[i]);
		assert_int_equal((uintptr_t)w.base & (SIZE_2M - 1), 0);
		assert_int_equal(resident(&w), 0);
		assert_bytes(w.base, 0, w.bytes);
		unmap(&w);
	}
}

static void test_bad_sizes(void **state)
{
	struct window w = {(uint8_t *)state, 5};
	int fd = memfd_new("test", PAGE_SIZE);

	assert_int_equal(window_private(0, &w), -EINVAL);
	assert_int_equal(window_private(UINT64_MAX - PAGE_SIZE + 1, &w), -EINVAL);
	assert_int_equal(window_private((uint64_t)1 << 56, &w), -ENOMEM);
	assert_int_equal(window_shared(fd, 0, &w), -EINVAL);
	assert_int_equal(window_shared(-1, PAGE_SIZE, &w), -EBADF);
	assert_ptr_equal(w.base, state);
	assert_int_equal(w.bytes, 5);
	close(fd);
}

static void test_a_terabyte_costs_nothing(void **state)
{
	struct window w;

#if defined(__SANITIZE_THREAD__)
	skip();
#endif
	assert_int_equal(window_private((uint64_t)1 << 40, &w), 0);
	w.base[w.bytes - 1] = 1;
	w.base[0] = 1;
	assert_int_equal(w.base[w.bytes - 1], 1);
	assert_int_equal(window_discard(&w, 0, w.bytes), 0);
	assert_int_equal(w.base[w.bytes - 1], 0);
	unmap(&w);
}

/* As /proc/self/smaps says it. */
static void assert_flag(const void *base, const char *flag, bool expected)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	bool inside = false, found = false, seen = false;
	unsigned long start, end;
	char line[512];

	assert_non_null(f);
	while (fgets(line, sizeof(line), f) != NULL) {
		if (sscanf(line, "%lx-%lx", &start, &end) == 2)
			inside = start == (uintptr_t)base;
		if (inside && strncmp(line, "VmFlags:", 8) == 0) {
			seen = true;
			found = strstr(line, flag) != NULL;
		}
	}
	fclose(f);
	assert_true(seen);
	assert_int_equal(found, expected);
}

/* Vacated pages are gone and read as zeros, the others stay. */
static void test_vacate(void **state)
{
	const uint64_t at = SIZE_2M + 5 * PAGE_SIZE, bytes = 3 * PAGE_SIZE;
	unsigned char vec[3];
	struct window w;

	assert_int_equal(window_private(BYTES, &w), 0);
	fill(w.base, 0, w.bytes);
	assert_int_equal(window_vacate(&w, at, bytes), 0);
	assert_int_equal(mincore(w.base + at, bytes, vec), 0);
	for (unsigned int i = 0; i < 3; i++)
		assert_int_equal(vec[i] & 1, 0);
	assert_marked(w.base, 0, at, true);
	assert_marked(w.base, at + bytes, w.bytes - at - bytes, true);
	assert_int_equal(w.base[at], 0);
	w.base[at] = 1;
	assert_int_equal(window_vacate(&w, at, PAGE_SIZE), 0);
	assert_int_equal(w.base[at], 0);
	unmap(&w);
}

static void test_private_is_not_dumped_nor_inherited(void **state)
{
	struct window w;
	int status;
	pid_t pid;

	assert_int_equal(window_private(SIZE_2M, &w), 0);
	fill(w.base, 0, SIZE_2M);
	assert_flag(w.base, " dd", true);  /* MADV_DONTDUMP */
	assert_flag(w.base, " dc", true);  /* MADV_DONTFORK */
	assert_flag(w.base, " nr", true);  /* no swap space reserved */
	assert_flag(w.base, " mg", false); /* never merged */
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		unsigned char vec[1];

		_exit(mincore(w.base, PAGE_SIZE, vec) < 0 && errno == ENOMEM ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	unmap(&w);
}

static void test_shared_is_the_memfd(void **state)
{
	int fd = memfd_new("test", BYTES);
	struct window w;
	uint8_t c = 0;

	assert_int_equal(window_shared(fd, BYTES, &w), 0);
	assert_int_equal((uintptr_t)w.base & (SIZE_2M - 1), 0);
	fill(w.base, SIZE_2M, PAGE_SIZE);
	assert_int_equal(pread(fd, &c, 1, (off_t)SIZE_2M), 1);
	assert_int_equal(c, mark(SIZE_2M));
	assert_int_equal(pwrite(fd, "z", 1, 7), 1);
	assert_int_equal(w.base[7], 'z');
	unmap(&w);
	close(fd);
}

static void test_overlay_and_restore_keep_the_rest(void **state)
{
	const uint64_t at = SIZE_2M - 4 * PAGE_SIZE, bytes = 9 * PAGE_SIZE;
	int fd = memfd_new("test", BYTES);
	struct window w = private_small(BYTES);
	uint8_t c;

	fill(w.base, 0, BYTES);
	assert_int_equal(window_overlay(&w, fd, at, bytes), 0);
	assert_marked(w.base, 0, at, true);
	assert_marked(w.base, at, bytes, false);
	assert_marked(w.base, at + bytes, BYTES - at - bytes, true);

	/* Both ways through the overlay, at the slot's own offsets. */
	fill(w.base, at, 3 * PAGE_SIZE);
	assert_int_equal(pread(fd, &c, 1, (off_t)(at + PAGE_SIZE)), 1);
	assert_int_equal(c, mark(at + PAGE_SIZE));
	assert_int_equal(pread(fd, &c, 1, 0), 1);
	assert_int_equal(c, 0);

	/* Restored: the same content, no longer the memfd's; its zero pages cost nothing. */
	assert_int_equal(window_restore(&w, at, bytes, w.base + at), 0);
	assert_marked(w.base, 0, at + 3 * PAGE_SIZE, true);
	assert_marked(w.base, at + bytes, BYTES - at - bytes, true);
	assert_int_equal(pwrite(fd, "!", 1, (off_t)at), 1);
	assert_int_equal(w.base[at], mark(at));
	w.base[at] = 'p';
	assert_int_equal(pread(fd, &c, 1, (off_t)at), 1);
	assert_int_equal(c, '!');
	assert_marked(w.base, at + 3 * PAGE_SIZE, bytes - 3 * PAGE_SIZE, false);
	unmap(&w);
	close(fd);
}

/* Only the memory of the target tells: what the source's pages are is not asked. */
static void test_copy_takes_content_and_leaves_holes(void **state)
{
	int fd = memfd_new("test", SIZE_2M);
	struct window from = private_small(SIZE_2M), to;
	uint64_t after;

	assert_int_equal(window_shared(fd, SIZE_2M, &to), 0);
	fill(from.base, 8 * PAGE_SIZE, PAGE_SIZE);
	from.base[9 * PAGE_SIZE + 4095] = 0;
	from.base[511 * PAGE_SIZE + 4095] = 1;
	window_copy(to.base, from.base, SIZE_2M);
	assert_int_equal(memfd_resident(fd, &after), 0);
	assert_int_equal(after, 2 * PAGE_SIZE);
	assert_memory_equal(to.base, from.base, SIZE_2M);
	unmap(&from);
	unmap(&to);
	close(fd);
}

static void test_restore_leaves_holes(void **state)
{
	int fd = memfd_new("test", SIZE_2M);
	struct window w = private_small(SIZE_2M);
	uint64_t before;

	assert_int_equal(window_overlay(&w, fd, 0, SIZE_2M), 0);
	fill(w.base, 8 * PAGE_SIZE, PAGE_SIZE);
	assert_int_equal(memfd_resident(fd, &before), 0);
	assert_int_equal(before, PAGE_SIZE);
	assert_int_equal(window_restore(&w, 0, SIZE_2M, w.base), 0);
	assert_int_equal(memfd_discard(fd, 0, SIZE_2M), 0);
	assert_marked(w.base, 8 * PAGE_SIZE, PAGE_SIZE, true);
	assert_true(resident(&w) <= SIZE_2M);
	assert_marked(w.base, 0, 8 * PAGE_SIZE, false);
	unmap(&w);
	close(fd);
}

static void test_discard_reads_as_zero(void **state)
{
	const uint64_t at = 5 * PAGE_SIZE, bytes = SIZE_2M;
	struct window w = private_small(BYTES);

	fill(w.base, 0, BYTES);
	assert_int_equal(resident(&w), BYTES);
	assert_int_equal(window_discard(&w, at, bytes), 0);
	assert_int_equal(resident(&w), BYTES - bytes);
	assert_marked(w.base, at, bytes, false);
	assert_marked(w.base, 0, at, true);
	assert_marked(w.base, at + bytes, BYTES - at - bytes, true);
	unmap(&w);
}

static void assert_next(
	const struct window *w, uint64_t from, uint64_t end, uint64_t at, uint64_t bytes)
{
	uint64_t ret_at = 0, ret_bytes = 0;

	assert_int_equal(window_next_resident(w, from, end, &ret_at, &ret_bytes), 0);
	assert_int_equal(ret_at, at);
	assert_int_equal(ret_bytes, bytes);
}

static void test_next_resident(void **state)
{
	struct window w = private_small(BYTES);
	uint64_t at = 42, bytes = 42;

	assert_int_equal(window_next_resident(&w, 0, BYTES, &at, &bytes), -ENXIO);
	assert_int_equal(at, 42);
	assert_int_equal(bytes, 42);
	fill(w.base, 3 * PAGE_SIZE, 2 * PAGE_SIZE);
	fill(w.base, SIZE_2M - PAGE_SIZE, 2 * PAGE_SIZE);
	fill(w.base, BYTES - PAGE_SIZE, PAGE_SIZE);
	assert_next(&w, 0, BYTES, 3 * PAGE_SIZE, 2 * PAGE_SIZE);
	assert_next(&w, 4 * PAGE_SIZE, BYTES, 4 * PAGE_SIZE, PAGE_SIZE);
	assert_next(&w, 3 * PAGE_SIZE, 4 * PAGE_SIZE, 3 * PAGE_SIZE, PAGE_SIZE);
	/* A run ends at each 2M border. */
	assert_next(&w, 5 * PAGE_SIZE, BYTES, SIZE_2M - PAGE_SIZE, PAGE_SIZE);
	assert_next(&w, SIZE_2M, BYTES, SIZE_2M, PAGE_SIZE);
	assert_next(&w, SIZE_2M + PAGE_SIZE, BYTES, BYTES - PAGE_SIZE, PAGE_SIZE);
	assert_int_equal(
		window_next_resident(&w, SIZE_2M + PAGE_SIZE, BYTES - PAGE_SIZE, &at, &bytes),
		-ENXIO);
	assert_int_equal(window_next_resident(&w, BYTES, BYTES, &at, &bytes), -ENXIO);
	assert_int_equal(resident(&w), 5 * PAGE_SIZE);
	unmap(&w);
	w = (struct window){(uint8_t *)PAGE_SIZE, PAGE_SIZE};
	assert_int_equal(window_next_resident(&w, 0, PAGE_SIZE, &at, &bytes), -ENOMEM);
}

/* Memory that was only read holds the zero page or nothing: either way no content. */
static void test_wipe(void **state)
{
	struct window w = private_small(SIZE_2M);

	fill(w.base, 0, SIZE_2M);
	window_wipe(w.base + PAGE_SIZE + 3, 2 * PAGE_SIZE);
	assert_bytes(w.base + PAGE_SIZE, mark(PAGE_SIZE), 3);
	assert_bytes(w.base + PAGE_SIZE + 3, 0, 2 * PAGE_SIZE);
	assert_bytes(w.base + 3 * PAGE_SIZE + 3, mark(3 * PAGE_SIZE), PAGE_SIZE - 3);
	assert_marked(w.base, 4 * PAGE_SIZE, SIZE_2M - 4 * PAGE_SIZE, true);
	unmap(&w);
}

static void test_unmap_twice(void **state)
{
	struct window w = private_small(PAGE_SIZE);

	unmap(&w);
	assert_int_equal(window_unmap(&w), 0);
}

/* Runs @check in a child with failpoint @choice. */
static void with_failpoint(const char *choice, int (*check)(void))
{
	int status;
	pid_t pid;

#ifndef LETHE_FAILPOINTS
	skip();
#endif
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		setenv("LETHE_FAILPOINT", choice, 1);
		_exit(check());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

#define NEED(condition)                        \
	do {                                   \
		if (!(condition))              \
			return __LINE__ & 127; \
	} while (0)

static int private_fails(void)
{
	struct window w = {NULL, 9};

	NEED(window_private(PAGE_SIZE, &w) == -ENOMEM);
	NEED(w.base == NULL && w.bytes == 9);
	NEED(window_private(PAGE_SIZE, &w) == 0);
	return 0;
}

static int shared_fails(void)
{
	int fd = memfd_new("test", BYTES);
	struct window w = {NULL, 9};

	NEED(window_shared(fd, BYTES, &w) == -EACCES);
	NEED(w.base == NULL && w.bytes == 9);
	NEED(window_shared(fd, BYTES, &w) == 0);
	return 0;
}

/* The second overlay: window_shared() is made of the first. */
static int overlay_fails(void)
{
	int fd = memfd_new("test", BYTES);
	struct window w;

	NEED(window_shared(fd, BYTES, &w) == 0);
	NEED(window_unmap(&w) == 0 && window_private(BYTES, &w) == 0);
	w.base[0] = 1;
	NEED(window_overlay(&w, fd, 0, PAGE_SIZE) == -EACCES);
	NEED(w.base[0] == 1);
	NEED(window_overlay(&w, fd, 0, PAGE_SIZE) == 0);
	NEED(w.base[0] == 0);
	return 0;
}

static int shared_fails_inside(void)
{
	int fd = memfd_new("test", BYTES);
	struct window w = {NULL, 9};

	NEED(window_shared(fd, BYTES, &w) == -EACCES);
	NEED(w.base == NULL && w.bytes == 9);
	return 0;
}

/* The second private window: the replacement. */
static int restore_fails(void)
{
	int fd = memfd_new("test", BYTES);
	struct window w;

	NEED(window_private(BYTES, &w) == 0 && window_overlay(&w, fd, 0, BYTES) == 0);
	w.base[5] = 'x';
	NEED(window_restore(&w, 0, PAGE_SIZE, w.base) == -EACCES);
	NEED(pwrite(fd, "y", 1, 5) == 1);
	NEED(w.base[5] == 'y');
	NEED(window_restore(&w, 0, PAGE_SIZE, w.base) == 0);
	NEED(pwrite(fd, "z", 1, 5) == 1);
	NEED(w.base[5] == 'y');
	return 0;
}

static int discard_fails(void)
{
	struct window w;

	NEED(window_private(BYTES, &w) == 0);
	w.base[5] = 'x';
	NEED(window_discard(&w, 0, BYTES) == -EACCES);
	NEED(w.base[5] == 'x');
	NEED(window_discard(&w, 0, BYTES) == 0);
	NEED(w.base[5] == 0);
	return 0;
}

static int unmap_fails(void)
{
	struct window w;

	NEED(window_private(BYTES, &w) == 0);
	w.base[5] = 'x';
	NEED(window_unmap(&w) == -EACCES);
	NEED(w.bytes == BYTES && w.base[5] == 'x');
	NEED(window_unmap(&w) == 0);
	return 0;
}

static void test_failures_change_nothing(void **state)
{
	with_failpoint("window-private", private_fails);
	with_failpoint("window-shared:1:EACCES", shared_fails);
	with_failpoint("window-overlay:1:EACCES", shared_fails_inside);
	with_failpoint("window-overlay:2:EACCES", overlay_fails);
	with_failpoint("window-private:2:EACCES", restore_fails);
	with_failpoint("window-discard:1:EACCES", discard_fails);
	with_failpoint("window-unmap:1:EACCES", unmap_fails);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		/* First: its children must be the first to come to a failpoint. */
		cmocka_unit_test(test_failures_change_nothing),
		cmocka_unit_test(test_private_is_zero_and_aligned),
		cmocka_unit_test(test_bad_sizes),
		cmocka_unit_test(test_a_terabyte_costs_nothing),
		cmocka_unit_test(test_private_is_not_dumped_nor_inherited),
		cmocka_unit_test(test_shared_is_the_memfd),
		cmocka_unit_test(test_overlay_and_restore_keep_the_rest),
		cmocka_unit_test(test_copy_takes_content_and_leaves_holes),
		cmocka_unit_test(test_restore_leaves_holes),
		cmocka_unit_test(test_vacate),
		cmocka_unit_test(test_discard_reads_as_zero),
		cmocka_unit_test(test_next_resident),
		cmocka_unit_test(test_wipe),
		cmocka_unit_test(test_unmap_twice),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
