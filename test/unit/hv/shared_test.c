/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The shared library: it loads, its functions work, and only they can be seen. */
#include <dlfcn.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lethe/lethe.h"

static void test_calls(void **unused)
{
	const struct lethe_vm_config config = {.vcpus = 0};
	struct lethe_vm *vm;

	assert_string_equal(lethe_version(), LETHE_VERSION);
	assert_string_equal(lethe_error(), "no error");
	assert_int_equal(lethe_vm_new(&config, &vm), -EINVAL);
	assert_string_not_equal(lethe_error(), "no error");
}

static void test_hides_its_inside(void **unused)
{
	assert_non_null(dlsym(RTLD_DEFAULT, "lethe_vm_new"));
	assert_null(dlsym(RTLD_DEFAULT, "conn_new"));
	assert_null(dlsym(RTLD_DEFAULT, "range_map_new"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_calls),
		cmocka_unit_test(test_hides_its_inside),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
