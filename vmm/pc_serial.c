/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * Three causes can raise the interrupt line, in order of priority: an overrun, received
 * bytes, and the transmitter becoming empty.  The line is their disjunction under the
 * enable bits; update_line() tells the outside about edges only.  Since the transmitter
 * is empty again as soon as a byte is written, the third cause is an event, not a state:
 * it is set by a write of a byte, or by enabling it, and cleared by being reported.
 *
 * Bytes below the trigger level are reported as a receive timeout at once.
 * Not emulated: baud rates, parity and breaks, modem status changes.
 */
#include "vmm/pc_serial.h"

#include <string.h>

/* Registers; 0 and 1 are the divisor while LCR_DLAB is set. */
enum { REG_DATA, REG_IER, REG_IIR_FCR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCRATCH };

#define IER_RX   0x01u
#define IER_THR  0x02u
#define IER_LINE 0x04u
#define IER_ALL  0x0fu

#define IIR_NONE    0x01u
#define IIR_THR     0x02u
#define IIR_RX      0x04u
#define IIR_LINE    0x06u
#define IIR_TIMEOUT 0x0cu
#define IIR_FIFO    0xc0u

#define FCR_ENABLE   0x01u
#define FCR_CLEAR_RX 0x02u
#define FCR_KEPT     0xc1u

#define LCR_DLAB 0x80u

#define MCR_DTR  0x01u
#define MCR_RTS  0x02u
#define MCR_OUT1 0x04u
#define MCR_OUT2 0x08u
#define MCR_LOOP 0x10u
#define MCR_ALL  0x1fu

#define LSR_DATA    0x01u
#define LSR_OVERRUN 0x02u
#define LSR_EMPTY   0x60u /* holding register and transmitter */

#define MSR_CTS 0x10u
#define MSR_DSR 0x20u
#define MSR_RI  0x40u
#define MSR_DCD 0x80u

static unsigned int capacity(const struct pc_serial *s)
{
	return s->fcr & FCR_ENABLE ? PC_SERIAL_FIFO : 1;
}

static unsigned int trigger(const struct pc_serial *s)
{
	static const uint8_t levels[4] = {1, 4, 8, 14};

	return s->fcr & FCR_ENABLE ? levels[s->fcr >> 6] : 1;
}

/* DTR says less: Linux raises it for its console long before anybody reads. */
static bool listens(const struct pc_serial *s)
{
	return (s->mcr & MCR_RTS) && !(s->mcr & MCR_LOOP);
}

static uint8_t interrupt_cause(const struct pc_serial *s)
{
	if ((s->ier & IER_LINE) && s->overrun)
		return IIR_LINE;
	if ((s->ier & IER_RX) && s->count > 0)
		return s->count >= trigger(s) ? IIR_RX : IIR_TIMEOUT;
	if ((s->ier & IER_THR) && s->thr_interrupt)
		return IIR_THR;
	return IIR_NONE;
}

static void update_line(struct pc_serial *s)
{
	bool level = interrupt_cause(s) != IIR_NONE;

	if (level == s->line)
		return;
	s->line = level;
	s->ops.set_irq(s->ops.ctx, s->irq, level);
}

static void receive(struct pc_serial *s, uint8_t byte)
{
	if (s->count == capacity(s)) {
		s->overrun = true;
		return;
	}
	s->fifo[(s->first + s->count) % PC_SERIAL_FIFO] = byte;
	s->count++;
}

/* The registers and lines of a port that has just been switched on. */
static void power_on(struct pc_serial *s)
{
	s->ier = s->fcr = s->lcr = s->mcr = s->scratch = 0;
	s->divisor[0] = 12; /* 9600 baud */
	s->divisor[1] = 0;
	s->overrun = false;
	s->thr_interrupt = false;
	s->first = s->count = 0;
}

void pc_serial_init(struct pc_serial *s, unsigned int irq, const struct pc_serial_ops *ops)
{
	memset(s, 0, sizeof(*s));
	s->ops = *ops;
	s->irq = irq;
	pthread_mutex_init(&s->lock, NULL);
	power_on(s);
}

void pc_serial_destroy(struct pc_serial *s)
{
	pthread_mutex_destroy(&s->lock);
}

void pc_serial_reset(struct pc_serial *s)
{
	pthread_mutex_lock(&s->lock);
	power_on(s);
	update_line(s);
	pthread_mutex_unlock(&s->lock);
}

/* Whether input_ready() must be called now; the caller does, after unlocking. */
static bool take_input_ready(struct pc_serial *s)
{
	bool ready = s->input_waits && listens(s) && s->count == 0;

	if (ready)
		s->input_waits = false;
	return ready;
}

static uint8_t read_data(struct pc_serial *s)
{
	uint8_t byte;

	if (s->count == 0)
		return 0;
	byte = s->fifo[s->first];
	s->first = (s->first + 1) % PC_SERIAL_FIFO;
	s->count--;
	return byte;
}

