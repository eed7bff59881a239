/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmm/pc_serial.c: what drivers probe for, and every way that the line rises and falls. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "vmm/pc_serial.h"

enum { DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR, FCR = IIR };

struct fixture {
	struct pc_serial port;
	bool line;
	unsigned int edges;
	unsigned int ready;
	char sent[64];
	size_t sent_bytes;
};

static void set_irq(void *ctx, unsigned int irq, bool level)
{
	struct fixture *f = ctx;

	assert_int_equal(irq, 4);
	assert_int_not_equal(level, f->line);
	f->line = level;
	f->edges++;
}

static void output(void *ctx, uint8_t byte)
{
	struct fixture *f = ctx;

	f->sent[f->sent_bytes++] = (char)byte;
}

static void input_ready(void *ctx)
{
	((struct fixture *)ctx)->ready++;
}

static int setup(void **state)
{
	static struct fixture f;
	struct pc_serial_ops ops = {&f, set_irq, output, input_ready};

	memset(&f, 0, sizeof(f));
	pc_serial_init(&f.port, 4, &ops);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	pc_serial_destroy(&f->port);
	return 0;
}

static uint8_t in(struct fixture *f, unsigned int reg)
{
	return pc_serial_read(&f->port, reg);
}

static void out(struct fixture *f, unsigned int reg, uint8_t value)
{
	pc_serial_write(&f->port, reg, value);
}

static size_t type(struct fixture *f, const char *text)
{
	return pc_serial_input(&f->port, (const uint8_t *)text, strlen(text));
}

static void looks_like_a_16550a(void **state)
{
	struct fixture *f = *state;

	out(f, IER, 0xff);
	assert_int_equal(in(f, IER), 0x0f);
	out(f, IER, 0);
	assert_int_equal(in(f, IER), 0);
	assert_int_equal(in(f, IIR) & 0xc0, 0);
	out(f, FCR, 0x01);
	assert_int_equal(in(f, IIR), 0xc1);
	out(f, FCR, 0x21); /* 64-byte FIFOs: not here */
	assert_int_equal(in(f, IIR), 0xc1);
	out(f, SCR, 0x5a);
	assert_int_equal(in(f, SCR), 0x5a);
	assert_int_equal(in(f, LSR), 0x60);
	assert_int_equal(in(f, MSR), 0xb0);
}

static void divisor_hides_data_and_enable(void **state)
{
	struct fixture *f = *state;

	out(f, LCR, 0x83);
	out(f, DATA, 0x01);
	out(f, IER, 0x02);
	assert_int_equal(in(f, DATA), 0x01);
	assert_int_equal(in(f, IER), 0x02);
	out(f, LCR, 0x03);
	assert_int_equal(in(f, IER), 0);
	assert_int_equal(f->sent_bytes, 0);
}

static void loopback_connects_the_lines_and_the_data(void **state)
{
	struct fixture *f = *state;

	out(f, MCR, 0x1a); /* loop, OUT2, RTS: Linux's test */
	assert_int_equal(in(f, MSR) & 0xf0, 0x90);
	out(f, MCR, 0x15); /* loop, OUT1, DTR */
	assert_int_equal(in(f, MSR) & 0xf0, 0x60);
	out(f, DATA, 'x');
	assert_int_equal(f->sent_bytes, 0);
	assert_int_equal(in(f, LSR), 0x61);
	assert_int_equal(in(f, DATA), 'x');
	out(f, MCR, 0x1a);
	assert_int_equal(type(f, "a"), 0);
}

static void transmit_interrupt_comes_with_every_byte_and_enable(void **state)
{
	struct fixture *f = *state;

	out(f, DATA, 'a');
	assert_false(f->line);
	out(f, IER, 0x02);
	assert_true(f->line);
	assert_int_equal(in(f, IIR), 0x02);
	assert_false(f->line);
	assert_int_equal(in(f, IIR), 0x01);
	out(f, DATA, 'b');
	assert_true(f->line);
	out(f, IER, 0);
	assert_false(f->line);
	out(f, IER, 0x02); /* enabling it again reports it again */
	assert_true(f->line);
	assert_int_equal(f->sent_bytes, 2);
	assert_memory_equal(f->sent, "ab", 2);
}

