/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The workload interpreter's flow: lines, loops, sections, calls, reboot.
 *
 * Sections.  Lines before the first `vcpu` line belong to vCPU 0.  Each vCPU walks the
 * whole text and performs the lines of its own sections; a bad line stops the VM whoever
 * meets it.  A loop lies in one section, so a vCPU that is inside one never meets a `vcpu`
 * line before the loop's `end`.
 *
 * Reboot.  The vCPU that performs `reboot` hands over, as words of GUEST_CALL_REBOOT:
 *   0  offset R of the line after `reboot`
 *   1  its own number
 *   2  depth of its loops, then for each, outermost first: offset of the body, passes
 *      left with the current one
 * In the next incarnation that vCPU goes on at R, inside its loops.  Every other vCPU goes
 * on at R too, outside any loop, that is with the lines of its own sections that come
 * after R in the text; where it was before does not matter.  R itself can not lie inside
 * one of its loops, because loops lie in one section and R is in the caller's.  A `reboot`
 * in a loop therefore makes the others run their later sections once per pass.
 *
 * Barriers.  All vCPUs that can still come to a `barrier NAME` of the same name meet:
 * those with such a line in a section of theirs at or after R (0 at first boot), and the
 * caller also with one in a loop that it will repeat.  vCPUs without one are not waited
 * for.  Loop counts are not compared: a vCPU that passes a barrier more often than
 * another waits for ever.
 *
 * The vCPU that turns the VM secure names the interpreter's own memory, up to the end of
 * the text, as necessary before the ranges of the `protect` line.
 */
#include "abi/uvcall.h"
#include "base/types.h"
#include "guest/interp_state.h"

#define TEXT_START (GUEST_TEXT_GPA + sizeof(struct guest_text))

_Static_assert(3 + 2 * WORKLOAD_LOOP_DEPTH <= GUEST_RESUME_WORDS, "loops fit the resume words");

enum line { LINE_READ, LINE_END_OF_TEXT, LINE_STOPPED };

/* Takes bytes of the current line; returns whether its newline was among them. */
static bool take_bytes(struct interp *in, const uint8_t *p, uint64_t len)
{
	for (uint64_t i = 0; i < len; i++) {
		in->next_at++;
		if (p[i] == '\n')
			return true;
		if (in->line_len < WORKLOAD_LINE_MAX)
			in->line[in->line_len] = (char)p[i];
		in->line_len++;
	}
	return false;
}

/* Reads and parses the line at next_at; a bad one sets in->bad. */
static enum line next_line(struct interp *in)
{
	uint64_t want, len;
	bool whole = false;
	uint8_t *p;

	if (in->next_at >= in->text_bytes)
		return LINE_END_OF_TEXT;
	in->line_at = in->next_at;
	in->line_len = 0;
	while (!whole && in->next_at < in->text_bytes) {
		want = in->text_bytes - in->next_at;
		if (want > PAGE_SIZE)
			want = PAGE_SIZE;
		p = in->env->translate(in->env->ctx, TEXT_START + in->next_at, want, false, &len);
		if (!p)
			return LINE_STOPPED;
		whole = take_bytes(in, p, len);
		in->env->release(in->env->ctx);
	}
	in->bad = workload_parse_line(in->line, in->line_len, &in->op);
	return LINE_READ;
}

static bool call4(
	struct interp *in, enum guest_call nr, uint64_t a0, uint64_t a1, uint64_t a2, uint64_t a3)
{
	int64_t result;

	for (;;) {
		result = in->env->call(in->env->ctx, nr, a0, a1, a2, a3);
		if (result == GUEST_CALL_STOPPED)
			return false;
		if (result != -(int64_t)ABI_ST_AGAIN)
			break;
		result = in->env->call(in->env->ctx, GUEST_CALL_SLEEP, 1, 0, 0, 0);
		if (result == GUEST_CALL_STOPPED)
			return false;
	}
	return result >= 0 || interp_stop_refused(in, (uint64_t)-result);
}

