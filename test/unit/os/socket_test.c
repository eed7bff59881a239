/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Packets and the descriptors that travel with them; none may ever be lost or leaked. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/socket.h"

static unsigned int count_fds(void)
{
	unsigned int n = 0;
	DIR *dir = opendir("/proc/self/fd");

	assert_non_null(dir);
	while (readdir(dir) != NULL)
		n++;
	closedir(dir);
	return n;
}

static int send_text(int fd, const char *text, const int *fds, unsigned int nfds)
{
	struct iovec iov[2] = {{(char *)text, 1}, {(char *)text + 1, strlen(text) - 1}};

	return socket_send(fd, iov, 2, fds, nfds);
}

/* Sends past socket_send()'s own limit. */
static void send_many(int fd, unsigned int nfds)
{
	union {
		char buf[CMSG_SPACE(64 * sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	struct iovec iov = {"x", 1};
	struct msghdr msg = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = CMSG_SPACE(nfds * sizeof(int))};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
	int *fds = (int *)(void *)CMSG_DATA(cmsg);

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(nfds * sizeof(int));
	for (unsigned int i = 0; i < nfds; i++)
		fds[i] = fd;
	assert_int_equal(sendmsg(fd, &msg, 0), 1);
}

static void test_packets_keep_their_borders(void **state)
{
	unsigned int nfds = 99;
	int s[2], fds[SOCKET_MAX_FDS];
	char buf[16];

	assert_int_equal(socket_pair(s), 0);
	assert_int_equal(send_text(s[0], "abc", NULL, 0), 0);
	assert_int_equal(send_text(s[0], "defgh", NULL, 0), 0);
	assert_int_equal(socket_recv(s[1], buf, sizeof(buf), fds, SOCKET_MAX_FDS, &nfds), 3);
	assert_int_equal(nfds, 0);
	assert_memory_equal(buf, "abc", 3);
	assert_int_equal(socket_recv(s[1], buf, sizeof(buf), fds, SOCKET_MAX_FDS, &nfds), 5);
	assert_memory_equal(buf, "defgh", 5);
	assert_true(fcntl(s[0], F_GETFD) & FD_CLOEXEC);
	assert_true(fcntl(s[1], F_GETFD) & FD_CLOEXEC);
	close(s[0]);
	close(s[1]);
}

static void test_every_number_of_fds_arrives(void **state)
{
	unsigned int before = count_fds();
	int s[2], p[SOCKET_MAX_FDS];

	assert_int_equal(socket_pair(s), 0);
	for (int i = 0; i < SOCKET_MAX_FDS; i++)
		p[i] = memfd_create("fd", MFD_CLOEXEC);
	for (unsigned int n = 0; n <= SOCKET_MAX_FDS; n++) {
		int got[SOCKET_MAX_FDS];
		unsigned int count = 99;
		char c;

		assert_int_equal(send_text(s[0], "xy", p, n), 0);
		assert_int_equal(socket_recv(s[1], (char[2]){0}, 2, got, n, &count), 2);
		assert_int_equal(count, n);
		for (unsigned int i = 0; i < n; i++) {
			/* The very files, in order, and not for children. */
			assert_int_equal(pwrite(got[i], &(char){(char)(n + i)}, 1, 0), 1);
			assert_int_equal(pread(p[i], &c, 1, 0), 1);
			assert_int_equal(c, n + i);
			assert_true(fcntl(got[i], F_GETFD) & FD_CLOEXEC);
			close(got[i]);
		}
	}
	for (int i = 0; i < SOCKET_MAX_FDS; i++)
		close(p[i]);
	close(s[0]);
	close(s[1]);
	assert_int_equal(count_fds(), before);
}

static void test_send_refuses_too_many_fds(void **state)
{
	int s[2], fds[SOCKET_MAX_FDS + 1] = {0};
	char c;

	assert_int_equal(socket_pair(s), 0);
	assert_int_equal(send_text(s[0], "xy", fds, SOCKET_MAX_FDS + 1), -EINVAL);
	assert_int_equal(recv(s[1], &c, 1, MSG_DONTWAIT), -1);
	close(s[0]);
	close(s[1]);
}

static void test_refused_packets_leak_nothing(void **state)
{
	unsigned int before = count_fds(), nfds = 99;
	int s[2], fds[SOCKET_MAX_FDS];
	char buf[4];

	assert_int_equal(socket_pair(s), 0);
	/* More than the caller wants, more than the buffer holds, longer than the buffer. */
	send_many(s[0], 3);
	assert_int_equal(socket_recv(s[1], buf, sizeof(buf), fds, 2, &nfds), -EMSGSIZE);
	send_many(s[0], SOCKET_MAX_FDS + 1);
	assert_int_equal(
		socket_recv(s[1], buf, sizeof(buf), fds, SOCKET_MAX_FDS, &nfds), -EMSGSIZE);
	send_many(s[0], 64);
	assert_int_equal(
		socket_recv(s[1], buf, sizeof(buf), fds, SOCKET_MAX_FDS, &nfds), -EMSGSIZE);
	assert_int_equal(send_text(s[0], "too long", s, 2), 0);
	assert_int_equal(
		socket_recv(s[1], buf, sizeof(buf), fds, SOCKET_MAX_FDS, &nfds), -EMSGSIZE);
	assert_int_equal(nfds, 99);
	/* The connection goes on. */
	assert_int_equal(send_text(s[0], "ok", NULL, 0), 0);
	assert_int_equal(socket_recv(s[1], buf, sizeof(buf), fds, SOCKET_MAX_FDS, &nfds), 2);
	close(s[0]);
	close(s[1]);
	assert_int_equal(count_fds(), before);
}

static void test_the_other_side_is_gone(void **state)
{
	int s[2], fds[SOCKET_MAX_FDS], ret;
	unsigned int nfds;
	char buf[4];

	assert_int_equal(socket_pair(s), 0);
	assert_int_equal(send_text(s[0], "last", NULL, 0), 0);
	close(s[0]);
	assert_int_equal(socket_recv(s[1], buf, sizeof(buf), fds, SOCKET_MAX_FDS, &nfds), 4);
	assert_int_equal(socket_recv(s[1], buf, sizeof(buf), fds, SOCKET_MAX_FDS, &nfds), 0);
	ret = send_text(s[1], "xy", NULL, 0);
	assert_true(ret == -EPIPE || ret == -ECONNRESET);
	close(s[1]);
}

static void test_try_send_does_not_wait(void **state)
{
	struct iovec iov = {"some bytes", 10};
	int s[2], ret, fds[SOCKET_MAX_FDS];
	unsigned int nfds;
	char buf[16];

	assert_int_equal(socket_pair(s), 0);
	while ((ret = socket_try_send(s[0], &iov, 1, NULL, 0)) == 0)
		;
	assert_int_equal(ret, -EAGAIN);
	for (int i = 0; i < 8; i++)
		assert_int_equal(
			socket_recv(s[1], buf, sizeof(buf), fds, SOCKET_MAX_FDS, &nfds), 10);
	assert_int_equal(socket_try_send(s[0], &iov, 1, NULL, 0), 0);
	close(s[0]);
	close(s[1]);
}

/* Whoever asks something is to be told that there are no more descriptors. */
static void test_no_descriptor_is_left(void **state)
{
	unsigned int before = count_fds(), nfds = 99;
	struct rlimit all, few;
	int s[2], fds[SOCKET_MAX_FDS];
	char buf[4] = "";

	assert_int_equal(socket_pair(s), 0);
	assert_int_equal(send_text(s[0], "ok", s, 2), 0);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &all), 0);
	few = (struct rlimit){.rlim_cur = (rlim_t)s[1] + 2, .rlim_max = all.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	assert_int_equal(socket_recv(s[1], buf, sizeof(buf), fds, SOCKET_MAX_FDS, &nfds), -EMFILE);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &all), 0);
	assert_memory_equal(buf, "ok", 2);
	assert_int_equal(nfds, 99);
	close(s[0]);
	close(s[1]);
	assert_int_equal(count_fds(), before);
}

