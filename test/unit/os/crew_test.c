/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A crew does each piece of work once, on several threads, and stops at an error. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/crew.h"

#define COUNT 1000
#define RUNS  200

static struct crew *new_crew(unsigned int threads)
{
	struct crew *c = NULL;

	assert_int_equal(crew_new(threads, &c), 0);
	assert_non_null(c);
	return c;
}

static int mark(void *ctx, uint64_t index)
{
	/* Plain memory: a second call for the same index is a race that tools see. */
	((unsigned int *)ctx)[index]++;
	return 0;
}

static void check_marks(struct crew *c, uint64_t count)
{
	unsigned int marks[COUNT] = {0};

	assert_int_equal(crew_run(c, mark, marks, count), 0);
	for (uint64_t i = 0; i < COUNT; i++)
		assert_int_equal(marks[i], i < count);
}

static void test_each_once(void **state)
{
	static const unsigned int threads[] = {1, 2, 5, CREW_MAX};

	for (size_t i = 0; i < sizeof(threads) / sizeof(threads[0]); i++) {
		struct crew *c = new_crew(threads[i]);

		for (uint64_t run = 0; run < RUNS; run++)
			check_marks(c, run % 7);
		check_marks(c, COUNT);
		crew_free(c);
	}
}

/* Each waits for the other: only two threads at once can do both. */
struct meeting {
	pthread_barrier_t barrier;
	pthread_t who[2];
};

static int meet(void *ctx, uint64_t index)
{
	struct meeting *m = ctx;

	m->who[index] = pthread_self();
	pthread_barrier_wait(&m->barrier);
	return 0;
}

static void test_caller_takes_part(void **state)
{
	struct crew *c = new_crew(2);
	struct meeting m;

	pthread_barrier_init(&m.barrier, NULL, 2);
	assert_int_equal(crew_run(c, meet, &m, 2), 0);
	assert_false(pthread_equal(m.who[0], m.who[1]));
	assert_true(
		pthread_equal(m.who[0], pthread_self()) || pthread_equal(m.who[1], pthread_self()));
	pthread_barrier_destroy(&m.barrier);
	crew_free(c);
}

struct failing {
	uint64_t from;
	_Atomic unsigned int calls;
};

static int fail_from(void *ctx, uint64_t index)
{
	struct failing *f = ctx;

	atomic_fetch_add(&f->calls, 1);
	return index >= f->from ? -EIO : 0;
}

static void test_error_ends_the_run(void **state)
{
	static const uint64_t from[] = {0, 10, COUNT - 1};
	struct crew *c = new_crew(4);

	for (size_t i = 0; i < sizeof(from) / sizeof(from[0]); i++) {
		struct failing f = {.from = from[i]};

		assert_int_equal(crew_run(c, fail_from, &f, COUNT), -EIO);
		/* Each thread began at most one more. */
		assert_in_range(f.calls, f.from + 1, f.from + 4);
		check_marks(c, COUNT);
	}
	crew_free(c);
}

static void *run_often(void *arg)
{
	for (unsigned int run = 0; run < RUNS; run++)
		check_marks(arg, run % 40);
	return NULL;
}

static void test_runs_take_turns(void **state)
{
	struct crew *c = new_crew(3);
	pthread_t other[2];

	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&other[i], NULL, run_often, c), 0);
	run_often(c);
	for (int i = 0; i < 2; i++)
		pthread_join(other[i], NULL);
	crew_free(c);
}

static void test_limits(void **state)
{
	struct crew *c = NULL;

	assert_int_equal(crew_new(0, &c), -EINVAL);
	assert_int_equal(crew_new(CREW_MAX + 1, &c), -EINVAL);
	assert_null(c);
	crew_free(NULL);
	assert_in_range(crew_threads(), 1, CREW_MAX);
}

/* In a child, where @point fails once: nothing is left, and the next attempt works. */
static void with_failpoint(const char *point, int error)
{
	int status;
	pid_t pid;

#ifndef LETHE_FAILPOINTS
	skip();
#endif
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct crew *c = NULL;
		bool good;

		setenv("LETHE_FAILPOINT", point, 1);
		good = crew_new(4, &c) == error && c == NULL && crew_new(4, &c) == 0;
		crew_free(c);
		_exit(good ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void test_new_fails(void **state)
{
	with_failpoint("crew-new", -ENOMEM);
	with_failpoint("crew-thread", -ENOMEM);
	with_failpoint("crew-thread:3:EAGAIN", -EAGAIN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_new_fails),
		cmocka_unit_test(test_each_once),
		cmocka_unit_test(test_caller_takes_part),
		cmocka_unit_test(test_error_ends_the_run),
		cmocka_unit_test(test_runs_take_turns),
		cmocka_unit_test(test_limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
