/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vmm/console.c: on pipes in this process, and on a terminal in a child that has a
 * pseudo-terminal as its controlling one, this process being the user.
 */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>
#include <cmocka.h>

#include "vmm/console.h"

/* A guest that takes at most `room` bytes. */
struct guest {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	size_t room;
	char got[8192];
	size_t got_bytes;
};

static size_t take(void *ctx, const uint8_t *data, size_t bytes)
{
	struct guest *g = ctx;

	pthread_mutex_lock(&g->lock);
	if (bytes > g->room)
		bytes = g->room;
	memcpy(g->got + g->got_bytes, data, bytes);
	g->got_bytes += bytes;
	g->room -= bytes;
	pthread_cond_broadcast(&g->changed);
	pthread_mutex_unlock(&g->lock);
	return bytes;
}

static void wait_for_bytes(struct guest *g, size_t bytes)
{
	pthread_mutex_lock(&g->lock);
	while (g->got_bytes < bytes)
		pthread_cond_wait(&g->changed, &g->lock);
	assert_int_equal(g->got_bytes, bytes);
	pthread_mutex_unlock(&g->lock);
}

static void give_room(struct guest *g, struct console *c, size_t room)
{
	pthread_mutex_lock(&g->lock);
	g->room = room;
	pthread_mutex_unlock(&g->lock);
	console_input_ready(c);
}

static void quit_unexpectedly(void *ctx)
{
	fprintf(stderr, "quit without a terminal\n");
	abort();
}

struct fixture {
	struct guest guest;
	int in[2], out[2];
	struct console *console;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct console_config config = {.ctx = &f->guest, .input = take, .quit = quit_unexpectedly};

	pthread_mutex_init(&f->guest.lock, NULL);
	pthread_cond_init(&f->guest.changed, NULL);
	if (pipe(f->in) != 0 || pipe(f->out) != 0)
		return -1;
	config.in_fd = f->in[0];
	config.out_fd = f->out[1];
	*state = f;
	return console_new(&config, &f->console);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	console_free(f->console);
	for (int i = 0; i < 2; i++) {
		close(f->in[i]);
		close(f->out[i]);
	}
	free(f);
	return 0;
}

static void pipe_input_is_passed_as_it_is(void **state)
{
	struct fixture *f = *state;

	f->guest.room = 100;
	assert_int_equal(write(f->in[1], "a\001x\001\001\r\n", 7), 7);
	wait_for_bytes(&f->guest, 7);
	assert_memory_equal(f->guest.got, "a\001x\001\001\r\n", 7);
}

static void input_waits_until_the_guest_has_room(void **state)
{
	struct fixture *f = *state;
	static char text[6000];

	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (char)('a' + i % 23);
	assert_int_equal(write(f->in[1], text, sizeof(text)), sizeof(text));
	for (size_t got = 0; got < sizeof(text); got += 1000) {
		give_room(&f->guest, f->console, 1000);
		wait_for_bytes(&f->guest, got + 1000);
	}
	assert_memory_equal(f->guest.got, text, sizeof(text));
}

static void end_of_input_is_nothing_special(void **state)
{
	struct fixture *f = *state;
	char byte = 0;

	f->guest.room = 100;
	assert_int_equal(write(f->in[1], "last", 4), 4);
	close(f->in[1]);
	f->in[1] = -1;
	wait_for_bytes(&f->guest, 4);
	console_write(f->console, "x", 1);
	assert_int_equal(read(f->out[0], &byte, 1), 1);
	assert_int_equal(byte, 'x');
}

static void *write_much(void *arg)
{
	static char much[1 << 20];

	console_write(arg, much, sizeof(much));
	return NULL;
}

static void stop_ends_a_write_to_a_reader_that_sleeps(void **state)
{
	struct fixture *f = *state;
	pthread_t thread;
	char byte;

	assert_int_equal(pthread_create(&thread, NULL, write_much, f->console), 0);
	assert_int_equal(read(f->out[0], &byte, 1), 1);
	console_stop(f->console);
	assert_int_equal(pthread_join(thread, NULL), 0);
	console_write(f->console, "x", 1); /* dropped, not waited for */
}

static void write_to_a_reader_that_left_is_dropped(void **state)
{
	struct fixture *f = *state;

	signal(SIGPIPE, SIG_IGN);
	close(f->out[0]);
	f->out[0] = -1;
	console_write(f->console, "xyz", 3);
}

/* ---- on a terminal ---- */

#define CHILD_QUIT 42

static void exit_by_user(void *ctx)
{
	exit(CHILD_QUIT);
}

