/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which memory is cold: what COLDEST answers.
 *
 * Memory is looked at in blocks of 2M, the largest that the guest's accesses are noted for
 * without looking at each page.  Each COLDEST ages the blocks that it looks at: one that was
 * used since the last look is 0 old, another one older than it was.  The oldest come first.
 * An executor that cannot tell what was used has all blocks equally old, and they come in the
 * order of addresses, each call going on where the last one ended.
 */
#ifndef UV_COLDEST_H
#define UV_COLDEST_H

#include "uv/vm.h"

/*
 * Finds up to @bytes of private, resident memory in at most 8G from where the last call came
 * to.  On the main thread, without locks.  0 or -ENOMEM.
 */
int coldest_find(struct uv_vm *vm, uint64_t bytes, struct abi_coldest_ret *ret);

#endif
