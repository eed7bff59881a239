/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmm/pc_bus.c with the clock and the ways to reset and power off behind it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "vmm/pc_acpi.h"
#include "vmm/pc_bus.h"
#include "vmm/pc_rtc.h"

static char sent[8];
static size_t sent_bytes;

static void set_irq(void *ctx, unsigned int irq, bool level)
{
}

static void output(void *ctx, uint8_t byte)
{
	sent[sent_bytes++ % sizeof(sent)] = (char)byte;
}

static void input_ready(void *ctx)
{
}

static int setup(void **state)
{
	struct pc_serial_ops ops = {NULL, set_irq, output, input_ready};

	sent_bytes = 0;
	return pc_bus_new(&ops, (struct pc_bus **)state);
}

static int teardown(void **state)
{
	pc_bus_free(*state);
	return 0;
}

static uint64_t in(void **state, uint16_t port, unsigned int size)
{
	uint64_t value = 0x1122334455667788ull;

	assert_int_equal(pc_bus_access(*state, port, size, false, &value), PC_ACTION_NONE);
	return value;
}

static enum pc_action out(void **state, uint16_t port, unsigned int size, uint64_t value)
{
	return pc_bus_access(*state, port, size, true, &value);
}

static void ports_of_nobody_read_as_ones(void **state)
{
	static const uint16_t nobody[] = {
		0, 0x5f, 0x61, 0x65, 0x72, 0x80, 0x3f7, 0x400, 0x60c, 0xcf8, 0xcfa, 0xffff};

	for (size_t i = 0; i < sizeof(nobody) / sizeof(nobody[0]); i++) {
		assert_int_equal(in(state, nobody[i], 1), 0xff);
		assert_int_equal(in(state, nobody[i], 2), 0xffff);
		assert_int_equal(in(state, nobody[i], 4), 0xffffffff);
		assert_int_equal(out(state, nobody[i], 4, UINT64_MAX), PC_ACTION_NONE);
	}
}

static void guest_resets_in_two_ways(void **state)
{
	assert_int_equal(out(state, PC_RESET_PORT, 1, PC_RESET_VALUE), PC_ACTION_RESET);
	assert_int_equal(out(state, PC_RESET_PORT, 1, 2), PC_ACTION_NONE);
	assert_int_equal(out(state, 0x64, 1, 0xfe), PC_ACTION_RESET);
	assert_int_equal(out(state, 0x64, 1, 0xff), PC_ACTION_NONE);
	/* PCI's address register covers the reset register and is not it. */
	assert_int_equal(out(state, PC_RESET_PORT - 1, 4, 0x80000600), PC_ACTION_NONE);
}

static void guest_powers_off_by_sleep_type_5(void **state)
{
	uint64_t sleep = PC_ACPI_SLEEP_OFF << 10;

	assert_int_equal(in(state, PC_ACPI_PM1_CONTROL, 2), 1);
	assert_int_equal(out(state, PC_ACPI_PM1_CONTROL, 2, sleep), PC_ACTION_NONE);
	assert_int_equal(in(state, PC_ACPI_PM1_CONTROL, 2), sleep | 1);
	assert_int_equal(out(state, PC_ACPI_PM1_CONTROL, 2, 0x2000), PC_ACTION_NONE);
	assert_int_equal(out(state, PC_ACPI_PM1_CONTROL, 2, sleep | 0x2000), PC_ACTION_POWEROFF);
	/* The same, written in bytes. */
	assert_int_equal(
		out(state, PC_ACPI_PM1_CONTROL + 1, 1, (sleep | 0x2000) >> 8), PC_ACTION_POWEROFF);
}

static void pm1_event_block_keeps_its_enable_bits(void **state)
{
	out(state, PC_ACPI_PM1_EVENT, 4, 0x0120ffff);
	assert_int_equal(in(state, PC_ACPI_PM1_EVENT, 2), 0);
	assert_int_equal(in(state, PC_ACPI_PM1_EVENT + 2, 2), 0x0120);
	assert_int_equal(in(state, PC_ACPI_PM1_EVENT + 3, 1), 0x01);
	/* Beyond its end there is nothing. */
	assert_int_equal(in(state, PC_ACPI_PM1_EVENT + 2, 4), 0xffff0120);
}

static void pm_timer_counts_at_its_rate(void **state)
{
	uint32_t before = (uint32_t)in(state, PC_ACPI_PM_TIMER, 4);
	uint32_t after = (uint32_t)in(state, PC_ACPI_PM_TIMER, 4);

	assert_true(after - before < 1u << 31);
	assert_int_equal(pc_power_timer(0), 0);
	assert_int_equal(pc_power_timer(1000000000), 3579545);
	assert_int_equal(pc_power_timer(2500000000ull), 3579545 * 5 / 2);
	/* Years of uptime: wraps, does not jump. */
	assert_int_equal(
		pc_power_timer(1000000000ull * 100000000), (uint32_t)(3579545ull * 100000000));
}

