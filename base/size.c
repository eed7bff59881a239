/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sizes from text.  Freestanding: this file is also part of a guest image that has no
 * libc, so it calls nothing.
 */
#include "base/size.h"

#include "base/checked.h"

/* The value of @c as a digit in @radix (10 or 16), or -1. */
static int digit_value(char c, unsigned int radix)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (radix != 16)
		return -1;
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* The shift that the suffix @c stands for, or -1. */
static int suffix_shift(char c)
{
	switch (c) {
	case 'k':
	case 'K':
		return 10;
	case 'm':
	case 'M':
		return 20;
	case 'g':
	case 'G':
		return 30;
	case 't':
	case 'T':
		return 40;
	default:
		return -1;
	}
}

/*
 * Reads all digits at the start of @text.  Returns how many there are; *ret_fits says
 * whether the number they make fits *ret_number.
 */
static size_t parse_digits(
	const char *text, size_t len, unsigned int radix, uint64_t *ret_number, bool *ret_fits)
{
	uint64_t number = 0;
	bool fits = true;
	size_t n;

	for (n = 0; n < len && digit_value(text[n], radix) >= 0; n++) {
		fits = fits && checked_mul(number, radix, &number) &&
		       checked_add(number, (uint64_t)digit_value(text[n], radix), &number);
	}
	*ret_number = number;
	*ret_fits = fits;
	return n;
}

int size_parse(const char *text, size_t len, uint64_t *ret_bytes)
{
	bool hex = len > 2 && text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
	size_t digits, at = hex ? 2 : 0;
	uint64_t number, bytes;
	int shift = 0;
	bool fits;

	digits = parse_digits(text + at, len - at, hex ? 16 : 10, &number, &fits);
	at += digits;
	if (digits == 0 || len - at > 1)
		return -EINVAL;
	if (len - at == 1)
		shift = suffix_shift(text[at]);
	if (shift < 0)
		return -EINVAL;
	if (!fits || !checked_mul(number, (uint64_t)1 << shift, &bytes))
		return -ERANGE;
	*ret_bytes = bytes;
	return 0;
}
