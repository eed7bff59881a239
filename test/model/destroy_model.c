/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The life of VMs against a reference model: random sequences of adding and deleting memory,
 * protecting, sharing, releasing, rebooting, setting aside, destroying and cancelling.
 *
 * Each answer must be the one that the model (destroy_ref.h) gives.  Each page that the guest
 * or the hypervisor can read must hold what was written there last in this incarnation, else
 * zeros.  Nothing that was written to private memory ever shows in the hypervisor's memory
 * unless the guest shared that page with this content.  destroy_watch.h checks what is given
 * back to the kernel.  The ultravisor's own code runs in this process: dispatch, vCPU threads
 * with the software executor's MMU, the sweeper; only the guest's program is the test's.
 *
 *	destroy_model [SEQUENCES [SEED [BLOCK]]]
 *
 * A block of sequences has one VM, in a process of its own.  A failure says how to run its
 * block again and what its sequence was.
 */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "abi/guestcall.h"
#include "base/log.h"
#include "test/model/destroy_guest.h"
#include "test/model/destroy_watch.h"
#include "test/model/destroy_world.h"

#define SEQUENCES_DEFAULT 20000u
#define BLOCK             250u /* sequences of one VM */
#define OPERATIONS_MAX    256u
#define TOKENS            4096u /* of one sequence */
#define PERFORMS          32u

static struct ref ref;
static uint32_t flags;
static uint64_t seed, block, sequence, random_state;

/* What the hypervisor may know: tokens of this sequence that were in memory of its own. */
static uint64_t token_base = 1, token_next = 1;
static bool known[TOKENS];

static struct operation {
	const char *name;
	uint32_t first, count, status;
} history[OPERATIONS_MAX];
static unsigned int operations;

/* PERFORMs that are not answered yet, in the order in which they were called. */
static struct perform {
	uint32_t seq;
	bool may_be_cancelled;
	bool overtaken; /* a RESET may have destroyed what it left */
} performs[PERFORMS];
static unsigned int performs_count;

/* Whether a cancelled destruction waits to be finished. */
static enum { LEFT_NONE, LEFT_MAYBE, LEFT_SOME } left;

static struct ref_range watched; /* by vCPU 1; count 0: it is free */

/* ---- what all operations use ---- */

void model_die(const char *format, ...)
{
	va_list args;

	fprintf(stderr,
		"destroy_model: block %llu, sequence %llu, flags %u: ", (unsigned long long)block,
		(unsigned long long)sequence, flags);
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

static uint32_t dice(uint32_t sides)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (uint32_t)(random_state >> 16) % sides;
}

static void note(const char *name, struct ref_range range, uint32_t status)
{
	if (operations < OPERATIONS_MAX)
		history[operations++] = (struct operation){name, range.first, range.count, status};
}

/* The status that a call had, and the one that it must have. */
static void expect(const char *name, struct ref_range range, uint32_t got, uint32_t want)
{
	note(name, range, got);
	if (got != want)
		model_die("%s was answered with %u, not %u", name, got, want);
}

static const struct ref_range nowhere = {0, 0};

/* @count new tokens; 0: this sequence has used its share. */
static uint64_t new_tokens(uint32_t count)
{
	uint64_t token = token_next;

	if (token + count - token_base > TOKENS)
		return 0;
	token_next += count;
	return token;
}

static void make_known(uint64_t token)
{
	if (token >= token_base)
		known[token - token_base] = true;
}

/* A slot's id, most often one that is there. */
static uint32_t some_slot(void)
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
static struct ref_range some_range(uint32_t max)
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

static bool is_watched(struct ref_range r)
{
	return r.first < watched.first + watched.count && watched.first < r.first + r.count;
}

