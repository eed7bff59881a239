/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Copies for a device whose vCPU waits for it: scatter-gather requests through the vCPU's
 * shared pages (abi/exit.h), served by the vCPU's own thread.
 */
#ifndef UV_COPY_H
#define UV_COPY_H

#include "uv/vm.h"

/*
 * Serves the request that the hypervisor has made to @v, which is outside, if there is one:
 * all of it, or nothing and a status: INVALID no segment, too many, an empty one, or more
 * than the data area holds; RANGE; NOT_FOUND not memory; DENIED a page is not shared.
 * True if there was one.
 */
bool copy_serve(struct uv_vcpu *v);

/* Makes the copies that the reply to @v has brought along.  The status, as above. */
uint32_t copy_with_reply(struct uv_vcpu *v);

/*
 * Brings the shared memory at @start, if it all is copied and not too much, along with the
 * next exit of @v, which is outside.
 */
void copy_along(struct uv_vcpu *v, uint64_t start, uint64_t bytes);

#endif
