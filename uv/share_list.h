/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the hypervisor may reach through its own mapping: the list of mapped ranges that it
 * is shown in struct abi_share_page.
 *
 * The list only saves copies: the attribute map says what is mapped, and a range that does
 * not fit here is copied.  What is no more mapped leaves the list first, under a new
 * generation.  Nothing is read from the page that is shown.
 */
#ifndef UV_SHARE_LIST_H
#define UV_SHARE_LIST_H

#include "uv/vm.h"

/* @range is mapped from now on.  Caller holds vm->memory for writing. */
void share_list_add(struct uv_vm *vm, struct gfn_range range);

/*
 * @range is about to be mapped no more.  When this returns, what the hypervisor then reads or
 * writes there through its mapping, it knows not to be the guest's.  Caller holds
 * vm->memory for writing.
 */
void share_list_remove(struct uv_vm *vm, struct gfn_range range);

#endif