static void end_watch(void)
{
	int64_t ret;

	if (watched.count == 0)
		return;
	ret = ref.phase == REF_RUNNING ? guest_watch_end(1) : guest_watch_stopped(1);
	if (ret != 0 && !(ret == GUEST_ENDED && ref.phase != REF_RUNNING))
		model_die("page %u changed while it was watched", watched.first + (int)ret - 1);
	watched.count = 0;
}

static unsigned int some_vcpu(void)
{
	return watched.count > 0 ? 0 : dice(GUEST_VCPUS);
}

/* The vCPUs have stopped. */
static void after_stop(void)
{
	end_watch();
	world_skip_exits();
}

static void check_filled(const uint64_t *page, uint64_t token, uint32_t gfn, const char *whose)
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
static bool is_in_sight(const struct ref_page *page)
{
	return page->state == REF_OPEN ||
	       (page->state == REF_SHARED && (flags & ABI_VM_SHARE_MAPPED) != 0);
}

static void check_hypervisor(void)
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
static void check_guest(void)
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

/* ---- memory ---- */

static void slot_add(uint32_t id, struct ref_range r)
{
	expect("slot add", r, world_slot_add(id, r), ref_slot_add(&ref, id, r));
}

static void do_slot_add(void)
{
	struct ref_range r = {dice(64), 1 + dice(24)};
	uint32_t id = dice(REF_SLOTS), other = some_slot();

	if (dice(20) == 0)
		r = (struct ref_range){dice(4) * 512 + dice(9), 500 + dice(600)};
	else if (dice(2) == 0)
		r.first += 100 * id;
	else if (dice(2) == 0) /* right behind another, so that ranges go from one to the other */
		r.first = ref.slot[other].first + ref.slot[other].count;
	slot_add(id, r);
}

static void slot_delete(uint32_t id)
{
	const struct abi_slot args = {.id = id};
	struct ref_range r = ref.slot[id];
	uint32_t want = ref_slot_delete(&ref, id);

	expect("slot delete", r, world_call(ABI_CALL_SLOT_UNREGISTER, &args, sizeof(args), NULL, 0),
		want);
	if (want == ABI_ST_OK)
		world_slot_drop(id);
}

static void do_slot_delete(void)
{
	slot_delete(some_slot());
}

/* The hypervisor writes to memory of its own, whatever that is to the guest. */
static void do_scribble(void)
{
	struct ref_range r = some_range(1);
	int id = ref_slot_of(&ref, r);
	uint64_t token = new_tokens(1);

	if (id < 0 || token == 0 || is_watched(r))
		return;
	/* Where the ultravisor chooses how to share, what this changes is not known. */
	if (ref.page[r.first].state == REF_SHARED && (flags & ABI_VM_SHARE_AUTO) != 0)
		return;
	note("scribble", r, 0);
	for (uint32_t i = 0; i < 512; i++)
		world_page((uint32_t)id, r.first)[i] = guest_word(token, i);
	make_known(token);
	if (is_in_sight(&ref.page[r.first]))
		ref.page[r.first].content = token;
}

static void do_copy_out(void)
{
	struct ref_range r = some_range(4);
	uint32_t want = ref_copy(&ref, r);

	memset(world_bulk, 0xa5, (size_t)r.count * 4096);
	expect("copy out", r, world_call_range(ABI_CALL_MEM_READ, r), want);
	for (uint32_t i = 0; i < r.count * 4096 && want != ABI_ST_OK; i++) {
		if (world_bulk[i] != 0xa5)
			model_die("a refused copy came half-way");
	}
	for (uint32_t i = 0; i < r.count && want == ABI_ST_OK; i++)
		check_filled((const uint64_t *)(const void *)(world_bulk + (size_t)i * 4096),
			ref.page[r.first + i].content, r.first + i, "a copy");
}

