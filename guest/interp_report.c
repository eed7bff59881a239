/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How the interpreter says why it cannot go on: one line of text in a STOP call, built
 * without libc.  Lines are counted only here, so a run that goes well pays nothing.
 */
#include "abi/uvcall.h"
#include "base/types.h"
#include "guest/interp_state.h"

#define MESSAGE_MAX 384

struct message {
	size_t len;
	char text[MESSAGE_MAX];
};

static void add_bytes(struct message *m, const char *text, size_t len)
{
	for (size_t i = 0; i < len && m->len < MESSAGE_MAX; i++)
		m->text[m->len++] = text[i];
}

static void add(struct message *m, const char *text)
{
	size_t len = 0;

	while (text[len] != '\0')
		len++;
	add_bytes(m, text, len);
}

static void add_decimal(struct message *m, uint64_t n)
{
	char digits[20];
	size_t at = sizeof(digits);

	do {
		digits[--at] = (char)('0' + n % 10);
		n /= 10;
	} while (n);
	add_bytes(m, digits + at, sizeof(digits) - at);
}

/* At least @width digits. */
static void add_hex(struct message *m, uint64_t n, unsigned int width)
{
	char digits[16];
	size_t at = sizeof(digits);

	do {
		digits[--at] = "0123456789abcdef"[n & 15];
		n >>= 4;
	} while (n || sizeof(digits) - at < width);
	add(m, "0x");
	add_bytes(m, digits + at, sizeof(digits) - at);
}

/* The 1-based number of the current line. */
static bool line_number(struct interp *in, uint64_t *ret)
{
	uint64_t number = 1, len;
	uint8_t *p;

	for (uint64_t at = 0; at < in->line_at; at += len) {
		p = in->env->translate(in->env->ctx,
			GUEST_TEXT_GPA + sizeof(struct guest_text) + at, in->line_at - at, false,
			&len);
		if (!p)
			return false;
		for (uint64_t i = 0; i < len; i++)
			number += p[i] == '\n';
		in->env->release(in->env->ctx);
	}
	*ret = number;
	return true;
}

/* The first word of the current line, which names the operation. */
static void add_operation(struct message *m, const struct interp *in)
{
	size_t len = in->line_len < WORKLOAD_LINE_MAX ? in->line_len : WORKLOAD_LINE_MAX;
	size_t start = 0, end;

	while (start < len && (in->line[start] == ' ' || in->line[start] == '\t'))
		start++;
	for (end = start; end < len && in->line[end] > ' '; end++)
		;
	add_bytes(m, in->line + start, end - start);
}

static bool begin(struct interp *in, struct message *m)
{
	uint64_t number;

	if (!line_number(in, &number))
		return false;
	m->len = 0;
	add(m, "line ");
	add_decimal(m, number);
	add(m, ": ");
	return true;
}

static bool stop(struct interp *in, enum abi_stop reason, uint64_t gpa, const struct message *m)
{
	in->env->call(
		in->env->ctx, GUEST_CALL_STOP, reason, gpa, (uint64_t)(uintptr_t)m->text, m->len);
	return false;
}

bool interp_stop_bad(struct interp *in, const char *expected)
{
	struct message m;

	if (!begin(in, &m))
		return false;
	add(&m, "expected ");
	add(&m, expected);
	return stop(in, ABI_STOP_GUEST, 0, &m);
}

static const char *status_text(uint64_t status)
{
	static const char *const texts[] = {
#define X(name, number, err, text) [number] = text,
		ABI_STATUS_TABLE(X)
#undef X
	};

	return status < sizeof(texts) / sizeof(texts[0]) ? texts[status] : "an unknown status";
}

bool interp_stop_refused(struct interp *in, uint64_t status)
{
	struct message m;

	if (!begin(in, &m))
		return false;
	add_operation(&m, in);
	if (in->op.bytes) {
		add(&m, " ");
		add_hex(&m, in->op.gpa, 1);
		add(&m, " ");
		add_hex(&m, in->op.bytes, 1);
	}
	add(&m, ": refused: ");
	add(&m, status_text(status));
	return stop(in, ABI_STOP_GUEST, in->op.gpa, &m);
}

bool interp_stop_mismatch(struct interp *in, uint64_t gpa, uint64_t found, uint64_t expected)
{
	struct message m;

	if (!begin(in, &m))
		return false;
	add_operation(&m, in);
	add(&m, ": at ");
	add_hex(&m, gpa, 1);
	add(&m, " expected ");
	add_hex(&m, expected, 16);
	add(&m, ", found ");
	add_hex(&m, found, 16);
	return stop(in, ABI_STOP_CHECK, gpa, &m);
}

bool interp_stop_early(struct interp *in, const char *why)
{
	struct message m = {.len = 0};

	add(&m, why);
	return stop(in, ABI_STOP_GUEST, GUEST_TEXT_GPA, &m);
}
