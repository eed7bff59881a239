/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Demand paging: vCPUs that wait for sealed pages.
 *
 * A vCPU that needs a sealed page goes outside (uv/vcpu.h), has the hypervisor told once
 * that the page is wanted, and waits until it is sealed no more, whatever made that so.  It
 * holds nothing meanwhile: other vCPUs, calls, a pause and a stop go on.  A hypervisor that
 * never brings the page keeps this vCPU waiting and no other.
 */
#ifndef UV_PAGER_H
#define UV_PAGER_H

#include "uv/vm.h"

/*
 * Outside only, without locks: asks for the sealed pages of @range and waits until none is
 * sealed.  They may be again when this returns.  False: the vCPU must stop.
 */
bool pager_fetch(struct uv_vcpu *v, struct gfn_range range);

/*
 * The same for one page, without waiting.  False if the hypervisor's socket is full: to be
 * tried again.
 */
bool pager_want(struct uv_vm *vm, gfn_t gfn);

/*
 * Outside only, without locks: waits for sealed pages to come back, whichever, and not for
 * long.  False: the vCPUs must stop.
 */
bool pager_wait(struct uv_vm *vm);

/* Some pages are sealed no more: who waits looks again. */
void pager_arrived(struct uv_vm *vm);

#endif
