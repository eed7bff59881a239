/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The page store in a file: what it keeps, what it takes, and what it leaves behind. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "lethe/lethe.h"
#include "test/unit/hv/leftovers.h"

#define PAGE LETHE_PAGE_SIZE
#define MB   ((uint64_t)1 << 20)
#define RUN  LETHE_STORE_RUN

static char folder[64], path[96];
static struct lethe_page_store *store;
static bool is_named;     /* the test made the file */
static uint8_t *out, *in; /* RUN pages each, aligned */

static int setup(void **unused)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(folder, sizeof(folder), "%.40s/lethe-XXXXXX", tmp != NULL ? tmp : "/tmp");
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/store", folder);
	assert_int_equal(posix_memalign((void **)&out, PAGE, RUN * PAGE), 0);
	assert_int_equal(posix_memalign((void **)&in, PAGE, RUN * PAGE), 0);
	store = NULL;
	return 0;
}

/* Every test ends with an empty folder, but for the file that it put there itself. */
static int teardown(void **unused)
{
	if (store != NULL)
		store->close(store);
	if (is_named && unlink(path) < 0)
		return -1;
	is_named = false;
	free(out);
	free(in);
	assert_int_equal(rmdir(folder), 0);
	return 0;
}

static void open_store(void)
{
	assert_int_equal(lethe_page_store_file(path, &store), 0);
}

static void close_store(void)
{
	store->close(store);
	store = NULL;
}

static void write_file(const char *text)
{
	FILE *f = fopen(path, "we");

	assert_non_null(f);
	assert_int_equal(fputs(text, f) >= 0, 1);
	assert_int_equal(fclose(f), 0);
}

/* In a file that can be looked at. */
static void open_named_store(void)
{
	write_file("");
	is_named = true;
	open_store();
}

static uint64_t blocks(void)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

/* ---- content ---- */

/* One number per page: what was put there last. */
static void fill(uint8_t *pages, size_t count, uint64_t gpa, uint64_t version)
{
	for (uint64_t i = 0; i < count * PAGE / 16; i++) {
		uint64_t word[2] = {gpa + i * 16, version};

		memcpy(pages + i * 16, word, 16);
	}
}

static void put(uint64_t gpa, size_t count, uint64_t version)
{
	fill(out, count, gpa, version);
	assert_int_equal(store->put(store, gpa, out, count), 0);
}

static void check(uint64_t gpa, size_t count, uint64_t version)
{
	fill(out, count, gpa, version);
	memset(in, 0, count * PAGE);
	assert_int_equal(store->get(store, gpa, in, count), 0);
	assert_memory_equal(in, out, count * PAGE);
}

static void test_keeps_pages(void **unused)
{
	const uint64_t far = (uint64_t)1 << 42;

	open_named_store();
	put(0, 1, 1);
	put(far, RUN, 2);
	put(MB, 7, 3);
	check(0, 1, 1);
	check(far, RUN, 2);
	check(MB, 7, 3);
	put(MB, 7, 4);
	check(MB, 7, 4);
	/* Sparse: terabytes of addresses, a megabyte of space. */
	assert_in_range(blocks(), (RUN + 8) * PAGE, 4 * MB);
}

#define PAGES 2048

static uint32_t next_random(uint32_t *state)
{
	*state = *state * 1664525 + 1013904223;
	return *state >> 8;
}

static void test_random_runs(void **unused)
{
	static uint64_t model[PAGES]; /* version; 0: not kept */
	uint32_t random = 7;

	memset(model, 0, sizeof(model));
	open_store();
	for (uint64_t step = 1; step < 600; step++) {
		size_t first = next_random(&random) % PAGES, count;
		uint32_t what = next_random(&random) % 8;

		count = 1 + next_random(&random) % 64;
		if (count > PAGES - first)
			count = PAGES - first;
		if (what < 3) {
			put(first * PAGE, count, step);
			for (size_t i = first; i < first + count; i++)
				model[i] = step;
		} else if (what < 5) {
			store->drop(store, first * PAGE, count);
			memset(&model[first], 0, count * sizeof(model[0]));
		} else {
			for (size_t i = first; i < first + count; i++) {
				if (model[i] != 0)
					check(i * PAGE, 1, model[i]);
			}
		}
	}
	store->drop_all(store);
	put(0, 1, 9);
	check(0, 1, 9);
}

