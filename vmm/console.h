/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The console: this process's standard input and output as the far end of the guest's
 * serial port.
 *
 * A terminal is put into raw mode, so that the guest sees every key, but Ctrl-a:
 * Ctrl-a x quits, Ctrl-a Ctrl-a (or Ctrl-a a) sends Ctrl-a, Ctrl-a h shows this.  Input
 * that is no terminal goes to the guest as it is; its end is nothing special.
 */
#ifndef VMM_CONSOLE_H
#define VMM_CONSOLE_H

#include <stddef.h>
#include <stdint.h>

struct console;

struct console_config {
	int in_fd;
	int out_fd;
	void *ctx;
	/* Input for the guest; returns how many bytes it took.  From the console's thread. */
	size_t (*input)(void *ctx, const uint8_t *data, size_t bytes);
	/* The user wants to quit.  From the console's thread. */
	void (*quit)(void *ctx);
};

/*
 * Takes the terminal and starts reading.  At most one console at a time.
 * -ENOMEM, or any errno of making a thread and its descriptors.
 */
int console_new(const struct console_config *config, struct console **ret);

/* Waits for the reading thread, gives the terminal back. */
void console_free(struct console *c);

/* The guest can take input again, after input() took less than it was given. */
void console_input_ready(struct console *c);

/*
 * Writes all of it, waiting as long as the reader is slow; drops what is left when the
 * reader is gone or console_stop() was called.  Thread-safe.
 */
void console_write(struct console *c, const void *data, size_t bytes);

/* Ends every wait of console_write(), now and later, and all reading. */
void console_stop(struct console *c);

#endif
