/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The timeline's file: form, order, caps and exact counters; and the table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "os/clock.h"
#include "vmm/table.h"
#include "vmm/timeline.h"

#define THREADS    4
#define PER_THREAD 600

static char path[32];

static int setup(void **state)
{
	int fd;

	strcpy(path, "/tmp/lethe-test-XXXXXX");
	fd = mkstemp(path);
	/* What was in the file before must be gone. */
	if (fd < 0 || ftruncate(fd, 1 << 20) != 0)
		return -1;
	return close(fd);
}

static int teardown(void **state)
{
	return unlink(path);
}

static json_t *write_and_load(struct timeline *timeline)
{
	json_t *document;

	assert_int_equal(timeline_write(timeline), 0);
	timeline_free(timeline);
	document = json_load_file(path, 0, NULL);
	assert_non_null(document);
	return document;
}

static const char *text_at(json_t *array, size_t index, const char *key)
{
	return json_string_value(json_object_get(json_array_get(array, index), key));
}

static void test_form(void **state)
{
	struct timeline *timeline;
	json_t *document, *vm, *events;

	assert_int_equal(timeline_open(path, &timeline), 0);
	timeline_describe(timeline, "one", 4096, 2, "sw");
	timeline_event(timeline, 0, "second", "{s:I}", "bytes", (json_int_t)7);
	timeline_event(timeline, 1, "first", NULL);
	document = write_and_load(timeline);
	assert_int_equal(json_integer_value(json_object_get(document, "schema")), 1);
	vm = json_object_get(document, "vm");
	assert_string_equal(json_string_value(json_object_get(vm, "name")), "one");
	assert_string_equal(json_string_value(json_object_get(vm, "executor")), "sw");
	assert_int_equal(json_integer_value(json_object_get(vm, "memory_bytes")), 4096);
	assert_int_equal(json_integer_value(json_object_get(vm, "vcpus")), 2);
	events = json_object_get(document, "events");
	assert_int_equal(json_array_size(events), 2);
	assert_string_equal(text_at(events, 0, "event"), "first");
	assert_string_equal(text_at(events, 1, "event"), "second");
	assert_true(json_is_integer(json_object_get(json_array_get(events, 1), "t_ns")));
	assert_int_equal(
		json_integer_value(json_object_get(json_array_get(events, 1), "bytes")), 7);
	json_decref(document);
}

static void *convert(void *arg)
{
	for (int i = 0; i < PER_THREAD; i++) {
		timeline_conversion(arg, 4096, 8192, true);
		timeline_count(arg, TIMELINE_dma_transfers, 1);
	}
	return NULL;
}

static void test_conversions_are_capped_and_counted(void **state)
{
	struct timeline *timeline;
	pthread_t threads[THREADS];
	json_t *document, *counters;

	assert_int_equal(timeline_open(path, &timeline), 0);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, convert, timeline), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	document = write_and_load(timeline);
	counters = json_object_get(document, "counters");
	assert_int_equal(
		json_array_size(json_object_get(document, "events")), TIMELINE_CONVERSIONS_MAX);
	assert_int_equal(
		json_integer_value(json_object_get(counters, "shares")), THREADS * PER_THREAD);
	assert_int_equal(json_integer_value(json_object_get(counters, "shared_bytes")),
		THREADS * PER_THREAD * 8192);
	assert_int_equal(json_integer_value(json_object_get(counters, "dma_transfers")),
		THREADS * PER_THREAD);
	assert_int_equal(json_integer_value(json_object_get(counters, "events_dropped")), 0);
	json_decref(document);
}

static void test_bad_text_drops_the_event_only(void **state)
{
	struct timeline *timeline;
	json_t *document;

	assert_int_equal(timeline_open(path, &timeline), 0);
	timeline_event(timeline, 0, "bad", "{s:s}", "text", "\xff");
	timeline_event(timeline, 0, "good", NULL);
	document = write_and_load(timeline);
	assert_int_equal(json_array_size(json_object_get(document, "events")), 1);
	assert_int_equal(json_integer_value(json_object_get(
				 json_object_get(document, "counters"), "events_dropped")),
		1);
	json_decref(document);
}

static void test_bad_path(void **state)
{
	struct timeline *timeline = NULL;

	assert_int_equal(timeline_open("/tmp", &timeline), -EISDIR);
	assert_int_equal(timeline_open("/nowhere/at/all", &timeline), -ENOENT);
	assert_null(timeline);
}

static void test_no_file(void **state)
{
	struct timeline *timeline;

	assert_int_equal(timeline_open(NULL, &timeline), 0);
	timeline_event(timeline, 0, "create", NULL);
	timeline_conversion(timeline, 0, 4096, false);
	assert_int_equal(timeline_write(timeline), 0);
	timeline_free(timeline);
}

/* Prints the table into a string for free(). */
static char *table_text(const struct costs *lazy, const struct costs *eager)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	table_print(out, lazy, eager);
	fclose(out);
	return text;
}

static void test_table(void **state)
{
	const struct costs lazy = {
		.memory_bytes = 1 << 30,
		.wiped = true,
		.protect = {.count = 2, .guest_ns = 4000000, .pages_copied = 512},
		.reboot = {.count = 1, .guest_ns = 1000000},
		.destroy = {.count = 1, .bytes = 512 << 20, .duration_ns = 40000000},
	};
	const struct costs eager = {.reboot = {.count = 1, .guest_ns = 90000000}};
	char *text = table_text(&lazy, &eager);

	assert_non_null(strstr(text, "protect (2 times)"));
	assert_non_null(strstr(text, "1M copied and measured"));
	assert_non_null(strstr(text, "512M wiped in 40 ms"));
	assert_non_null(strstr(text, "90 ms"));
	assert_null(strstr(text, "power off"));
	free(text);
	text = table_text(&lazy, NULL);
	assert_null(strstr(text, "the old way"));
	free(text);
}

static void test_table_of_nothing(void **state)
{
	const struct costs none = {0};
	char *text = table_text(&none, NULL);

	assert_string_equal(text, "");
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
		TEST(form),
		TEST(conversions_are_capped_and_counted),
		TEST(bad_text_drops_the_event_only),
		TEST(bad_path),
		TEST(no_file),
		TEST(table),
		TEST(table_of_nothing),
#undef TEST
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
