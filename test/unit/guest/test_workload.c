/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The workload language: every operation's good and bad lines, and the rules of a text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "abi/guestcall.h"
#include "guest/workload.h"

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

static const char *parse(const char *line, struct workload_op *ret)
{
	return workload_parse_line(line, strlen(line), ret);
}

struct good_line {
	const char *line;
	enum workload_op_type type;
	uint64_t gpa, bytes, count, seed;
};

static const struct good_line good_lines[] = {
	{"", WL_NOTHING, 0, 0, 0, 0},
	{" \t\r", WL_NOTHING, 0, 0, 0, 0},
	{"# write 1M", WL_NOTHING, 0, 0, 0, 0},
	{"   #", WL_NOTHING, 0, 0, 0, 0},
	{"memory 8G", WL_MEMORY, 0, 0, 8ull << 30, 0},
	{"memory 0x101000", WL_MEMORY, 0, 0, 0x101000, 0},
	{"memory 256T", WL_MEMORY, 0, 0, 1ull << 48, 0},
	{"memory 64M 1G # to be", WL_MEMORY, 1ull << 30, 0, 64u << 20, 0},
	{"memory 2M 2M", WL_MEMORY, 2u << 20, 0, 2u << 20, 0},
	{"vcpus 1", WL_VCPUS, 0, 0, 1, 0},
	{"vcpus 64", WL_VCPUS, 0, 0, 64, 0},
	{"vcpu 0", WL_VCPU, 0, 0, 0, 0},
	{"vcpu 0x3f", WL_VCPU, 0, 0, 63, 0},
	{"write 1M 8", WL_WRITE, 0x100000, 8, 0, 0},
	{"write 0x200000 4K 7", WL_WRITE, 0x200000, 0x1000, 0, 7},
	{"\twrite\t1M  4K\t# c", WL_WRITE, 0x100000, 0x1000, 0, 0},
	{"write 1M 4K\r", WL_WRITE, 0x100000, 0x1000, 0, 0},
	{"write 1M 4K 0xffffffffffffffff", WL_WRITE, 0x100000, 0x1000, 0, UINT64_MAX},
	{"check 1T 1G 3", WL_CHECK, 1ull << 40, 1ull << 30, 0, 3},
	{"check 0xfffffffff000 4K", WL_CHECK, 0xfffffffff000, 0x1000, 0, 0},
	{"zero 1M 16", WL_ZERO, 0x100000, 16, 0, 0},
	{"touch 1M 1", WL_TOUCH, 0x100000, 1, 0x1000, 0},
	{"touch 0x100001 3 1", WL_TOUCH, 0x100001, 3, 1, 0},
	{"touch 1G 1G 2M", WL_TOUCH, 1ull << 30, 1ull << 30, 2u << 20, 0},
	{"random 1M 8 0", WL_RANDOM, 0x100000, 8, 0, 0},
	{"random 1M 1G 1000 9", WL_RANDOM, 0x100000, 1ull << 30, 1000, 9},
	{"protect", WL_PROTECT, 0, 0, 0, 0},
	{"share 1M 4K", WL_SHARE, 0x100000, 0x1000, 0, 0},
	{"share 1M 1G 8K", WL_SHARE, 0x100000, 1ull << 30, 0x2000, 0},
	{"unshare 1M 4K", WL_UNSHARE, 0x100000, 0x1000, 0, 0},
	{"unshare 1M 4K 1M # c", WL_UNSHARE, 0x100000, 0x1000, 1u << 20, 0},
	{"dma 1M 8K 3", WL_DMA, 0x100000, 0x2000, 3, 0},
	{"release 1M 4K", WL_RELEASE, 0x100000, 0x1000, 0, 0},
	{"await 1T 2M", WL_AWAIT, 1ull << 40, 2u << 20, 0, 0},
	{"sleep 0", WL_SLEEP, 0, 0, 0, 0},
	{"sleep 4294967295", WL_SLEEP, 0, 0, UINT32_MAX, 0},
	{"loop 0", WL_LOOP, 0, 0, 0, 0},
	{"loop 1000 # times", WL_LOOP, 0, 0, 1000, 0},
	{"end", WL_END, 0, 0, 0, 0},
	{"reboot", WL_REBOOT, 0, 0, 0, 0},
	{"poweroff # good night", WL_POWEROFF, 0, 0, 0, 0},
};

