/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Shared memory by descriptor; above all, what memfd_check() must not let through. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/types.h"
#include "os/memfd.h"

#define BYTES (16 * PAGE_SIZE)

/* A memfd with these seals, made without memfd_new(). */
static int make(uint64_t bytes, unsigned int flags, int seals)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING | flags);

	if (fd < 0)
		return -1;
	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

static void test_new_is_sealed_and_zero(void **state)
{
	int fd = memfd_new("test", BYTES);
	uint64_t resident = 1;
	struct stat st;

	assert_true(fd >= 0);
	assert_int_equal(fcntl(fd, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, BYTES);
	assert_int_equal(ftruncate(fd, 0), -1);
	assert_int_equal(ftruncate(fd, 2 * BYTES), -1);
	assert_int_equal(memfd_resident(fd, &resident), 0);
	assert_int_equal(resident, 0);
	assert_int_equal(memfd_check(fd, BYTES), 0);
	close(fd);
}

/* Written, or only allocated; and what is given back. */
static void test_held(void **state)
{
	int fd = memfd_new("test", BYTES);
	uint64_t held = 1, start, end;

	if (memfd_held(fd, 0, BYTES, &held) == -ENOSYS) {
		close(fd);
		skip();
	}
	assert_int_equal(held, 0);
	assert_int_equal(pwrite(fd, "x", 1, 2 * PAGE_SIZE), 1);
	assert_int_equal(fallocate(fd, FALLOC_FL_KEEP_SIZE, 5 * PAGE_SIZE, 4 * PAGE_SIZE), 0);
	assert_int_equal(memfd_held(fd, 0, BYTES, &held), 0);
	assert_int_equal(held, 5 * PAGE_SIZE);
	assert_int_equal(memfd_held(fd, 3 * PAGE_SIZE, 3 * PAGE_SIZE, &held), 0);
	assert_int_equal(held, PAGE_SIZE);
	assert_int_equal(memfd_next_data(fd, 3 * PAGE_SIZE, BYTES, &start, &end), -ENXIO);
	assert_int_equal(memfd_discard(fd, 0, 7 * PAGE_SIZE), 0);
	assert_int_equal(memfd_held(fd, 0, BYTES, &held), 0);
	assert_int_equal(held, 2 * PAGE_SIZE);
	assert_int_equal(memfd_held(-1, 0, BYTES, &held), -EBADF);
	assert_int_equal(held, 2 * PAGE_SIZE);
	close(fd);
}

static void test_new_refuses_bad_sizes(void **state)
{
	assert_int_equal(memfd_new("test", 0), -EINVAL);
	assert_int_equal(memfd_new("test", (uint64_t)INT64_MAX + 1), -EINVAL);
	assert_int_equal(memfd_new("test", UINT64_MAX), -EINVAL);
}

static void test_check_size(void **state)
{
	int fd = memfd_new("test", BYTES);

	assert_int_equal(memfd_check(fd, 1), 0);
	assert_int_equal(memfd_check(fd, BYTES), 0);
	assert_int_equal(memfd_check(fd, BYTES + 1), -EINVAL);
	assert_int_equal(memfd_check(fd, UINT64_MAX), -EINVAL);
	close(fd);
}

static void test_check_seals(void **state)
{
	static const int refused[] = {0, F_SEAL_GROW, F_SEAL_SEAL | F_SEAL_GROW,
		F_SEAL_SHRINK | F_SEAL_WRITE, F_SEAL_SHRINK | F_SEAL_FUTURE_WRITE};
	int fd;

	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		fd = make(BYTES, 0, refused[i]);
		assert_int_equal(memfd_check(fd, BYTES), -EINVAL);
		close(fd);
	}
	fd = make(BYTES, 0, F_SEAL_SHRINK);
	assert_int_equal(memfd_check(fd, BYTES), 0);
	close(fd);
}

static void test_check_read_only(void **state)
{
	int fd = memfd_new("test", BYTES), ro;
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ro = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(ro >= 0);
	assert_int_equal(memfd_check(ro, BYTES), -EINVAL);
	close(ro);
	close(fd);
}

static void test_check_other_files(void **state)
{
	FILE *file = tmpfile();
	int p[2];

	assert_non_null(file);
	assert_int_equal(ftruncate(fileno(file), BYTES), 0);
	assert_int_equal(memfd_check(fileno(file), BYTES), -EINVAL);
	fclose(file);
	assert_int_equal(pipe(p), 0);
	assert_int_equal(memfd_check(p[1], 1), -EINVAL);
	close(p[0]);
	close(p[1]);
	assert_int_equal(memfd_check(-1, 1), -EINVAL);
	assert_int_equal(memfd_check(p[0], 1), -EINVAL);
}

