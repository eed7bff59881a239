/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "hv/error.h"

#include <stdarg.h>
#include <stdio.h>

#include "lethe/lethe.h"

static _Thread_local char line[512] = "no error";

int fail(int err, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	return err;
}

const char *lethe_error(void)
{
	return line;
}

const char *lethe_version(void)
{
	return LETHE_VERSION;
}