static void test_good_lines(void **state)
{
	struct workload_op op;

	for (size_t i = 0; i < ARRAY_LEN(good_lines); i++) {
		const struct good_line *g = &good_lines[i];
		const char *bad = parse(g->line, &op);

		if (bad)
			fail_msg("'%s': expected %s", g->line, bad);
		assert_int_equal(op.type, g->type);
		assert_int_equal(op.gpa, g->gpa);
		assert_int_equal(op.bytes, g->bytes);
		assert_int_equal(op.count, g->count);
		assert_int_equal(op.seed, g->seed);
		assert_int_equal(op.range_count, 0);
	}
}

struct bad_line {
	const char *line;
	const char *expected; /* a part of the message */
};

static const struct bad_line bad_lines[] = {
	{"wrote 1M 4K", "an operation (write"},
	{"Write 1M 4K", "an operation"},
	{"writ", "an operation"},
	{"writes", "an operation"},
	{"0", "an operation"},
	{"memory", "memory SIZE"},
	{"memory 8G 1", "an END above 1M"},
	{"memory 8G 16G 1", "memory SIZE [END]"},
	{"memory 8G more", "END as a number"},
	{"memory 8G 4G", "an END not below SIZE"},
	{"memory 8G 257T", "up to 2^48"},
	{"memory 2M 2097153", "multiples of 4096"},
	{"await 1M", "await GPA SIZE"},
	{"await 1M 8", "multiples of 4096"},
	{"memory big", "SIZE as a number"},
	{"memory 0", "a SIZE above 1M"},
	{"memory 1M", "a SIZE above 1M"},
	{"memory 257T", "up to 2^48"},
	{"memory 99999999999999999999", "up to 2^48"},
	{"memory 2097153", "multiples of 4096"},
	{"vcpus", "vcpus N"},
	{"vcpus 0", "1 to 64"},
	{"vcpus 65", "1 to 64"},
	{"vcpus 1K", "N as a plain number"},
	{"vcpu", "vcpu N"},
	{"vcpu 64", "0 to 63"},
	{"vcpu -1", "N as a plain number"},
	{"write", "write GPA SIZE [SEED]"},
	{"write 1M", "write GPA SIZE [SEED]"},
	{"write 1M # 4K", "write GPA SIZE [SEED]"},
	{"write 1M 4K 1 2", "write GPA SIZE [SEED]"},
	{"write here 4K", "GPA as a number"},
	{"write 0x 4K", "GPA as a number"},
	{"write 1MB 4K", "GPA as a number"},
	{"write 1M 4K#", "SIZE as a number"},
	{"write 1M -8", "SIZE as a number"},
	{"write 1M 4K 1K", "SEED as a plain number"},
	{"write 1M 4K 0x10000000000000000", "SEED below 2^64"},
	{"write 0xffff8 8", "a GPA from 1M"},
	{"write 0 8", "a GPA from 1M"},
	{"write 256T 8", "2^48"},
	{"write 16777216T 8", "2^48"},
	{"write 1M 0", "a SIZE above 0"},
	{"write 1M 4", "multiples of 8"},
	{"write 0x100004 8", "multiples of 8"},
	{"write 255T 2T", "ends at or below 2^48"},
	{"check 1M", "check GPA SIZE [SEED]"},
	{"check 1M 12", "multiples of 8"},
	{"zero 1M", "zero GPA SIZE"},
	{"zero 1M 8 1", "zero GPA SIZE"},
	{"zero 1M 9", "multiples of 8"},
	{"touch 1M", "touch GPA SIZE [STRIDE]"},
	{"touch 1M 4K 0", "a STRIDE above 0"},
	{"touch 1M 4K x", "STRIDE as a number"},
	{"touch 1M 4K 1 1", "touch GPA SIZE [STRIDE]"},
	{"touch 1M 0", "a SIZE above 0"},
	{"random 1M 4K", "random GPA SIZE COUNT [SEED]"},
	{"random 1M 4K 1K", "COUNT as a plain number"},
	{"random 1M 4K 1 1 1", "random GPA SIZE COUNT [SEED]"},
	{"random 1M 4 1", "multiples of 8"},
	{"protect 1M", "a SIZE after every GPA"},
	{"protect 1M 4K 2M", "a SIZE after every GPA"},
	{"protect 1M 100", "multiples of 4096"},
	{"protect 1M 4K x 4K", "GPA as a number"},
	{"protect 1M x", "SIZE as a number"},
	{"protect 0 1M", "a GPA from 1M"},
	{"protect 1M 8K 0x101000 4K", "do not overlap"},
	{"protect 0x101000 4K 1M 8K", "do not overlap"},
	{"share 1M", "share GPA SIZE"},
	{"share 1M 8", "multiples of 4096"},
	{"share 0x100800 4K", "multiples of 4096"},
	{"share 1M 4K 1", "a STRIDE that is a multiple of 4096"},
	{"share 1M 4K 0", "a STRIDE above 0"},
	{"share 1M 4K 4K 1", "share GPA SIZE [STRIDE]"},
	{"unshare 1M 4K 4097", "a STRIDE that is a multiple of 4096"},
	{"unshare 1M 8", "multiples of 4096"},
	{"unshare", "unshare GPA SIZE"},
	{"dma 1M 4K", "dma GPA SIZE COUNT"},
	{"dma 1M 8 1", "multiples of 4096"},
	{"dma 1M 4K -", "COUNT as a plain number"},
	{"release 1M 8", "multiples of 4096"},
	{"release 1M 4K all", "release GPA SIZE"},
	{"sleep", "sleep MS"},
	{"sleep 1s", "MS as a plain number"},
	{"sleep 4294967296", "MS below 2^32"},
	{"sleep 1 2", "sleep MS"},
	{"print", "print TEXT"},
	{"print  \t ", "print TEXT"},
	{"print a\x1b[31m", "control characters"},
	{"barrier", "barrier NAME"},
	{"barrier # a", "barrier NAME"},
	{"barrier a b", "barrier NAME"},
	{"loop", "loop N"},
	{"loop ever", "N as a plain number"},
	{"loop 18446744073709551616", "N below 2^64"},
	{"end loop", "nothing after 'end'"},
	{"reboot now", "nothing after 'reboot'"},
	{"poweroff 1", "nothing after 'poweroff'"},
};

