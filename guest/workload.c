/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Parsing of workloads.
 *
 * Lexical rules.  Words are separated by spaces, tabs and carriage returns (so files
 * with CRLF line ends work).  A word that begins with '#' starts a comment that runs to
 * the end of the line; print's TEXT is taken as it stands, '#' included, without the
 * blanks around it.  GPA, SIZE and STRIDE take K, M, G, T; COUNT, N, MS, SEED and vCPU
 * numbers are plain; all may be hexadecimal with 0x.
 *
 * Every operation is one row of forms[]: its arguments are a string of letters, each a
 * row of args[], capital for a required one.  protect, print and barrier, whose operands
 * are not numbers in a fixed order, have a parser of their own.
 *
 * Messages complete the sentence "expected ...".
 */
#include <errno.h>

#include "abi/guestcall.h"
#include "abi/uvcall.h"
#include "base/checked.h"
#include "base/size.h"
#include "base/types.h"
#include "guest/pattern.h"
#include "guest/workload.h"

#define DEFAULT_MEMORY ((uint64_t)64 << 20)

struct form {
	const char *name;
	enum workload_op_type type;
	const char *args;
	uint64_t align; /* of GPA and SIZE */
	const char *usage;
};

static const struct form forms[] = {
	{"memory", WL_MEMORY, "Be", 1, "memory SIZE [END]"},
	{"vcpus", WL_VCPUS, "P", 1, "vcpus N"},
	{"vcpu", WL_VCPU, "V", 1, "vcpu N"},
	{"write", WL_WRITE, "GSd", 8, "write GPA SIZE [SEED]"},
	{"check", WL_CHECK, "GSd", 8, "check GPA SIZE [SEED]"},
	{"zero", WL_ZERO, "GS", 8, "zero GPA SIZE"},
	{"touch", WL_TOUCH, "GSt", 1, "touch GPA SIZE [STRIDE]"},
	{"random", WL_RANDOM, "GSCd", 8, "random GPA SIZE COUNT [SEED]"},
	{"protect", WL_PROTECT, NULL, PAGE_SIZE, "protect [GPA SIZE]..."},
	{"share", WL_SHARE, "GSt", PAGE_SIZE, "share GPA SIZE [STRIDE]"},
	{"unshare", WL_UNSHARE, "GSt", PAGE_SIZE, "unshare GPA SIZE [STRIDE]"},
	{"dma", WL_DMA, "GSC", PAGE_SIZE, "dma GPA SIZE COUNT"},
	{"release", WL_RELEASE, "GS", PAGE_SIZE, "release GPA SIZE"},
	{"await", WL_AWAIT, "GS", PAGE_SIZE, "await GPA SIZE"},
	{"sleep", WL_SLEEP, "M", 1, "sleep MS"},
	{"print", WL_PRINT, NULL, 1, "print TEXT"},
	{"barrier", WL_BARRIER, NULL, 1, "barrier NAME"},
	{"loop", WL_LOOP, "N", 1, "loop N"},
	{"end", WL_END, "", 1, "nothing after 'end'"},
	{"reboot", WL_REBOOT, "", 1, "nothing after 'reboot'"},
	{"poweroff", WL_POWEROFF, "", 1, "nothing after 'poweroff'"},
};

#define ANY_OPERATION                                                                     \
	"an operation (write, check, zero, touch, random, protect, share, unshare, dma, " \
	"release, await, sleep, print, barrier, loop, end, reboot, poweroff) or memory, " \
	"vcpus, vcpu"

struct arg {
	char letter;
	bool size; /* K, M, G, T allowed */
	uint64_t min, max;
	const char *form;  /* expected when it is not a number */
	const char *value; /* expected when the number is out of range */
};

