/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The interpreter on a fake machine: what it does to memory, which calls it makes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "abi/uvcall.h"
#include "test/unit/guest/fake_machine.h"

#define M ((uint64_t)1 << 20)

/* Runs @text on vCPU 0 of a fresh machine; the caller frees it. */
static void run(struct fake_machine *m, const char *text)
{
	fake_init(m, text);
	fake_run(m);
}

/* Runs @text, which must end well in @last. */
static void run_well(const char *text, enum guest_call last)
{
	struct fake_machine m;

	run(&m, text);
	if (m.stop)
		fail_msg("%s", m.stop_text);
	assert_int_equal(fake_last(&m)->nr, last);
	fake_free(&m);
}

/* Runs @text, which must stop for @reason with exactly @expected. */
static void run_stopped(const char *text, enum abi_stop reason, const char *expected)
{
	struct fake_machine m;

	run(&m, text);
	assert_int_equal(m.stop, reason);
	assert_string_equal(m.stop_text, expected);
	fake_free(&m);
}

static void test_write(void **state)
{
	struct fake_machine m;

	fake_init(&m, "write 0x100008 4000 3\n");
	m.boot.incarnation = 2;
	fake_run(&m);
	assert_int_equal(fake_last(&m)->nr, GUEST_CALL_HALT);
	assert_int_equal(fake_word(&m, M), 0);
	for (uint64_t a = M + 8; a < M + 8 + 4000; a += 8)
		assert_int_equal(fake_word(&m, a), workload_pattern(a, 3, 2));
	assert_int_equal(fake_word(&m, M + 8 + 4000), 0);
	fake_free(&m);
}

static void test_check(void **state)
{
	run_well("write 1M 5M 1\ncheck 1M 5M 1\npoweroff", GUEST_CALL_POWEROFF);
	run_well("write 1M 4K\ncheck 0x100008 8\n", GUEST_CALL_HALT);
	run_well("zero 1M 7M\nwrite 1M 8\nzero 0x100008 0x6ffff8\n", GUEST_CALL_HALT);
}

static void test_check_mismatch(void **state)
{
	struct fake_machine m;
	uint64_t wrong = 3 * M + 64;
	char expected[200];

	for (int bit = 0; bit < 64; bit += 21) {
		run(&m, "# secret\n\n  check 1M 4M 9 # here\nprint no\n");
		assert_int_equal(m.stop, ABI_STOP_CHECK);
		assert_int_equal(m.stop_gpa, M);
		assert_int_equal(strncmp(m.stop_text, "line 3: check: at 0x100000 ", 27), 0);
		fake_load(&m, "write 1M 4M 9");
		fake_run(&m);
		memcpy(m.memory + GUEST_TEXT_GPA + 16, "check 1M 4M 9", 13);
		m.memory[wrong + (unsigned int)bit / 8] ^= (uint8_t)(1 << (bit % 8));
		fake_run(&m);
		assert_int_equal(m.stop, ABI_STOP_CHECK);
		assert_int_equal(m.stop_gpa, wrong);
		sprintf(expected, "line 1: check: at 0x300040 expected 0x%016llx, found 0x%016llx",
			(unsigned long long)workload_pattern(wrong, 9, 0),
			(unsigned long long)fake_word(&m, wrong));
		assert_string_equal(m.stop_text, expected);
		assert_int_equal(fake_count(&m, GUEST_CALL_PRINT), 0);
		fake_free(&m);
	}
}

static void test_zero_mismatch(void **state)
{
	struct fake_machine m;

	fake_init(&m, "print a\nzero 1M 7M\n");
	m.memory[8 * M - 1] = 1;
	fake_run(&m);
	assert_int_equal(m.stop, ABI_STOP_CHECK);
	assert_int_equal(m.stop_gpa, 8 * M - 8);
	assert_string_equal(m.stop_text,
		"line 2: zero: at 0x7ffff8 expected 0x0000000000000000, found 0x0100000000000000");
	fake_free(&m);
}