static void test_gives_space_back(void **unused)
{
	open_named_store();
	for (uint64_t at = 0; at < 8 * MB; at += RUN * PAGE)
		put(at, RUN, 1);
	assert_in_range(blocks(), 8 * MB, 9 * MB);
	store->drop(store, MB, RUN);
	store->drop(store, 3 * MB, RUN);
	assert_in_range(blocks(), 6 * MB, 7 * MB);
	check(2 * MB, RUN, 1);
	store->drop_all(store);
	assert_in_range(blocks(), 0, MB / 4);
}

struct user {
	pthread_t thread;
	uint64_t base;
};

static void *use(void *arg)
{
	const struct user *u = arg;
	uint8_t *buffer = NULL, *expected = NULL;

	assert_int_equal(posix_memalign((void **)&buffer, PAGE, 16 * PAGE), 0);
	assert_int_equal(posix_memalign((void **)&expected, PAGE, 16 * PAGE), 0);
	for (uint64_t round = 1; round < 50; round++) {
		uint64_t at = u->base + round % 4 * 16 * PAGE;

		fill(expected, 16, at, round);
		assert_int_equal(store->put(store, at, expected, 16), 0);
		assert_int_equal(store->get(store, at, buffer, 16), 0);
		assert_memory_equal(buffer, expected, 16 * PAGE);
		store->drop(store, at, 8);
	}
	free(buffer);
	free(expected);
	return NULL;
}

static void test_many_threads(void **unused)
{
	struct user users[4];

	open_store();
	for (size_t i = 0; i < 4; i++) {
		users[i].base = i * MB;
		assert_int_equal(pthread_create(&users[i].thread, NULL, use, &users[i]), 0);
	}
	for (size_t i = 0; i < 4; i++)
		pthread_join(users[i].thread, NULL);
}

/* ---- the file ---- */

/* From the first moment nobody finds it, and when the process is gone, so is it. */
static void test_file_has_no_name(void **unused)
{
	open_store();
	assert_int_equal(access(path, F_OK), -1);
	put(0, 1, 1);
	check(0, 1, 1);
	/* Whatever comes to be there is another file. */
	write_file("another");
	close_store();
	assert_int_equal(access(path, F_OK), 0);
	assert_int_equal(unlink(path), 0);
}

static void test_urls(void **unused)
{
	static const char *const bad[] = {"", "file:", "file://", "nbd://host/export", "s3://b/k"};
	char url[128];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(lethe_page_store_file(bad[i], &store), -EINVAL);
	assert_null(store);
	for (int slashes = 0; slashes <= 2; slashes += 2) {
		snprintf(url, sizeof(url), "file:%.*s%s", slashes, "//", path);
		assert_int_equal(lethe_page_store_file(url, &store), 0);
		assert_string_equal(store->name, path);
		close_store();
	}
}

static void test_not_for_two(void **unused)
{
	struct lethe_page_store *second = NULL;

	open_named_store();
	put(0, 1, 5);
	assert_int_equal(lethe_page_store_file(path, &second), -EBUSY);
	assert_non_null(strstr(lethe_error(), "another VM"));
	assert_null(second);
	check(0, 1, 5);
}

static void test_other_files_are_not_touched(void **unused)
{
	char text[32] = {0};
	FILE *f;

	write_file("a file of great value");
	assert_int_equal(lethe_page_store_file(path, &store), -EEXIST);
	assert_null(store);
	f = fopen(path, "re");
	assert_non_null(f);
	assert_non_null(fgets(text, sizeof(text), f));
	fclose(f);
	assert_string_equal(text, "a file of great value");
	assert_int_equal(unlink(path), 0);

	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(lethe_page_store_file(path, &store), -EEXIST);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(lethe_page_store_file(folder, &store), -EISDIR);
	assert_int_equal(lethe_page_store_file("/nonexistent/store", &store), -ENOENT);
	assert_null(store);
}