static const struct arg args[] = {
	{'G', true, GUEST_LOW_END, GPA_END - 1, "GPA as a number such as 0x200000 or 2M",
		"a GPA from 1M (below lives the interpreter) to 2^48"},
	{'S', true, 1, GPA_END, "SIZE as a number such as 0x1000 or 4K",
		"a SIZE above 0 and up to 2^48"},
	{'T', true, 1, GPA_END, "STRIDE as a number such as 0x1000 or 4K",
		"a STRIDE above 0 and up to 2^48"},
	{'C', false, 0, UINT64_MAX, "COUNT as a plain number", "a COUNT below 2^64"},
	{'D', false, 0, UINT64_MAX, "SEED as a plain number", "a SEED below 2^64"},
	{'N', false, 0, UINT64_MAX, "N as a plain number", "N below 2^64"},
	{'M', false, 0, UINT32_MAX, "MS as a plain number", "MS below 2^32"},
	{'B', true, GUEST_LOW_END + PAGE_SIZE, GPA_END, "SIZE as a number such as 64M or 8G",
		"a SIZE above 1M and up to 2^48"},
	{'E', true, GUEST_LOW_END + PAGE_SIZE, GPA_END, "END as a number such as 64M or 8G",
		"an END above 1M and up to 2^48"},
	{'P', false, 1, ABI_MAX_VCPUS, "N as a plain number", "from 1 to 64 vCPUs"},
	{'V', false, 0, ABI_MAX_VCPUS - 1, "N as a plain number", "a vCPU from 0 to 63"},
};

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

struct word {
	const char *text;
	size_t len;
};

/* What is left of a line. */
struct cursor {
	const char *at;
	const char *end;
};

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

static void skip_blanks(struct cursor *c)
{
	while (c->at < c->end && is_blank(*c->at))
		c->at++;
}

/* The next word; false at the end of the line or at a comment. */
static bool next_word(struct cursor *c, struct word *ret)
{
	skip_blanks(c);
	if (c->at == c->end || *c->at == '#')
		return false;
	ret->text = c->at;
	while (c->at < c->end && !is_blank(*c->at))
		c->at++;
	ret->len = (size_t)(c->at - ret->text);
	return true;
}

static bool word_is(const struct word *w, const char *name)
{
	size_t i;

	for (i = 0; i < w->len; i++)
		if (name[i] == '\0' || name[i] != w->text[i])
			return false;
	return name[i] == '\0';
}

static const struct form *find_form(const struct word *w)
{
	for (size_t i = 0; i < ARRAY_LEN(forms); i++)
		if (word_is(w, forms[i].name))
			return &forms[i];
	return NULL;
}

static char upper(char letter)
{
	return letter >= 'a' ? (char)(letter - 'a' + 'A') : letter;
}

static const struct arg *find_arg(char letter)
{
	size_t i = 0;

	while (args[i].letter != upper(letter))
		i++;
	return &args[i];
}

static bool is_suffix(char c)
{
	c = upper(c);
	return c == 'K' || c == 'M' || c == 'G' || c == 'T';
}

static const char *parse_number(const struct arg *arg, const struct word *w, uint64_t *ret)
{
	uint64_t n;
	int err;

	if (!arg->size && is_suffix(w->text[w->len - 1]))
		return arg->form;
	err = size_parse(w->text, w->len, &n);
	if (err == -ERANGE)
		return arg->value;
	if (err)
		return arg->form;
	if (n < arg->min || n > arg->max)
		return arg->value;
	*ret = n;
	return NULL;
}

static const char *check_range(const struct form *form, uint64_t start, uint64_t bytes)
{
	if (((start | bytes) & (form->align - 1)) != 0)
		return form->align == 8 ? "GPA and SIZE as multiples of 8"
					: "GPA and SIZE as multiples of 4096";
	if (bytes > GPA_END - start)
		return "a range that ends at or below 2^48";
	return NULL;
}

static uint64_t *arg_target(struct workload_op *op, char letter)
{
	switch (upper(letter)) {
	case 'G':
	case 'E':
		return &op->gpa;
	case 'S':
		return &op->bytes;
	case 'D':
		return &op->seed;
	default:
		return &op->count;
	}
}