static void test_touch(void **state)
{
	struct fake_machine m;
	uint64_t changed = 0;

	run(&m, "touch 0x100001 64K\ntouch 2M 16 1\n");
	for (uint64_t a = M; a < M + 65536 + 1; a++) {
		uint8_t byte = (uint8_t)(workload_pattern(a & ~7ull, 0, 0) >> (8 * (a & 7)));

		assert_int_equal(m.memory[a], a % 4096 == 1 ? byte : 0);
		changed += m.memory[a] != 0;
	}
	assert_true(changed >= 14);
	assert_int_equal(fake_word(&m, 2 * M + 8), workload_pattern(2 * M + 8, 0, 0));
	fake_free(&m);
	run_well("write 1M 64K\ntouch 1M 64K 7\ncheck 1M 64K\n", GUEST_CALL_HALT);
}

static void test_random(void **state)
{
	struct fake_machine m, other;
	unsigned int pages = 0, words = 0;

	run_well("write 1M 64K 4\nrandom 1M 64K 5000 4\ncheck 1M 64K 4\n", GUEST_CALL_HALT);
	run_well("random 1M 8 10\ncheck 1M 8\n", GUEST_CALL_HALT);
	run(&m, "random 1M 64K 400 4\n");
	for (uint64_t page = M; page < M + 65536; page += 4096) {
		unsigned int before = words;

		for (uint64_t a = page; a < page + 4096; a += 8) {
			if (fake_word(&m, a) == 0)
				continue;
			assert_int_equal(fake_word(&m, a), workload_pattern(a, 4, 0));
			words++;
		}
		pages += words != before;
	}
	assert_int_equal(pages, 16);
	assert_in_range(words, 140, 260);
	fake_init(&other, "vcpu 1\nrandom 1M 64K 400 4\n");
	other.boot.vcpu = 1;
	other.boot.vcpus = 2;
	fake_run(&other);
	assert_memory_not_equal(m.memory + M, other.memory + M, 65536);
	fake_free(&m);
	fake_free(&other);
}

static void test_dma(void **state)
{
	struct fake_machine m;
	static const enum guest_call order[] = {GUEST_CALL_BOOTINFO, GUEST_CALL_SHARE,
		GUEST_CALL_DMA, GUEST_CALL_UNSHARE, GUEST_CALL_SHARE, GUEST_CALL_DMA,
		GUEST_CALL_UNSHARE, GUEST_CALL_HALT};

	run(&m, "dma 1M 8K 2\n");
	assert_int_equal(m.calls, 8);
	for (size_t i = 0; i < m.calls; i++) {
		assert_int_equal(m.call[i].nr, order[i]);
		if (i == 0 || i == 7)
			continue;
		assert_int_equal(m.call[i].arg[0], M);
		assert_int_equal(m.call[i].arg[1], 8192);
	}
	for (uint64_t a = M; a < M + 8192; a += 8)
		assert_int_equal(fake_word(&m, a), ~workload_pattern(a, 1, 0));
	fake_free(&m);
	run_well("dma 1M 8K 0\nzero 1M 8K\n", GUEST_CALL_HALT);
}

static void test_dma_mismatch(void **state)
{
	struct fake_machine m;

	fake_init(&m, "dma 1M 8K 2\n");
	m.lazy_device = true;
	fake_run(&m);
	assert_int_equal(m.stop, ABI_STOP_CHECK);
	assert_int_equal(m.stop_gpa, M);
	assert_int_equal(strncmp(m.stop_text, "line 1: dma: at 0x100000 expected ", 34), 0);
	fake_free(&m);
}

