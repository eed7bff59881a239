/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory pressure, from made-up figures, and from descriptors that report as the kernel's do:
 * out-of-band data on a socket is what poll() calls POLLPRI.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/pressure.h"

/* A file that can be rewritten, as /proc and /sys are. */
static int file_with(const char *text)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	return fd;
}

static void rewrite(int fd, const char *text)
{
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(pwrite(fd, text, strlen(text), 0), strlen(text));
}

static struct meminfo nothing(void)
{
	return (struct meminfo){.machine = -1, .pressure = {-1, -1}};
}

/* A connection: what one end sends out of band, the other polls. */
static void connected(int pair[2])
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof(at);
	int listener = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(bind(listener, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&at, &size), 0);
	pair[0] = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(connect(pair[0], (struct sockaddr *)&at, sizeof(at)), 0);
	pair[1] = accept(listener, NULL, NULL);
	assert_true(pair[1] >= 0);
	close(listener);
}

static void test_unknown_is_none(void **state)
{
	struct pollfd fds[PRESSURE_FDS];
	struct meminfo m = nothing();

	assert_int_equal(pressure_level(&m), PRESSURE_NONE);
	pressure_arm(&m);
	assert_int_equal(pressure_fds(&m, fds), 0);
}

static void test_machine(void **state)
{
	static const struct {
		unsigned int left;
		enum pressure level;
	} cases[] = {{1024, PRESSURE_NONE}, {128, PRESSURE_NONE}, {127, PRESSURE_RAISED},
		{32, PRESSURE_RAISED}, {31, PRESSURE_HIGH}, {0, PRESSURE_HIGH}};
	struct meminfo m = nothing();
	char text[100];

	m.machine = file_with("");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		snprintf(text, sizeof(text), "MemTotal: 1024 kB\nMemAvailable: %u kB\n",
			cases[i].left);
		rewrite(m.machine, text);
		assert_int_equal(pressure_level(&m), cases[i].level);
	}
	meminfo_close(&m);
}

static void test_cgroup(void **state)
{
	struct meminfo m = nothing();

	m.levels = 1;
	m.level[0] = (struct meminfo_level){.max = file_with("32000\n"),
		.high = -1,
		.usage = file_with("28000\n"),
		.stat = -1,
		.events = -1};
	assert_int_equal(pressure_level(&m), PRESSURE_NONE);
	rewrite(m.level[0].usage, "28001\n");
	assert_int_equal(pressure_level(&m), PRESSURE_RAISED);
	rewrite(m.level[0].usage, "31500\n");
	assert_int_equal(pressure_level(&m), PRESSURE_HIGH);
	rewrite(m.level[0].max, "64000\n");
	assert_int_equal(pressure_level(&m), PRESSURE_NONE);
	meminfo_close(&m);
}

/* Not armed, it is not polled: a file without a trigger looks as if it had fired. */
static void test_stall(void **state)
{
	struct pollfd fds[PRESSURE_FDS];
	struct meminfo m = nothing();
	int pair[2];

	connected(pair);
	m.pressure[0] = pair[1];
	assert_int_equal(pressure_fds(&m, fds), 0);
	pressure_arm(&m);
	assert_int_equal(pressure_fds(&m, fds), 1);
	assert_int_equal(poll(fds, 1, 0), 0);
	pressure_polled(&m, fds, 1);
	assert_int_equal(pressure_level(&m), PRESSURE_NONE);

	assert_int_equal(send(pair[0], "!", 1, MSG_OOB), 1);
	assert_int_equal(poll(fds, 1, -1), 1);
	pressure_polled(&m, fds, 1);
	assert_int_equal(pressure_level(&m), PRESSURE_RAISED);
	m.stalled_until_ns = 1; /* long ago */
	assert_int_equal(pressure_level(&m), PRESSURE_NONE);
	close(pair[0]);
	meminfo_close(&m);
}

/* Of memory.events, only the limits count. */
static void test_events(void **state)
{
	struct meminfo m = nothing();
	struct pollfd fd;

	m.levels = 1;
	m.level[0] = (struct meminfo_level){.max = -1,
		.high = -1,
		.usage = -1,
		.stat = -1,
		.events = file_with("low 0\nhigh 2\nmax 3\noom 0\n")};
	assert_true(meminfo_hits(&m.level[0], &m.level[0].hits));
	assert_int_equal(m.level[0].hits, 5);
	assert_int_equal(pressure_fds(&m, &fd), 1);
	assert_int_equal(fd.fd, m.level[0].events);
	fd.revents = POLLPRI;
	rewrite(m.level[0].events, "low 7\nhigh 2\nmax 3\noom 0\n");
	pressure_polled(&m, &fd, 1);
	assert_int_equal(pressure_level(&m), PRESSURE_NONE);
	rewrite(m.level[0].events, "low 7\nhigh 2\nmax 4\noom 0\n");
	pressure_polled(&m, &fd, 1);
	assert_int_equal(pressure_level(&m), PRESSURE_RAISED);
	meminfo_close(&m);
}

/*
 * The files of a cgroup that is gone are readable for ever: neither are they polled again, nor
 * do they say that there is pressure.
 */
static void test_cgroup_gone(void **state)
{
	struct pollfd fds[PRESSURE_FDS];
	struct meminfo m = nothing();
	int pair[2][2];

	connected(pair[0]);
	connected(pair[1]);
	m.pressure[1] = pair[0][1];
	m.levels = 1;
	/* What cannot be read at an offset, as that can not any more. */
	m.level[0] = (struct meminfo_level){
		.max = -1, .high = -1, .usage = -1, .stat = -1, .events = pair[1][1], .hits = 7};
	pressure_arm(&m);
	assert_int_equal(pressure_fds(&m, fds), 2);
	for (int i = 0; i < 2; i++)
		fds[i].revents = POLLPRI | POLLERR;
	pressure_polled(&m, fds, 2);
	assert_int_equal(pressure_level(&m), PRESSURE_NONE);
	assert_int_equal(pressure_fds(&m, fds), 0);
	close(pair[0][0]);
	close(pair[1][0]);
	meminfo_close(&m);
}

/* What the kernel has not got is left out; what it has does not fire at once. */
static void test_this_machine(void **state)
{
	struct pollfd fds[PRESSURE_FDS];
	struct meminfo m;
	unsigned int n;

	meminfo_open(&m, "");
	pressure_arm(&m);
	n = pressure_fds(&m, fds);
	assert_true(n <= PRESSURE_FDS);
	assert_true(poll(fds, n, 0) >= 0);
	for (unsigned int i = 0; i < n; i++)
		assert_int_equal(fds[i].revents & (POLLERR | POLLNVAL), 0);
	meminfo_close(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_unknown_is_none),
		cmocka_unit_test(test_machine),
		cmocka_unit_test(test_cgroup),
		cmocka_unit_test(test_stall),
		cmocka_unit_test(test_events),
		cmocka_unit_test(test_cgroup_gone),
		cmocka_unit_test(test_this_machine),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
