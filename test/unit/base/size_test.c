/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/size.h"

#define UNTOUCHED 0x5a5a5a5a

static void test_sizes_are_parsed(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} cases[] = {
		{"0", 0},
		{"1", 1},
		{"4096", 4096},
		{"0x1000", 4096},
		{"0XfF", 255},
		{"0x10K", 16384},
		{"1k", 1024},
		{"8G", (uint64_t)8 << 30},
		{"1T", (uint64_t)1 << 40},
		{"007", 7},
		{"16777215T", (uint64_t)16777215 << 40},
		{"18446744073709551615", UINT64_MAX},
		{"0xffffffffffffffff", UINT64_MAX},
		{"0x00000000000000000000001", 1},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t bytes = UNTOUCHED;

		assert_int_equal(size_parse(cases[i].text, strlen(cases[i].text), &bytes), 0);
		assert_int_equal(bytes, cases[i].bytes);
	}
}

static void test_bad_sizes_are_refused(void **state)
{
	static const struct {
		const char *text;
		int error;
	} cases[] = {
		{"", -EINVAL},
		{"K", -EINVAL},
		{"0x", -EINVAL},
		{"0xG", -EINVAL},
		{"-1", -EINVAL},
		{"+1", -EINVAL},
		{" 1", -EINVAL},
		{"1 ", -EINVAL},
		{"1.5G", -EINVAL},
		{"8GB", -EINVAL},
		{"8GiB", -EINVAL},
		{"1P", -EINVAL},
		{"1KK", -EINVAL},
		{"99999999999999999999x", -EINVAL},
		{"18446744073709551616", -ERANGE},
		{"0x10000000000000000", -ERANGE},
		{"16777216T", -ERANGE},
		{"99999999999999999999999999999K", -ERANGE},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t bytes = UNTOUCHED;

		assert_int_equal(
			size_parse(cases[i].text, strlen(cases[i].text), &bytes), cases[i].error);
		assert_int_equal(bytes, UNTOUCHED);
	}
}

static void test_parse_stops_at_len(void **state)
{
	uint64_t bytes;

	assert_int_equal(size_parse("12345", 2, &bytes), 0);
	assert_int_equal(bytes, 12);
	assert_int_equal(size_parse("0x12", 1, &bytes), 0);
	assert_int_equal(bytes, 0);
	assert_int_equal(size_parse("0x12", 2, &bytes), -EINVAL);
}

static void test_sizes_are_written(void **state)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} cases[] = {
		{0, "0B"},
		{512, "512B"},
		{1023, "1023B"},
		{1024, "1K"},
		{4096, "4K"},
		{1536, "1.5K"},
		{(uint64_t)8 << 30, "8G"},
		{(uint64_t)3 << 29, "1.5G"},
		{((uint64_t)1 << 20) - 1, "1M"},
		{((uint64_t)1 << 30) - 1, "1G"},
		{(uint64_t)1 << 50, "1024T"},
		{UINT64_MAX, "16777216T"},
	};
	char buf[32];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_string_equal(size_format(cases[i].bytes, buf, sizeof(buf)), cases[i].text);
}

static void test_durations_are_written(void **state)
{
	static const struct {
		uint64_t ns;
		const char *text;
	} cases[] = {
		{0, "0 ns"},
		{310, "310 ns"},
		{999, "999 ns"},
		{1000, "1 us"},
		{4200, "4.2 us"},
		{99940, "99.9 us"},
		{99960, "100 us"},
		{123456, "123 us"},
		{999499, "999 us"},
		{999500, "1 ms"},
		{999999, "1 ms"},
		{1300000, "1.3 ms"},
		{2500000000, "2.5 s"},
		{UINT64_MAX, "18446744074 s"},
	};
	char buf[32];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_string_equal(duration_format(cases[i].ns, buf, sizeof(buf)), cases[i].text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes_are_parsed),
		cmocka_unit_test(test_bad_sizes_are_refused),
		cmocka_unit_test(test_parse_stops_at_len),
		cmocka_unit_test(test_sizes_are_written),
		cmocka_unit_test(test_durations_are_written),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