static void test_bad_lines(void **state)
{
	struct workload_op op;

	for (size_t i = 0; i < ARRAY_LEN(bad_lines); i++) {
		const char *bad = parse(bad_lines[i].line, &op);

		if (!bad)
			fail_msg("'%s' was accepted", bad_lines[i].line);
		if (!strstr(bad, bad_lines[i].expected))
			fail_msg("'%s': '%s', not '%s'", bad_lines[i].line, bad,
				bad_lines[i].expected);
	}
}

static void test_line_length(void **state)
{
	char line[WORKLOAD_LINE_MAX + 1];
	struct workload_op op;

	memset(line, ' ', sizeof(line));
	memcpy(line, "end", 3);
	assert_null(workload_parse_line(line, WORKLOAD_LINE_MAX, &op));
	assert_int_equal(op.type, WL_END);
	assert_string_equal(workload_parse_line(line, WORKLOAD_LINE_MAX + 1, &op),
		"at most 1024 bytes in a line");
	assert_non_null(workload_parse_line("end\0x", 5, &op));
}

static void assert_text(const struct workload_op *op, const char *text)
{
	assert_int_equal(op->text_len, strlen(text));
	assert_memory_equal(op->text, text, op->text_len);
}

static void test_text_operands(void **state)
{
	struct workload_op op;

	assert_null(parse("print  a # b\tc \r", &op));
	assert_int_equal(op.type, WL_PRINT);
	assert_text(&op, "a # b\tc");
	assert_null(parse("print #1 \xc3\xa9", &op));
	assert_text(&op, "#1 \xc3\xa9");
	assert_null(parse("barrier  go#1 # all", &op));
	assert_int_equal(op.type, WL_BARRIER);
	assert_text(&op, "go#1");
}

