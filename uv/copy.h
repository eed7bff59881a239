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

#endif
