/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which executors work here, and why not. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "hv/error.h"
#include "hv/vm.h"
#include "os/kvm.h"

/* Hardware takes less than one; an interpreter hundreds. */
#define SLOW_INSTRUCTION_NS 50

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

/*
 * Whether KVM here is one that AUTO should take: it works, and runs instructions instead
 * of interpreting them one by one, as nested ones without hardware do.
 */
static int probe_fast_kvm(void)
{
	char why[128];
	double ns;
	int fd = kvm_open(why, sizeof(why));
	int ret;

	if (fd < 0)
		return fail(fd, "%s", why);
	ret = kvm_instruction_ns(fd, &ns);
	close(fd);
	if (ret < 0)
		return fail(ret, "/dev/kvm cannot run a loop: %s", strerror(-ret));
	if (ns > SLOW_INSTRUCTION_NS)
		return fail(-EOPNOTSUPP, "KVM here takes %.0f ns an instruction", ns);
	return 0;
}

int hv_choose_executor(const struct lethe_vm_config *config, struct lethe_vm *vm)
{
	const char *why = "asked for";
	int err = 0;

	vm->executor = config->executor;
	if (config->executor == LETHE_EXECUTOR_KVM)
		err = lethe_executor_probe(LETHE_EXECUTOR_KVM);
	if (config->executor == LETHE_EXECUTOR_AUTO) {
		bool fast = probe_fast_kvm() == 0;

		vm->executor = fast ? LETHE_EXECUTOR_KVM : LETHE_EXECUTOR_SW;
		why = fast ? "KVM works here" : lethe_error();
	}
	snprintf(vm->executor_reason, sizeof(vm->executor_reason), "%s", why);
	return err;
}

const char *lethe_vm_executor_reason(const struct lethe_vm *vm)
{
	return vm->executor_reason;
}
