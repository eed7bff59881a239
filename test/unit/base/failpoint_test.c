/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Each case runs in a child: the choice is read once per process. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/failpoint.h"
#include "base/log.h"

static void drop_line(enum log_level level, const char *line)
{
}

/* With @choice, reaches "one" @times times; the child exits with what the last returned. */
static int run(const char *choice, int times)
{
	const struct rlimit no_core = {0, 0};
	int status, ret = 0;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		log_setup("test", LOG_WARN, drop_line);
		setrlimit(RLIMIT_CORE, &no_core);
		setenv("LETHE_FAILPOINT", choice, 1);
		for (int i = 0; i < times; i++) {
			ret = failpoint("one");
			if (failpoint("one-more") != 0)
				_exit(255);
		}
		_exit(-ret);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void assert_returns(const char *choice, int times, int error)
{
	int status = run(choice, times);

	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), error);
}

static void assert_dies(const char *choice, int times, int signal)
{
	int status = run(choice, times);

	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), signal);
}

static void test_fails_once_at_the_nth_time(void **state)
{
	assert_returns("one", 1, ENOMEM);
	assert_returns("one", 2, 0);
	assert_returns("one:3", 2, 0);
	assert_returns("one:3", 3, ENOMEM);
	assert_returns("one:3", 4, 0);
	assert_returns("other", 1, 0);
}

static void test_errno_by_name_or_number(void **state)
{
	assert_returns("one:1:EIO", 1, EIO);
	assert_returns("one:2:13", 2, EACCES);
}

static void test_kill(void **state)
{
	assert_returns("one:2:kill", 1, 0);
	assert_dies("one:2:kill", 2, SIGKILL);
}

static void test_other_signals(void **state)
{
	assert_dies("one:2:term", 2, SIGTERM);
	signal(SIGTERM, SIG_IGN);
	assert_returns("one:2:term", 2, 0);
	signal(SIGTERM, SIG_DFL);
}

/* It goes on where it was when somebody else lets it. */
static void test_stop(void **state)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		setenv("LETHE_FAILPOINT", "one:1:stop", 1);
		_exit(failpoint("one") == 0 ? 7 : 1);
	}
	assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
	assert_true(WIFSTOPPED(status));
	kill(pid, SIGCONT);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(WEXITSTATUS(status), 7);
}

static void test_malformed_choice_is_noticed(void **state)
{
	static const char *const bad[] = {"", ":1", "one:", "one:0", "one:-1", "one:x",
		"one:1:", "one:1:NOERRNO", "one:1:0", "one:1:99999", "one:1:kill:"};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_dies(bad[i], 1, SIGABRT);
}

int main(void)
{
#ifndef LETHE_FAILPOINTS
	fprintf(stderr, "skipped: built without -Dfailpoints=true\n");
	return 77;
#endif
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fails_once_at_the_nth_time),
		cmocka_unit_test(test_errno_by_name_or_number),
		cmocka_unit_test(test_kill),
		cmocka_unit_test(test_other_signals),
		cmocka_unit_test(test_stop),
		cmocka_unit_test(test_malformed_choice_is_noticed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
