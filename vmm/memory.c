/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memslots: those that the VM begins with, and those that are added and removed while it
 * runs.  What was added stays over reboots, at its place and empty, until it is removed.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/checked.h"
#include "base/log.h"
#include "vmm/linux.h"
#include "vmm/machine_state.h"

/* Memory is added where large pages fit; to Linux in its blocks, the smallest it takes. */
#define ALIGN_WORKLOAD SIZE_2M
#define ALIGN_LINUX    ((uint64_t)128 << 20)

static void record(struct machine *machine, const char *event, unsigned int id)
{
	const struct memory_slot *slot = &machine->slot[id];

	timeline_event(machine->timeline, 0, event, "{s:i, s:I, s:I}", "slot", (int)id, "gpa",
		(json_int_t)slot->gpa, "bytes", (json_int_t)slot->bytes);
}

int memory_add_slot(
	struct machine *machine, unsigned int id, uint64_t gpa, uint64_t bytes, bool added)
{
	int err = lethe_slot_add(machine->vm, id, gpa, bytes);

	if (err)
		return err;
	machine->slot[id] =
		(struct memory_slot){.used = true, .added = added, .gpa = gpa, .bytes = bytes};
	record(machine, "memslot-add", id);
	return 0;
}

void memory_record_gone(struct machine *machine)
{
	for (unsigned int i = 0; i < MEMORY_SLOTS; i++) {
		if (machine->slot[i].used)
			record(machine, "memslot-delete", i);
	}
}

int memory_add_again(struct machine *machine)
{
	int err = 0;

	for (unsigned int i = 0; i < MEMORY_SLOTS && !err; i++) {
		const struct memory_slot *slot = &machine->slot[i];

		if (slot->used && slot->added)
			err = memory_add_slot(machine, i, slot->gpa, slot->bytes, true);
	}
	return err;
}

/* Says why in *@why, and returns @err. */
__attribute__((format(printf, 4, 5))) static int refuse(
	struct refusal *why, int err, const char *todo, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(why->why, sizeof(why->why), format, args);
	va_end(args);
	why->todo = todo;
	return err;
}

/* ---- adding ---- */

/* The end of the highest memory, rounded up. */
static uint64_t choose_gpa(const struct machine *machine)
{
	const struct linux_guest *linux_guest = machine->config.linux_guest;
	uint64_t align = linux_guest ? ALIGN_LINUX : ALIGN_WORKLOAD;
	uint64_t end = linux_guest ? linux_hotplug_gpa() : 0;

	for (unsigned int i = 0; i < MEMORY_SLOTS; i++) {
		const struct memory_slot *slot = &machine->slot[i];

		if (slot->used && slot->gpa + slot->bytes > end)
			end = slot->gpa + slot->bytes;
	}
	return align_down(end + align - 1, align);
}

static int check_range(
	const struct machine *machine, uint64_t gpa, uint64_t bytes, struct refusal *why)
{
	struct gfn_range range;
	int err = checked_gfn_range(gpa, bytes, &range);

	if (err == -ERANGE)
		return refuse(why, err, "give less, or another address",
			"0x%" PRIx64 " bytes at 0x%" PRIx64 " end beyond 256T", bytes, gpa);
	if (err)
		return refuse(why, err, "give multiples of 4K",
			"0x%" PRIx64 " bytes at 0x%" PRIx64 " are not whole pages", bytes, gpa);
	if (machine->config.linux_guest && !linux_may_be_memory(gpa, bytes))
		return refuse(why, -EEXIST, "give an address from 4G",
			"from 3G to 4G this machine has its devices");
	for (unsigned int i = 0; i < MEMORY_SLOTS; i++) {
		const struct memory_slot *slot = &machine->slot[i];

		if (slot->used && gpa < slot->gpa + slot->bytes && slot->gpa < gpa + bytes)
			return refuse(why, -EEXIST, "give another address, or none",
				"at 0x%" PRIx64 " is memory already: slot %u", slot->gpa, i);
	}
	return 0;
}

static int find_free(const struct machine *machine, unsigned int *ret, struct refusal *why)
{
	unsigned int i = 0;

	while (i < MEMORY_SLOTS && machine->slot[i].used)
		i++;
	if (i == MEMORY_SLOTS)
		return refuse(why, -ENOSPC, "remove some, then add more at once",
			"all %u memslots are in use", MEMORY_SLOTS);
	*ret = i;
	return 0;
}

static int refuse_ended(struct refusal *why)
{
	return refuse(why, -ESHUTDOWN, "see lethe ps", "its guest has ended");
}

int memory_add(struct machine *machine, uint64_t bytes, const uint64_t *at, unsigned int *ret_id,
	struct refusal *why)
{
	uint64_t gpa = at ? *at : choose_gpa(machine);
	unsigned int id = 0;
	int err;

	if (machine_has_ended(machine))
		return refuse_ended(why);
	err = check_range(machine, gpa, bytes, why);
	if (!err)
		err = find_free(machine, &id, why);
	if (err)
		return err;
	err = memory_add_slot(machine, id, gpa, bytes, true);
	if (err)
		return refuse(why, err,
			err == -ENOMEM ? "free some memory, or add less" : "see lethe ps", "%s",
			lethe_error());
	log_info("%s: slot %u added: 0x%" PRIx64 " bytes at 0x%" PRIx64, lethe_vm_name(machine->vm),
		id, bytes, gpa);
	*ret_id = id;
	return 0;
}

/* ---- removing ---- */

static int check_removable(const struct machine *machine, unsigned int id, struct refusal *why)
{
	if (id >= MEMORY_SLOTS || !machine->slot[id].used)
		return refuse(why, -ENOENT, "see lethe memory list", "it has no slot %u", id);
	if (!machine->slot[id].added)
		return refuse(why, -EPERM, "remove what was added",
			"slot %u is what the VM began with", id);
	return 0;
}

int memory_remove(struct machine *machine, unsigned int id, struct refusal *why)
{
	int err;

	if (machine_has_ended(machine))
		return refuse_ended(why);
	err = check_removable(machine, id, why);
	if (err)
		return err;
	err = lethe_slot_remove(machine->vm, id);
	if (err == -EBUSY && !lethe_vm_is_protected(machine->vm))
		return refuse(why, err, "let it turn secure and release it",
			"slot %u is memory of a guest that runs and is not secure", id);
	if (err == -EBUSY)
		return refuse(why, err, "let the guest release the rest",
			"the guest has not released all of slot %u", id);
	if (err)
		return refuse(why, err, "see lethe ps", "%s", lethe_error());
	record(machine, "memslot-delete", id);
	log_info("%s: slot %u removed", lethe_vm_name(machine->vm), id);
	machine->slot[id].used = false;
	return 0;
}
