/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* errno values inside, ABI statuses at the edges. */
#ifndef UV_STATUS_H
#define UV_STATUS_H

#include "abi/uvcall.h"

/* The status for 0 or a negative errno; what has none of its own is an ABI_ST_IO. */
enum abi_status status_of(int err);

/*
 * The result of a guest call that the hypervisor refused with @status, which it may have made
 * up: always negative, so that no refusal looks like success to the guest.
 */
int64_t status_refused(uint32_t status);

#endif