bool interp_call(struct interp *in, enum guest_call nr, uint64_t a0, uint64_t a1)
{
	return call4(in, nr, a0, a1, 0, 0);
}

/* ---- loops ---- */

/* Goes to the line after the `end` of the loop whose first line comes next. */
static bool skip_loop(struct interp *in)
{
	unsigned int open = 1;

	while (open) {
		switch (next_line(in)) {
		case LINE_STOPPED:
			return false;
		case LINE_END_OF_TEXT:
			return interp_stop_bad(in, "the loop's 'end'");
		case LINE_READ:
			break;
		}
		if (in->bad)
			return interp_stop_bad(in, in->bad);
		if (in->op.type == WL_LOOP)
			open++;
		else if (in->op.type == WL_END)
			open--;
	}
	return true;
}

static bool begin_loop(struct interp *in)
{
	if (in->op.count == 0)
		return skip_loop(in);
	if (in->depth == WORKLOAD_LOOP_DEPTH)
		return interp_stop_bad(in, "at most 8 loops in one another");
	in->loops[in->depth].body = in->next_at;
	in->loops[in->depth].left = in->op.count;
	in->depth++;
	return true;
}

static bool end_loop(struct interp *in)
{
	struct interp_loop *loop;

	if (in->depth == 0)
		return interp_stop_bad(in, "a 'loop' before this 'end'");
	loop = &in->loops[in->depth - 1];
	loop->left--;
	if (loop->left)
		in->next_at = loop->body;
	else
		in->depth--;
	return true;
}

/* ---- barrier ---- */

/* FNV-1a. */
static uint64_t barrier_key(const struct workload_op *op)
{
	uint64_t hash = 0xcbf29ce484222325u;

	for (size_t i = 0; i < op->text_len; i++)
		hash = (hash ^ (uint8_t)op->text[i]) * 0x100000001b3u;
	return hash;
}

/* Adds the vCPU of the current line to @vcpus if it can still come to this barrier. */
static void add_participant(const struct interp *in, uint64_t key, uint64_t *vcpus)
{
	uint64_t reach = in->section == in->caller ? in->caller_reach : in->reach;

	if (in->bad || in->op.type != WL_BARRIER || barrier_key(&in->op) != key)
		return;
	if (in->section < in->boot.vcpus && in->section < ABI_MAX_VCPUS && in->line_at >= reach)
		*vcpus |= (uint64_t)1 << in->section;
}

static uint64_t count_bits(uint64_t set)
{
	uint64_t n = 0;

	for (; set; set &= set - 1)
		n++;
	return n;
}

/* How many vCPUs meet at @key.  The current line is the same afterwards. */
static bool count_participants(struct interp *in, uint64_t key, uint64_t *ret)
{
	uint64_t here = in->line_at, vcpus = 0;
	enum line line;

	in->next_at = 0;
	in->section = 0;
	while ((line = next_line(in)) == LINE_READ) {
		if (!in->bad && in->op.type == WL_VCPU)
			in->section = in->op.count;
		add_participant(in, key, &vcpus);
	}
	if (line == LINE_STOPPED)
		return false;
	in->section = in->boot.vcpu;
	in->next_at = here;
	if (next_line(in) != LINE_READ)
		return false;
	*ret = count_bits(vcpus);
	return true;
}

static bool barrier(struct interp *in)
{
	uint64_t key = barrier_key(&in->op), participants;

	return count_participants(in, key, &participants) &&
	       interp_call(in, GUEST_CALL_BARRIER, key, participants);
}

/* ---- other calls ---- */

