/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "os/futex.h"

#include <errno.h>
#include <linux/futex.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

int futex_wait(uint32_t *word, uint32_t expected, const struct timespec *relative)
{
	if (syscall(SYS_futex, word, FUTEX_WAIT, expected, relative, NULL, 0) == 0)
		return 0;
	return -errno;
}

void futex_wake(uint32_t *word, int count)
{
	(void)syscall(SYS_futex, word, FUTEX_WAKE, count, NULL, NULL, 0);
}
