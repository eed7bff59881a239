/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The hypervisor's standing word on conversions. */
#include <errno.h>
#include <string.h>

#include "hv/error.h"
#include "hv/vm.h"

int lethe_vm_set_policy(struct lethe_vm *vm, const struct lethe_range *ranges, size_t count,
	uint64_t max_shared_bytes)
{
	struct abi_policy args = {.max_shared_bytes = max_shared_bytes, .count = (uint32_t)count};
	int ret;

	if (count > ABI_POLICY_RANGES)
		return fail(
			-EINVAL, "%zu ranges: at most %u are possible", count, ABI_POLICY_RANGES);
	for (size_t i = 0; i < count; i++)
		args.range[i] = (struct abi_range){ranges[i].gpa, ranges[i].bytes};
	pthread_mutex_lock(&vm->lock);
	ret = hv_call(vm, ABI_CALL_POLICY, &args, NULL);
	/* What it has let happen stays when it goes. */
	if (ret == 0 && count > 0)
		vm->has_policy = true;
	pthread_mutex_unlock(&vm->lock);
	return ret < 0 ? fail(ret, "the policy was not taken: %s", strerror(-ret)) : 0;
}