static void test_calls(void **state)
{
	struct fake_machine m;

	run(&m, "share 1M 4K\nunshare 2M 8K\nrelease 3M 12K\nsleep 7\nprint  hi # there \n"
		"barrier go\n");
	assert_int_equal(m.calls, 8);
	assert_int_equal(m.call[1].nr, GUEST_CALL_SHARE);
	assert_int_equal(m.call[1].arg[0], M);
	assert_int_equal(m.call[1].arg[1], 4096);
	assert_int_equal(m.call[2].nr, GUEST_CALL_UNSHARE);
	assert_int_equal(m.call[2].arg[1], 8192);
	assert_int_equal(m.call[3].nr, GUEST_CALL_RELEASE);
	assert_int_equal(m.call[3].arg[0], 3 * M);
	assert_int_equal(m.call[4].nr, GUEST_CALL_SLEEP);
	assert_int_equal(m.call[4].arg[0], 7);
	assert_string_equal(m.printed, "hi # there\n");
	assert_int_equal(m.call[6].nr, GUEST_CALL_BARRIER);
	assert_int_equal(m.call[6].arg[1], 1);
	fake_free(&m);
}

static void test_protect(void **state)
{
	struct fake_machine m;

	run(&m, "protect 2M 4K 1M 8K\n");
	assert_int_equal(m.range_count, 3);
	assert_int_equal(m.ranges[0].gpa, 0);
	assert_int_equal(m.ranges[0].bytes, GUEST_TEXT_GPA + 4096);
	assert_int_equal(m.ranges[1].gpa, 2 * M);
	assert_int_equal(m.ranges[1].bytes, 4096);
	assert_int_equal(m.ranges[2].gpa, M);
	assert_int_equal(m.ranges[2].bytes, 8192);
	fake_free(&m);
}

static void test_refused(void **state)
{
	struct fake_machine m;

	fake_init(&m, "\n\tshare 1M 4K\nprint no\n");
	m.refuse_nr = GUEST_CALL_SHARE;
	m.refuse_with = -ABI_ST_DENIED;
	m.refuse_times = 1;
	fake_run(&m);
	assert_int_equal(m.stop, ABI_STOP_GUEST);
	assert_int_equal(m.stop_gpa, M);
	assert_string_equal(m.stop_text, "line 2: share 0x100000 0x1000: refused: "
					 "the page is private, or the call is not for this caller");
	assert_int_equal(fake_count(&m, GUEST_CALL_PRINT), 0);

	fake_load(&m, "poweroff");
	m.refuse_nr = GUEST_CALL_POWEROFF;
	m.refuse_with = -1000;
	m.refuse_times = 1;
	fake_run(&m);
	assert_string_equal(m.stop_text, "line 1: poweroff: refused: an unknown status");

	fake_load(&m, "loop 2\nbarrier a\nend");
	m.refuse_nr = GUEST_CALL_BARRIER;
	m.refuse_with = -ABI_ST_INVALID;
	m.refuse_times = 1;
	fake_run(&m);
	assert_string_equal(m.stop_text, "line 2: barrier: refused: an argument is malformed");
	fake_free(&m);
}

/* Memory may have been added since the vCPU asked where it ends. */
static void test_memory_that_was_added(void **state)
{
	struct fake_machine m;

	fake_init(&m, "memory 2M 8M\nawait 8M 1M\nwrite 4M 8\nawait 2M 4K");
	m.refuse_nr = GUEST_CALL_AWAIT;
	m.refuse_with = -ABI_ST_AGAIN;
	m.refuse_times = 2;
	fake_run(&m);
	assert_int_equal(m.stop, 0);
	assert_int_equal(fake_count(&m, GUEST_CALL_BOOTINFO), 1);
	assert_int_equal(fake_count(&m, GUEST_CALL_AWAIT), 4);
	assert_int_equal(m.call[1].nr, GUEST_CALL_AWAIT);
	assert_int_equal(m.call[1].arg[0], 8 * M);
	assert_int_equal(m.call[1].arg[1], M);

	fake_load(&m, "write 4M 8\nwrite 5M 8");
	m.small_boots = 1;
	fake_run(&m);
	assert_int_equal(m.stop, 0);
	assert_int_equal(fake_count(&m, GUEST_CALL_BOOTINFO), 2);

	m.small_boots = 2;
	fake_run(&m);
	assert_string_equal(m.stop_text, "line 1: expected a range inside the VM's memory");
	fake_free(&m);
}

