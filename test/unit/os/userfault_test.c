/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Missing pages that wait for this process, and what wakes who waits. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/types.h"
#include "os/userfault.h"
#include "os/window.h"

#define BYTES (4 * SIZE_2M)

static struct userfault u;
static struct window w;
static uint8_t content[PAGE_SIZE] __attribute__((aligned(4096)));

static int setup(void **state)
{
	memset(content, 0xc5, sizeof(content));
	return window_private(BYTES, &w);
}

static int teardown(void **state)
{
	return window_unmap(&w);
}

/* A thread that reads one byte, in user mode or on behalf of a system call. */
struct reader {
	pthread_t thread;
	const uint8_t *at;
	uint8_t seen;
};

static void *read_it(void *arg)
{
	struct reader *r = arg;

	r->seen = *(volatile const uint8_t *)r->at;
	return NULL;
}

/* The kernel reads the byte, as KVM does. */
static void *let_kernel_read_it(void *arg)
{
	struct reader *r = arg;
	int fds[2];

	assert_int_equal(pipe(fds), 0);
	assert_int_equal(write(fds[1], r->at, 1), 1);
	assert_int_equal(read(fds[0], &r->seen, 1), 1);
	close(fds[0]);
	close(fds[1]);
	return NULL;
}

static void start(struct reader *r, void *(*how)(void *), uint64_t offset)
{
	*r = (struct reader){.at = w.base + offset, .seen = 0xee};
	assert_int_equal(pthread_create(&r->thread, NULL, how, r), 0);
}

static uint8_t end(struct reader *r)
{
	assert_int_equal(pthread_join(r->thread, NULL), 0);
	return r->seen;
}

static uint64_t next_offset(void)
{
	uint8_t *page = NULL;

	assert_int_equal(userfault_next(&u, -1, &page), 0);
	return (uint64_t)(page - w.base);
}

static void test_copy_wakes(void **state)
{
	void *(*const ways[])(void *) = {read_it, let_kernel_read_it};
	struct reader r;
	uint64_t copied;

	assert_int_equal(userfault_register(&u, w.base + SIZE_2M, SIZE_2M), 0);
	for (uint64_t i = 0; i < 2; i++) {
		uint64_t at = SIZE_2M + i * PAGE_SIZE;

		start(&r, ways[i], at + 77);
		assert_int_equal(next_offset(), at);
		assert_int_equal(userfault_copy(&u, w.base + at, content, PAGE_SIZE, &copied), 0);
		assert_int_equal(end(&r), 0xc5);
		assert_memory_equal(w.base + at, content, PAGE_SIZE);
		assert_int_equal(
			userfault_copy(&u, w.base + at, content, PAGE_SIZE, &copied), -EEXIST);
		assert_int_equal(userfault_zero(&u, w.base + at), -EEXIST);
	}
}

/* A run is put in place up to the page that is not missing. */
static void test_copy_run(void **state)
{
	static uint8_t pages[4 * PAGE_SIZE] __attribute__((aligned(4096)));
	uint8_t *to = w.base + PAGE_SIZE;
	struct reader r;
	uint64_t copied;

	for (unsigned int i = 0; i < 4; i++)
		memset(pages + i * PAGE_SIZE, (int)i + 1, PAGE_SIZE);
	assert_int_equal(userfault_register(&u, w.base, SIZE_2M), 0);
	assert_int_equal(userfault_zero(&u, to + 2 * PAGE_SIZE), 0);
	start(&r, read_it, 2 * PAGE_SIZE);
	assert_int_equal(next_offset(), 2 * PAGE_SIZE);
	assert_int_equal(userfault_copy(&u, to, pages, sizeof(pages), &copied), -EEXIST);
	assert_int_equal(copied, 2 * PAGE_SIZE);
	assert_int_equal(end(&r), 2);
	assert_memory_equal(to, pages, 2 * PAGE_SIZE);
	assert_int_equal(to[2 * PAGE_SIZE], 0);
	assert_int_equal(window_vacate(&w, PAGE_SIZE, sizeof(pages)), 0);
	assert_int_equal(userfault_copy(&u, to, pages, sizeof(pages), &copied), 0);
	assert_int_equal(copied, sizeof(pages));
	assert_memory_equal(to, pages, sizeof(pages));
}

