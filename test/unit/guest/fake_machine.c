/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/types.h"
#include "test/unit/guest/fake_machine.h"

/* Counts an event; true if the vCPU must stop at it. */
static bool event(struct fake_machine *m)
{
	assert_false(m->held);
	assert_false(m->stopped);
	m->events++;
	m->stopped = m->events == m->stop_at;
	return m->stopped;
}

static uint8_t *fake_translate(
	void *ctx, uint64_t gpa, uint64_t want, bool write, uint64_t *ret_len)
{
	struct fake_machine *m = ctx;
	uint64_t to_page_end = PAGE_SIZE - (gpa & PAGE_MASK);
	uint64_t len = m->max_len > to_page_end ? m->max_len : to_page_end;

	assert_true(want > 0);
	assert_true(gpa < FAKE_MEMORY && want <= FAKE_MEMORY - gpa);
	assert_true(!write || gpa >= GUEST_LOW_END);
	if (event(m))
		return NULL;
	m->held = true;
	*ret_len = len < want ? len : want;
	if (*ret_len > m->longest)
		m->longest = *ret_len;
	return m->memory + gpa;
}

static void fake_release(void *ctx)
{
	struct fake_machine *m = ctx;

	assert_true(m->held);
	m->held = false;
}

static void complement(struct fake_machine *m, uint64_t gpa, uint64_t bytes)
{
	for (uint64_t i = 0; i < bytes && !m->lazy_device; i++)
		m->memory[gpa + i] ^= 0xff;
}

static void take_words(struct fake_machine *m, uint64_t buffer, uint64_t words)
{
	assert_in_range(words, 1, GUEST_RESUME_WORDS);
	memcpy(m->boot.resume, (const void *)(uintptr_t)buffer, words * 8);
	m->boot.resume_size = (uint32_t)words;
}

static void take_stop(struct fake_machine *m, const uint64_t *arg)
{
	assert_in_range(arg[3], 1, sizeof(m->stop_text) - 1);
	m->stop = (enum abi_stop)arg[0];
	m->stop_gpa = arg[1];
	memcpy(m->stop_text, (const void *)(uintptr_t)arg[2], arg[3]);
	m->stop_text[arg[3]] = '\0';
}

static void take_print(struct fake_machine *m, const uint64_t *arg)
{
	size_t at = strlen(m->printed);

	assert_true(at + arg[1] + 2 <= sizeof(m->printed));
	memcpy(m->printed + at, (const void *)(uintptr_t)arg[0], arg[1]);
	strcpy(m->printed + at + arg[1], "\n");
}

static int64_t end_vcpu(struct fake_machine *m)
{
	m->stopped = true;
	return GUEST_CALL_STOPPED;
}

static int64_t serve(struct fake_machine *m, enum guest_call nr, const uint64_t *arg)
{
	switch (nr) {
	case GUEST_CALL_BOOTINFO:
		m->boot.memory_end = FAKE_MEMORY;
		if (fake_count(m, GUEST_CALL_BOOTINFO) <= m->small_boots)
			m->boot.memory_end = SIZE_2M;
		memcpy((void *)(uintptr_t)arg[0], &m->boot, sizeof(m->boot));
		return 0;
	case GUEST_CALL_PROTECT:
		assert_in_range(arg[1], 1, 128);
		memcpy(m->ranges, (const void *)(uintptr_t)arg[0], arg[1] * sizeof(m->ranges[0]));
		m->range_count = arg[1];
		return 0;
	case GUEST_CALL_DMA:
		complement(m, arg[0], arg[1]);
		return 0;
	case GUEST_CALL_PRINT:
		take_print(m, arg);
		return 0;
	case GUEST_CALL_REBOOT:
		take_words(m, arg[0], arg[1]);
		return end_vcpu(m);
	case GUEST_CALL_STOP:
		take_stop(m, arg);
		return end_vcpu(m);
	case GUEST_CALL_POWEROFF:
	case GUEST_CALL_HALT:
		return end_vcpu(m);
	default:
		return 0;
	}
}

static int64_t fake_call(
	void *ctx, enum guest_call nr, uint64_t a0, uint64_t a1, uint64_t a2, uint64_t a3)
{
	struct fake_machine *m = ctx;
	struct fake_call call = {nr, {a0, a1, a2, a3}};

	if (event(m))
		return GUEST_CALL_STOPPED;
	assert_true(m->calls < FAKE_CALLS);
	m->call[m->calls++] = call;
	if (nr == m->refuse_nr && m->refuse_times > 0) {
		m->refuse_times--;
		return m->refuse_with;
	}
	return serve(m, nr, call.arg);
}

void fake_load(struct fake_machine *m, const char *text)
{
	struct guest_text header = {GUEST_TEXT_MAGIC, strlen(text)};

	memset(m->memory, 0, FAKE_MEMORY);
	memcpy(m->memory + GUEST_TEXT_GPA, &header, sizeof(header));
	memcpy(m->memory + GUEST_TEXT_GPA + sizeof(header), text, header.bytes);
}

void fake_init(struct fake_machine *m, const char *text)
{
	memset(m, 0, sizeof(*m));
	m->memory = aligned_alloc(SIZE_2M, FAKE_MEMORY);
	assert_non_null(m->memory);
	m->max_len = UINT64_MAX;
	m->boot.vcpus = 1;
	m->env.ctx = m;
	m->env.translate = fake_translate;
	m->env.release = fake_release;
	m->env.call = fake_call;
	fake_load(m, text);
}

void fake_free(struct fake_machine *m)
{
	free(m->memory);
}

void fake_run(struct fake_machine *m)
{
	m->events = 0;
	m->stopped = false;
	m->calls = 0;
	m->printed[0] = '\0';
	m->range_count = 0;
	m->stop = 0;
	m->stop_gpa = 0;
	m->stop_text[0] = '\0';
	guest_interp_run(&m->env);
	assert_true(m->stopped);
	assert_false(m->held);
}

size_t fake_count(const struct fake_machine *m, enum guest_call nr)
{
	size_t n = 0;

	for (size_t i = 0; i < m->calls; i++)
		n += m->call[i].nr == nr;
	return n;
}

const struct fake_call *fake_last(const struct fake_machine *m)
{
	assert_true(m->calls > 0);
	return &m->call[m->calls - 1];
}

uint64_t fake_word(const struct fake_machine *m, uint64_t gpa)
{
	uint64_t word;

	memcpy(&word, m->memory + gpa, sizeof(word));
	return word;
}