static void test_again_is_repeated(void **state)
{
	struct fake_machine m;

	fake_init(&m, "share 1M 4K\n");
	m.refuse_nr = GUEST_CALL_SHARE;
	m.refuse_with = -ABI_ST_AGAIN;
	m.refuse_times = 3;
	fake_run(&m);
	assert_int_equal(m.stop, 0);
	assert_int_equal(fake_count(&m, GUEST_CALL_SHARE), 4);
	assert_int_equal(fake_count(&m, GUEST_CALL_SLEEP), 3);
	fake_free(&m);
}

static void test_share_with_stride(void **state)
{
	struct fake_machine m;

	run(&m, "share 1M 20K 8K\nunshare 1M 8K 1G\n");
	assert_int_equal(fake_count(&m, GUEST_CALL_SHARE), 3);
	assert_int_equal(fake_count(&m, GUEST_CALL_UNSHARE), 1);
	for (unsigned int i = 0; i < 4; i++) {
		assert_int_equal(m.call[1 + i].arg[0], M + (i < 3 ? i * 8192 : 0));
		assert_int_equal(m.call[1 + i].arg[1], 4096);
	}
	fake_free(&m);

	fake_init(&m, "share 1M 64K 8K\nprint no\n");
	m.refuse_nr = GUEST_CALL_SHARE;
	m.refuse_with = -ABI_ST_DENIED;
	m.refuse_times = 1;
	fake_run(&m);
	assert_int_equal(m.stop, ABI_STOP_GUEST);
	assert_int_equal(fake_count(&m, GUEST_CALL_SHARE), 1);
	fake_free(&m);
}

static void test_loops(void **state)
{
	struct fake_machine m;

	run(&m, "loop 2\nprint a\nloop 3\nprint b\nend\nloop 0\nprint no\nloop 2\nend\nend\n"
		"print c\nend\nprint d\n");
	assert_string_equal(m.printed, "a\nb\nb\nb\nc\na\nb\nb\nb\nc\nd\n");
	assert_int_equal(fake_last(&m)->nr, GUEST_CALL_HALT);
	fake_free(&m);
}

/* The text may have been changed since it was checked. */
static void test_bad_text(void **state)
{
	char text[WORKLOAD_LINE_MAX + 100];

	run_stopped("print a\nwrit 1", ABI_STOP_GUEST,
		"line 2: expected an operation (write, check, zero, touch, random, protect, share, "
		"unshare, dma, release, await, sleep, print, barrier, loop, end, reboot, poweroff) "
		"or memory, vcpus, vcpu");
	run_stopped(
		"loop 1\nprint a\n", ABI_STOP_GUEST, "line 2: expected an 'end' for every loop");
	run_stopped("loop 0\nprint a\n", ABI_STOP_GUEST, "line 2: expected the loop's 'end'");
	run_stopped("loop 0\nx y\nend", ABI_STOP_GUEST,
		"line 2: expected an operation (write, check, zero, touch, random, protect, share, "
		"unshare, dma, release, await, sleep, print, barrier, loop, end, reboot, poweroff) "
		"or memory, vcpus, vcpu");
	run_stopped("end", ABI_STOP_GUEST, "line 1: expected a 'loop' before this 'end'");
	run_stopped("loop 1\nvcpu 1\nend", ABI_STOP_GUEST,
		"line 2: expected the loop's 'end' before another 'vcpu' line");
	run_stopped("loop 1\nloop 1\nloop 1\nloop 1\nloop 1\nloop 1\nloop 1\nloop 1\nloop 1\n",
		ABI_STOP_GUEST, "line 9: expected at most 8 loops in one another");
	run_stopped(
		"write 7M 2M", ABI_STOP_GUEST, "line 1: expected a range inside the VM's memory");
	run_stopped("protect 1M 4K 8M 4K", ABI_STOP_GUEST,
		"line 1: expected a range inside the VM's memory");
	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	run_stopped(text, ABI_STOP_GUEST, "line 1: expected at most 1024 bytes in a line");
}