static void test_zero_wakes(void **state)
{
	struct reader r;

	assert_int_equal(userfault_register(&u, w.base, BYTES), 0);
	start(&r, read_it, 0);
	assert_int_equal(next_offset(), 0);
	assert_int_equal(userfault_zero(&u, w.base), 0);
	assert_int_equal(end(&r), 0);
	/* Zeros that were read are written to like any page. */
	w.base[5] = 1;
	assert_int_equal(w.base[5], 1);
}

static void test_discarded_pages_are_missing(void **state)
{
	struct reader r;
	uint64_t copied;

	w.base[3 * PAGE_SIZE] = 9;
	assert_int_equal(userfault_register(&u, w.base, SIZE_2M), 0);
	assert_int_equal(window_vacate(&w, 3 * PAGE_SIZE, PAGE_SIZE), 0);
	start(&r, read_it, 3 * PAGE_SIZE);
	assert_int_equal(next_offset(), 3 * PAGE_SIZE);
	assert_int_equal(
		userfault_copy(&u, w.base + 3 * PAGE_SIZE, content, PAGE_SIZE, &copied), 0);
	assert_int_equal(end(&r), 0xc5);
}

static void test_unregister_wakes(void **state)
{
	struct reader r;
	uint64_t copied;

	assert_int_equal(userfault_register(&u, w.base, SIZE_2M), 0);
	start(&r, read_it, 0);
	assert_int_equal(next_offset(), 0);
	assert_int_equal(userfault_unregister(&u, w.base, BYTES), 0);
	assert_int_equal(end(&r), 0);
	assert_int_equal(
		userfault_copy(&u, w.base + PAGE_SIZE, content, PAGE_SIZE, &copied), -ENOENT);
}

/* Who is woken while the page is still missing asks again. */
static void test_wake_asks_again(void **state)
{
	struct reader r;

	assert_int_equal(userfault_register(&u, w.base, SIZE_2M), 0);
	start(&r, read_it, PAGE_SIZE);
	assert_int_equal(next_offset(), PAGE_SIZE);
	assert_int_equal(userfault_wake(&u, w.base, SIZE_2M), 0);
	assert_int_equal(next_offset(), PAGE_SIZE);
	assert_int_equal(userfault_zero(&u, w.base + PAGE_SIZE), 0);
	assert_int_equal(end(&r), 0);
}

/* Pages that are there, and all pages outside, are as fast as ever. */
static void test_others_do_not_wait(void **state)
{
	w.base[SIZE_2M] = 1;
	assert_int_equal(userfault_register(&u, w.base + SIZE_2M, SIZE_2M), 0);
	assert_int_equal(userfault_register(&u, w.base + SIZE_2M, SIZE_2M), 0);
	assert_int_equal(w.base[SIZE_2M], 1);
	w.base[0] = 2;
	w.base[2 * SIZE_2M] = 3;
	assert_int_equal(w.base[0] + w.base[2 * SIZE_2M], 5);
}

/* Last: there is no way back. */
static void test_end(void **state)
{
	uint8_t *page;

	assert_int_equal(userfault_next(&u, 1, &page), -ETIMEDOUT);
	userfault_end(&u);
	assert_int_equal(userfault_next(&u, -1, &page), -ECANCELED);
	assert_int_equal(userfault_next(&u, 1, &page), -ETIMEDOUT);
	userfault_close(&u);
	assert_false(userfault_is_open(&u));
	userfault_close(&u);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_copy_wakes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_copy_run, setup, teardown),
		cmocka_unit_test_setup_teardown(test_zero_wakes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_discarded_pages_are_missing, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unregister_wakes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_wake_asks_again, setup, teardown),
		cmocka_unit_test_setup_teardown(test_others_do_not_wait, setup, teardown),
		cmocka_unit_test(test_end),
	};
	char why[256];

	if (userfault_open(&u, why, sizeof(why)) < 0) {
		fprintf(stderr, "skipped: %s\n", why);
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