/* Shows what the guest gets, in hexadecimal. */
static size_t show(void *ctx, const uint8_t *data, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		dprintf(1, "<%02x>", data[i]);
	return bytes;
}

static size_t refuse(void *ctx, const uint8_t *data, size_t bytes)
{
	return 0;
}

static _Noreturn void terminal_child(const char *tty, bool guest_hangs)
{
	struct console_config config = {.in_fd = 0,
		.out_fd = 1,
		.input = guest_hangs ? refuse : show,
		.quit = exit_by_user};
	struct console *console;
	int fd;

	setsid();
	fd = open(tty, O_RDWR);
	if (fd < 0 || ioctl(fd, TIOCSCTTY, 0) != 0 || dup2(fd, 0) != 0 || dup2(fd, 1) != 1)
		_exit(1);
	if (console_new(&config, &console) != 0)
		_exit(1);
	dprintf(1, "ready");
	for (;;)
		pause();
}

/* *ret_other keeps the terminal's other end open, so that it outlives the child. */
static pid_t start_child(int *ret_user, int *ret_other, bool guest_hangs)
{
	int user = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	pid_t pid;

	assert_true(user >= 0);
	assert_int_equal(grantpt(user), 0);
	assert_int_equal(unlockpt(user), 0);
	*ret_other = open(ptsname(user), O_RDWR | O_NOCTTY | O_CLOEXEC);
	assert_true(*ret_other >= 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		terminal_child(ptsname(user), guest_hangs);
	*ret_user = user;
	return pid;
}

/* Reads what the terminal shows until it ends in @text. */
static void expect(int user, const char *text)
{
	char seen[1024] = "";
	size_t bytes = 0, want = strlen(text);

	while (bytes < want || memcmp(seen + bytes - want, text, want) != 0) {
		assert_int_equal(read(user, seen + bytes, 1), 1);
		bytes++;
		assert_true(bytes < sizeof(seen));
	}
}

static void type(int user, const char *keys)
{
	assert_int_equal(write(user, keys, strlen(keys)), strlen(keys));
}

/* The terminal must end as it began: in cooked mode. */
static void expect_end(int user, int other, pid_t pid, int status)
{
	struct termios mode;
	int got;

	assert_int_equal(waitpid(pid, &got, 0), pid);
	assert_int_equal(got, status);
	assert_int_equal(tcgetattr(user, &mode), 0);
	assert_true(mode.c_lflag & ICANON);
	assert_true(mode.c_lflag & ECHO);
	close(other);
	close(user);
}

static void terminal_keys_reach_the_guest(void **state)
{
	int user, other;
	pid_t pid = start_child(&user, &other, false);
	struct termios mode;

	expect(user, "ready");
	assert_int_equal(tcgetattr(user, &mode), 0);
	assert_false(mode.c_lflag & (ICANON | ECHO | ISIG));
	type(user, "a\003\r");
	expect(user, "<61><03><0d>");
	type(user, "\001\001\001a");
	expect(user, "<01><01>");
	type(user, "\001h");
	expect(user, "send Ctrl-a");
	type(user, "\001zb"); /* an escape of nothing */
	expect(user, "<62>");
	type(user, "\001x");
	expect_end(user, other, pid, CHILD_QUIT << 8);
}

static void quitting_works_although_the_guest_hangs(void **state)
{
	static char keys[9000];
	int user, other;
	pid_t pid = start_child(&user, &other, true);

	expect(user, "ready");
	memset(keys, 'k', sizeof(keys) - 1);
	for (size_t i = 0; i < sizeof(keys) - 1; i += 1000)
		assert_int_equal(write(user, keys, 1000), 1000);
	type(user, "\001x");
	expect_end(user, other, pid, CHILD_QUIT << 8);
}

static void signals_restore_the_terminal(void **state)
{
	int user, other;
	pid_t pid = start_child(&user, &other, false);

	expect(user, "ready");
	assert_int_equal(kill(pid, SIGTERM), 0);
	expect_end(user, other, pid, SIGTERM);
}

int main(void)
{
#define PIPES(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		PIPES(pipe_input_is_passed_as_it_is),
		PIPES(input_waits_until_the_guest_has_room),
		PIPES(end_of_input_is_nothing_special),
		PIPES(stop_ends_a_write_to_a_reader_that_sleeps),
		PIPES(write_to_a_reader_that_left_is_dropped),
		cmocka_unit_test(terminal_keys_reach_the_guest),
		cmocka_unit_test(quitting_works_although_the_guest_hangs),
		cmocka_unit_test(signals_restore_the_terminal),
	};

	alarm(60); /* a lost wake-up must not hang the test run */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