static void do_copy_in(void)
{
	struct ref_range r = some_range(4);
	uint64_t token = new_tokens(r.count);
	uint32_t want;

	if (token == 0 || is_watched(r))
		return;
	for (uint32_t i = 0; i < r.count * 512; i++)
		((uint64_t *)(void *)world_bulk)[i] = guest_word(token + i / 512, i % 512);
	want = ref_copy(&ref, r);
	expect("copy in", r, world_call_range(ABI_CALL_MEM_WRITE, r), want);
	for (uint32_t i = 0; i < r.count; i++) {
		make_known(token + i);
		if (want == ABI_ST_OK)
			ref.page[r.first + i].content = token + i;
	}
}

/* ---- the switch ---- */

static void init_start(void)
{
	expect("init start", nowhere, world_call0(ABI_CALL_INIT_START), ref_init_start(&ref));
}

static void page_in(struct ref_range r)
{
	expect("page in", r, world_call_range(ABI_CALL_PAGE_IN, r), ref_page_in(&ref, r));
}

static void init_done(void)
{
	const struct abi_none none = {0};
	struct abi_init_done_ret ret;

	expect("init done", nowhere,
		world_call(ABI_CALL_INIT_DONE, &none, sizeof(none), &ret, sizeof(ret)),
		ref_init_done(&ref));
}

static void init_abort(void)
{
	expect("init abort", nowhere, world_call0(ABI_CALL_INIT_ABORT), ref_init_abort(&ref));
}

static void do_switch_step(void)
{
	if (ref.phase == REF_RUNNING)
		return;
	switch (dice(4)) {
	case 0:
		init_start();
		break;
	case 1:
		page_in(some_range(8));
		break;
	case 2:
		init_done();
		break;
	default:
		init_abort();
	}
}

/* All of a switch before the start. */
static void do_switch(void)
{
	if (ref.phase != REF_SETUP)
		return;
	init_start();
	for (uint32_t n = dice(4); n > 0; n--)
		page_in(some_range(8));
	if (dice(10) == 0)
		do_scribble();
	if (dice(10) == 0)
		init_abort();
	else
		init_done();
}

static void stop(void)
{
	expect("stop", nowhere, world_call0(ABI_CALL_VM_STOP), ref_stop(&ref));
	after_stop();
}

/* What may go wrong between a guest's PROTECT and the answer to it.  False: it is over. */
static bool answer_protect(void)
{
	if (dice(12) == 0)
		return true;
	init_start();
	for (uint32_t i = 0; i < ref.asked_count; i++) {
		if (dice(24) != 0)
			page_in(ref.asked_range[i]);
		if (dice(24) == 0)
			page_in(some_range(4));
		if (dice(24) == 0)
			do_scribble();
	}
	if (dice(24) == 0) {
		stop();
		return false;
	}
	if (dice(12) != 0)
		init_done();
	if (ref.security == REF_SWITCHING)
		init_abort();
	return true;
}

/* The guest asks to be protected. */
static void do_protect(void)
{
	struct abi_range ranges[REF_ASKED] = {0};
	struct ref_range asked[REF_ASKED];
	uint32_t count = dice(REF_ASKED), want;
	const uint64_t arg[2] = {0, count};
	unsigned int vcpu;

	end_watch();
	vcpu = some_vcpu();
	for (uint32_t i = 0; i < count; i++) {
		asked[i] = some_range(6);
		ranges[i] = (struct abi_range){
			(uint64_t)asked[i].first * 4096, (uint64_t)asked[i].count * 4096};
	}
	note("protect asked", count > 0 ? asked[0] : nowhere, count);
	want = ref_ask_protect(&ref, asked, count);
	guest_call_begin(
		vcpu, GUEST_CALL_PROTECT, arg, ranges, count * (uint32_t)sizeof(ranges[0]));
	if (want == ABI_ST_OK) {
		world_exit(vcpu, ABI_EXIT_PROTECT);
		if (!answer_protect())
			return;
		want = ref.security == REF_SECURE ? ABI_ST_OK : ABI_ST_NO_MEMORY;
		world_reply(vcpu, want);
		ref.asked = false;
	}
	expect("protect", nowhere, (uint32_t)-guest_wait(vcpu), want);
}