/*
 * Mapping a part of huge pages maps whole ones: at a fixed address, over whatever lies
 * behind the window.
 */
static void test_check_huge_pages(void **state)
{
	int fd = make(SIZE_2M, MFD_HUGETLB, F_SEAL_SHRINK | F_SEAL_GROW);

	if (fd < 0) {
		assert_true(errno == EINVAL || errno == ENODEV || errno == ENOSYS);
		skip();
	}
	assert_int_equal(memfd_check(fd, PAGE_SIZE), -EINVAL);
	assert_int_equal(memfd_check(fd, SIZE_2M), -EINVAL);
	close(fd);
}

static void test_map_is_shared(void **state)
{
	int fd = memfd_new("test", BYTES);
	void *a = NULL, *b = NULL;
	char c = 0;

	assert_int_equal(memfd_map(fd, BYTES, &a), 0);
	assert_int_equal(memfd_map(fd, PAGE_SIZE, &b), 0);
	((char *)a)[5] = 'x';
	assert_int_equal(((char *)b)[5], 'x');
	assert_int_equal(pread(fd, &c, 1, 5), 1);
	assert_int_equal(c, 'x');
	munmap(a, BYTES);
	munmap(b, PAGE_SIZE);
	close(fd);
	a = state;
	assert_true(memfd_map(fd, BYTES, &a) < 0);
	assert_ptr_equal(a, state);
}

static void test_discard_gives_back_just_that(void **state)
{
	int fd = memfd_new("test", BYTES);
	uint64_t resident;
	uint8_t *p;
	void *map;

	assert_int_equal(memfd_map(fd, BYTES, &map), 0);
	p = map;
	memset(p, 0xaa, BYTES);
	assert_int_equal(memfd_resident(fd, &resident), 0);
	assert_int_equal(resident, BYTES);
	assert_int_equal(memfd_discard(fd, 3 * PAGE_SIZE, 2 * PAGE_SIZE), 0);
	assert_int_equal(memfd_resident(fd, &resident), 0);
	assert_int_equal(resident, BYTES - 2 * PAGE_SIZE);
	for (uint64_t i = 0; i < BYTES; i++)
		assert_int_equal(p[i], i >= 3 * PAGE_SIZE && i < 5 * PAGE_SIZE ? 0 : 0xaa);
	munmap(map, BYTES);
	close(fd);
}

static void test_next_data(void **state)
{
	uint64_t start = 77, end = 77;
	int fd = memfd_new("test", BYTES);

	assert_int_equal(memfd_next_data(fd, 0, BYTES, &start, &end), -ENXIO);
	assert_int_equal(start, 77);
	assert_int_equal(pwrite(fd, "x", 1, 4 * PAGE_SIZE), 1);
	assert_int_equal(pwrite(fd, "x", 1, 5 * PAGE_SIZE), 1);
	assert_int_equal(pwrite(fd, "x", 1, 9 * PAGE_SIZE), 1);
	assert_int_equal(memfd_next_data(fd, 0, BYTES, &start, &end), 0);
	assert_int_equal(start, 4 * PAGE_SIZE);
	assert_int_equal(end, 6 * PAGE_SIZE);
	/* Clipped at both ends. */
	assert_int_equal(memfd_next_data(fd, 5 * PAGE_SIZE, BYTES, &start, &end), 0);
	assert_int_equal(start, 5 * PAGE_SIZE);
	assert_int_equal(memfd_next_data(fd, 0, 5 * PAGE_SIZE, &start, &end), 0);
	assert_int_equal(end, 5 * PAGE_SIZE);
	/* None before the limit, though there is more behind it. */
	assert_int_equal(memfd_next_data(fd, 6 * PAGE_SIZE, 9 * PAGE_SIZE, &start, &end), -ENXIO);
	assert_int_equal(memfd_next_data(fd, 10 * PAGE_SIZE, BYTES, &start, &end), -ENXIO);
	close(fd);
	assert_int_equal(memfd_next_data(fd, 0, BYTES, &start, &end), -EBADF);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_new_is_sealed_and_zero),
		cmocka_unit_test(test_held),
		cmocka_unit_test(test_new_refuses_bad_sizes),
		cmocka_unit_test(test_check_size),
		cmocka_unit_test(test_check_seals),
		cmocka_unit_test(test_check_read_only),
		cmocka_unit_test(test_check_other_files),
		cmocka_unit_test(test_check_huge_pages),
		cmocka_unit_test(test_map_is_shared),
		cmocka_unit_test(test_discard_gives_back_just_that),
		cmocka_unit_test(test_next_data),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
