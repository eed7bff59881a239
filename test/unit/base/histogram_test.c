/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/histogram.h"

static struct histogram h;

/* 1/16 of @value: what one step spans. */
static void assert_near(uint64_t value, uint64_t expected)
{
	uint64_t error = value > expected ? value - expected : expected - value;

	assert_true(error <= expected / HISTOGRAM_STEPS);
}

static void test_empty(void **state)
{
	histogram_reset(&h);
	assert_int_equal(histogram_quantile(&h, 500), 0);
	assert_int_equal(histogram_quantile(&h, 1000), 0);
}

static void test_one_sample_is_every_quantile(void **state)
{
	static const uint64_t samples[] = {
		0, 1, 15, 16, 17, 31, 32, 33, 1000, 123456789, UINT64_MAX};

	for (size_t i = 0; i < sizeof(samples) / sizeof(samples[0]); i++) {
		histogram_reset(&h);
		histogram_add(&h, samples[i]);
		for (unsigned int q = 0; q <= 1000; q += 250)
			assert_int_equal(histogram_quantile(&h, q), samples[i]);
	}
}

static void test_quantiles_of_a_ramp(void **state)
{
	histogram_reset(&h);
	for (uint64_t i = 1; i <= 100000; i++)
		histogram_add(&h, i);
	assert_int_equal(h.count, 100000);
	assert_int_equal(h.min, 1);
	assert_int_equal(h.max, 100000);
	assert_int_equal(h.sum, 100000ULL * 100001 / 2);
	assert_int_equal(histogram_quantile(&h, 0), 1);
	assert_int_equal(histogram_quantile(&h, 1000), 100000);
	for (unsigned int q = 10; q < 1000; q += 10)
		assert_near(histogram_quantile(&h, q), q * 100);
}

static void test_every_power_of_two_is_near_itself(void **state)
{
	for (unsigned int bit = 0; bit < 64; bit++) {
		uint64_t sample = (uint64_t)1 << bit;

		histogram_reset(&h);
		histogram_add(&h, 0);
		histogram_add(&h, sample);
		histogram_add(&h, UINT64_MAX);
		assert_near(histogram_quantile(&h, 500), sample);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_one_sample_is_every_quantile),
		cmocka_unit_test(test_quantiles_of_a_ramp),
		cmocka_unit_test(test_every_power_of_two_is_near_itself),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
