/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Conversions of GFN ranges between private, shared and released.
 *
 * A conversion by the guest is a transaction: check and mark pending; ask the
 * hypervisor; commit or roll back; answer the vCPU.  What the hypervisor's policy allows is
 * committed without asking.  The range may span slots that adjoin, and is converted whole
 * or not at all.
 */
#ifndef UV_CONVERT_H
#define UV_CONVERT_H

#include "uv/vm.h"

/*
 * SHARE or UNSHARE by @v, which is outside.  0 or a negated status, or GUEST_CALL_ENDED.
 * INVALID alignment or size; RANGE; NOT_FOUND not all of it is memory; NOTHING not protected;
 * AGAIN overlaps another conversion; DENIED the range holds released pages; what the
 * hypervisor refused with; NO_MEMORY.  A range that is already so answers 0 at once.
 */
int64_t convert_by_guest(struct uv_vcpu *v, uint64_t start, uint64_t bytes, bool to_shared);

/*
 * RELEASE: the guest gives private pages up; their content is destroyed now.
 * Errors as above; -EPERM a page is shared.
 */
int convert_release(struct uv_vm *vm, uint64_t start, uint64_t bytes);

/*
 * POLICY: replaces the policy by *policy, which is private to the caller and unchecked.
 * -EINVAL, -ERANGE a bad range or too many; the former policy holds then.
 */
int convert_set_policy(struct uv_vm *vm, const struct abi_policy *policy);

#endif