static const char *parse_numbers(const struct form *form, struct cursor *c, struct workload_op *op)
{
	struct word w;
	const char *bad;

	for (const char *letter = form->args; *letter != '\0'; letter++) {
		if (!next_word(c, &w)) {
			if (*letter == upper(*letter))
				return form->usage;
			break;
		}
		bad = parse_number(find_arg(*letter), &w, arg_target(op, *letter));
		if (bad)
			return bad;
	}
	if (next_word(c, &w))
		return form->usage;
	if (op->type == WL_MEMORY && ((op->count | op->gpa) & PAGE_MASK) != 0)
		return "SIZE and END as multiples of 4096";
	if (op->type == WL_MEMORY && op->gpa != 0 && op->gpa < op->count)
		return "an END not below SIZE";
	if ((op->type == WL_SHARE || op->type == WL_UNSHARE) && (op->count & PAGE_MASK) != 0)
		return "a STRIDE that is a multiple of 4096";
	return op->bytes ? check_range(form, op->gpa, op->bytes) : NULL;
}

static bool overlaps(const struct workload_op *op, const struct workload_range *r)
{
	for (size_t i = 0; i < op->range_count; i++)
		if (r->gpa < op->ranges[i].gpa + op->ranges[i].bytes &&
			op->ranges[i].gpa < r->gpa + r->bytes)
			return true;
	return false;
}

static const char *parse_protect(const struct form *form, struct cursor *c, struct workload_op *op)
{
	struct workload_range r;
	struct word w;
	const char *bad;

	while (next_word(c, &w)) {
		bad = parse_number(find_arg('G'), &w, &r.gpa);
		if (bad)
			return bad;
		if (!next_word(c, &w))
			return "a SIZE after every GPA";
		bad = parse_number(find_arg('S'), &w, &r.bytes);
		if (!bad)
			bad = check_range(form, r.gpa, r.bytes);
		if (bad)
			return bad;
		if (op->range_count == WORKLOAD_PROTECT_MAX)
			return "at most 64 ranges";
		if (overlaps(op, &r))
			return "ranges that do not overlap";
		op->ranges[op->range_count++] = r;
	}
	return NULL;
}

static const char *parse_print(const struct form *form, struct cursor *c, struct workload_op *op)
{
	skip_blanks(c);
	while (c->end > c->at && is_blank(c->end[-1]))
		c->end--;
	if (c->at == c->end)
		return form->usage;
	for (const char *p = c->at; p < c->end; p++)
		if (((unsigned char)*p < 0x20 && *p != '\t') || *p == 0x7f)
			return "TEXT without control characters";
	op->text = c->at;
	op->text_len = (size_t)(c->end - c->at);
	return NULL;
}

static const char *parse_barrier(const struct form *form, struct cursor *c, struct workload_op *op)
{
	struct word name, more;

	if (!next_word(c, &name) || next_word(c, &more))
		return form->usage;
	op->text = name.text;
	op->text_len = name.len;
	return NULL;
}

static void op_init(struct workload_op *op, enum workload_op_type type)
{
	op->type = type;
	op->gpa = 0;
	op->bytes = 0;
	op->count = type == WL_TOUCH ? PAGE_SIZE : 0;
	op->seed = 0;
	op->text = NULL;
	op->text_len = 0;
	op->range_count = 0;
}

const char *workload_parse_line(const char *line, size_t len, struct workload_op *ret)
{
	struct cursor c = {line, line + len};
	const struct form *form;
	struct word w;

	if (len > WORKLOAD_LINE_MAX)
		return "at most 1024 bytes in a line";
	op_init(ret, WL_NOTHING);
	if (!next_word(&c, &w))
		return NULL;
	form = find_form(&w);
	if (!form)
		return ANY_OPERATION;
	op_init(ret, form->type);
	switch (form->type) {
	case WL_PROTECT:
		return parse_protect(form, &c, ret);
	case WL_PRINT:
		return parse_print(form, &c, ret);
	case WL_BARRIER:
		return parse_barrier(form, &c, ret);
	default:
		return parse_numbers(form, &c, ret);
	}
}

/* ---- whole texts ---- */

struct checker {
	uint64_t memory; /* operations end at or below it ... */
	uint64_t end;    /* ... or at or below this */
	uint64_t vcpus;  /* vCPU numbers are below it */
	bool memory_flag, vcpus_flag;
	bool memory_line, vcpus_line, vcpu_line;
	uint64_t highest; /* vCPU named or meant so far */
	size_t operations;
	size_t line; /* 1-based */
	unsigned int depth;
	size_t loop_line[WORKLOAD_LOOP_DEPTH];
};

