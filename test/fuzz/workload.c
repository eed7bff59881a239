/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzzing the workload language.  The input is a text; its first two bytes choose the
 * flags of the checker and what the machine answers.  The interpreter runs every text,
 * good or bad, on a machine whose memory is one page: it must come to an end within the
 * machine's patience and stay inside what it was given.
 */
#include <stdlib.h>
#include <string.h>

#include "base/types.h"
#include "guest/interp.h"

#define PATIENCE 400

struct machine {
	const uint8_t *text;
	size_t size;
	uint8_t flags;
	unsigned int steps;
	struct guest_bootinfo boot;
	uint64_t header[2]; /* struct guest_text */
	uint64_t page[512];
	uint8_t *copy; /* of what was translated last, so that ASan sees its bounds */
};

/* One page stands for all memory; below GUEST_LOW_END are the text and its header. */
static const uint8_t *memory_at(struct machine *m, uint64_t gpa, uint64_t *len)
{
	uint64_t at = gpa - GUEST_TEXT_GPA;

	if (gpa >= GUEST_LOW_END) {
		*len = PAGE_SIZE - (gpa & PAGE_MASK);
		return (const uint8_t *)m->page + (gpa & PAGE_MASK);
	}
	if (gpa < GUEST_TEXT_GPA)
		abort();
	if (at < sizeof(m->header)) {
		*len = sizeof(m->header) - at;
		return (const uint8_t *)m->header + at;
	}
	at -= sizeof(m->header);
	if (at >= m->size)
		abort();
	*len = m->size - at;
	return m->text + at;
}

static uint8_t *translate(void *ctx, uint64_t gpa, uint64_t want, bool write, uint64_t *ret_len)
{
	struct machine *m = ctx;
	const uint8_t *from;
	uint64_t len;

	if (m->copy || want == 0 || (write && gpa < GUEST_LOW_END))
		abort();
	if (m->steps++ >= PATIENCE)
		return NULL;
	from = memory_at(m, gpa, &len);
	if (len > want)
		len = want;
	m->copy = malloc(len);
	if (!m->copy)
		abort();
	memcpy(m->copy, from, len);
	*ret_len = len;
	return m->copy;
}

static void release(void *ctx)
{
	struct machine *m = ctx;

	if (!m->copy)
		abort();
	free(m->copy);
	m->copy = NULL;
}

static int64_t call(
	void *ctx, enum guest_call nr, uint64_t a0, uint64_t a1, uint64_t a2, uint64_t a3)
{
	struct machine *m = ctx;

	if (m->copy)
		abort();
	if (m->steps++ >= PATIENCE)
		return GUEST_CALL_STOPPED;
	switch (nr) {
	case GUEST_CALL_BOOTINFO:
		memcpy((void *)(uintptr_t)a0, &m->boot, sizeof(m->boot));
		return 0;
	case GUEST_CALL_REBOOT:
		if (a1 == 0 || a1 > GUEST_RESUME_WORDS)
			abort();
		memcpy(m->boot.resume, (const void *)(uintptr_t)a0, a1 * 8);
		m->boot.resume_size = (uint32_t)a1;
		return GUEST_CALL_STOPPED;
	case GUEST_CALL_POWEROFF:
	case GUEST_CALL_HALT:
	case GUEST_CALL_STOP:
		return GUEST_CALL_STOPPED;
	default:
		return nr == (m->flags >> 4) ? -(int64_t)(m->flags & 15) : 0;
	}
}

static void run(struct machine *m)
{
	struct guest_env env = {m, translate, release, call};

	guest_interp_run(&env);
	if (m->copy)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct machine m = {.steps = 0};
	struct workload_info info;
	const char *bad;

	if (size < 2 || size - 2 > GUEST_TEXT_MAX - sizeof(struct guest_text))
		return 0;
	m.flags = data[0];
	m.text = data + 2;
	m.size = size - 2;
	bad = workload_check(
		(const char *)m.text, m.size, (uint64_t)(data[1] & 15) << 21, data[1] >> 4, &info);
	if (!bad && (info.error_line || info.vcpus == 0))
		abort();
	m.header[0] = GUEST_TEXT_MAGIC;
	m.header[1] = m.size;
	m.boot.vcpus = 2;
	m.boot.vcpu = data[1] & 1;
	m.boot.caller = 1;
	m.boot.memory_end = GPA_END;
	run(&m);
	m.steps = 0;
	m.boot.incarnation = 1;
	run(&m);
	return 0;
}