/* A packet of no bytes is not the end. */
static void test_an_empty_packet_is_not_the_end(void **state)
{
	unsigned int before = count_fds(), nfds = 99;
	int s[2], fds[SOCKET_MAX_FDS];
	struct iovec none = {NULL, 0};
	char buf[4];

	assert_int_equal(socket_pair(s), 0);
	assert_int_equal(socket_send(s[0], &none, 1, NULL, 0), 0);
	assert_int_equal(socket_send(s[0], &none, 1, s, 2), 0);
	assert_int_equal(send_text(s[0], "ok", NULL, 0), 0);
	assert_int_equal(
		socket_recv(s[1], buf, sizeof(buf), fds, SOCKET_MAX_FDS, &nfds), -EMSGSIZE);
	assert_int_equal(
		socket_recv(s[1], buf, sizeof(buf), fds, SOCKET_MAX_FDS, &nfds), -EMSGSIZE);
	assert_int_equal(nfds, 99);
	assert_int_equal(socket_recv(s[1], buf, sizeof(buf), fds, SOCKET_MAX_FDS, &nfds), 2);
	close(s[0]);
	assert_int_equal(socket_recv(s[1], buf, sizeof(buf), fds, SOCKET_MAX_FDS, &nfds), 0);
	close(s[1]);
	assert_int_equal(count_fds(), before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_packets_keep_their_borders),
		cmocka_unit_test(test_every_number_of_fds_arrives),
		cmocka_unit_test(test_send_refuses_too_many_fds),
		cmocka_unit_test(test_refused_packets_leak_nothing),
		cmocka_unit_test(test_the_other_side_is_gone),
		cmocka_unit_test(test_try_send_does_not_wait),
		cmocka_unit_test(test_no_descriptor_is_left),
		cmocka_unit_test(test_an_empty_packet_is_not_the_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
