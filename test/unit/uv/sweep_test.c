/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Wipers, and the meter of what they do. */
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "os/clock.h"
#include "os/window.h"
#include "uv/meter.h"
#include "uv/wiper.h"

static void test_rate_is_of_the_last_second(void **state)
{
	const uint64_t ms = NS_PER_MS;
	struct meter m = {0};

	assert_int_equal(meter_rate(&m), 0);
	meter_begin(&m, 5000 * ms);
	meter_add(&m, 5500 * ms, 1000);
	assert_int_equal(meter_rate(&m), 2000);
	/* What is older than a second does not count. */
	meter_add(&m, 9000 * ms, 300);
	assert_int_equal(meter_rate(&m), 300);
	meter_end(&m, 9000 * ms);
	/* Nor does a pause. */
	meter_begin(&m, 99000 * ms);
	assert_int_equal(meter_rate(&m), 300);
	meter_add(&m, 99000 * ms, 300);
	assert_int_equal(meter_rate(&m), 600);
	meter_end(&m, 99000 * ms);
}

/* Queues all of @w, whose odd pages count as resident. */
static void put_all(struct wipers *wipers, const struct window *w)
{
	for (uint64_t at = 0; at < w->bytes; at += WIPER_CHUNK) {
		struct wiper_chunk *c = wipers_room(wipers);

		assert_non_null(c);
		c->base = w->base + at;
		c->bytes = WIPER_CHUNK;
		c->wipe = true;
		for (unsigned int i = 0; i < WIPER_PAGES; i++)
			c->page[i] = i % 2;
		c->resident = WIPER_CHUNK / 2;
		wipers_put(wipers, false);
	}
}

static void take_all(struct wipers *wipers)
{
	struct pollfd p = {.fd = wipers->wake_fd, .events = POLLIN};

	while (!wipers_empty(wipers)) {
		while (wipers_done(wipers) != NULL)
			wipers_take(wipers);
		if (!wipers_empty(wipers) && wipers_expect(wipers)) {
			assert_int_equal(poll(&p, 1, -1), 1);
			wipers_awake(wipers);
		}
	}
}

static void assert_wiped(const struct window *w)
{
	for (uint64_t at = 0; at < w->bytes; at += PAGE_SIZE) {
		uint8_t want = (at / PAGE_SIZE) % 2 == 0 ? 'x' : 0;

		assert_int_equal(w->base[at], want);
		assert_int_equal(w->base[at + PAGE_SIZE - 1], want);
	}
}

/* Whoever wipes, it is what was resident, and nothing else. */
static void test_wiping(void **state)
{
	static const unsigned int helpers[] = {0, 3, 1, 0};
	struct wipers wipers;
	struct window w;

	assert_int_equal(window_private(8 * WIPER_CHUNK, &w), 0);
	assert_int_equal(wipers_init(&wipers, true), 0);
	for (size_t i = 0; i < sizeof(helpers) / sizeof(helpers[0]); i++) {
		wipers_help(&wipers, helpers[i]);
		assert_int_equal(wipers.helpers, helpers[i]);
		memset(w.base, 'x', w.bytes);
		put_all(&wipers, &w);
		take_all(&wipers);
		assert_wiped(&w);
	}
	wipers_fini(&wipers);

	wipers_init_alone(&wipers);
	memset(w.base, 'x', w.bytes);
	put_all(&wipers, &w);
	while (wipers_work(&wipers))
		;
	take_all(&wipers);
	assert_wiped(&w);
	wipers_fini(&wipers);
	assert_int_equal(window_unmap(&w), 0);
}

/* What nobody has begun comes back untouched. */
static void test_withdraw(void **state)
{
	struct wipers wipers;
	struct window w;

	assert_int_equal(window_private(4 * WIPER_CHUNK, &w), 0);
	memset(w.base, 'x', w.bytes);
	wipers_init_alone(&wipers);
	put_all(&wipers, &w);
	assert_true(wipers_work(&wipers));
	assert_int_equal(wipers_withdraw(&wipers), 3 * WIPER_CHUNK);
	assert_false(wipers_work(&wipers));
	take_all(&wipers);
	assert_int_equal(w.base[PAGE_SIZE], 0);
	assert_int_equal(w.base[WIPER_CHUNK + PAGE_SIZE], 'x');
	wipers_fini(&wipers);
	assert_int_equal(window_unmap(&w), 0);
}

/* A window says what is left of it. */
static void test_trim(void **state)
{
	struct window w;
	uint8_t *base;

	assert_int_equal(window_private(3 * SIZE_2M, &w), 0);
	base = w.base;
	assert_int_equal(window_trim(&w, SIZE_2M), 0);
	assert_ptr_equal(w.base, base + SIZE_2M);
	assert_int_equal(w.bytes, 2 * SIZE_2M);
	window_skip(&w, SIZE_2M);
	assert_ptr_equal(w.base, base + 2 * SIZE_2M);
	assert_int_equal(window_trim(&w, SIZE_2M), 0);
	assert_null(w.base);
	base[SIZE_2M] = 'x'; /* skipped: still there */
}

static void test_turn(void **state)
{
	struct wipers wipers;
	struct pollfd p = {.events = POLLIN};

	assert_int_equal(wipers_init(&wipers, true), 0);
	p.fd = wipers.wake_fd;
	wipers_nudge(&wipers);
	assert_int_equal(poll(&p, 1, -1), 1);
	assert_true(atomic_load(&wipers.turn));
	wipers_fini(&wipers);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rate_is_of_the_last_second),
		cmocka_unit_test(test_wiping),
		cmocka_unit_test(test_withdraw),
		cmocka_unit_test(test_trim),
		cmocka_unit_test(test_turn),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
