/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "uv/status.h"

#include <errno.h>

enum abi_status status_of(int err)
{
	switch (-err) {
#define X(name, number, error, text) \
	case error:                  \
		return ABI_ST_##name;
		ABI_STATUS_TABLE(X)
#undef X
	default:
		return ABI_ST_IO;
	}
}

int64_t status_refused(uint32_t status)
{
	return -(int64_t)(status >= 1 && status <= 0xff ? status : status_of(-EPERM));
}