static void i8042_is_idle_and_answers_its_probe(void **state)
{
	assert_int_equal(in(state, 0x64, 1) & 0x03, 0);
	out(state, 0x64, 1, 0xaa);
	assert_int_equal(in(state, 0x64, 1) & 0x03, 1);
	assert_int_equal(in(state, 0x60, 1), 0x55);
	assert_int_equal(in(state, 0x64, 1) & 0x03, 0);
	out(state, 0x64, 1, 0x60);
	out(state, 0x60, 1, 0x74);
	out(state, 0x60, 1, 0x99); /* for a keyboard that is not there */
	out(state, 0x64, 1, 0x20);
	assert_int_equal(in(state, 0x60, 1), 0x74);
	out(state, 0x64, 1, 0xab);
	assert_int_equal(in(state, 0x60, 1), 0);
}

static void serial_takes_wide_accesses_byte_by_byte(void **state)
{
	out(state, PC_COM1_PORT + 7, 1, 0x12);
	out(state, PC_COM1_PORT, 1, 'x');
	out(state, PC_COM1_PORT, 2, 'y'); /* and 0 into the enable register */
	assert_int_equal(sent_bytes, 2);
	assert_memory_equal(sent, "xy", 2);
	assert_int_equal(in(state, PC_COM1_PORT + 6, 2), 0x12b0);
	assert_int_equal(in(state, PC_COM1_PORT + 7, 4), 0xffffff12);
}

static void reset_returns_devices_to_power_on(void **state)
{
	out(state, 0x70, 1, 0x0f);
	out(state, 0x71, 1, 0x0a);
	out(state, PC_COM1_PORT + 7, 1, 0x12);
	out(state, PC_ACPI_PM1_EVENT + 2, 2, 0x20);
	pc_bus_reset(*state);
	assert_int_equal(in(state, 0x70, 1), 0);
	out(state, 0x70, 1, 0x0f);
	assert_int_equal(in(state, 0x71, 1), 0);
	assert_int_equal(in(state, PC_COM1_PORT + 7, 1), 0);
	assert_int_equal(in(state, PC_ACPI_PM1_EVENT + 2, 2), 0);
}

static uint8_t clock_at(struct pc_rtc *rtc, uint8_t index, time_t seconds, long ns)
{
	struct timespec now = {.tv_sec = seconds, .tv_nsec = ns};

	pc_rtc_select(rtc, index);
	return pc_rtc_read(rtc, &now);
}

/* 2009-02-13 23:31:30 UTC, a Friday. */
#define A_TIME 1234567890

static void clock_speaks_bcd(void **state)
{
	static const uint8_t expected[][2] = {{0, 0x30}, {2, 0x31}, {4, 0x23}, {6, 6}, {7, 0x13},
		{8, 2}, {9, 9}, {0x32, 0x20}, {0xa, 0x26}, {0xb, 2}, {0xc, 0}, {0xd, 0x80}};
	struct pc_rtc rtc;

	pc_rtc_reset(&rtc);
	for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
		assert_int_equal(clock_at(&rtc, expected[i][0], A_TIME, 0), expected[i][1]);
}

static void clock_speaks_binary_and_12_hours(void **state)
{
	struct pc_rtc rtc;

	pc_rtc_reset(&rtc);
	pc_rtc_select(&rtc, 0x0b);
	pc_rtc_write(&rtc, 0x04);
	assert_int_equal(clock_at(&rtc, 2, A_TIME, 0), 31);
	assert_int_equal(clock_at(&rtc, 4, A_TIME, 0), 0x80 | 11);
	assert_int_equal(clock_at(&rtc, 4, A_TIME - 23 * 3600, 0), 12); /* past midnight */
	assert_int_equal(clock_at(&rtc, 4, A_TIME - 11 * 3600, 0), 0x80 | 12);
}

static void clock_warns_before_it_changes(void **state)
{
	struct pc_rtc rtc;

	pc_rtc_reset(&rtc);
	assert_int_equal(clock_at(&rtc, 0x8a, A_TIME, 999755999), 0x26);
	assert_int_equal(clock_at(&rtc, 0x0a, A_TIME, 999756000), 0xa6);
}

static void clock_keeps_memory_but_not_a_set_time(void **state)
{
	struct pc_rtc rtc;

	pc_rtc_reset(&rtc);
	for (unsigned int i = 0; i < 128; i++) {
		pc_rtc_select(&rtc, (uint8_t)i);
		pc_rtc_write(&rtc, 0x02);
	}
	assert_int_equal(clock_at(&rtc, 0, A_TIME, 0), 0x30);
	assert_int_equal(clock_at(&rtc, 0x0d, A_TIME, 0), 0x80);
	assert_int_equal(clock_at(&rtc, 0x0c, A_TIME, 0), 0);
	assert_int_equal(clock_at(&rtc, 0x0f, A_TIME, 0), 0x02);
	assert_int_equal(clock_at(&rtc, 0x7f, A_TIME, 0), 0x02);
}

int main(void)
{
#define UNIT(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		UNIT(ports_of_nobody_read_as_ones),
		UNIT(guest_resets_in_two_ways),
		UNIT(guest_powers_off_by_sleep_type_5),
		UNIT(pm1_event_block_keeps_its_enable_bits),
		UNIT(pm_timer_counts_at_its_rate),
		UNIT(i8042_is_idle_and_answers_its_probe),
		UNIT(serial_takes_wide_accesses_byte_by_byte),
		UNIT(reset_returns_devices_to_power_on),
		cmocka_unit_test(clock_speaks_bcd),
		cmocka_unit_test(clock_speaks_binary_and_12_hours),
		cmocka_unit_test(clock_warns_before_it_changes),
		cmocka_unit_test(clock_keeps_memory_but_not_a_set_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
