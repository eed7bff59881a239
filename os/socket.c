/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "os/socket.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

union fd_control {
	char buf[CMSG_SPACE(SOCKET_MAX_FDS * sizeof(int))];
	struct cmsghdr align;
};

int socket_pair(int ret_fds[2])
{
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ret_fds) < 0)
		return -errno;
	return 0;
}

static int send_packet(
	int fd, const struct iovec *iov, int iovcnt, const int *fds, unsigned int nfds, int flags)
{
	union fd_control control = {0};
	struct msghdr msg = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)iovcnt};

	if (nfds > SOCKET_MAX_FDS)
		return -EINVAL;
	if (nfds > 0) {
		struct cmsghdr *cmsg;

		msg.msg_control = control.buf;
		msg.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(nfds * sizeof(int));
		memcpy(CMSG_DATA(cmsg), fds, nfds * sizeof(int));
	}
	while (sendmsg(fd, &msg, MSG_NOSIGNAL | flags) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return 0;
}

int socket_send(int fd, const struct iovec *iov, int iovcnt, const int *fds, unsigned int nfds)
{
	return send_packet(fd, iov, iovcnt, fds, nfds, 0);
}

int socket_try_send(int fd, const struct iovec *iov, int iovcnt, const int *fds, unsigned int nfds)
{
	return send_packet(fd, iov, iovcnt, fds, nfds, MSG_DONTWAIT);
}

/* Moves the descriptors of @msg to @fds; closes those beyond @max.  Returns how many came. */
static unsigned int take_fds(struct msghdr *msg, int *fds, unsigned int max)
{
	unsigned int total = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c != NULL; c = CMSG_NXTHDR(msg, c)) {
		size_t count;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (total < max)
				fds[total] = fd;
			else
				close(fd);
			total++;
		}
	}
	return total;
}

/* Whether what recvmsg() says is 0 bytes was the end, not a packet without content. */
static bool is_closed(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLRDHUP};

	return poll(&p, 1, 0) < 0 || (p.revents & (POLLRDHUP | POLLHUP)) != 0;
}

ssize_t socket_recv(
	int fd, void *buf, size_t len, int *ret_fds, unsigned int max_fds, unsigned int *ret_nfds)
{
	union fd_control control;
	struct iovec iov = {.iov_base = buf, .iov_len = len};
	struct msghdr msg = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf)};
	int fds[SOCKET_MAX_FDS];
	unsigned int count;
	ssize_t n;

	do {
		n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;

	count = take_fds(&msg, fds, SOCKET_MAX_FDS);
	if ((msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0 || count > max_fds ||
		(n == 0 && (count > 0 || !is_closed(fd)))) {
		for (unsigned int i = 0; i < count && i < SOCKET_MAX_FDS; i++)
			close(fds[i]);
		/* There was room for one more, but no number for it. */
		if ((msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == MSG_CTRUNC && n > 0 &&
			count < SOCKET_MAX_FDS)
			return -EMFILE;
		return -EMSGSIZE;
	}
	memcpy(ret_fds, fds, count * sizeof(int));
	*ret_nfds = count;
	return n;
}
