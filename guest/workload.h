/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The workload language: parsing.
 *
 * A workload is text, one operation a line.  It is interpreted line by line from its
 * text, without a compiled form, so that the same code runs in the ultravisor's software
 * executor and freestanding in a KVM guest that has no heap.  workload_check() walks a
 * whole text once, before anything is started, and says what is wrong where.
 *
 * Freestanding: no libc, integers only.
 */
#ifndef GUEST_WORKLOAD_H
#define GUEST_WORKLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WORKLOAD_LINE_MAX    1024 /* bytes, without the newline */
#define WORKLOAD_LOOP_DEPTH  8
#define WORKLOAD_PROTECT_MAX 64 /* ranges of one protect */

enum workload_op_type {
	WL_NOTHING, /* blank or comment */
	WL_MEMORY,
	WL_VCPUS,
	WL_VCPU,
	WL_WRITE,
	WL_CHECK,
	WL_ZERO,
	WL_TOUCH,
	WL_RANDOM,
	WL_PROTECT,
	WL_SHARE,
	WL_UNSHARE,
	WL_DMA,
	WL_RELEASE,
	WL_AWAIT,
	WL_SLEEP,
	WL_PRINT,
	WL_BARRIER,
	WL_LOOP,
	WL_END,
	WL_REBOOT,
	WL_POWEROFF
};

struct workload_range {
	uint64_t gpa, bytes;
};

struct workload_op {
	enum workload_op_type type;
	uint64_t gpa, bytes; /* of `memory`: gpa is END, or 0 */
	uint64_t count;      /* COUNT, N, MS, STRIDE, vCPU number, memory bytes */
	uint64_t seed;
	const char *text; /* TEXT or NAME, inside the line */
	size_t text_len;
	size_t range_count;
	struct workload_range ranges[WORKLOAD_PROTECT_MAX];
};

/*
 * Parses one line.  Returns NULL, or what was expected (a static string that completes
 * "expected ..."), *ret then being undefined.  Checks the form of the line, alignment,
 * wrapping and that no address lies below GUEST_LOW_END; not the size of memory nor nesting.
 */
const char *workload_parse_line(const char *line, size_t len, struct workload_op *ret);

struct workload_info {
	uint64_t memory;      /* 0: the text does not say */
	uint64_t address_end; /* no operation ends above this */
	uint64_t vcpus;       /* the `vcpus` line, else the highest vcpu + 1 */
	size_t error_line;    /* 1-based; 0 if the error is not of one line */
};

/*
 * Checks a whole text.  @memory and @vcpus are the flags that override the text, or 0.
 * Returns NULL with *ret filled, or what was expected, with ret->error_line.
 * Rules: at most GUEST_TEXT_MAX bytes with its header; `memory` and `vcpus` once each,
 * before operations; vcpu numbers below vcpus; loops closed in the vcpu section where they
 * began, at most WORKLOAD_LOOP_DEPTH deep; addresses inside memory (the flag, else the
 * `memory` line, else 64M), or below that line's END; at least one operation.
 */
const char *workload_check(
	const char *text, size_t len, uint64_t memory, uint64_t vcpus, struct workload_info *ret);

/* The 8-byte word of the test pattern at @gpa. */
uint64_t workload_pattern(uint64_t gpa, uint64_t seed, uint64_t incarnation);

#endif
