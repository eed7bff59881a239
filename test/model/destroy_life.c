/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Operations of the model test: what the guest does, from its start to its end. */
#include "abi/guestcall.h"
#include "test/model/destroy_guest.h"
#include "test/model/destroy_model.h"
#include "test/model/destroy_watch.h"
#include "test/model/destroy_world.h"

void do_start(void)
{
	expect("start", nowhere, world_call0(ABI_CALL_VM_START), ref_start(&ref));
}

void do_stop(void)
{
	stop();
}

void do_guest_write(void)
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

void do_guest_check(void)
{
	note("guest checks", nowhere, 0);
	check_guest();
}

void do_guest_watch(void)
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

void do_convert(void)
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

void do_release(void)
{
	release(some_range(8));
}

/* A whole slot is given up, goes, and sometimes comes back at once. */
void do_unplug(void)
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
void do_guest_end(void)
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