static void test_protect_ranges(void **state)
{
	char line[WORKLOAD_LINE_MAX];
	struct workload_op op;
	size_t len = 0;

	assert_null(parse("protect 2M 1M 1M 4K 0x101000 4K", &op));
	assert_int_equal(op.range_count, 3);
	assert_int_equal(op.ranges[0].gpa, 2 << 20);
	assert_int_equal(op.ranges[0].bytes, 1 << 20);
	assert_int_equal(op.ranges[2].gpa, 0x101000);
	len += (size_t)sprintf(line, "protect");
	for (int i = 1; i <= WORKLOAD_PROTECT_MAX; i++)
		len += (size_t)sprintf(line + len, " %dM 4K", i);
	assert_null(parse(line, &op));
	assert_int_equal(op.range_count, WORKLOAD_PROTECT_MAX);
	sprintf(line + len, " 65M 4K");
	assert_string_equal(parse(line, &op), "at most 64 ranges");
}

struct text_case {
	const char *text;
	uint64_t memory, vcpus; /* flags */
	const char *expected;   /* a part of the message; NULL if the text is good */
	size_t error_line;
	uint64_t ret_memory, ret_vcpus;
};

static const struct text_case text_cases[] = {
	{"poweroff", 0, 0, NULL, 0, 0, 1},
	{"poweroff\n", 0, 0, NULL, 0, 0, 1},
	{"\n\nmemory 2G\nvcpus 3\nvcpu 1\nend", 0, 0, "a 'loop' before", 6, 0, 0},
	{"memory 2G\nvcpus 3\nvcpu 1\npoweroff", 0, 0, NULL, 0, 2ull << 30, 3},
	{"vcpu 5\npoweroff\nvcpu 2\npoweroff\n", 0, 0, NULL, 0, 0, 6},
	{"", 0, 0, "at least one operation", 0, 0, 0},
	{"# nothing\nmemory 1G\nvcpu 0\n", 0, 0, "at least one operation", 0, 0, 0},
	{"print a\nwrit\nprint", 0, 0, "an operation", 2, 0, 0},
	{"memory 1G\nmemory 1G\nend", 0, 0, "one 'memory' line", 2, 0, 0},
	{"vcpus 1\nvcpus 1\nend", 0, 0, "one 'vcpus' line", 2, 0, 0},
	{"print a\nmemory 1G", 0, 0, "'memory' before", 2, 0, 0},
	{"print a\nvcpus 1", 0, 0, "'vcpus' before", 2, 0, 0},
	{"vcpu 0\nvcpus 1\nprint a", 0, 0, "'vcpus' before", 2, 0, 0},
	{"vcpu 0\nmemory 1G\nprint a", 0, 0, NULL, 0, 1ull << 30, 1},
	{"vcpus 2\nvcpu 2\nprint a", 0, 0, "below the number of vCPUs", 2, 0, 0},
	{"vcpus 2\nvcpu 2\nprint a", 0, 3, NULL, 0, 0, 2},
	{"vcpus 4\nvcpu 2\nprint a", 0, 2, "below the number of vCPUs", 2, 0, 0},
	{"loop 2\nprint a\nend", 0, 0, NULL, 0, 0, 1},
	{"loop 2\nloop 1\nend\nprint a", 0, 0, "an 'end' for this loop", 1, 0, 0},
	{"end", 0, 0, "a 'loop' before", 1, 0, 0},
	{"loop 2\nvcpu 1\nend", 0, 0, "before another 'vcpu'", 2, 0, 0},
	{"loop 1\nloop 1\nloop 1\nloop 1\nloop 1\nloop 1\nloop 1\nloop 1\n"
	 "end\nend\nend\nend\nend\nend\nend\nend\n",
		0, 0, NULL, 0, 0, 1},
	{"loop 1\nloop 1\nloop 1\nloop 1\nloop 1\nloop 1\nloop 1\nloop 1\nloop 1\n"
	 "end\nend\nend\nend\nend\nend\nend\nend\nend\n",
		0, 0, "at most 8 loops", 9, 0, 0},
	{"write 63M 1M", 0, 0, NULL, 0, 0, 1},
	{"write 63M 0x100008", 0, 0, "inside the VM's memory", 1, 0, 0},
	{"memory 128M\nwrite 64M 64M", 0, 0, NULL, 0, 128 << 20, 1},
	{"memory 128M\nwrite 64M 64M", 127 << 20, 0, "inside the VM's memory", 2, 0, 0},
	{"memory 64M\nwrite 64M 64M", 128 << 20, 0, NULL, 0, 64 << 20, 1},
	{"memory 64M 1G\nwrite 64M 960M", 0, 0, NULL, 0, 64 << 20, 1},
	{"memory 64M 1G\nwrite 64M 0x3c000008", 0, 0, "inside the VM's memory", 2, 0, 0},
	{"memory 64M 1G\nwrite 1G 4K", 1025u << 20, 0, NULL, 0, 64 << 20, 1},
	{"protect 2M 4K 64M 4K", 0, 0, "inside the VM's memory", 1, 0, 0},
	{"touch 64M 1", 0, 0, "inside the VM's memory", 1, 0, 0},
};

