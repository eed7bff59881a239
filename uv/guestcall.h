/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Guest calls (abi/guestcall.h), as both executors deliver them. */
#ifndef UV_GUESTCALL_H
#define UV_GUESTCALL_H

#include "uv/guest_stop.h"

/* How a call's buffer argument, if any, is described. */
struct guest_call_info {
	const char *name;  /* NULL: no such call */
	int buffer, count; /* which arguments; -1: no buffer */
	unsigned int element;
};

const struct guest_call_info *guest_call_info(uint64_t nr);

/*
 * Performs call @nr with @arg; a buffer's content is in v->buffer, @size bytes.  Called
 * on the vCPU's thread while it is inside; it is inside again on return, unless the
 * result is GUEST_CALL_ENDED.  BOOTINFO leaves its result in v->buffer.
 */
int64_t guest_call(struct uv_vcpu *v, uint64_t nr, const uint64_t arg[4], uint32_t size);

#endif
