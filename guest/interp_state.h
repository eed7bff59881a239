/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the files of the interpreter share.
 *
 * Every function here that returns bool says whether the vCPU goes on: after false the
 * interpreter returns at once, without another translation or call.
 */
#ifndef GUEST_INTERP_STATE_H
#define GUEST_INTERP_STATE_H

#include "abi/exit.h"
#include "guest/interp.h"

struct interp_loop {
	uint64_t body; /* offset of the line after `loop` */
	uint64_t left; /* passes, the current one included */
};

struct interp {
	const struct guest_env *env;
	struct guest_bootinfo boot;
	uint64_t text_bytes;

	/* Offsets into the text. */
	uint64_t line_at; /* the current line */
	uint64_t next_at; /* the line after it */

	uint64_t section; /* the vCPU that the current line belongs to */
	unsigned int depth;
	struct interp_loop loops[WORKLOAD_LOOP_DEPTH];

	/* From where on lines can still be reached: see barrier in interp.c. */
	uint64_t reach;        /* by every vCPU */
	uint64_t caller;       /* the vCPU whose REBOOT began this incarnation */
	uint64_t caller_reach; /* by that one */

	const char *bad; /* what was expected of the current line, or NULL */
	struct workload_op op;
	size_t line_len; /* may exceed the buffer: such a line is bad */
	char line[WORKLOAD_LINE_MAX];
};

/* ---- interp.c ---- */

/*
 * Makes a call and repeats it, a millisecond apart, while the answer is AGAIN.  A refusal
 * stops the VM.
 */
bool interp_call(struct interp *in, enum guest_call nr, uint64_t a0, uint64_t a1);

/* ---- interp_report.c: STOP calls; all return false ---- */

/* The current line is bad. */
bool interp_stop_bad(struct interp *in, const char *expected);

/* The call of the current operation ended in -@status. */
bool interp_stop_refused(struct interp *in, uint64_t status);

/* The word at @gpa is wrong. */
bool interp_stop_mismatch(struct interp *in, uint64_t gpa, uint64_t found, uint64_t expected);

/* There is no current line to blame. */
bool interp_stop_early(struct interp *in, const char *why);

/* ---- interp_memory.c: operations on memory, taken from in->op ---- */

bool interp_write(struct interp *in);
bool interp_check(struct interp *in);
bool interp_zero(struct interp *in);
bool interp_touch(struct interp *in);
bool interp_random(struct interp *in);
bool interp_dma(struct interp *in);

#endif
