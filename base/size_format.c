/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sizes and durations for people.  Three significant digits at most after rounding. */
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

char *duration_format(uint64_t ns, char *buf, size_t len)
{
	static const char *const units[] = {"ns", "us", "ms", "s"};
	unsigned int unit = 0;
	uint64_t scale = 1, tenths;

	while (unit < 3 && ns / scale >= 1000) {
		scale *= 1000;
		unit++;
	}
	if (unit == 0) {
		snprintf(buf, len, "%" PRIu64 " ns", ns);
		return buf;
	}
	tenths = ns / (scale / 10) + (ns % (scale / 10) >= scale / 20);
	if (tenths >= 10000 && unit < 3) {
		unit++;
		tenths = 10;
	}
	if (tenths % 10 != 0 && tenths < 1000)
		snprintf(buf, len, "%" PRIu64 ".%" PRIu64 " %s", tenths / 10, tenths % 10,
			units[unit]);
	else
		snprintf(buf, len, "%" PRIu64 " %s", (tenths + 5) / 10, units[unit]);
	return buf;
}
