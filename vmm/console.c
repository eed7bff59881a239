/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * One thread waits for input, for console_input_ready() and for the end.  What it reads
 * passes the escape filter and waits in `pending` until the guest takes it.  A file or
 * pipe is read only while there is room; from a terminal reading goes on, so that Ctrl-a x
 * works although the guest hangs, and what does not fit is dropped.
 *
 * `stop` is an eventfd that, once written, stays readable: every wait includes it.
 *
 * The terminal is restored by console_free(), by exit(), and by the signals that end a
 * process, where nobody else handles them.  tcsetattr() is safe in a signal handler.
 */
#include "vmm/console.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <termios.h>
#include <unistd.h>

#define ESCAPE      0x01 /* Ctrl-a */
#define PENDING_MAX 4096
#define WRITE_CHUNK 512 /* at most PIPE_BUF: a writable pipe takes it without blocking */

static const char help[] = "\r\nCtrl-a x  quit\r\nCtrl-a h  this help\r\n"
			   "Ctrl-a Ctrl-a  send Ctrl-a\r\n";

struct console {
	struct console_config config;
	bool terminal; /* in_fd is one, and ours */
	bool escaped;  /* Ctrl-a was the last key */
	int stop;      /* eventfd: the end */
	int ready;     /* eventfd: the guest has room */
	pthread_t thread;
	uint8_t pending[PENDING_MAX];
	size_t pending_bytes;
};

/* What exit and signal handlers restore. */
static struct {
	atomic_bool taken;
	int fd;
	struct termios saved;
} terminal;

static const int fatal_signals[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGABRT};

static void restore_terminal(void)
{
	if (atomic_exchange(&terminal.taken, false))
		tcsetattr(terminal.fd, TCSANOW, &terminal.saved);
}

static void restore_and_die(int sig)
{
	restore_terminal();
	signal(sig, SIG_DFL);
	raise(sig);
}

/* Signals that others handle or ignore stay theirs. */
static void catch_signals(void)
{
	struct sigaction ours = {.sa_handler = restore_and_die}, old;

	for (size_t i = 0; i < sizeof(fatal_signals) / sizeof(fatal_signals[0]); i++)
		if (sigaction(fatal_signals[i], NULL, &old) == 0 && old.sa_handler == SIG_DFL)
			sigaction(fatal_signals[i], &ours, NULL);
}

static void release_signals(void)
{
	struct sigaction old;

	for (size_t i = 0; i < sizeof(fatal_signals) / sizeof(fatal_signals[0]); i++)
		if (sigaction(fatal_signals[i], NULL, &old) == 0 &&
			old.sa_handler == restore_and_die)
			signal(fatal_signals[i], SIG_DFL);
}

/* A background job must not touch the terminal: it would be stopped. */
static bool is_our_terminal(int fd)
{
	return isatty(fd) && tcgetpgrp(fd) == getpgrp();
}

static bool take_terminal(int fd)
{
	static bool registered;
	struct termios raw;

	if (tcgetattr(fd, &terminal.saved) != 0)
		return false;
	raw = terminal.saved;
	cfmakeraw(&raw);
	raw.c_oflag |= OPOST; /* this program's own lines end with a bare newline */
	terminal.fd = fd;
	if (!registered && atexit(restore_terminal) == 0)
		registered = true;
	atomic_store(&terminal.taken, true);
	catch_signals();
	if (tcsetattr(fd, TCSANOW, &raw) == 0)
		return true;
	release_signals();
	atomic_store(&terminal.taken, false);
	return false;
}

static void notify(int eventfd)
{
	uint64_t one = 1;

	if (write(eventfd, &one, sizeof(one)) < 0)
		return; /* EAGAIN: it is set already */
}

/* Waits until @fd is writable; false at the end. */
static bool wait_writable(const struct console *c)
{
	struct pollfd fds[] = {
		{.fd = c->config.out_fd, .events = POLLOUT}, {.fd = c->stop, .events = POLLIN}};

	while (poll(fds, 2, -1) < 0)
		if (errno != EINTR)
			return false;
	return fds[1].revents == 0;
}

