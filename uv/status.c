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