static uint8_t read_iir(struct pc_serial *s)
{
	uint8_t cause = interrupt_cause(s);

	if (cause == IIR_THR)
		s->thr_interrupt = false;
	return cause | (s->fcr & FCR_ENABLE ? IIR_FIFO : 0);
}

static uint8_t read_lsr(struct pc_serial *s)
{
	uint8_t lsr = LSR_EMPTY;

	if (s->count > 0)
		lsr |= LSR_DATA;
	if (s->overrun)
		lsr |= LSR_OVERRUN;
	s->overrun = false;
	return lsr;
}

static uint8_t read_msr(const struct pc_serial *s)
{
	uint8_t msr = 0;

	if (!(s->mcr & MCR_LOOP))
		return MSR_CTS | MSR_DSR | MSR_DCD;
	msr |= s->mcr & MCR_RTS ? MSR_CTS : 0;
	msr |= s->mcr & MCR_DTR ? MSR_DSR : 0;
	msr |= s->mcr & MCR_OUT1 ? MSR_RI : 0;
	msr |= s->mcr & MCR_OUT2 ? MSR_DCD : 0;
	return msr;
}

static uint8_t read_register(struct pc_serial *s, unsigned int reg)
{
	if ((s->lcr & LCR_DLAB) && reg <= REG_IER)
		return s->divisor[reg];
	switch (reg) {
	case REG_DATA:
		return read_data(s);
	case REG_IER:
		return s->ier;
	case REG_IIR_FCR:
		return read_iir(s);
	case REG_LCR:
		return s->lcr;
	case REG_MCR:
		return s->mcr;
	case REG_LSR:
		return read_lsr(s);
	case REG_MSR:
		return read_msr(s);
	default:
		return s->scratch;
	}
}

uint8_t pc_serial_read(struct pc_serial *s, unsigned int reg)
{
	uint8_t value;
	bool ready;

	pthread_mutex_lock(&s->lock);
	value = read_register(s, reg % PC_SERIAL_PORTS);
	update_line(s);
	ready = take_input_ready(s);
	pthread_mutex_unlock(&s->lock);
	if (ready)
		s->ops.input_ready(s->ops.ctx);
	return value;
}

static void write_ier(struct pc_serial *s, uint8_t value)
{
	if ((value & IER_THR) && !(s->ier & IER_THR))
		s->thr_interrupt = true;
	s->ier = value & IER_ALL;
}

static void write_fcr(struct pc_serial *s, uint8_t value)
{
	if ((value & FCR_CLEAR_RX) || ((value ^ s->fcr) & FCR_ENABLE))
		s->first = s->count = 0;
	s->fcr = value & FCR_ENABLE ? value & FCR_KEPT : 0;
}

static void write_register(struct pc_serial *s, unsigned int reg, uint8_t value)
{
	if ((s->lcr & LCR_DLAB) && reg <= REG_IER) {
		s->divisor[reg] = value;
		return;
	}
	switch (reg) {
	case REG_DATA:
		if (s->mcr & MCR_LOOP)
			receive(s, value);
		s->thr_interrupt = true;
		break;
	case REG_IER:
		write_ier(s, value);
		break;
	case REG_IIR_FCR:
		write_fcr(s, value);
		break;
	case REG_LCR:
		s->lcr = value;
		break;
	case REG_MCR:
		s->mcr = value & MCR_ALL;
		break;
	case REG_SCRATCH:
		s->scratch = value;
		break;
	}
}

/* Whether a write to the data register leaves the port. */
static bool sends(struct pc_serial *s)
{
	bool yes;

	pthread_mutex_lock(&s->lock);
	yes = !(s->lcr & LCR_DLAB) && !(s->mcr & MCR_LOOP);
	pthread_mutex_unlock(&s->lock);
	return yes;
}

void pc_serial_write(struct pc_serial *s, unsigned int reg, uint8_t value)
{
	bool ready;

	reg %= PC_SERIAL_PORTS;
	if (reg == REG_DATA && sends(s))
		s->ops.output(s->ops.ctx, value);
	pthread_mutex_lock(&s->lock);
	write_register(s, reg, value);
	update_line(s);
	ready = take_input_ready(s);
	pthread_mutex_unlock(&s->lock);
	if (ready)
		s->ops.input_ready(s->ops.ctx);
}

size_t pc_serial_input(struct pc_serial *s, const uint8_t *data, size_t bytes)
{
	size_t taken = 0;

	pthread_mutex_lock(&s->lock);
	while (taken < bytes && listens(s) && s->count < capacity(s))
		receive(s, data[taken++]);
	if (taken < bytes)
		s->input_waits = true;
	update_line(s);
	pthread_mutex_unlock(&s->lock);
	return taken;
}