/* ---- the guest ---- */

static void do_start(void)
{
	expect("start", nowhere, world_call0(ABI_CALL_VM_START), ref_start(&ref));
}

static void do_stop(void)
{
	stop();
}

static void do_guest_write(void)
{
	struct ref_range r = some_range(12);
	uint64_t token = new_tokens(r.count);

	if (token == 0 || ref_slot_of(&ref, r) < 0 || is_watched(r))
		return;
	for (uint32_t i = 0; i < r.count; i++) {
		if (ref.page[r.first + i].state == REF_RELEASED)
			return;
	}
	note("guest writes", r, 0);
	if (guest_write(some_vcpu(), r.first, r.count, token) != 0)
		model_die("the guest cannot write to its memory");
	for (uint32_t i = 0; i < r.count; i++) {
		struct ref_page *page = &ref.page[r.first + i];

		page->content = token + i;
		if (page->state != REF_PRIVATE)
			make_known(token + i);
	}
}

static void do_guest_check(void)
{
	note("guest checks", nowhere, 0);
	check_guest();
}

static void do_guest_watch(void)
{
	struct ref_range r = some_range(GUEST_WATCH);

	if (watched.count > 0 || ref_slot_of(&ref, r) < 0)
		return;
	for (uint32_t i = 0; i < r.count; i++) {
		if (ref.page[r.first + i].state == REF_RELEASED)
			return;
	}
	note("guest watches", r, 0);
	guest_watch(1, r.first, r.count, &ref.page[r.first].content, sizeof(ref.page[0]));
	watched = r;
}

/* The hypervisor's answer to a conversion, and what the guest is told then. */
static void answer_conversion(unsigned int vcpu, struct ref_range r, bool to_shared)
{
	uint32_t status = dice(8) == 0 ? ABI_ST_DENIED : ABI_ST_OK;

	world_exit(vcpu, ABI_EXIT_CONVERT);
	if (dice(32) == 0) {
		stop();
		return;
	}
	world_reply(vcpu, status);
	expect(to_shared ? "share" : "unshare", r, (uint32_t)-guest_wait(vcpu), status);
	if (status != ABI_ST_OK)
		return;
	ref_convert_commit(&ref, r, to_shared);
	for (uint32_t i = 0; i < r.count; i++)
		make_known(ref.page[r.first + i].content);
}

static void do_convert(void)
{
	const bool to_shared = dice(5) < 3;
	struct ref_range r = some_range(dice(4) == 0 ? 24 : 4);
	const uint64_t arg[2] = {(uint64_t)r.first * 4096, (uint64_t)r.count * 4096};
	unsigned int vcpu = some_vcpu();
	uint32_t status = ABI_ST_OK;
	enum ref_conversion outcome = ref_convert(&ref, r, to_shared, &status);

	guest_call_begin(vcpu, to_shared ? GUEST_CALL_SHARE : GUEST_CALL_UNSHARE, arg, NULL, 0);
	if (outcome == REF_ASKS_HYPERVISOR)
		answer_conversion(vcpu, r, to_shared);
	else
		expect(to_shared ? "share" : "unshare", r, (uint32_t)-guest_wait(vcpu), status);
}

static void release(struct ref_range r)
{
	const uint64_t arg[2] = {(uint64_t)r.first * 4096, (uint64_t)r.count * 4096};
	uint32_t want;
	unsigned int vcpu;

	if (is_watched(r))
		end_watch();
	vcpu = some_vcpu();
	want = ref_release(&ref, r);
	guest_call_begin(vcpu, GUEST_CALL_RELEASE, arg, NULL, 0);
	if (want == ABI_ST_OK) {
		world_exit(vcpu, ABI_EXIT_RELEASE);
		world_reply(vcpu, ABI_ST_OK);
	}
	expect("release", r, (uint32_t)-guest_wait(vcpu), want);
}