static void test_bad_header(void **state)
{
	struct fake_machine m;
	struct guest_text header = {GUEST_TEXT_MAGIC, GUEST_TEXT_MAX - sizeof(header) + 1};

	fake_init(&m, "print a");
	memcpy(m.memory + GUEST_TEXT_GPA, &header, sizeof(header));
	fake_run(&m);
	assert_string_equal(m.stop_text, "no workload at 0x80000");
	m.memory[GUEST_TEXT_GPA] ^= 1;
	fake_run(&m);
	assert_string_equal(m.stop_text, "no workload at 0x80000");
	m.refuse_nr = GUEST_CALL_BOOTINFO;
	m.refuse_with = -ABI_ST_INVALID;
	m.refuse_times = 1;
	fake_run(&m);
	assert_string_equal(m.stop_text, "boot information was refused");
	fake_free(&m);
}

/* A text whose lines cross pages, in translations as short as allowed. */
static void test_text_across_pages(void **state)
{
	struct fake_machine m;
	char text[3 * 4096 + 1];
	size_t len = 0;

	while (len < 3 * 4096 - 200)
		len += (size_t)sprintf(text + len, "# %0*d\n", (int)(len % 91) + 1, 0);
	sprintf(text + len, "print end\npoweroff");
	fake_init(&m, text);
	m.max_len = 1;
	fake_run(&m);
	assert_string_equal(m.printed, "end\n");
	assert_int_equal(fake_last(&m)->nr, GUEST_CALL_POWEROFF);
	fake_free(&m);
}

static void test_chunks_are_bounded(void **state)
{
	struct fake_machine m;

	run(&m, "write 0x180000 6M\ncheck 0x180000 6M\nzero 0x780000 512K\n");
	assert_int_equal(m.stop, 0);
	assert_int_equal(m.longest, 2 * M);
	m.max_len = 1;
	fake_run(&m);
	assert_int_equal(m.stop, 0);
	fake_free(&m);
}

static void test_sections(void **state)
{
	static const char text[] = "print first\nvcpu 1\nprint one\nloop 2\nprint twice\nend\n"
				   "vcpu 0\nprint zero\nvcpu 2\npoweroff\nvcpu 1\nprint again\n";
	static const char *const printed[] = {
		"first\nzero\n", "one\ntwice\ntwice\nagain\n", "", ""};
	struct fake_machine m;

	fake_init(&m, text);
	m.boot.vcpus = 4;
	for (uint32_t i = 0; i < 4; i++) {
		m.boot.vcpu = i;
		fake_run(&m);
		assert_string_equal(m.printed, printed[i]);
		assert_int_equal(fake_last(&m)->nr, i == 2 ? GUEST_CALL_POWEROFF : GUEST_CALL_HALT);
	}
	fake_free(&m);
}

static uint64_t barrier_count(struct fake_machine *m, uint32_t vcpu, size_t nth)
{
	m->boot.vcpu = vcpu;
	fake_run(m);
	for (size_t i = 0; i < m->calls; i++)
		if (m->call[i].nr == GUEST_CALL_BARRIER && nth-- == 0)
			return m->call[i].arg[1];
	return 0;
}

static void test_barrier_participants(void **state)
{
	static const char text[] =
		"barrier a\nbarrier b\nvcpu 1\nbarrier a\nbarrier a\n"
		"vcpu 2\nloop 2\nbarrier a\nend\nbarrier b # b\nvcpu 3\nprint x\n"
		"vcpu 4\nbarrier a\n";
	struct fake_machine m;

	fake_init(&m, text);
	m.boot.vcpus = 5;
	assert_int_equal(barrier_count(&m, 0, 0), 4);
	assert_int_equal(barrier_count(&m, 0, 1), 2);
	assert_int_equal(barrier_count(&m, 1, 1), 4);
	assert_int_equal(barrier_count(&m, 2, 2), 2);
	assert_int_equal(barrier_count(&m, 3, 0), 0);
	m.boot.vcpus = 4;
	assert_int_equal(barrier_count(&m, 0, 0), 3);
	assert_int_not_equal(m.call[1].arg[0], m.call[2].arg[0]);
	fake_free(&m);
}

