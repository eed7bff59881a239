/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Futexes between threads and between processes. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/futex.h"

#define ROUNDS 2000

/* Two numbers that two parties raise in turns, as exits and replies do. */
struct pair {
	uint32_t ask, answer;
};

static void wait_for(uint32_t *word, uint32_t value)
{
	uint32_t seen;

	while ((seen = __atomic_load_n(word, __ATOMIC_ACQUIRE)) != value)
		(void)futex_wait(word, seen, NULL);
}

static void set(uint32_t *word, uint32_t value)
{
	__atomic_store_n(word, value, __ATOMIC_RELEASE);
	futex_wake(word, 1);
}

static void *answer_all(void *arg)
{
	struct pair *p = arg;

	for (uint32_t i = 1; i <= ROUNDS; i++) {
		wait_for(&p->ask, i);
		set(&p->answer, i);
	}
	return NULL;
}

static void ask_all(struct pair *p)
{
	for (uint32_t i = 1; i <= ROUNDS; i++) {
		set(&p->ask, i);
		wait_for(&p->answer, i);
	}
}

static void test_threads_take_turns(void **state)
{
	struct pair p = {0};
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, answer_all, &p), 0);
	ask_all(&p);
	pthread_join(thread, NULL);
}

static void test_processes_take_turns(void **state)
{
	struct pair *p =
		mmap(NULL, sizeof(*p), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int status;
	pid_t pid;

	assert_ptr_not_equal(p, MAP_FAILED);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		answer_all(p);
		_exit(0);
	}
	ask_all(p);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	munmap(p, sizeof(*p));
}

static void test_another_value_does_not_sleep(void **state)
{
	uint32_t word = 1;

	assert_int_equal(futex_wait(&word, 2, NULL), -EAGAIN);
}

static void test_time_limit(void **state)
{
	const struct timespec soon = {.tv_nsec = 1000};
	uint32_t word = 1;

	assert_int_equal(futex_wait(&word, 1, &soon), -ETIMEDOUT);
}

static void on_alarm(int sig)
{
}

/* What a kick relies on. */
static void test_signal_interrupts(void **state)
{
	struct sigaction action = {.sa_handler = on_alarm};
	uint32_t word = 1;
	timer_t timer;
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
	const struct itimerspec again = {{0, 1000000}, {0, 1000000}};

	sigaction(SIGUSR1, &action, NULL);
	assert_int_equal(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
	assert_int_equal(timer_settime(timer, 0, &again, NULL), 0);
	assert_int_equal(futex_wait(&word, 1, NULL), -EINTR);
	timer_delete(timer);
}

static void test_wake_without_sleepers(void **state)
{
	uint32_t word = 0;

	futex_wake(&word, 1);
	assert_int_equal(word, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_threads_take_turns),
		cmocka_unit_test(test_processes_take_turns),
		cmocka_unit_test(test_another_value_does_not_sleep),
		cmocka_unit_test(test_time_limit),
		cmocka_unit_test(test_signal_interrupts),
		cmocka_unit_test(test_wake_without_sleepers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
