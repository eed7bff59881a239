/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A machine for the interpreter: plain memory, a log of calls, faults at will.
 *
 * It asserts the contract of guest/interp.h: every pointer is released before the next
 * translation or call, and nothing happens after the vCPU was told to stop.
 */
#ifndef TEST_FAKE_MACHINE_H
#define TEST_FAKE_MACHINE_H

#include "abi/exit.h"
#include "guest/interp.h"

#define FAKE_MEMORY (8u << 20)
#define FAKE_CALLS  256

struct fake_call {
	enum guest_call nr;
	uint64_t arg[4];
};

struct fake_machine {
	struct guest_env env;
	uint8_t *memory;
	uint64_t max_len; /* most bytes that one translation gives, from a page's end on */
	struct guest_bootinfo boot;

	uint64_t events;  /* translations and calls of this run */
	uint64_t stop_at; /* the event at which the vCPU must stop; 0: none */
	bool held, stopped;
	uint64_t longest; /* most bytes held at once */

	/* What a call answers instead of success, @refuse_times times. */
	enum guest_call refuse_nr;
	int64_t refuse_with;
	unsigned int refuse_times;
	bool lazy_device; /* DMA does nothing */

	/* So many times BOOTINFO says that memory ends at 2M. */
	unsigned int small_boots;

	/* The log.  BOOTINFO and SLEEP-for-retry are logged like all others. */
	size_t calls;
	struct fake_call call[FAKE_CALLS];
	char printed[1024]; /* each PRINT and a newline */
	struct abi_range ranges[128];
	size_t range_count;
	enum abi_stop stop;
	uint64_t stop_gpa;
	char stop_text[512];
};

/* A machine of vCPU 0 of 1 in incarnation 0 with @text loaded. */
void fake_init(struct fake_machine *m, const char *text);
void fake_free(struct fake_machine *m);

/* Loads @text again and zeroes all other memory. */
void fake_load(struct fake_machine *m, const char *text);

/* Runs the vCPU, forgetting the log of the run before. */
void fake_run(struct fake_machine *m);

/* How many calls @nr were made. */
size_t fake_count(const struct fake_machine *m, enum guest_call nr);

/* The last call; fails the test if there was none. */
const struct fake_call *fake_last(const struct fake_machine *m);

/* The word at @gpa. */
uint64_t fake_word(const struct fake_machine *m, uint64_t gpa);

#endif