/* Lets @m go through the reboot that it just asked for. */
static void reboot(struct fake_machine *m, const char *text)
{
	assert_int_equal(fake_last(m)->nr, GUEST_CALL_REBOOT);
	fake_load(m, text);
	m->boot.incarnation++;
	m->boot.caller = 1;
	fake_run(m);
}

static void test_reboot_in_loops(void **state)
{
	static const char text[] = "print start\nloop 2\nprint a\nloop 2\nprint b\n"
				   "write 1M 4K\nreboot\nzero 1M 4K\nprint c\nend\nprint d\nend\n"
				   "print e\npoweroff\n";
	struct fake_machine m;

	run(&m, text);
	assert_string_equal(m.printed, "start\na\nb\n");
	reboot(&m, text);
	assert_string_equal(m.printed, "c\nb\n");
	assert_int_equal(fake_word(&m, M), workload_pattern(M, 0, 1));
	reboot(&m, text);
	assert_string_equal(m.printed, "c\nd\na\nb\n");
	reboot(&m, text);
	assert_string_equal(m.printed, "c\nb\n");
	reboot(&m, text);
	assert_string_equal(m.printed, "c\nd\ne\n");
	assert_int_equal(fake_last(&m)->nr, GUEST_CALL_POWEROFF);
	fake_free(&m);
}

static void test_reboot_eight_loops(void **state)
{
	static const char text[] =
		"loop 1\nloop 1\nloop 1\nloop 1\nloop 1\nloop 1\nloop 1\nloop 2\n"
		"print a\nreboot\nend\nend\nend\nend\nend\nend\nend\nend\n"
		"print b\npoweroff";
	struct fake_machine m;

	run(&m, text);
	assert_string_equal(m.printed, "a\n");
	reboot(&m, text);
	assert_string_equal(m.printed, "a\n");
	reboot(&m, text);
	assert_string_equal(m.printed, "b\n");
	fake_free(&m);
}

static const char two_vcpus[] = "vcpu 1\nbarrier m\nprint before\nvcpu 0\nloop 2\nbarrier m\n"
				"print pass\nreboot\nbarrier n\nend\nvcpu 1\nloop 2\nbarrier n\n"
				"print after\nend\n";

static void test_reboot_of_others(void **state)
{
	struct fake_machine m;

	fake_init(&m, two_vcpus);
	m.boot.vcpus = 2;
	assert_int_equal(barrier_count(&m, 0, 0), 2);
	m.boot.vcpu = 1;
	m.boot.incarnation = 1;
	fake_run(&m);
	assert_string_equal(m.printed, "after\nafter\n");
	fake_free(&m);
}

/* After a reboot, only vCPUs that can still come to a barrier are waited for. */
static void test_barriers_after_reboot(void **state)
{
	struct fake_machine m;

	fake_init(&m, two_vcpus);
	m.boot.vcpus = 2;
	fake_run(&m);
	reboot(&m, two_vcpus);
	assert_string_equal(m.printed, "pass\n");
	assert_int_equal(fake_count(&m, GUEST_CALL_BARRIER), 2);
	assert_int_equal(m.call[1].arg[1], 2); /* n: both */
	assert_int_equal(m.call[2].arg[1], 1); /* m: vCPU 1's lies behind */
	reboot(&m, two_vcpus);
	assert_int_equal(fake_count(&m, GUEST_CALL_BARRIER), 1);
	assert_int_equal(m.call[1].arg[1], 2);
	assert_int_equal(fake_last(&m)->nr, GUEST_CALL_HALT);
	fake_free(&m);
}

static void resume_with(const uint64_t *words, uint32_t n)
{
	struct fake_machine m;

	fake_init(&m, "loop 2\nprint a\nend\n");
	m.boot.caller = 1;
	m.boot.resume_size = n;
	memcpy(m.boot.resume, words, sizeof(m.boot.resume));
	fake_run(&m);
	assert_int_equal(m.stop, ABI_STOP_GUEST);
	assert_non_null(strstr(m.stop_text, "of no reboot of this workload"));
	fake_free(&m);
}

