/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Records of a measurement: known values, and that no two sequences look alike. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "uv/measure.h"

struct digest {
	uint8_t byte[ABI_MEASUREMENT_SIZE];
};

struct record {
	enum measure_record type;
	uint64_t a, b;
	const char *content;
};

static struct digest measure(const struct record *record, size_t count)
{
	struct measure *m;
	struct digest d;

	assert_int_equal(measure_new(&m), 0);
	for (size_t i = 0; i < count; i++) {
		const struct record *r = &record[i];

		assert_int_equal(measure_add(m, r->type, r->a, r->b), 0);
		if (r->content != NULL)
			assert_int_equal(measure_content(m, r->content, strlen(r->content)), 0);
	}
	assert_int_equal(measure_finish(m, d.byte), 0);
	measure_free(m);
	return d;
}

/* SHA-384 of nothing, and of 24 bytes: 1, 2 and 3 as 64-bit little-endian numbers. */
static void test_known_values(void **state)
{
	static const uint8_t nothing[] = {0x38, 0xb0, 0x60, 0xa7, 0x51, 0xac, 0x96, 0x38};
	static const uint8_t one[] = {0x28, 0x98, 0xe7, 0xa6, 0x34, 0xc3, 0xd8, 0xa7};
	const struct record r = {MEASURE_VM, 2, 3, NULL};

	assert_memory_equal(measure(NULL, 0).byte, nothing, sizeof(nothing));
	assert_memory_equal(measure(&r, 1).byte, one, sizeof(one));
}

static void test_sequences_differ(void **state)
{
	static const struct record sequences[][2] = {
		{{MEASURE_SLOT, 0, 8, NULL}, {MEASURE_PAGES, 0, 8, "abcdefgh"}},
		{{MEASURE_PAGES, 0, 8, "abcdefgh"}, {MEASURE_SLOT, 0, 8, NULL}},
		{{MEASURE_SLOT, 8, 0, NULL}, {MEASURE_PAGES, 0, 8, "abcdefgh"}},
		{{MEASURE_SLOT, 0, 8, NULL}, {MEASURE_PAGES, 8, 8, "abcdefgh"}},
		{{MEASURE_SLOT, 0, 8, NULL}, {MEASURE_PAGES, 0, 8, "abcdefgx"}},
		{{MEASURE_SLOT, 0, 8, NULL}, {MEASURE_REGISTERS, 0, 8, "abcdefgh"}},
		{{MEASURE_PAGES, 0, 4, "abcd"}, {MEASURE_PAGES, 4, 4, "efgh"}},
		{{MEASURE_PAGES, 0, 8, "abcdefgh"}, {MEASURE_PAGES, 0, 0, NULL}},
	};
	const size_t count = sizeof(sequences) / sizeof(sequences[0]);

	for (size_t i = 0; i < count; i++) {
		struct digest d = measure(sequences[i], 2), again = measure(sequences[i], 2);

		assert_memory_equal(&d, &again, sizeof(d));
		for (size_t j = 0; j < i; j++) {
			struct digest other = measure(sequences[j], 2);

			assert_memory_not_equal(&d, &other, sizeof(d));
		}
	}
}

/* How content is cut into pieces does not matter. */
static void test_content_in_pieces(void **state)
{
	const struct record whole = {MEASURE_PAGES, 5, 6, "abcdef"};
	struct digest expected = measure(&whole, 1), d;
	struct measure *m;

	assert_int_equal(measure_new(&m), 0);
	assert_int_equal(measure_add(m, MEASURE_PAGES, 5, 6), 0);
	assert_int_equal(measure_content(m, "abc", 3), 0);
	assert_int_equal(measure_content(m, "", 0), 0);
	assert_int_equal(measure_content(m, "def", 3), 0);
	assert_int_equal(measure_finish(m, d.byte), 0);
	assert_memory_equal(&d, &expected, sizeof(d));
	measure_free(m);
}

/* A copy goes on from where it was made, and neither notices the other. */
static void test_copy(void **state)
{
	const struct record first = {MEASURE_SLOT, 0, 8, NULL};
	static const struct record both[] = {
		{MEASURE_SLOT, 0, 8, NULL}, {MEASURE_PAGES, 0, 8, "abcdefgh"}};
	struct digest one = measure(&first, 1), two = measure(both, 2), d;
	struct measure *m, *copy;

	assert_int_equal(measure_new(&m), 0);
	assert_int_equal(measure_add(m, MEASURE_SLOT, 0, 8), 0);
	assert_int_equal(measure_copy(m, &copy), 0);
	assert_int_equal(measure_add(copy, MEASURE_PAGES, 0, 8), 0);
	assert_int_equal(measure_content(copy, "abcdefgh", 8), 0);
	assert_int_equal(measure_finish(m, d.byte), 0);
	assert_memory_equal(&d, &one, sizeof(d));
	measure_free(m);
	assert_int_equal(measure_finish(copy, d.byte), 0);
	assert_memory_equal(&d, &two, sizeof(d));
	measure_free(copy);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_known_values),
		cmocka_unit_test(test_sequences_differ),
		cmocka_unit_test(test_content_in_pieces),
		cmocka_unit_test(test_copy),
	};

	if (measure_setup() < 0)
		return 1;
	measure_free(NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
