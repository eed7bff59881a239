/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reboot: the incarnation is set aside (or, where that is refused, destroyed at once), the
 * VM is filled again as at its creation, and its vCPUs go on.  Destruction of what was set
 * aside begins only after that: the guest waits for none of it.
 */
#include <errno.h>
#include <inttypes.h>

#include "base/log.h"
#include "os/clock.h"
#include "vmm/machine_state.h"

/* What becomes of the old incarnation. */
struct past {
	bool set_aside;
	uint64_t incarnation;
};

/* Whether @err of lethe_destroy_prepare() means: destroy it now instead. */
static bool means_reset(int err)
{
	return err == -EALREADY || err == -ENOMEM || err == -EOPNOTSUPP || err == -ENODATA;
}

static int set_aside(struct machine *machine, struct past *ret)
{
	uint64_t began = clock_ns();
	uint64_t incarnation, resident;
	int err = lethe_destroy_prepare(machine->vm, &incarnation, &resident);

	if (err)
		return err;
	timeline_event(machine->timeline, 0, "set-aside", "{s:I, s:I, s:I}", "duration_ns",
		clock_ns() - began, "incarnation", incarnation, "bytes", resident);
	*ret = (struct past){.set_aside = true, .incarnation = incarnation};
	return 0;
}

/* The old way: the memory of incarnation goes before this returns. */
static int destroy_now(struct machine *machine)
{
	struct lethe_destroy_result result = {0};
	struct lethe_info info = {0};
	int err;

	lethe_vm_info(machine->vm, &info);
	timeline_event(
		machine->timeline, 0, "destroy-start", "{s:I}", "incarnation", info.incarnation);
	err = lethe_vm_reset(machine->vm, &result);
	/* Quarantined memory stays out of use, the VM is empty all the same. */
	if (err == -EUCLEAN)
		err = 0;
	if (!err)
		forget_record(machine, info.incarnation, &result, false);
	return err;
}

static int leave_incarnation(struct machine *machine, struct past *ret, const char **ret_what)
{
	int err = set_aside(machine, ret);

	if (means_reset(err)) {
		*ret_what = "cannot destroy the old incarnation";
		err = destroy_now(machine);
	} else {
		*ret_what = "cannot set the old incarnation aside";
	}
	if (!err)
		memory_record_gone(machine);
	return err;
}

/* From here on, exits that are older belong to a past incarnation. */
static void begin_incarnation(struct machine *machine)
{
	pthread_mutex_lock(&machine->lock);
	machine->born_ns = clock_ns();
	machine->halted = 0;
	for (unsigned int i = 0; i < machine->config.program->vcpus; i++)
		machine->vcpus[i].halted = false;
	pthread_mutex_unlock(&machine->lock);
}

static void record_reboot(struct machine *machine, uint64_t asked_ns, uint64_t first_ns, bool eager)
{
	uint64_t duration = first_ns > asked_ns ? first_ns - asked_ns : 0;

	timeline_event(machine->timeline, first_ns, "reboot", "{s:I}", "duration_ns", duration);
	timeline_count(machine->timeline, TIMELINE_reboots, 1);
	timeline_count(machine->timeline, TIMELINE_eager_reboots, eager);
	log_info("%s: rebooted in %" PRIu64 " ns%s", lethe_vm_name(machine->vm), duration,
		eager ? ", the old memory destroyed first" : "");
	pthread_mutex_lock(&machine->lock);
	machine->costs.reboot.count++;
	machine->costs.reboot.eager += eager;
	machine->costs.reboot.guest_ns += duration;
	pthread_mutex_unlock(&machine->lock);
}

static int reboot_locked(struct machine *machine, uint64_t asked_ns, const char **ret_what)
{
	struct past past = {0};
	uint64_t first_ns;
	int err;

	err = leave_incarnation(machine, &past, ret_what);
	if (err)
		return err;
	err = machine_populate(machine, ret_what);
	if (err)
		return err;
	begin_incarnation(machine);
	err = lethe_vm_start(machine->vm, &first_ns);
	if (err) {
		*ret_what = "cannot start the next incarnation";
		return err;
	}
	record_reboot(machine, asked_ns, first_ns, !past.set_aside);
	if (past.set_aside) {
		*ret_what = "cannot begin to destroy the old incarnation";
		err = forget_begin(machine, past.incarnation);
	}
	return err;
}

void machine_reboot(struct machine *machine, uint64_t asked_ns)
{
	const char *what;
	int err = 0;

	pthread_mutex_lock(&machine->life);
	if (!machine_has_ended(machine))
		err = reboot_locked(machine, asked_ns, &what);
	pthread_mutex_unlock(&machine->life);
	if (err)
		machine_fail(machine, what, err);
}