static void test_bad_resume_words(void **state)
{
	static const struct {
		uint32_t n;
		uint64_t words[GUEST_RESUME_WORDS];
	} cases[] = {
		{1, {0}},
		{3, {20, 0, 0}},
		{3, {0, 64, 0}},
		{3, {0, 0, 1}},
		{5, {7, 0, 0, 7, 1}},
		{5, {7, 0, 1, 8, 1}},
		{5, {7, 0, 1, 7, 0}},
		{21, {7, 0, 9, 7, 1, 7, 1, 7, 1, 7, 1, 7, 1, 7, 1, 7, 1, 7, 1, 7, 1}},
		{25, {0}},
		{3, {0, 0, UINT64_MAX}},
		{4, {0, 0, (uint64_t)1 << 63}},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		resume_with(cases[i].words, cases[i].n);
}

/* Whatever translation or call ends the vCPU, nothing follows: the fake asserts it. */
static void test_stop_anywhere(void **state)
{
	static const char text[] =
		"write 1M 4M\ncheck 1M 4M\nzero 6M 1M\ntouch 1M 16K\nrandom 1M 4K 5\nprotect 1M 4K\n"
		"share 1M 4K\nunshare 1M 4K\ndma 1M 8K 2\nrelease 2M 4K\nsleep 1\nprint a\nbarrier a\n"
		"loop 2\nloop 0\nprint b\nend\nend\nsleep 2\n";
	struct fake_machine m;
	uint64_t events;

	static const char *const ends[] = {
		"poweroff\n", "reboot\n", "check 6M 4K\n", "bad\n", "share 3M 4K\n"};

	for (size_t end = 0; end < sizeof(ends) / sizeof(ends[0]); end++) {
		char whole[sizeof(text) + 32];

		sprintf(whole, "%s%s", text, ends[end]);
		fake_init(&m, whole);
		m.max_len = 64 << 10;
		fake_run(&m);
		events = m.events;
		for (uint64_t at = 1; at <= events; at++) {
			fake_load(&m, whole);
			m.boot.resume_size = 0;
			m.stop_at = at;
			fake_run(&m);
			assert_int_equal(m.events, at);
		}
		fake_free(&m);
	}
}

static void test_stop_while_repeating(void **state)
{
	struct fake_machine m;

	fake_init(&m, "share 1M 4K\n");
	m.refuse_nr = GUEST_CALL_SHARE;
	m.refuse_with = -ABI_ST_AGAIN;
	for (uint64_t at = 1; at < 20; at++) {
		m.refuse_times = 100;
		m.stop_at = at;
		fake_run(&m);
		assert_int_equal(m.events, at);
	}
	fake_free(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_write),
		cmocka_unit_test(test_check),
		cmocka_unit_test(test_check_mismatch),
		cmocka_unit_test(test_zero_mismatch),
		cmocka_unit_test(test_touch),
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_dma),
		cmocka_unit_test(test_dma_mismatch),
		cmocka_unit_test(test_calls),
		cmocka_unit_test(test_protect),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_memory_that_was_added),
		cmocka_unit_test(test_again_is_repeated),
		cmocka_unit_test(test_share_with_stride),
		cmocka_unit_test(test_loops),
		cmocka_unit_test(test_bad_text),
		cmocka_unit_test(test_bad_header),
		cmocka_unit_test(test_text_across_pages),
		cmocka_unit_test(test_chunks_are_bounded),
		cmocka_unit_test(test_sections),
		cmocka_unit_test(test_barrier_participants),
		cmocka_unit_test(test_reboot_in_loops),
		cmocka_unit_test(test_reboot_eight_loops),
		cmocka_unit_test(test_reboot_of_others),
		cmocka_unit_test(test_barriers_after_reboot),
		cmocka_unit_test(test_bad_resume_words),
		cmocka_unit_test(test_stop_anywhere),
		cmocka_unit_test(test_stop_while_repeating),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