static void test_texts(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(text_cases); i++) {
		const struct text_case *t = &text_cases[i];
		struct workload_info info;
		const char *bad;

		bad = workload_check(t->text, strlen(t->text), t->memory, t->vcpus, &info);
		if (!bad != !t->expected || (bad && !strstr(bad, t->expected)))
			fail_msg("'%s': expected %s", t->text, bad ? bad : "(accepted)");
		assert_int_equal(info.error_line, t->error_line);
		if (bad)
			continue;
		assert_int_equal(info.memory, t->ret_memory);
		assert_int_equal(info.vcpus, t->ret_vcpus);
		assert_true(info.address_end >= t->memory && info.address_end >= t->ret_memory);
	}
}

static void test_text_size(void **state)
{
	size_t max = GUEST_TEXT_MAX - sizeof(struct guest_text);
	char *text = malloc(max + 1);
	struct workload_info info;

	assert_non_null(text);
	memset(text, '\n', max + 1);
	memcpy(text, "reboot", 6);
	assert_null(workload_check(text, max, 0, 0, &info));
	assert_string_equal(
		workload_check(text, max + 1, 0, 0, &info), "a workload of at most 512 KiB");
	assert_int_equal(info.error_line, 0);
	free(text);
}

/* Values computed from the formula with another implementation (splitmix64's own stream). */
static void test_pattern(void **state)
{
	assert_int_equal(workload_pattern(0, 0, 0), 0xe220a8397b1dcdafu);
	assert_int_equal(workload_pattern(0x9e3779b97f4a7c15u, 0, 0), 0x6e789e6aa1b965f4u);
	assert_int_equal(workload_pattern(0, 5, 0), workload_pattern(5ull << 32, 0, 0));
	assert_int_equal(workload_pattern(8, 0, 3), workload_pattern(8 ^ (3ull << 56), 0, 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good_lines),
		cmocka_unit_test(test_bad_lines),
		cmocka_unit_test(test_line_length),
		cmocka_unit_test(test_text_operands),
		cmocka_unit_test(test_protect_ranges),
		cmocka_unit_test(test_texts),
		cmocka_unit_test(test_text_size),
		cmocka_unit_test(test_pattern),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
