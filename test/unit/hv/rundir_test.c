/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The runtime directory: claims, stale entries, permissions. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/rundir.h"
#include "test/unit/hv/leftovers.h"

static int setup(void **unused)
{
	runtime_dir_make();
	leftovers_remember();
	return 0;
}

static int teardown(void **unused)
{
	leftovers_check();
	runtime_dir_remove();
	return 0;
}

static void make_path(char *path, size_t size, const char *name)
{
	snprintf(path, size, "%s/%s", runtime_dir(), name);
}

static void count_one(void *ctx, const char *name, int status_fd)
{
	struct stat st;

	assert_int_equal(fstat(status_fd, &st), 0);
	assert_int_equal(st.st_size, 4096);
	++*(int *)ctx;
}

static int count(void)
{
	int n = 0;

	assert_int_equal(rundir_list(count_one, &n), 0);
	return n;
}

static void test_claim_and_drop(void **unused)
{
	struct rundir_entry a, b, again;
	struct stat st;
	char path[128];

	assert_int_equal(count(), 0);
	assert_int_equal(rundir_claim("a", 4096, &a), 0);
	assert_int_equal(rundir_claim("b", 4096, &b), 0);
	assert_int_equal(rundir_claim("a", 4096, &again), -EEXIST);
	assert_int_equal(count(), 2);
	make_path(path, sizeof(path), "a");
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	make_path(path, sizeof(path), "a/status");
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	/* Not a hole: who maps it would be killed on a disk that is full. */
	assert_true(st.st_blocks * 512 >= 4096);
	rundir_drop(&a);
	assert_int_equal(count(), 1);
	assert_int_equal(rundir_claim("a", 4096, &again), 0);
	rundir_drop(&again);
	rundir_drop(&b);
	rundir_drop(&b);
}