static void do_release(void)
{
	release(some_range(8));
}

/* A whole slot is given up, goes, and sometimes comes back at once. */
static void do_unplug(void)
{
	uint32_t id = some_slot();
	struct ref_range r = ref.slot[id];

	if (r.count == 0)
		return;
	release(r);
	slot_delete(id);
	if (dice(2) == 0)
		slot_add(id, r);
}

/* The guest ends this incarnation by itself, or by an access that nothing allows. */
static void do_guest_end(void)
{
	static const uint64_t arg[2] = {0, 0};
	unsigned int vcpu = some_vcpu();
	uint32_t how = dice(3), gfn = dice(REF_PAGES);
	int64_t ret;

	if (how == 2 && ref.page[gfn].state != REF_NONE && ref.page[gfn].state != REF_RELEASED)
		how = 1;
	note(how == 2 ? "guest strays" : "guest ends", (struct ref_range){gfn, 1}, how);
	if (how == 2) {
		ret = guest_check(vcpu, gfn, 1, &ref.page[gfn].content, 0);
	} else {
		guest_call_begin(
			vcpu, how == 0 ? GUEST_CALL_REBOOT : GUEST_CALL_POWEROFF, arg, NULL, 0);
		ret = guest_wait(vcpu);
	}
	if (ret != GUEST_ENDED)
		model_die("the guest has not ended");
	world_exit(vcpu, how == 0   ? ABI_EXIT_REBOOT
			 : how == 1 ? ABI_EXIT_POWEROFF
				    : ABI_EXIT_STOPPED);
	ref_guest_stopped(&ref);
	after_stop();
}

/* ---- forgetting ---- */

/* Takes the answer to a PERFORM into account. */
static void note_performed(uint32_t seq, uint32_t status)
{
	const struct perform p = performs[0];

	if (performs_count == 0 || p.seq != seq)
		model_die("a perform is answered out of turn");
	note("performed", nowhere, status);
	if (status != ABI_ST_OK && (status != ABI_ST_CANCELLED || !p.may_be_cancelled))
		model_die("a perform ended with %u", status);
	performs_count--;
	memmove(&performs[0], &performs[1], performs_count * sizeof(performs[0]));
	if (status == ABI_ST_OK)
		left = LEFT_NONE;
	else
		left = p.overtaken ? LEFT_MAYBE : LEFT_SOME;
}

static void take_answers(bool all)
{
	uint32_t seq, status;

	while (performs_count > 0 && world_answer(all, &seq, &status))
		note_performed(seq, status);
}

static void do_prepare(void)
{
	const struct abi_none none = {0};
	struct abi_prepare_ret ret = {.incarnation = UINT64_MAX};
	uint64_t incarnation = ref.incarnation;
	uint32_t want = ref_prepare(&ref);

	expect("prepare", nowhere,
		world_call(ABI_CALL_PREPARE, &none, sizeof(none), &ret, sizeof(ret)), want);
	if (want != ABI_ST_OK)
		return;
	if (ret.incarnation != incarnation)
		model_die("incarnation %llu was set aside", (unsigned long long)ret.incarnation);
	world_slots_drop();
}

/* With others under way, what they leave for this one is not known. */
static void do_perform(void)
{
	bool must = ref.set_aside || (performs_count == 0 && left == LEFT_SOME);
	bool must_not = !ref.set_aside && performs_count == 0 && left == LEFT_NONE;
	uint32_t seq, status;

	if (performs_count == PERFORMS)
		return;
	status = world_perform(&seq);
	note("perform", nowhere, status);
	if (status != ABI_ST_OK && (status != ABI_ST_NOTHING || must))
		model_die("perform was refused with %u", status);
	if (status == ABI_ST_OK && must_not)
		model_die("perform found what is not there");
	if (status == ABI_ST_OK)
		performs[performs_count++] = (struct perform){.seq = seq};
	else
		left = performs_count == 0 ? LEFT_NONE : left;
	ref.set_aside = false;
}

