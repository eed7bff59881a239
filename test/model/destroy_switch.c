/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Operations of the model test: a normal VM becomes a protected one, in steps. */
#include "abi/guestcall.h"
#include "test/model/destroy_guest.h"
#include "test/model/destroy_model.h"
#include "test/model/destroy_world.h"

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

void do_switch_step(void)
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
void do_switch(void)
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

void stop(void)
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
void do_protect(void)
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
