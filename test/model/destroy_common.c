/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test/model/destroy_model.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "test/model/destroy_guest.h"
#include "test/model/destroy_watch.h"
#include "test/model/destroy_world.h"
#include "test/xorshift.h"

#define OPERATIONS_MAX 256u
#define TOKENS         4096u /* of one sequence */

struct ref ref;
uint32_t vm_flags;
uint64_t seed, block;
struct ref_range watched;

static uint64_t sequence, random_state;

/* What the hypervisor may know: tokens of this sequence that were in memory of its own. */
static uint64_t token_base = 1, token_next = 1;
static bool known[TOKENS];

static struct operation {
	const char *name;
	uint32_t first, count, status;
} history[OPERATIONS_MAX];
static unsigned int operations;

void model_die(const char *format, ...)
{
	va_list args;

	fprintf(stderr, "destroy_model: block %llu, sequence %llu, vm_flags %u: ",
		(unsigned long long)block, (unsigned long long)sequence, vm_flags);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "\nagain: destroy_model %u %llu %llu\n", BLOCK, (unsigned long long)seed,
		(unsigned long long)block);
	for (unsigned int i = 0; i < operations; i++)
		fprintf(stderr, "\t%s %u+%u: %u\n", history[i].name, history[i].first,
			history[i].count, history[i].status);
	_exit(1);
}

uint32_t dice(uint32_t sides)
{
	return (uint32_t)(xorshift(&random_state) >> 16) % sides;
}

void note(const char *name, struct ref_range range, uint32_t status)
{
	if (operations < OPERATIONS_MAX)
		history[operations++] = (struct operation){name, range.first, range.count, status};
}

/* The status that a call had, and the one that it must have. */
void expect(const char *name, struct ref_range range, uint32_t got, uint32_t want)
{
	note(name, range, got);
	if (got != want)
		model_die("%s was answered with %u, not %u", name, got, want);
}

const struct ref_range nowhere = {0, 0};

/* @count new tokens; 0: this sequence has used its share. */
uint64_t new_tokens(uint32_t count)
{
	uint64_t token = token_next;

	if (token + count - token_base > TOKENS)
		return 0;
	token_next += count;
	return token;
}

void make_known(uint64_t token)
{
	if (token >= token_base)
		known[token - token_base] = true;
}

/* A slot's id, most often one that is there. */
uint32_t some_slot(void)
{
	uint32_t id = dice(REF_SLOTS);

	for (uint32_t i = 0; i < REF_SLOTS && dice(16) != 0; i++) {
		if (ref.slot[id].count > 0)
			break;
		id = (id + 1) % REF_SLOTS;
	}
	return id;
}

/* Up to @max pages, most often inside a slot. */
struct ref_range some_range(uint32_t max)
{
	struct ref_range slot = ref.slot[some_slot()], r;

	if (slot.count == 0 || dice(24) == 0)
		return (struct ref_range){dice(REF_PAGES - 2 * max), 1 + dice(max)};
	r.count = 1 + dice(slot.count < max ? slot.count : max);
	/* Blocks of 2M are swept one after another: their borders matter. */
	if (slot.count > 512 && dice(2) == 0)
		r.first = slot.first + 512 - dice(r.count + 1);
	else
		r.first = slot.first + dice(slot.count - r.count + 1);
	if (dice(10) == 0)
		r.first += dice(max);
	return r;
}

bool is_watched(struct ref_range r)
{
	return r.first < watched.first + watched.count && watched.first < r.first + r.count;
}

void end_watch(void)
{
	int64_t ret;

	if (watched.count == 0)
		return;
	ret = ref.phase == REF_RUNNING ? guest_watch_end(1) : guest_watch_stopped(1);
	if (ret != 0 && !(ret == GUEST_ENDED && ref.phase != REF_RUNNING))
		model_die("page %u changed while it was watched", watched.first + (int)ret - 1);
	watched.count = 0;
}

unsigned int some_vcpu(void)
{
	return watched.count > 0 ? 0 : dice(GUEST_VCPUS);
}

/* The vCPUs have stopped. */
void after_stop(void)
{
	end_watch();
	world_skip_exits();
}

void check_filled(const uint64_t *page, uint64_t token, uint32_t gfn, const char *whose)
{
	for (uint32_t i = 0; i < 512; i++) {
		if (page[i] != guest_word(token, i))
			model_die("page %u of %s: word %u is 0x%llx, its token 0x%llx", gfn, whose,
				i, (unsigned long long)page[i], (unsigned long long)token);
	}
}

/* Everything in the hypervisor's memory is zero or was made known to it. */
static void check_known(const uint64_t *page)
{
	for (uint32_t i = 0; i < 512; i++) {
		uint64_t token = page[i] >> 16;

		if (page[i] != 0 &&
			(token < token_base || token >= token_next || !known[token - token_base]))
			model_die("the hypervisor sees the secret 0x%llx",
				(unsigned long long)page[i]);
	}
}

/* Pages of a normal VM, and those that are mapped when shared, are the hypervisor's too. */
bool is_in_sight(const struct ref_page *page)
{
	return page->state == REF_OPEN ||
	       (page->state == REF_SHARED && (vm_flags & ABI_VM_SHARE_MAPPED) != 0);
}

void check_hypervisor(void)
{
	world_each_page(check_known);
	for (uint32_t id = 0; id < REF_SLOTS; id++) {
		for (uint32_t i = 0; i < ref.slot[id].count; i++) {
			uint32_t gfn = ref.slot[id].first + i;
			const struct ref_page *page = &ref.page[gfn];

			if (is_in_sight(page))
				check_filled(
					world_page(id, gfn), page->content, gfn, "the hypervisor");
		}
	}
}

/* Every page that the guest may read. */
void check_guest(void)
{
	for (uint32_t id = 0; id < REF_SLOTS; id++) {
		uint32_t at = ref.slot[id].first, end = at + ref.slot[id].count, n;

		for (; at < end; at += n + 1) {
			int64_t ret;

			for (n = 0; at + n < end && ref.page[at + n].state != REF_RELEASED; n++)
				;
			ret = n == 0 ? 0
				     : guest_check(some_vcpu(), at, n, &ref.page[at].content,
					       sizeof(ref.page[0]));
			if (ret != 0)
				model_die("page %lld is not what the guest wrote",
					(long long)(at + ret - 1));
		}
	}
}

void begin_sequence(uint64_t number)
{
	uint64_t mixed = (seed * 0x9e3779b97f4a7c15 + block) * 0xbf58476d1ce4e5b9 + number;

	mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111eb;
	random_state = (mixed ^ mixed >> 31) | 1;
	sequence = number;
	operations = 0;
	token_base = token_next;
	memset(known, 0, sizeof(known));
}