static void input_waits_for_rts(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(type(f, "abc"), 0);
	out(f, MCR, 0x01); /* DTR alone */
	assert_int_equal(f->ready, 0);
	out(f, MCR, 0x03);
	assert_int_equal(f->ready, 1);
	out(f, FCR, 0x01);
	assert_int_equal(type(f, "abc"), 3);
	assert_int_equal(in(f, DATA), 'a');
	assert_int_equal(in(f, DATA), 'b');
	assert_int_equal(in(f, LSR), 0x61);
	assert_int_equal(in(f, DATA), 'c');
	assert_int_equal(in(f, LSR), 0x60);
	assert_int_equal(in(f, DATA), 0);
	assert_int_equal(f->ready, 1);
}

static void full_fifo_takes_no_more_until_it_is_drained(void **state)
{
	struct fixture *f = *state;

	out(f, MCR, 0x0b);
	assert_int_equal(type(f, "ab"), 1); /* no FIFO: one byte */
	assert_int_equal(in(f, DATA), 'a');
	assert_int_equal(f->ready, 1);
	out(f, FCR, 0x01);
	assert_int_equal(type(f, "0123456789abcdefgh"), PC_SERIAL_FIFO);
	for (unsigned int i = 0; i < PC_SERIAL_FIFO; i++) {
		assert_int_equal(f->ready, 1);
		assert_int_equal(in(f, DATA), "0123456789abcdef"[i]);
	}
	assert_int_equal(f->ready, 2);
	assert_int_equal(in(f, LSR), 0x60);
}

static void receive_interrupt_lasts_while_there_is_data(void **state)
{
	struct fixture *f = *state;

	out(f, MCR, 0x0b);
	out(f, FCR, 0x41); /* trigger at 4 */
	out(f, IER, 0x03);
	assert_int_equal(in(f, IIR), 0xc2);
	assert_false(f->line);
	type(f, "abcd");
	assert_true(f->line);
	assert_int_equal(in(f, IIR), 0xc4);
	in(f, DATA);
	assert_int_equal(in(f, IIR), 0xcc); /* below the trigger: a timeout */
	assert_true(f->line);
	out(f, FCR, 0x43); /* forget the rest */
	assert_false(f->line);
	assert_int_equal(in(f, IIR), 0xc1);
}

static void overrun_is_reported_once(void **state)
{
	struct fixture *f = *state;

	out(f, IER, 0x04);
	out(f, MCR, 0x10);
	out(f, DATA, 'a');
	out(f, DATA, 'b');
	assert_true(f->line);
	assert_int_equal(in(f, IIR), 0x06);
	assert_int_equal(in(f, LSR), 0x63);
	assert_false(f->line);
	assert_int_equal(in(f, LSR), 0x61);
	assert_int_equal(in(f, DATA), 'a');
}

static void reset_lowers_the_line_and_forgets_input(void **state)
{
	struct fixture *f = *state;

	out(f, MCR, 0x0b);
	out(f, IER, 0x0f);
	type(f, "a");
	assert_true(f->line);
	pc_serial_reset(&f->port);
	assert_false(f->line);
	assert_int_equal(in(f, LSR), 0x60);
	assert_int_equal(in(f, IER), 0);
	assert_int_equal(type(f, "a"), 0);
}

int main(void)
{
#define UNIT(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		UNIT(looks_like_a_16550a),
		UNIT(divisor_hides_data_and_enable),
		UNIT(loopback_connects_the_lines_and_the_data),
		UNIT(transmit_interrupt_comes_with_every_byte_and_enable),
		UNIT(input_waits_for_rts),
		UNIT(full_fifo_takes_no_more_until_it_is_drained),
		UNIT(receive_interrupt_lasts_while_there_is_data),
		UNIT(overrun_is_reported_once),
		UNIT(reset_lowers_the_line_and_forgets_input),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