static bool protect(struct interp *in)
{
	struct abi_range ranges[1 + WORKLOAD_PROTECT_MAX];
	size_t n = 0;

	ranges[n].gpa = 0;
	ranges[n++].bytes = align_down(TEXT_START + in->text_bytes + PAGE_MASK, PAGE_SIZE);
	for (size_t i = 0; i < in->op.range_count; i++, n++) {
		ranges[n].gpa = in->op.ranges[i].gpa;
		ranges[n].bytes = in->op.ranges[i].bytes;
	}
	return interp_call(in, GUEST_CALL_PROTECT, (uint64_t)(uintptr_t)ranges, n);
}

/* The range at once, or with a stride one page after the other. */
static bool convert(struct interp *in, enum guest_call nr)
{
	const struct workload_op *op = &in->op;
	uint64_t end = op->gpa + op->bytes;

	if (op->count == 0)
		return interp_call(in, nr, op->gpa, op->bytes);
	for (uint64_t gpa = op->gpa; gpa < end; gpa += op->count) {
		if (!interp_call(in, nr, gpa, PAGE_SIZE))
			return false;
	}
	return true;
}

static bool print(struct interp *in)
{
	return interp_call(in, GUEST_CALL_PRINT, (uint64_t)(uintptr_t)in->op.text, in->op.text_len);
}

/* Does not come back but for a refusal. */
static bool reboot(struct interp *in)
{
	uint64_t words[GUEST_RESUME_WORDS];
	size_t n = 0;

	words[n++] = in->next_at;
	words[n++] = in->boot.vcpu;
	words[n++] = in->depth;
	for (unsigned int i = 0; i < in->depth; i++) {
		words[n++] = in->loops[i].body;
		words[n++] = in->loops[i].left;
	}
	(void)interp_call(in, GUEST_CALL_REBOOT, (uint64_t)(uintptr_t)words, n);
	return false;
}

static bool power_off(struct interp *in)
{
	(void)interp_call(in, GUEST_CALL_POWEROFF, 0, 0);
	return false;
}

/* ---- one line after another ---- */

static bool below_memory_end(const struct interp *in)
{
	bool inside = in->op.bytes == 0 || in->op.gpa + in->op.bytes <= in->boot.memory_end;

	for (size_t i = 0; i < in->op.range_count; i++)
		inside = inside &&
			 in->op.ranges[i].gpa + in->op.ranges[i].bytes <= in->boot.memory_end;
	return inside;
}

/*
 * The checker saw the configured memory; the machine says what there is, and may have been
 * given more since it was asked.
 */
static bool check_inside(struct interp *in)
{
	if (in->op.type == WL_AWAIT || below_memory_end(in))
		return true;
	if (!interp_call(in, GUEST_CALL_BOOTINFO, (uint64_t)(uintptr_t)&in->boot, 0))
		return false;
	return below_memory_end(in) || interp_stop_bad(in, "a range inside the VM's memory");
}

static bool perform(struct interp *in)
{
	const struct workload_op *op = &in->op;

	if (!check_inside(in))
		return false;
	switch (op->type) {
	case WL_NOTHING:
	case WL_MEMORY:
	case WL_VCPUS:
	case WL_VCPU:
		return true;
	case WL_WRITE:
		return interp_write(in);
	case WL_CHECK:
		return interp_check(in);
	case WL_ZERO:
		return interp_zero(in);
	case WL_TOUCH:
		return interp_touch(in);
	case WL_RANDOM:
		return interp_random(in);
	case WL_PROTECT:
		return protect(in);
	case WL_SHARE:
		return convert(in, GUEST_CALL_SHARE);
	case WL_UNSHARE:
		return convert(in, GUEST_CALL_UNSHARE);
	case WL_DMA:
		return interp_dma(in);
	case WL_RELEASE:
		return interp_call(in, GUEST_CALL_RELEASE, op->gpa, op->bytes);
	case WL_AWAIT:
		return interp_call(in, GUEST_CALL_AWAIT, op->gpa, op->bytes);
	case WL_SLEEP:
		return interp_call(in, GUEST_CALL_SLEEP, op->count, 0);
	case WL_PRINT:
		return print(in);
	case WL_BARRIER:
		return barrier(in);
	case WL_LOOP:
		return begin_loop(in);
	case WL_END:
		return end_loop(in);
	case WL_REBOOT:
		return reboot(in);
	case WL_POWEROFF:
		return power_off(in);
	}
	return interp_stop_bad(in, "an operation");
}