void console_write(struct console *c, const void *data, size_t bytes)
{
	const uint8_t *p = data;

	while (bytes > 0 && wait_writable(c)) {
		ssize_t n = write(c->config.out_fd, p, bytes < WRITE_CHUNK ? bytes : WRITE_CHUNK);

		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return;
		if (n > 0) {
			p += n;
			bytes -= (size_t)n;
		}
	}
}

void console_input_ready(struct console *c)
{
	notify(c->ready);
}

void console_stop(struct console *c)
{
	notify(c->stop);
}

/* Hands pending input to the guest, as far as it takes it. */
static void deliver(struct console *c)
{
	size_t taken = c->config.input(c->config.ctx, c->pending, c->pending_bytes);

	c->pending_bytes -= taken;
	memmove(c->pending, c->pending + taken, c->pending_bytes);
}

static void keep(struct console *c, uint8_t byte)
{
	if (c->pending_bytes < PENDING_MAX)
		c->pending[c->pending_bytes++] = byte;
}

/* One key of a terminal. */
static void type_key(struct console *c, uint8_t key)
{
	if (!c->escaped) {
		if (key == ESCAPE)
			c->escaped = true;
		else
			keep(c, key);
		return;
	}
	c->escaped = false;
	if (key == 'x')
		c->config.quit(c->config.ctx);
	else if (key == 'h')
		console_write(c, help, sizeof(help) - 1);
	else if (key == ESCAPE || key == 'a')
		keep(c, ESCAPE);
}

/* Reads what is there; false when there will be no more. */
static bool read_input(struct console *c)
{
	uint8_t buf[256];
	size_t room = PENDING_MAX - c->pending_bytes;
	size_t want = c->terminal || room > sizeof(buf) ? sizeof(buf) : room;
	ssize_t n = read(c->config.in_fd, buf, want);

	if (n < 0)
		return errno == EINTR || errno == EAGAIN;
	for (ssize_t i = 0; i < n; i++) {
		if (c->terminal)
			type_key(c, buf[i]);
		else
			keep(c, buf[i]);
	}
	return n > 0;
}

static void drain(int eventfd)
{
	uint64_t value;

	if (read(eventfd, &value, sizeof(value)) < 0)
		return; /* EAGAIN: another wake-up took it */
}

static void *read_loop(void *arg)
{
	struct console *c = arg;
	bool open = true;

	for (;;) {
		bool reads = open && (c->terminal || c->pending_bytes < PENDING_MAX);
		struct pollfd fds[] = {{.fd = c->stop, .events = POLLIN},
			{.fd = c->ready, .events = POLLIN},
			{.fd = reads ? c->config.in_fd : -1, .events = POLLIN}};

		if (poll(fds, 3, -1) < 0) {
			if (errno == EINTR)
				continue;
			return NULL;
		}
		if (fds[0].revents)
			return NULL;
		if (fds[1].revents)
			drain(c->ready);
		if (fds[2].revents)
			open = read_input(c);
		if (c->pending_bytes > 0)
			deliver(c);
	}
}

/* Signals are for the threads that expect them. */
static int start_thread(struct console *c)
{
	sigset_t all, old;
	int err;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(&c->thread, NULL, read_loop, c);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -err;
}

static void close_console(struct console *c)
{
	if (c->terminal) {
		restore_terminal();
		release_signals();
	}
	if (c->stop >= 0)
		close(c->stop);
	if (c->ready >= 0)
		close(c->ready);
	free(c);
}

int console_new(const struct console_config *config, struct console **ret)
{
	struct console *c = calloc(1, sizeof(*c));
	int err;

	if (!c)
		return -ENOMEM;
	c->config = *config;
	c->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	c->ready = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (c->stop < 0 || c->ready < 0) {
		err = -errno;
		close_console(c);
		return err;
	}
	if (is_our_terminal(config->in_fd))
		c->terminal = take_terminal(config->in_fd);
	err = start_thread(c);
	if (err) {
		close_console(c);
		return err;
	}
	*ret = c;
	return 0;
}

void console_free(struct console *c)
{
	if (!c)
		return;
	console_stop(c);
	pthread_join(c->thread, NULL);
	close_console(c);
}