static void test_empty_file_stays(void **unused)
{
	struct stat st;

	open_named_store();
	put(MB, 1, 5);
	check(MB, 1, 5);
	close_store();
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, 0);
	/* And can be used once more. */
	open_store();
	put(0, 1, 6);
	check(0, 1, 6);
}

/* ---- full and gone ---- */

static void test_truncated(void **unused)
{
	open_named_store();
	put(0, 4, 1);
	put(MB, 4, 1);
	assert_int_equal(truncate(path, 2 * PAGE), 0);
	check(0, 2, 1);
	assert_int_equal(store->get(store, 0, in, 4), -ENODATA);
	assert_int_equal(store->get(store, MB, in, 4), -ENODATA);
	put(MB, 4, 2);
	check(MB, 4, 2);
}

static void test_above_the_file_size_limit(void **unused)
{
	struct rlimit old, limit;

	open_store();
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	limit = (struct rlimit){MB, old.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	put(0, 4, 1);
	/* Answered, where the kernel would end the process. */
	assert_int_equal(store->put(store, MB, out, 1), -EFBIG);
	assert_int_equal(store->put(store, MB - PAGE, out, 2), -EFBIG);
	assert_int_equal(store->put(store, MB - PAGE, out, 1), 0);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	check(0, 4, 1);
}

/* In a process of its own.  2: no file system can be mounted here. */
static int fill_a_file_system(void)
{
	if (unshare(CLONE_NEWNS) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
		return 2;
	if (mount("none", folder, "tmpfs", 0, "size=256k") < 0)
		return 2;
	if (lethe_page_store_file(path, &store) < 0)
		return 3;
	fill(out, 8, 0, 1);
	if (store->put(store, 0, out, 8) < 0)
		return 4;
	if (store->put(store, MB, out, RUN) != -ENOSPC)
		return 5;
	store->drop(store, MB, RUN);
	if (store->get(store, 0, in, 8) < 0 || memcmp(in, out, 8 * PAGE) != 0)
		return 6;
	if (store->put(store, 2 * MB, out, 8) < 0)
		return 7;
	store->close(store);
	return access(path, F_OK) == 0 ? 8 : 0;
}

static void test_full(void **unused)
{
	pid_t pid = fork();
	int status;

	if (pid == 0)
		_exit(fill_a_file_system());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 2)
		skip();
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* ---- failpoints ---- */

#ifdef LETHE_FAILPOINTS
/* In a process of its own, because the choice is read once. */
static int fails_and_leaves_nothing(void)
{
	setup(NULL);
	if (lethe_page_store_file(path, &store) != -ENOMEM || access(path, F_OK) == 0)
		return 1;
	if (lethe_page_store_file(path, &store) != 0)
		return 2;
	return teardown(NULL);
}

static void test_opening_fails(void **unused)
{
	static const char *const points[] = {"store-new", "store-open", "store-write"};

	for (size_t i = 0; i < sizeof(points) / sizeof(points[0]); i++)
		rerun_failing(points[i], "opening", NULL);
}
#endif

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_keeps_pages),
		TEST(test_random_runs),
		TEST(test_gives_space_back),
		TEST(test_many_threads),
		TEST(test_file_has_no_name),
		TEST(test_urls),
		TEST(test_not_for_two),
		TEST(test_other_files_are_not_touched),
		TEST(test_empty_file_stays),
		TEST(test_truncated),
		TEST(test_above_the_file_size_limit),
		TEST(test_full),
#ifdef LETHE_FAILPOINTS
		cmocka_unit_test(test_opening_fails),
#endif
	};

#ifdef LETHE_FAILPOINTS
	if (argc > 1)
		return fails_and_leaves_nothing();
#endif
	return cmocka_run_group_tests(tests, NULL, NULL);
}