static bool finish(struct interp *in)
{
	if (in->depth)
		return interp_stop_bad(in, "an 'end' for every loop");
	(void)interp_call(in, GUEST_CALL_HALT, 0, 0);
	return false;
}

static bool step(struct interp *in)
{
	switch (next_line(in)) {
	case LINE_STOPPED:
		return false;
	case LINE_END_OF_TEXT:
		return finish(in);
	case LINE_READ:
		break;
	}
	if (in->bad)
		return interp_stop_bad(in, in->bad);
	if (in->op.type == WL_VCPU) {
		if (in->depth)
			return interp_stop_bad(in, "the loop's 'end' before another 'vcpu' line");
		in->section = in->op.count;
	}
	return in->section != in->boot.vcpu || perform(in);
}

/* ---- start ---- */

/* Copies the text's header, which lies at the start of a page. */
static bool read_header(struct interp *in)
{
	struct guest_text header;
	const struct guest_text *text;
	uint64_t len;

	text = (const struct guest_text *)(void *)in->env->translate(
		in->env->ctx, GUEST_TEXT_GPA, sizeof(header), false, &len);
	if (!text)
		return false;
	header = *text;
	in->env->release(in->env->ctx);
	if (header.magic != GUEST_TEXT_MAGIC ||
		header.bytes > GUEST_TEXT_MAX - sizeof(struct guest_text))
		return interp_stop_early(in, "no workload at 0x80000");
	in->text_bytes = header.bytes;
	return true;
}

/* Takes the loops that the caller of REBOOT was in. */
static bool resume_loops(struct interp *in, const uint64_t *words)
{
	for (uint64_t i = 0; i < words[2]; i++) {
		struct interp_loop loop = {words[3 + 2 * i], words[4 + 2 * i]};

		if (loop.body > in->next_at || loop.left == 0)
			return interp_stop_early(in, "loops of no reboot of this workload");
		if (loop.left > 1 && loop.body < in->caller_reach)
			in->caller_reach = loop.body;
		if (in->boot.caller)
			in->loops[in->depth++] = loop;
	}
	return true;
}

/* Starts at the first line, or where the last REBOOT left off. */
static bool resume(struct interp *in)
{
	const uint64_t *words = in->boot.resume;
	uint64_t n = in->boot.resume_size;

	in->next_at = 0;
	in->line_at = 0;
	in->section = 0;
	in->depth = 0;
	in->reach = 0;
	in->caller = 0;
	in->caller_reach = 0;
	if (n == 0)
		return true;
	if (n < 3 || n > GUEST_RESUME_WORDS || words[0] > in->text_bytes ||
		words[1] >= ABI_MAX_VCPUS || words[2] > WORKLOAD_LOOP_DEPTH ||
		n != 3 + 2 * words[2])
		return interp_stop_early(in, "words of no reboot of this workload");
	in->next_at = words[0];
	in->line_at = words[0];
	in->reach = words[0];
	in->caller = words[1];
	in->caller_reach = words[0];
	in->section = in->caller;
	return resume_loops(in, words);
}

static bool start(struct interp *in)
{
	int64_t result = in->env->call(
		in->env->ctx, GUEST_CALL_BOOTINFO, (uint64_t)(uintptr_t)&in->boot, 0, 0, 0);

	if (result == GUEST_CALL_STOPPED)
		return false;
	if (result < 0)
		return interp_stop_early(in, "boot information was refused");
	return read_header(in) && resume(in);
}

void guest_interp_run(const struct guest_env *env)
{
	struct interp in;

	in.env = env;
	if (!start(&in))
		return;
	while (step(&in))
		;
}
