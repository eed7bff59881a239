/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Packets with descriptors over a SOCK_SEQPACKET socket. */
#ifndef OS_SOCKET_H
#define OS_SOCKET_H

#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

#define SOCKET_MAX_FDS 8

/* A connected pair, close-on-exec.  Returns 0 or a negative errno. */
int socket_pair(int ret_fds[2]);

/*
 * Sends one packet with @nfds descriptors (0 to SOCKET_MAX_FDS).  Never raises SIGPIPE.
 * Returns 0; -EPIPE or -ECONNRESET when the other side is gone; another negative errno.
 */
int socket_send(int fd, const struct iovec *iov, int iovcnt, const int *fds, unsigned int nfds);

/* The same, but -EAGAIN if the other side has left so much unread that it had to wait. */
int socket_try_send(int fd, const struct iovec *iov, int iovcnt, const int *fds, unsigned int nfds);

/*
 * Receives one packet.  Returns its length, 0 at end of file, or a negative errno:
 * -EMSGSIZE if it was empty, longer than @len or carried more than @max_fds descriptors
 * (all are closed then); -EMFILE if this process may have no more descriptors, @buf holding
 * the packet all the same.  Received descriptors are close-on-exec and the caller's to close.
 */
ssize_t socket_recv(
	int fd, void *buf, size_t len, int *ret_fds, unsigned int max_fds, unsigned int *ret_nfds);

#endif
