/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * uv calls: the hypervisor's copies from and to shared guest memory, through the bulk
 * buffer, and its word on what may be shared.  A range that holds one private page is
 * refused before a byte moves.
 */
#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "uv/convert.h"
#include "uv/dispatch.h"
#include "uv/share_auto.h"

/* 0 if all of the range is memory and shared (or nothing is protected).  Holds vm->lock. */
static int check(const struct uv_vm *vm, const struct abi_mem *a)
{
	uint64_t end, first = a->gpa >> PAGE_SHIFT;
	struct gfn_range r;

	if (a->bytes == 0 || a->bytes > ABI_BULK_SIZE)
		return -EINVAL;
	if (!checked_add(a->gpa, a->bytes, &end) || end > GPA_END)
		return -ERANGE;
	r = (struct gfn_range){gfn(first), ((end - 1) >> PAGE_SHIFT) - first + 1};
	if (slots_check_covered(&vm->slots, r) < 0)
		return -ENOENT;
	if (vm->state.security == SECURITY_TRANSIENT)
		return -EPROTO;
	if (vm->state.security == SECURITY_SECURE && !attr_all_shared(vm->attr, r))
		return -EPERM;
	return 0;
}

static int copy(struct uv_vm *vm, const struct abi_mem *a, bool to_guest)
{
	uint64_t done = 0;
	int ret;

	pthread_mutex_lock(&vm->lock);
	ret = check(vm, a);
	pthread_rwlock_rdlock(&vm->memory);
	while (ret == 0 && done < a->bytes) {
		uint64_t n;
		uint8_t *p = uv_vm_address(vm, gpa(a->gpa + done), a->bytes - done, &n);

		if (p == NULL)
			ret = -ENOENT;
		else if (to_guest)
			memcpy(p, vm->bulk + done, n);
		else
			memcpy(vm->bulk + done, p, n);
		done += ret == 0 ? n : 0;
	}
	if (ret == 0)
		share_auto_used(vm->share_auto, gpa(a->gpa), a->bytes);
	pthread_rwlock_unlock(&vm->memory);
	pthread_mutex_unlock(&vm->lock);
	return ret;
}

int call_mem_read(struct uv_vm *vm, const struct call *c)
{
	return copy(vm, &c->args->mem, false);
}

int call_mem_write(struct uv_vm *vm, const struct call *c)
{
	return copy(vm, &c->args->mem, true);
}

int call_policy(struct uv_vm *vm, const struct call *c)
{
	return convert_set_policy(vm, &c->args->policy);
}
