/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A 16550A serial port, wired to whoever reads the console by a null-modem cable.
 *
 * Output leaves at once: the transmitter is always empty.  Input waits outside until the
 * guest raises RTS and its receive FIFO has room, as a sender with hardware flow control
 * would: what is typed or piped in before the guest listens is not lost.
 */
#ifndef VMM_PC_SERIAL_H
#define VMM_PC_SERIAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PC_SERIAL_PORTS 8
#define PC_SERIAL_FIFO  16

struct pc_serial_ops {
	void *ctx;
	/* The interrupt line changes.  Called with the port's lock held: must not block. */
	void (*set_irq)(void *ctx, unsigned int irq, bool level);
	/* The guest sends @byte.  May block: no lock is held. */
	void (*output)(void *ctx, uint8_t byte);
	/* After pc_serial_input() took less than it was given: it can take more. */
	void (*input_ready)(void *ctx);
};

struct pc_serial {
	struct pc_serial_ops ops;
	unsigned int irq;

	pthread_mutex_t lock;
	/* Guarded by lock, all below. */
	uint8_t ier, fcr, lcr, mcr, scratch, divisor[2];
	bool overrun;
	bool thr_interrupt; /* THRE became true and nobody has seen it in IIR yet */
	bool line;          /* the interrupt line as last told */
	bool input_waits;   /* input_ready() is owed */
	uint8_t fifo[PC_SERIAL_FIFO];
	unsigned int first, count;
};

void pc_serial_init(struct pc_serial *s, unsigned int irq, const struct pc_serial_ops *ops);
void pc_serial_destroy(struct pc_serial *s);

/* Back to the state after power-on. */
void pc_serial_reset(struct pc_serial *s);

/* Register @reg is 0 to 7, the offset from the base port. */
uint8_t pc_serial_read(struct pc_serial *s, unsigned int reg);
void pc_serial_write(struct pc_serial *s, unsigned int reg, uint8_t value);

/* Hands in received bytes; returns how many were taken. */
size_t pc_serial_input(struct pc_serial *s, const uint8_t *data, size_t bytes);

#endif
