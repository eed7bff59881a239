/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "os/userfault.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/failpoint.h"
#include "base/types.h"

/* Linux 6.1, newer than the oldest headers that this builds with. */
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

/* Who waits for the first page of a run is woken when so much has been copied. */
#define COPY_AT_ONCE (16 * PAGE_SIZE)

#define FLAGS (O_CLOEXEC | O_NONBLOCK)

/* By the system call, or by the device for those who may open it. */
static int open_any(void)
{
	int device, err, fd = (int)syscall(SYS_userfaultfd, FLAGS);

	if (fd >= 0)
		return fd;
	err = -errno;
	device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	if (device < 0)
		return err;
	fd = ioctl(device, USERFAULTFD_IOC_NEW, FLAGS);
	err = -errno;
	close(device);
	return fd < 0 ? err : fd;
}

static int missing(char *why, size_t size, int err)
{
	const char *advice = err == -EPERM ? ": allow it by vm.unprivileged_userfaultfd=1, or give "
					     "access to /dev/userfaultfd"
					   : "";

	snprintf(why, size, "userfaultfd for faults in the kernel: %s%s", strerror(-err), advice);
	return err;
}

int userfault_open(struct userfault *ret, char *why, size_t size)
{
	struct uffdio_api api = {.api = UFFD_API};
	int end_fd, err, fd = open_any();

	*ret = (struct userfault){-1, -1};
	if (fd < 0)
		return missing(why, size, fd);
	if (ioctl(fd, UFFDIO_API, &api) < 0) {
		err = -errno;
		close(fd);
		return missing(why, size, err);
	}
	end_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (end_fd < 0) {
		err = -errno;
		close(fd);
		return missing(why, size, err);
	}
	*ret = (struct userfault){fd, end_fd};
	return 0;
}

void userfault_close(struct userfault *u)
{
	if (u->fd < 0)
		return;
	close(u->fd);
	close(u->end_fd);
	*u = (struct userfault){-1, -1};
}

int userfault_register(const struct userfault *u, const uint8_t *start, uint64_t bytes)
{
	struct uffdio_register r = {
		.range = {(uintptr_t)start, bytes}, .mode = UFFDIO_REGISTER_MODE_MISSING};
	int err = failpoint("userfault-register");

	if (err < 0)
		return err;
	return ioctl(u->fd, UFFDIO_REGISTER, &r) < 0 ? -errno : 0;
}

int userfault_unregister(const struct userfault *u, const uint8_t *start, uint64_t bytes)
{
	struct uffdio_range r = {(uintptr_t)start, bytes};

	return ioctl(u->fd, UFFDIO_UNREGISTER, &r) < 0 ? -errno : 0;
}

/*
 * -EAGAIN is the kernel's for a mapping that is just being changed, and for pages of which only
 * the first could be copied.
 */
int userfault_copy(const struct userfault *u, uint8_t *to, const uint8_t *pages, uint64_t bytes,
	uint64_t *ret_bytes)
{
	uint64_t done = 0;
	int err = 0;

	while (err == 0 && done < bytes) {
		struct uffdio_copy c = {.dst = (uintptr_t)to + done,
			.src = (uintptr_t)pages + done,
			.len = bytes - done < COPY_AT_ONCE ? bytes - done : COPY_AT_ONCE};

		err = failpoint("userfault-copy");
		if (err < 0)
			break;
		if (ioctl(u->fd, UFFDIO_COPY, &c) < 0 && errno != EAGAIN)
			err = -errno;
		else if (c.copy > 0)
			done += (uint64_t)c.copy;
	}
	*ret_bytes = done;
	return err;
}

int userfault_zero(const struct userfault *u, uint8_t *to)
{
	int err;

	do {
		struct uffdio_zeropage z = {.range = {(uintptr_t)to, PAGE_SIZE}};

		err = ioctl(u->fd, UFFDIO_ZEROPAGE, &z) < 0 ? -errno : 0;
	} while (err == -EAGAIN);
	return err;
}

int userfault_wake(const struct userfault *u, const uint8_t *start, uint64_t bytes)
{
	struct uffdio_range r = {(uintptr_t)start, bytes};

	return ioctl(u->fd, UFFDIO_WAKE, &r) < 0 ? -errno : 0;
}

int userfault_next(const struct userfault *u, int limit_ms, uint8_t **ret_page)
{
	for (;;) {
		struct pollfd p[2] = {{u->fd, POLLIN, 0}, {u->end_fd, POLLIN, 0}};
		struct uffd_msg msg;
		uint64_t ended;
		int n = poll(p, 2, limit_ms);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 0)
			return -ETIMEDOUT;
		if (read(u->end_fd, &ended, sizeof(ended)) == sizeof(ended))
			return -ECANCELED;
		/* Another woke the thread before it was asked about: -EAGAIN. */
		if (read(u->fd, &msg, sizeof(msg)) != sizeof(msg))
			continue;
		if (msg.event == UFFD_EVENT_PAGEFAULT) {
			*ret_page = (uint8_t *)(uintptr_t)align_down(
				msg.arg.pagefault.address, PAGE_SIZE);
			return 0;
		}
	}
}

void userfault_end(const struct userfault *u)
{
	const uint64_t one = 1;
	ssize_t n = write(u->end_fd, &one, sizeof(one));

	(void)n;
}