static void do_cancel(void)
{
	uint32_t status = world_call0(ABI_CALL_CANCEL);

	note("cancel", nowhere, status);
	if (status != ABI_ST_NOTHING && (status != ABI_ST_OK || performs_count == 0))
		model_die("cancel was answered with %u", status);
	for (unsigned int i = 0; i < performs_count && status == ABI_ST_OK; i++)
		performs[i].may_be_cancelled = true;
}

/* Of a protected VM, it destroys also what was set aside or left, before it answers. */
static void do_reset(void)
{
	bool at_once = ref.security == REF_SECURE || ref.lazy_off;
	uint32_t want = ref_reset(&ref);

	expect("reset", nowhere, world_call0(ABI_CALL_RESET), want);
	if (want != ABI_ST_OK)
		return;
	world_slots_drop();
	if (at_once && performs_count == 0 && watch_any_private())
		model_die("a reset left private memory");
	if (at_once) {
		left = performs_count == 0 ? LEFT_NONE : left;
		for (unsigned int i = 0; i < performs_count; i++)
			performs[i].overtaken = true;
	}
}

static void do_info(void)
{
	static const uint32_t phases[] = {ABI_PHASE_SETUP, ABI_PHASE_RUNNING, ABI_PHASE_STOPPED};
	static const uint32_t securities[] = {ABI_SEC_NORMAL, ABI_SEC_TRANSIENT, ABI_SEC_SECURE};
	const struct abi_none none = {0};
	struct abi_info_ret ret = {0};
	uint64_t shared = 0;

	for (uint32_t i = 0; i < REF_PAGES; i++)
		shared += ref.page[i].state == REF_SHARED;
	expect("info", nowhere, world_call(ABI_CALL_INFO, &none, sizeof(none), &ret, sizeof(ret)),
		ABI_ST_OK);
	if (ret.phase != phases[ref.phase] || ret.security != securities[ref.security] ||
		ret.incarnation != ref.incarnation || ret.shared_pages != shared ||
		ret.quarantined_bytes != 0)
		model_die("info says phase %u, security %u, incarnation %llu, %llu pages shared",
			ret.phase, ret.security, (unsigned long long)ret.incarnation,
			(unsigned long long)ret.shared_pages);
}

static void do_check_hypervisor(void)
{
	note("hypervisor checks", nowhere, 0);
	check_hypervisor();
}

/* ---- sequences ---- */

/* How often each comes, in SETUP, RUNNING and STOPPED. */
static const struct {
	void (*function)(void);
	uint8_t weight[3];
} table[] = {
	{do_slot_add, {10, 3, 2}},
	{do_slot_delete, {2, 4, 3}},
	{do_scribble, {5, 2, 1}},
	{do_copy_out, {2, 3, 1}},
	{do_copy_in, {2, 2, 1}},
	{do_switch, {8, 0, 0}},
	{do_switch_step, {3, 0, 1}},
	{do_protect, {0, 6, 0}},
	{do_start, {12, 1, 1}},
	{do_stop, {1, 1, 1}},
	{do_guest_write, {0, 14, 0}},
	{do_guest_check, {0, 5, 0}},
	{do_guest_watch, {0, 1, 0}},
	{do_convert, {0, 14, 0}},
	{do_release, {0, 4, 0}},
	{do_unplug, {0, 2, 0}},
	{do_guest_end, {0, 6, 0}},
	{do_prepare, {3, 1, 14}},
	{do_perform, {5, 3, 5}},
	{do_cancel, {2, 1, 2}},
	{do_reset, {2, 1, 5}},
	{do_info, {1, 1, 1}},
	{do_check_hypervisor, {1, 1, 1}},
};

