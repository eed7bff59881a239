/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which executors work here, and why not. */
#include <errno.h>
#include <unistd.h>

#include "hv/error.h"
#include "hv/vm.h"
#include "os/kvm.h"

int lethe_executor_probe(enum lethe_executor which)
{
	char why[128];
	int fd;

	if (which == LETHE_EXECUTOR_SW)
		return 0;
	fd = kvm_open(why, sizeof(why));
	if (fd < 0)
		return fail(fd, "%s", why);
	close(fd);
	return 0;
}

int hv_choose_executor(enum lethe_executor wanted, enum lethe_executor *ret)
{
	int err = wanted == LETHE_EXECUTOR_SW ? 0 : lethe_executor_probe(LETHE_EXECUTOR_KVM);

	if (wanted == LETHE_EXECUTOR_KVM && err < 0)
		return err;
	*ret = err < 0 || wanted == LETHE_EXECUTOR_SW ? LETHE_EXECUTOR_SW : LETHE_EXECUTOR_KVM;
	return 0;
}
