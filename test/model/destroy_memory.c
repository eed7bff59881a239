/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Operations of the model test: memory comes, goes and is written to by the hypervisor. */
#include <string.h>

#include "test/model/destroy_guest.h"
#include "test/model/destroy_model.h"
#include "test/model/destroy_watch.h"
#include "test/model/destroy_world.h"

void slot_add(uint32_t id, struct ref_range r)
{
	expect("slot add", r, world_slot_add(id, r), ref_slot_add(&ref, id, r));
}

void do_slot_add(void)
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

void slot_delete(uint32_t id)
{
	const struct abi_slot args = {.id = id};
	struct ref_range r = ref.slot[id];
	uint32_t want = ref_slot_delete(&ref, id);

	expect("slot delete", r, world_call(ABI_CALL_SLOT_UNREGISTER, &args, sizeof(args), NULL, 0),
		want);
	if (want == ABI_ST_OK)
		world_slot_drop(id);
}

void do_slot_delete(void)
{
	slot_delete(some_slot());
}

/* The hypervisor writes to memory of its own, whatever that is to the guest. */
void do_scribble(void)
{
	struct ref_range r = some_range(1);
	int id = ref_slot_of(&ref, r);
	uint64_t token = new_tokens(1);

	if (id < 0 || token == 0 || is_watched(r))
		return;
	/* Where the ultravisor chooses how to share, what this changes is not known. */
	if (ref.page[r.first].state == REF_SHARED && (vm_flags & ABI_VM_SHARE_AUTO) != 0)
		return;
	note("scribble", r, 0);
	for (uint32_t i = 0; i < 512; i++)
		world_page((uint32_t)id, r.first)[i] = guest_word(token, i);
	make_known(token);
	if (is_in_sight(&ref.page[r.first]))
		ref.page[r.first].content = token;
}

void do_copy_out(void)
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

void do_copy_in(void)
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