static void some_operation(void)
{
	uint32_t sum = 0, roll;
	size_t i;

	for (i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		sum += table[i].weight[ref.phase];
	roll = dice(sum);
	for (i = 0; roll >= table[i].weight[ref.phase]; i++)
		roll -= table[i].weight[ref.phase];
	table[i].function();
}

/* Until the sweeper has nothing left: the windows of all that was set aside are gone. */
static void wait_until_forgotten(void)
{
	const struct timespec pause = {.tv_nsec = 50000};
	unsigned int rounds = 0;

	while (watch_windows() != 0) {
		if (rounds++ == 1200000)
			model_die("%u windows are never destroyed", watch_windows());
		nanosleep(&pause, NULL);
	}
}

/* Leaves the VM as a new one: nothing is set aside, and nothing is remembered. */
static void settle(void)
{
	if (ref.phase == REF_RUNNING)
		do_guest_check();
	check_hypervisor();
	if (ref.phase == REF_RUNNING)
		stop();
	do_reset();
	while (ref.set_aside || performs_count > 0 || left != LEFT_NONE) {
		take_answers(true);
		if (ref.set_aside || left != LEFT_NONE)
			do_perform();
	}
	wait_until_forgotten();
	check_hypervisor();
	world_recycle();
}

static void begin_sequence(uint64_t number)
{
	uint64_t mixed = (seed * 0x9e3779b97f4a7c15 + block) * 0xbf58476d1ce4e5b9 + number;

	mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111eb;
	random_state = (mixed ^ mixed >> 31) | 1;
	sequence = number;
	operations = 0;
	token_base = token_next;
	memset(known, 0, sizeof(known));
}

static void run_sequence(uint64_t number, bool last)
{
	begin_sequence(number);
	do_slot_add();
	for (uint32_t n = 8 + dice(32); n > 0; n--) {
		some_operation();
		take_answers(false);
	}
	if (!last)
		settle();
}

/* The last sequence is cut off: the hypervisor is gone, whatever is under way. */
static void run_block(uint32_t sequences)
{
	static const uint32_t all_flags[] = {0, ABI_VM_SHARE_MAPPED, ABI_VM_LAZY_OFF,
		ABI_VM_WIPE_OFF, ABI_VM_SHARE_MAPPED | ABI_VM_DISCARD_EAGER, ABI_VM_SHARE_MAPPED, 0,
		ABI_VM_SHARE_MAPPED | ABI_VM_WIPE_OFF};

	flags = all_flags[block % (sizeof(all_flags) / sizeof(all_flags[0]))];
	ref = (struct ref){.lazy_off = (flags & ABI_VM_LAZY_OFF) != 0};
	watch_expect_wiping((flags & ABI_VM_WIPE_OFF) == 0);
	world_begin(flags);
	for (uint32_t i = 0; i < sequences; i++)
		run_sequence(i, i + 1 == sequences);
	world_end();
}

static void on_kick(int sig)
{
}

static int run_child(uint32_t sequences)
{
	const struct sigaction kick = {.sa_handler = on_kick};
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		log_setup("destroy_model", LOG_ERROR, NULL);
		sigaction(SIGUSR1, &kick, NULL);
		run_block(sequences);
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid) {
		perror("destroy_model");
		return 1;
	}
	if (status != 0)
		fprintf(stderr, "destroy_model: block %llu of seed %llu failed\n",
			(unsigned long long)block, (unsigned long long)seed);
	return status == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
	uint64_t sequences = argc > 1 ? strtoull(argv[1], NULL, 0) : SEQUENCES_DEFAULT;
	int ret = 0;

	seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
	if (argc > 3) {
		block = strtoull(argv[3], NULL, 0);
		return run_child((uint32_t)sequences);
	}
	for (block = 0; block * BLOCK < sequences && ret == 0; block++)
		ret = run_child(BLOCK);
	if (ret == 0)
		printf("%llu sequences, seed %llu\n", (unsigned long long)(block * BLOCK),
			(unsigned long long)seed);
	return ret;
}
