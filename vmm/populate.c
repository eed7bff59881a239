/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Filling a VM before its first instruction: at creation and after every reboot. */
#include <inttypes.h>

#include "abi/guestcall.h"
#include "base/log.h"
#include "vmm/kvm_guest.h"
#include "vmm/linux.h"
#include "vmm/machine_state.h"

#define MEMORY_SLOT 0

/* Hexadecimal of a measurement, with its NUL. */
#define HEX_BYTES (2 * LETHE_MEASUREMENT_SIZE + 1)

static void format_measurement(const uint8_t *measurement, char hex[HEX_BYTES])
{
	for (int i = 0; i < LETHE_MEASUREMENT_SIZE; i++)
		snprintf(hex + 2 * i, 3, "%02x", measurement[i]);
}

static void record_protect(struct machine *machine, const struct lethe_protect_result *result)
{
	struct costs *costs = &machine->costs;
	char hex[HEX_BYTES];

	format_measurement(result->measurement, hex);
	timeline_event(machine->timeline, 0, "protect", "{s:I, s:I, s:I, s:s}", "duration_ns",
		result->duration_ns, "pages_copied", result->pages_copied, "pages_secured",
		result->pages_secured, "measurement", hex);
	log_info("%s: protected: %" PRIu64 " pages copied, %" PRIu64 " made secure, "
		 "measurement %s",
		lethe_vm_name(machine->vm), result->pages_copied, result->pages_secured, hex);
	pthread_mutex_lock(&machine->lock);
	costs->protect.count++;
	costs->protect.guest_ns += result->duration_ns;
	costs->protect.pages_copied += result->pages_copied;
	costs->protect.pages_secured += result->pages_secured;
	pthread_mutex_unlock(&machine->lock);
}

int machine_protect(struct machine *machine, const struct lethe_range *necessary, size_t count)
{
	struct lethe_protect_result result;
	int err = lethe_vm_protect(machine->vm, necessary, count, &result);

	if (!err)
		record_protect(machine, &result);
	return err;
}

static int populate_workload(struct machine *machine, const char **ret_what)
{
	const struct program *program = machine->config.program;
	uint64_t bytes = program->memory_bytes;
	int err;

	*ret_what = "cannot give the VM its memory";
	err = memory_add_slot(machine, MEMORY_SLOT, 0, bytes, false);
	if (err)
		return err;
	*ret_what = "cannot load the workload";
	err = lethe_vm_load(machine->vm, GUEST_TEXT_GPA, program->image, program->image_bytes);
	if (!err && lethe_vm_executor(machine->vm) == LETHE_EXECUTOR_KVM)
		err = kvm_guest_load(machine->vm, program);
	return err;
}

/* What a guest that is secure from its first instruction must keep. */
static int protect_at_boot(struct machine *machine)
{
	static const struct lethe_range low = {.gpa = 0, .bytes = GUEST_LOW_END};
	const struct lethe_range *necessary = &low;
	size_t count = 1;

	if (machine->config.linux_guest)
		necessary = linux_pages(machine->config.linux_guest, &count);
	return machine_protect(machine, necessary, count);
}

int machine_set_policy(struct machine *machine)
{
	static const struct lethe_range all = {.gpa = 0, .bytes = (uint64_t)1 << 48};

	if (machine->config.discard_eager || timeline_wants_conversions(machine->timeline))
		return 0;
	return lethe_vm_set_policy(machine->vm, &all, 1, UINT64_MAX);
}

int machine_populate(struct machine *machine, const char **ret_what)
{
	struct linux_guest *linux_guest = machine->config.linux_guest;
	int err;

	if (linux_guest)
		err = linux_populate(linux_guest, machine, ret_what);
	else
		err = populate_workload(machine, ret_what);
	if (!err) {
		*ret_what = "cannot give the VM the memory that was added";
		err = memory_add_again(machine);
	}
	if (!err) {
		*ret_what = "cannot allow conversions";
		err = machine_set_policy(machine);
	}
	if (!err && machine->config.protect == MACHINE_PROTECT_BOOT) {
		*ret_what = "cannot protect the VM";
		err = protect_at_boot(machine);
	}
	return err;
}
