/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sizes: an accepted one has the value that the C library reads in it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"

#define UNTOUCHED 0x5a5a5a5a5a5a5a5a

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* @bytes without what the suffix at @suffix, possibly none, multiplied it by. */
static uint64_t without_suffix(uint64_t bytes, const char *suffix)
{
	static const char letters[] = "KkMmGgTt";
	const char *found = *suffix ? strchr(letters, *suffix) : NULL;

	if (!found)
		return bytes;
	return bytes >> (10 * ((found - letters) / 2 + 1));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint64_t bytes = UNTOUCHED, number;
	char text[64], *end;
	int ret = size_parse((const char *)data, size, &bytes);

	if (ret != 0) {
		if ((ret != -EINVAL && ret != -ERANGE) || bytes != UNTOUCHED)
			abort();
		return 0;
	}
	if (size >= sizeof(text))
		return 0; /* leading zeros */
	memcpy(text, data, size);
	text[size] = '\0';
	number = strtoull(text, &end, text[0] == '0' && (text[1] | 0x20) == 'x' ? 16 : 10);
	if (end + 1 < text + size || without_suffix(bytes, end) != number)
		abort();
	return 0;
}