static const char *check_memory(
	struct checker *c, const struct workload_op *op, struct workload_info *info)
{
	if (c->memory_line)
		return "one 'memory' line only";
	if (c->operations)
		return "'memory' before the first operation";
	c->memory_line = true;
	info->memory = op->count;
	c->end = op->gpa;
	if (!c->memory_flag)
		c->memory = op->count;
	return NULL;
}

static const char *check_vcpus(
	struct checker *c, const struct workload_op *op, struct workload_info *info)
{
	if (c->vcpus_line)
		return "one 'vcpus' line only";
	if (c->operations || c->vcpu_line)
		return "'vcpus' before the first operation and the first 'vcpu' line";
	c->vcpus_line = true;
	info->vcpus = op->count;
	if (!c->vcpus_flag)
		c->vcpus = op->count;
	return NULL;
}

static const char *check_vcpu(struct checker *c, const struct workload_op *op)
{
	if (c->depth)
		return "the loop's 'end' before another 'vcpu' line";
	if (op->count >= c->vcpus)
		return "a vCPU below the number of vCPUs";
	c->vcpu_line = true;
	if (op->count > c->highest)
		c->highest = op->count;
	return NULL;
}

static const char *check_addresses(const struct checker *c, const struct workload_op *op)
{
	uint64_t end = c->end > c->memory ? c->end : c->memory;
	bool inside = op->gpa + op->bytes <= end;

	for (size_t i = 0; i < op->range_count; i++)
		inside = inside && op->ranges[i].gpa + op->ranges[i].bytes <= end;
	return inside ? NULL : "a range inside the VM's memory";
}

static const char *check_op(
	struct checker *c, const struct workload_op *op, struct workload_info *info)
{
	switch (op->type) {
	case WL_NOTHING:
		return NULL;
	case WL_MEMORY:
		return check_memory(c, op, info);
	case WL_VCPUS:
		return check_vcpus(c, op, info);
	case WL_VCPU:
		return check_vcpu(c, op);
	case WL_LOOP:
		if (c->depth == WORKLOAD_LOOP_DEPTH)
			return "at most 8 loops in one another";
		c->loop_line[c->depth++] = c->line;
		break;
	case WL_END:
		if (c->depth == 0)
			return "a 'loop' before this 'end'";
		c->depth--;
		break;
	default:
		break;
	}
	c->operations++;
	return check_addresses(c, op);
}

static const char *check_lines(
	struct checker *c, const char *text, size_t len, struct workload_info *info)
{
	struct workload_op op;
	const char *bad;
	size_t end;

	for (size_t at = 0; at < len; at = end + 1) {
		for (end = at; end < len && text[end] != '\n'; end++)
			;
		c->line++;
		bad = workload_parse_line(text + at, end - at, &op);
		if (!bad)
			bad = check_op(c, &op, info);
		if (bad)
			return bad;
	}
	return NULL;
}

const char *workload_check(
	const char *text, size_t len, uint64_t memory, uint64_t vcpus, struct workload_info *ret)
{
	struct checker c = {
		.memory = memory ? memory : DEFAULT_MEMORY,
		.vcpus = vcpus ? vcpus : ABI_MAX_VCPUS,
		.memory_flag = memory != 0,
		.vcpus_flag = vcpus != 0,
	};
	const char *bad;

	ret->memory = 0;
	ret->address_end = 0;
	ret->vcpus = 0;
	ret->error_line = 0;
	if (len > GUEST_TEXT_MAX - sizeof(struct guest_text))
		return "a workload of at most 512 KiB";
	bad = check_lines(&c, text, len, ret);
	if (bad) {
		ret->error_line = c.line;
		return bad;
	}
	if (c.depth) {
		ret->error_line = c.loop_line[c.depth - 1];
		return "an 'end' for this loop";
	}
	if (c.operations == 0)
		return "at least one operation";
	ret->address_end = c.end > c.memory ? c.end : c.memory;
	if (!c.vcpus_line)
		ret->vcpus = c.highest + 1;
	return NULL;
}

uint64_t workload_pattern(uint64_t gpa, uint64_t seed, uint64_t incarnation)
{
	return pattern_mix(gpa ^ pattern_key(seed, incarnation));
}
