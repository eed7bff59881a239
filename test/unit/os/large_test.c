/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Large pages of a private window: what changes a part of one 2M block leaves them to all
 * other blocks, whichever way the part is changed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/types.h"
#include "os/memfd.h"
#include "os/userfault.h"
#include "os/window.h"

#define BLOCKS 4
#define BYTES  (BLOCKS * SIZE_2M)

/* Within the second block. */
#define PART  (SIZE_2M + 16 * PAGE_SIZE)
#define SMALL (16 * PAGE_SIZE)

static struct window w;

struct figures {
	uint64_t large;        /* bytes of the window in large pages */
	unsigned int mappings; /* that it consists of */
};

/* As /proc/self/smaps says. */
static struct figures look(void)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	unsigned long start, end, kib;
	struct figures ret = {0};
	bool inside = false;
	char line[512];

	assert_non_null(f);
	while (fgets(line, sizeof(line), f) != NULL) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2) {
			inside = start >= (uintptr_t)w.base && end <= (uintptr_t)w.base + BYTES;
			ret.mappings += inside;
		} else if (inside && sscanf(line, "AnonHugePages: %lu kB", &kib) == 1) {
			ret.large += kib * 1024;
		}
	}
	fclose(f);
	return ret;
}

static int setup(void **state)
{
	if (window_private(BYTES, &w) < 0)
		return -1;
	memset(w.base, 7, BYTES);
	return 0;
}

static int teardown(void **state)
{
	return window_unmap(&w);
}

/* Memory may be too scattered now and then. */
static void need_large_pages(void)
{
	if (look().large < BYTES)
		skip();
}

/* Mapped shared, and private again: a conversion there and back. */
static void test_conversion(void **state)
{
	int fd = memfd_new("test", BYTES);

	need_large_pages();
	assert_true(fd >= 0);
	assert_int_equal(window_overlay(&w, fd, PART, SMALL), 0);
	assert_int_equal(look().large, BYTES - SIZE_2M);
	assert_int_equal(window_restore(&w, PART, SMALL, w.base + PART), 0);
	assert_int_equal(look().large, BYTES - SIZE_2M);
	assert_int_equal(w.base[PART - 1] + w.base[PART] + w.base[PART + SMALL], 14);
	close(fd);
}

static void test_release(void **state)
{
	need_large_pages();
	assert_int_equal(window_discard(&w, PART, SMALL), 0);
	assert_int_equal(window_forbid(&w, PART, SMALL), 0);
	assert_int_equal(look().large, BYTES - SIZE_2M);
}

/* Out and in again: the window is one mapping before and after. */
static void test_paging(void **state)
{
	uint8_t *block = w.base + SIZE_2M;
	uint8_t page[PAGE_SIZE];
	struct userfault u;
	uint64_t copied;
	char why[256];

	memset(page, 9, sizeof(page));
	need_large_pages();
	if (userfault_open(&u, why, sizeof(why)) < 0)
		skip();
	assert_int_equal(look().mappings, 1);
	assert_int_equal(userfault_register(&u, block, SIZE_2M), 0);
	assert_int_equal(window_vacate(&w, PART, SMALL), 0);
	assert_int_equal(look().large, BYTES - SIZE_2M);
	assert_int_equal(look().mappings, 3);
	for (uint64_t o = 0; o < SMALL; o += PAGE_SIZE)
		assert_int_equal(
			userfault_copy(&u, w.base + PART + o, page, PAGE_SIZE, &copied), 0);
	assert_int_equal(userfault_unregister(&u, block, SIZE_2M), 0);
	assert_int_equal(look().large, BYTES - SIZE_2M);
	assert_int_equal(look().mappings, 1);
	assert_int_equal(w.base[PART - 1] + w.base[PART] + w.base[PART + SMALL], 7 + 9 + 7);
	userfault_close(&u);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_conversion, setup, teardown),
		cmocka_unit_test_setup_teardown(test_release, setup, teardown),
		cmocka_unit_test_setup_teardown(test_paging, setup, teardown),
	};
	uint64_t large;

	if (setup(NULL) < 0)
		return 1;
	large = look().large;
	(void)teardown(NULL);
	if (large < BYTES) {
		fprintf(stderr, "skipped: the kernel gives no large pages\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
