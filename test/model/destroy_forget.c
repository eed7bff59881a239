/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Operations of the model test: setting aside, destroying, cancelling, and looking at it. */
#include <string.h>

#include "test/model/destroy_model.h"
#include "test/model/destroy_watch.h"
#include "test/model/destroy_world.h"

#define PERFORMS 32u

/* PERFORMs that are not answered yet, in the order in which they were called. */
static struct perform {
	uint32_t seq;
	bool may_be_cancelled;
	bool overtaken; /* a RESET may have destroyed what it left */
} performs[PERFORMS];
static unsigned int performs_count;

/* Whether a cancelled destruction waits to be finished. */
static enum { LEFT_NONE, LEFT_MAYBE, LEFT_SOME } left;

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

void take_answers(bool all)
{
	uint32_t seq, status;

	while (performs_count > 0 && world_answer(all, &seq, &status))
		note_performed(seq, status);
}

void do_prepare(void)
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
void do_perform(void)
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

void do_cancel(void)
{
	uint32_t status = world_call0(ABI_CALL_CANCEL);

	note("cancel", nowhere, status);
	if (status != ABI_ST_NOTHING && (status != ABI_ST_OK || performs_count == 0))
		model_die("cancel was answered with %u", status);
	for (unsigned int i = 0; i < performs_count && status == ABI_ST_OK; i++)
		performs[i].may_be_cancelled = true;
}

/* Of a protected VM, it destroys also what was set aside or left, before it answers. */
void do_reset(void)
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

void do_info(void)
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

void do_check_hypervisor(void)
{
	note("hypervisor checks", nowhere, 0);
	check_hypervisor();
}

void finish_forgetting(void)
{
	while (ref.set_aside || performs_count > 0 || left != LEFT_NONE) {
		take_answers(true);
		if (ref.set_aside || left != LEFT_NONE)
			do_perform();
	}
}
