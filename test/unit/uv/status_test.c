/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Every status has one errno, and back. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "uv/status.h"

static const struct {
	enum abi_status status;
	int err;
} table[] = {
#define X(name, number, err, text) {ABI_ST_##name, err},
	ABI_STATUS_TABLE(X)
#undef X
};

#define COUNT (sizeof(table) / sizeof(table[0]))

static void test_every_status(void **state)
{
	for (size_t i = 0; i < COUNT; i++) {
		assert_int_equal(table[i].status, i);
		assert_int_equal(status_of(-table[i].err), table[i].status);
		for (size_t j = 0; j < i; j++)
			assert_int_not_equal(table[i].err, table[j].err);
	}
}

/* A host's error that the interface does not know is the host's. */
static void test_every_errno(void **state)
{
	for (int err = 0; err < 4096; err++) {
		enum abi_status expected = ABI_ST_IO;

		for (size_t i = 0; i < COUNT; i++)
			expected = table[i].err == err ? table[i].status : expected;
		assert_int_equal(status_of(-err), expected);
	}
	assert_int_equal(status_of(INT32_MIN + 1), ABI_ST_IO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_status),
		cmocka_unit_test(test_every_errno),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
