/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The interpreter's operations on memory.
 *
 * Theory: memory is reached in chunks of at most CHUNK bytes that do not cross a multiple
 * of CHUNK, each between translate() and release().  Whoever wants to pause the vCPU waits
 * for the release: well under a millisecond.
 *
 * All but touch work on whole words: GPAs and sizes are multiples of 8, checked by the
 * parser, and what translate() gives reaches to the end of a page, so every chunk holds
 * whole words too.
 */
#include "base/types.h"
#include "guest/interp_state.h"
#include "guest/pattern.h"

#define CHUNK SIZE_2M

struct chunk {
	uint64_t *words;
	uint64_t count;
};

/* The words at @gpa: as many as translate() gives of @bytes in one chunk. */
static bool chunk_get(
	struct interp *in, uint64_t gpa, uint64_t bytes, bool write, struct chunk *ret)
{
	uint64_t want = CHUNK - (gpa & (CHUNK - 1));
	uint64_t len;
	uint8_t *p;

	if (want > bytes)
		want = bytes;
	p = in->env->translate(in->env->ctx, gpa, want, write, &len);
	if (!p)
		return false;
	ret->words = (uint64_t *)(void *)p;
	ret->count = len / 8;
	return true;
}

static void chunk_put(struct interp *in)
{
	in->env->release(in->env->ctx);
}

static bool fill_pattern(struct interp *in, uint64_t gpa, uint64_t bytes, uint64_t seed)
{
	uint64_t key = pattern_key(seed, in->boot.incarnation);
	struct chunk c;

	while (bytes) {
		if (!chunk_get(in, gpa, bytes, true, &c))
			return false;
		for (uint64_t i = 0; i < c.count; i++)
			c.words[i] = pattern_mix((gpa + 8 * i) ^ key);
		chunk_put(in);
		gpa += 8 * c.count;
		bytes -= 8 * c.count;
	}
	return true;
}

/*
 * The index of the first word of @c that is not the pattern xor @flip, with that word in
 * *ret_found; c->count if there is none.  Each word is read once: others may write to
 * shared memory meanwhile.
 */
static uint64_t find_wrong_pattern(
	const struct chunk *c, uint64_t gpa, uint64_t key, uint64_t flip, uint64_t *ret_found)
{
	for (uint64_t i = 0; i < c->count; i++) {
		uint64_t found = ((volatile uint64_t *)c->words)[i];

		if (found != (pattern_mix((gpa + 8 * i) ^ key) ^ flip)) {
			*ret_found = found;
			return i;
		}
	}
	return c->count;
}

/* @flip: 0 for the pattern, all ones for its complement. */
static bool expect_pattern(
	struct interp *in, uint64_t gpa, uint64_t bytes, uint64_t seed, uint64_t flip)
{
	uint64_t key = pattern_key(seed, in->boot.incarnation);
	uint64_t wrong, found = 0;
	struct chunk c;

	while (bytes) {
		if (!chunk_get(in, gpa, bytes, false, &c))
			return false;
		wrong = find_wrong_pattern(&c, gpa, key, flip, &found);
		chunk_put(in);
		gpa += 8 * wrong;
		if (wrong < c.count)
			return interp_stop_mismatch(in, gpa, found, pattern_mix(gpa ^ key) ^ flip);
		bytes -= 8 * wrong;
	}
	return true;
}

/*
 * As find_wrong_pattern(), for zeros: a block is summed up by OR, which needs no branch a
 * word, and searched only if that is not zero.
 */
static uint64_t find_nonzero(const struct chunk *c, uint64_t *ret_found)
{
	const uint64_t block = 64;
	const volatile uint64_t *words = c->words;

	for (uint64_t at = 0; at < c->count; at += block) {
		uint64_t end = at + block < c->count ? at + block : c->count;
		uint64_t all = 0;

		for (uint64_t i = at; i < end; i++)
			all |= c->words[i];
		for (uint64_t i = at; all && i < end; i++) {
			*ret_found = words[i];
			if (*ret_found)
				return i;
		}
	}
	return c->count;
}

bool interp_zero(struct interp *in)
{
	uint64_t gpa = in->op.gpa, bytes = in->op.bytes;
	uint64_t wrong, found = 0;
	struct chunk c;

	while (bytes) {
		if (!chunk_get(in, gpa, bytes, false, &c))
			return false;
		wrong = find_nonzero(&c, &found);
		chunk_put(in);
		gpa += 8 * wrong;
		if (wrong < c.count)
			return interp_stop_mismatch(in, gpa, found, 0);
		bytes -= 8 * wrong;
	}
	return true;
}

bool interp_write(struct interp *in)
{
	return fill_pattern(in, in->op.gpa, in->op.bytes, in->op.seed);
}

bool interp_check(struct interp *in)
{
	return expect_pattern(in, in->op.gpa, in->op.bytes, in->op.seed, 0);
}

/*
 * One byte a stride, each with a translation of its own.  The byte is the pattern's, seed
 * 0: content changes, but a range that held that pattern still does.
 */
bool interp_touch(struct interp *in)
{
	uint64_t key = pattern_key(0, in->boot.incarnation);
	uint64_t end = in->op.gpa + in->op.bytes;
	uint64_t len, word;
	uint8_t *p;

	for (uint64_t gpa = in->op.gpa; gpa < end; gpa += in->op.count) {
		p = in->env->translate(in->env->ctx, gpa, 1, true, &len);
		if (!p)
			return false;
		word = pattern_mix((gpa & ~(uint64_t)7) ^ key);
		*(volatile uint8_t *)p = (uint8_t)(word >> (8 * (gpa & 7)));
		chunk_put(in);
	}
	return true;
}

/*
 * COUNT accesses to random words of the range, each a read or a write of the pattern's
 * word: what held the pattern with this seed still does.  The sequence depends on seed,
 * incarnation and vCPU.
 */
bool interp_random(struct interp *in)
{
	uint64_t key = pattern_key(in->op.seed, in->boot.incarnation);
	uint64_t state = pattern_mix(in->boot.vcpu ^ key);
	struct chunk c;

	for (uint64_t n = 0; n < in->op.count; n++, state += PATTERN_STEP) {
		uint64_t r = pattern_mix(state);
		uint64_t word = (uint64_t)(((unsigned __int128)r * (in->op.bytes / 8)) >> 64);
		uint64_t gpa = in->op.gpa + 8 * word;
		bool write = r & 1;
		volatile uint64_t *p;

		if (!chunk_get(in, gpa, 8, write, &c))
			return false;
		p = c.words;
		if (write)
			*p = pattern_mix(gpa ^ key);
		else
			(void)*p;
		chunk_put(in);
	}
	return true;
}

/*
 * COUNT transfers by the device.  Each has a seed of its own, its number from 0, so that
 * content left over from the one before is not mistaken for this one's.  After the last,
 * the range is private and must still hold the device's bytes.
 */
bool interp_dma(struct interp *in)
{
	uint64_t gpa = in->op.gpa, bytes = in->op.bytes;
	uint64_t n;

	for (n = 0; n < in->op.count; n++) {
		if (!fill_pattern(in, gpa, bytes, n) ||
			!interp_call(in, GUEST_CALL_SHARE, gpa, bytes) ||
			!interp_call(in, GUEST_CALL_DMA, gpa, bytes) ||
			!expect_pattern(in, gpa, bytes, n, UINT64_MAX) ||
			!interp_call(in, GUEST_CALL_UNSHARE, gpa, bytes))
			return false;
	}
	return n == 0 || expect_pattern(in, gpa, bytes, n - 1, UINT64_MAX);
}
