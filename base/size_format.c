/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sizes and durations for people: one decimal at most, and none that says nothing. */
#include "base/size.h"

#include <inttypes.h>
#include <stdio.h>

char *size_format(uint64_t bytes, char *buf, size_t len)
{
	static const char units[] = {'B', 'K', 'M', 'G', 'T'};
	unsigned int unit = 0;
	uint64_t tenths;

	while (unit + 1 < sizeof(units) && bytes >> (10 * (unit + 1)) != 0)
		unit++;
	if (unit == 0) {
		snprintf(buf, len, "%" PRIu64 "B", bytes);
		return buf;
	}
	/* Drop what does not matter first, so that multiplying by 10 cannot overflow. */
	tenths = ((bytes >> (10 * (unit - 1))) * 10 + 512) >> 10;
	if (tenths >= 10240 && unit + 1 < sizeof(units)) {
		unit++;
		tenths = 10;
	}
	if (tenths % 10 != 0)
		snprintf(buf, len, "%" PRIu64 ".%" PRIu64 "%c", tenths / 10, tenths % 10,
			units[unit]);
	else
		snprintf(buf, len, "%" PRIu64 "%c", tenths / 10, units[unit]);
	return buf;
}

/* @ns in units of @scale, to the nearest. */
static uint64_t rounded(uint64_t ns, uint64_t scale)
{
	return ns / scale + (ns % scale >= (scale + 1) / 2);
}

char *duration_format(uint64_t ns, char *buf, size_t len)
{
	static const char *const units[] = {"ns", "us", "ms", "s"};
	unsigned int unit = 0;
	uint64_t scale = 1, tenths;

	while (unit < 3 && rounded(ns, scale) >= 1000) {
		scale *= 1000;
		unit++;
	}
	tenths = unit == 0 ? ns * 10 : rounded(ns, scale / 10);
	if (tenths >= 1000 || tenths % 10 == 0)
		snprintf(buf, len, "%" PRIu64 " %s", rounded(ns, scale), units[unit]);
	else
		snprintf(buf, len, "%" PRIu64 ".%" PRIu64 " %s", tenths / 10, tenths % 10,
			units[unit]);
	return buf;
}
