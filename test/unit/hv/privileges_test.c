/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Giving up root: each case in a process of its own, because there is no way back. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "lethe/lethe.h"

static pthread_barrier_t dropped;

/* A thread that was there before must have lost root as well. */
static void *try_to_be_root(void *arg)
{
	pthread_barrier_wait(&dropped);
	*(bool *)arg = getuid() == 0 || setresuid(0, 0, 0) == 0 || access("/etc/shadow", R_OK) == 0;
	return NULL;
}

static int drop(const char *sudo_uid, const char *sudo_gid, uid_t uid, gid_t gid)
{
	bool regained = true;
	pthread_t thread;

	if (sudo_uid != NULL)
		setenv("SUDO_UID", sudo_uid, 1);
	if (sudo_gid != NULL)
		setenv("SUDO_GID", sudo_gid, 1);
	pthread_barrier_init(&dropped, NULL, 2);
	if (pthread_create(&thread, NULL, try_to_be_root, &regained) != 0)
		return 1;
	if (lethe_drop_root() != 0)
		return 2;
	pthread_barrier_wait(&dropped);
	pthread_join(thread, NULL);
	if (regained)
		return 3;
	if (getuid() != uid || geteuid() != uid || getgid() != gid || getgroups(0, NULL) != 0)
		return 4;
	if (setuid(0) == 0 || access("/etc/shadow", R_OK) == 0)
		return 5;
	if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
		return 6;
	return lethe_drop_root() == 0 ? 0 : 7;
}

static void check(const char *sudo_uid, const char *sudo_gid, uid_t uid, gid_t gid)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		unsetenv("SUDO_UID");
		unsetenv("SUDO_GID");
		_exit(drop(sudo_uid, sudo_gid, uid, gid));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void test_nobody(void **unused)
{
	check(NULL, NULL, 65534, 65534);
}

static void test_who_called_sudo(void **unused)
{
	check("12345", "23456", 12345, 23456);
}

/* Root is never what one becomes, nor is a number that is none. */
static void test_bad_numbers(void **unused)
{
	check("0", "0", 65534, 65534);
	check("", "", 65534, 65534);
	check("-1", "4294967295", 65534, 65534);
	check("12x", "99999999999999999999", 65534, 65534);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nobody),
		cmocka_unit_test(test_who_called_sudo),
		cmocka_unit_test(test_bad_numbers),
	};

	if (geteuid() != 0) {
		fprintf(stderr, "not root: nothing to give up\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
