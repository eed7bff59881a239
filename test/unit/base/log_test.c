/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"

static char last_line[2048];
static int lines;

static void keep_line(enum log_level level, const char *line)
{
	strcpy(last_line, line);
	lines++;
}

static void test_levels_are_filtered(void **state)
{
	lines = 0;
	log_setup("test", LOG_INFO, keep_line);
	log_debug("no");
	assert_int_equal(lines, 0);
	log_info("answer %d", 42);
	log_error("worse");
	assert_int_equal(lines, 2);
	assert_string_equal(last_line, "worse");
}

static void test_one_call_is_one_line(void **state)
{
	log_setup("test", LOG_INFO, keep_line);
	log_info("a\nb\x1b[31mc");
	assert_string_equal(last_line, "a?b?[31mc");
}

static void test_long_lines_are_cut(void **state)
{
	char text[2000];

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	log_setup("test", LOG_INFO, keep_line);
	log_info("%s", text);
	assert_int_equal(strlen(last_line), 1023);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_levels_are_filtered),
		cmocka_unit_test(test_one_call_is_one_line),
		cmocka_unit_test(test_long_lines_are_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