/* The lock lives in the descriptor, which two processes share: the last one counts. */
static void test_stale_when_all_are_gone(void **unused)
{
	struct rundir_entry e, again;
	int go[2];
	char c;
	pid_t pid;

	assert_int_equal(rundir_claim("a", 4096, &e), 0);
	assert_int_equal(pipe2(go, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0) {
		close(go[1]);
		_exit(read(go[0], &c, 1) == 0 ? 0 : 1);
	}
	close(go[0]);
	close(e.folder);
	close(e.status);
	assert_int_equal(count(), 1);
	assert_int_equal(rundir_claim("a", 4096, &again), -EEXIST);
	close(go[1]);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(rundir_claim("a", 4096, &again), 0);
	assert_int_equal(count(), 1);
	close(again.folder);
	close(again.status);
	assert_int_equal(count(), 0);
}

static void test_stale_with_a_control_socket(void **unused)
{
	struct rundir_entry e;
	int fd;

	assert_int_equal(rundir_claim("a", 4096, &e), 0);
	fd = openat(e.folder, "control", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	close(fd);
	close(e.folder);
	close(e.status);
	assert_int_equal(count(), 0);
}

/* Opening a FIFO would wait for its writer, and lethe ps with it. */
static void test_status_that_is_a_fifo(void **unused)
{
	struct rundir_entry e;

	assert_int_equal(rundir_claim("a", 4096, &e), 0);
	assert_int_equal(unlinkat(e.folder, "status", 0), 0);
	assert_int_equal(mkfifoat(e.folder, "status", 0600), 0);
	assert_int_equal(count(), 0);
	close(e.folder);
	close(e.status);
	assert_int_equal(rundir_claim("a", 4096, &e), 0);
	rundir_drop(&e);
}

/* Whoever removes an entry late does not remove its successor. */
static void test_drop_after_successor(void **unused)
{
	struct rundir_entry old, next;

	assert_int_equal(rundir_claim("a", 4096, &old), 0);
	/* What the ultravisor does at its end. */
	assert_int_equal(unlinkat(old.folder, "status", 0), 0);
	assert_int_equal(unlinkat(old.folder, "../a", AT_REMOVEDIR), 0);
	assert_int_equal(rundir_claim("a", 4096, &next), 0);
	rundir_drop(&old);
	assert_int_equal(count(), 1);
	rundir_drop(&next);
}

static void test_unfinished_claim_of_a_dead_process(void **unused)
{
	char path[128], name[32];
	pid_t pid = fork();

	if (pid == 0)
		_exit(0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	snprintf(name, sizeof(name), ".%d-a", (int)pid);
	make_path(path, sizeof(path), name);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(count(), 0);
	assert_int_equal(access(path, F_OK), -1);
}

/* A live entry stays when this process cannot look into it. */
static void test_no_descriptor_left(void **unused)
{
	struct rlimit old, low;
	struct rundir_entry e, again;
	int n = 0, fds[2];

	assert_int_equal(rundir_claim("a", 4096, &e), 0);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	close(fds[0]);
	close(fds[1]);
	/* Enough for the directory and the entry's folder, not for its status. */
	low = old;
	low.rlim_cur = (rlim_t)fds[1] + 1;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	(void)rundir_list(count_one, &n);
	assert_int_equal(rundir_claim("a", 4096, &again), -EMFILE);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	assert_int_equal(count(), 1);
	rundir_drop(&e);
}

static void test_directory_of_others(void **unused)
{
	struct rundir_entry e;
	int n = 0;

	assert_int_equal(chmod(runtime_dir(), 0777), 0);
	assert_int_equal(rundir_claim("a", 4096, &e), -EPERM);
	assert_int_equal(rundir_list(count_one, &n), -EPERM);
	assert_int_equal(chmod(runtime_dir(), 0700), 0);
	if (geteuid() != 0)
		return;
	assert_int_equal(chown(runtime_dir(), 65534, 65534), 0);
	assert_int_equal(rundir_claim("a", 4096, &e), -EPERM);
	assert_int_equal(chown(runtime_dir(), 0, 0), 0);
}

static void test_symbolic_link_for_a_directory(void **unused)
{
	struct rundir_entry e;
	char link[128];

	snprintf(link, sizeof(link), "%s-link", runtime_dir());
	assert_int_equal(symlink(runtime_dir(), link), 0);
	assert_int_equal(setenv("LETHE_RUNTIME_DIR", link, 1), 0);
	assert_true(rundir_claim("a", 4096, &e) < 0);
	assert_int_equal(setenv("LETHE_RUNTIME_DIR", runtime_dir(), 1), 0);
	assert_int_equal(unlink(link), 0);
}

static void test_missing_directory(void **unused)
{
	struct rundir_entry e;
	char path[128];
	int n = 0;

	make_path(path, sizeof(path), "deeper");
	assert_int_equal(setenv("LETHE_RUNTIME_DIR", path, 1), 0);
	assert_int_equal(rundir_list(count_one, &n), 0);
	assert_int_equal(rundir_claim("a", 4096, &e), 0);
	rundir_drop(&e);
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(setenv("LETHE_RUNTIME_DIR", runtime_dir(), 1), 0);
}

#define CLAIMERS 4

static void *claim_one(void *arg)
{
	struct rundir_entry *e = arg;

	e->folder = -1;
	(void)rundir_claim("wanted", 4096, e);
	return NULL;
}

static void test_one_claim_wins(void **unused)
{
	for (int round = 0; round < 50; round++) {
		struct rundir_entry e[CLAIMERS] = {0};
		pthread_t thread[CLAIMERS];
		int won = 0;

		for (int i = 0; i < CLAIMERS; i++)
			assert_int_equal(pthread_create(&thread[i], NULL, claim_one, &e[i]), 0);
		for (int i = 0; i < CLAIMERS; i++)
			pthread_join(thread[i], NULL);
		for (int i = 0; i < CLAIMERS; i++)
			won += e[i].folder >= 0;
		assert_int_equal(won, 1);
		for (int i = 0; i < CLAIMERS; i++)
			rundir_drop(&e[i]);
	}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_claim_and_drop),
		TEST(test_stale_when_all_are_gone),
		TEST(test_stale_with_a_control_socket),
		TEST(test_status_that_is_a_fifo),
		TEST(test_drop_after_successor),
		TEST(test_unfinished_claim_of_a_dead_process),
		TEST(test_no_descriptor_left),
		TEST(test_directory_of_others),
		TEST(test_symbolic_link_for_a_directory),
		TEST(test_missing_directory),
		TEST(test_one_claim_wins),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
