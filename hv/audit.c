/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The audit of a slot: the ultravisor looks at a part at a time. */
#include <string.h>

#include "hv/error.h"
#include "hv/pager.h"
#include "hv/vm.h"

static uint64_t paged_out(struct lethe_vm *vm, unsigned int id)
{
	uint64_t pages = 0;

	pthread_mutex_lock(&vm->lock);
	if (vm->pager != NULL && vm->slot[id].used)
		pages = pager_stored(vm->pager, vm->slot[id].range);
	pthread_mutex_unlock(&vm->lock);
	return pages << PAGE_SHIFT;
}

int lethe_vm_audit(struct lethe_vm *vm, unsigned int id, struct lethe_audit *ret)
{
	struct abi_audit args = {.id = id};
	struct lethe_audit sum = {0};
	struct abi_audit_ret part;
	int err;

	do {
		err = hv_call(vm, ABI_CALL_AUDIT, &args, &part);
		if (err < 0)
			return fail(err, "memslot %u cannot be audited: %s", id, strerror(-err));
		sum.private_bytes += part.private_resident;
		sum.shared_bytes += part.shared_resident;
		sum.stale_bytes += part.stale;
		sum.doubly_held_bytes += part.doubly_held;
		args.offset = part.next;
	} while (args.offset != 0);
	sum.paged_out_bytes = paged_out(vm, id);
	*ret = sum;
	return 0;
}
