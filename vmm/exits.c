/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Serving a vCPU: one row of a table for each thing it can ask. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/log.h"
#include "vmm/dma.h"
#include "vmm/linux.h"
#include "vmm/machine_state.h"

typedef void (*exit_fn)(struct vcpu *vcpu, struct lethe_exit *exit);

static void on_closed(struct vcpu *vcpu, struct lethe_exit *exit)
{
	/* Either the run has ended, or the ultravisor went without a word. */
	machine_end(vcpu->machine, MACHINE_DIED);
}

static void on_print(struct vcpu *vcpu, struct lethe_exit *exit)
{
	FILE *console = vcpu->machine->config.console;

	if (!console)
		return;
	progress_hide(&vcpu->machine->progress);
	flockfile(console);
	fwrite(exit->text, 1, strnlen(exit->text, sizeof(exit->text)), console);
	fputc('\n', console);
	fflush(console);
	funlockfile(console);
}

static void on_protect(struct vcpu *vcpu, struct lethe_exit *exit)
{
	if (vcpu->machine->config.protect == MACHINE_PROTECT_OFF)
		exit->reply = -EPERM;
	else
		exit->reply = machine_protect(vcpu->machine, exit->ranges, exit->count);
}

static void on_convert(struct vcpu *vcpu, struct lethe_exit *exit)
{
	struct machine *machine = vcpu->machine;

	timeline_conversion(machine->timeline, exit->gpa, exit->bytes, exit->to_shared);
	/* As soon as there are events enough, without asking. */
	if (machine_set_policy(machine) != 0)
		log_debug("conversions still ask: %s", lethe_error());
}

static void on_release(struct vcpu *vcpu, struct lethe_exit *exit)
{
	timeline_count(vcpu->machine->timeline, TIMELINE_released_bytes, exit->bytes);
}

/* Adds the time since the transfer before, if this one follows it directly. */
static void record_transfer(struct vcpu *vcpu, const struct lethe_exit *exit)
{
	struct machine *machine = vcpu->machine;

	if (vcpu->dma_ns && vcpu->dma_gpa == exit->gpa && vcpu->dma_bytes == exit->bytes) {
		pthread_mutex_lock(&machine->lock);
		machine->costs.dma.count++;
		machine->costs.dma.guest_ns += exit->time_ns - vcpu->dma_ns;
		machine->costs.dma.bytes = exit->bytes;
		pthread_mutex_unlock(&machine->lock);
	}
	vcpu->dma_ns = exit->time_ns;
	vcpu->dma_gpa = exit->gpa;
	vcpu->dma_bytes = exit->bytes;
}

static void on_dma(struct vcpu *vcpu, struct lethe_exit *exit)
{
	struct machine *machine = vcpu->machine;

	exit->reply = dma_serve(&vcpu->dma, machine->vm, exit);
	if (exit->reply) {
		timeline_count(machine->timeline, TIMELINE_dma_refused, 1);
		return;
	}
	timeline_count(machine->timeline, TIMELINE_dma_transfers, 1);
	timeline_count(machine->timeline, TIMELINE_dma_bytes, exit->bytes);
	record_transfer(vcpu, exit);
}

static void on_reboot(struct vcpu *vcpu, struct lethe_exit *exit)
{
	machine_reboot(vcpu->machine, exit->time_ns);
}

static void power_off(struct machine *machine, uint64_t asked_ns)
{
	if (!machine_end(machine, MACHINE_POWEROFF))
		return;
	pthread_mutex_lock(&machine->lock);
	machine->poweroff_ns = asked_ns;
	pthread_mutex_unlock(&machine->lock);
	timeline_event(machine->timeline, asked_ns, "poweroff", NULL);
}

static void on_poweroff(struct vcpu *vcpu, struct lethe_exit *exit)
{
	power_off(vcpu->machine, exit->time_ns);
}

/* Names and advice for enum lethe_stop. */
static const struct {
	const char *name;
	const char *advice;
} stop_words[] = {
	[LETHE_STOP_CHECK] = {"failed check", "memory is not what the workload expects"},
	[LETHE_STOP_VIOLATION] = {"violation", "find the access with --timeline FILE"},
	[LETHE_STOP_LOST_PAGE] = {"lost page", "look at what happened to the page store"},
	[LETHE_STOP_GUEST] = {"the guest cannot go on", "correct the workload or the options"},
	[LETHE_STOP_HOST] = {"host failure", "see the kernel's log"},
};

/* Makes text of a guest fit for a log line and for JSON. */
static void clean_text(char *text, size_t size)
{
	text[size - 1] = '\0';
	for (char *c = text; *c; c++) {
		if (*c < ' ' || *c > '~')
			*c = '?';
	}
}

static void on_stopped(struct vcpu *vcpu, struct lethe_exit *exit)
{
	struct machine *machine = vcpu->machine;
	unsigned int stop = exit->stop;

	if (!machine_end(machine, MACHINE_STOPPED))
		return;
	if (stop < LETHE_STOP_CHECK || stop > LETHE_STOP_HOST)
		stop = LETHE_STOP_HOST;
	clean_text(exit->text, sizeof(exit->text));
	timeline_event(machine->timeline, exit->time_ns, "violation", "{s:I, s:s, s:s}", "gpa",
		exit->gpa, "kind", stop_words[stop].name, "reason", exit->text);
	log_error("the ultravisor stopped the guest: %s: %s (%s)", stop_words[stop].name,
		exit->text, stop_words[stop].advice);
}

/* A machine of which every vCPU has nothing left to do powers itself off. */
static void on_halted(struct vcpu *vcpu, struct lethe_exit *exit)
{
	struct machine *machine = vcpu->machine;
	bool all;

	pthread_mutex_lock(&machine->lock);
	if (exit->time_ns >= machine->born_ns && !vcpu->halted) {
		vcpu->halted = true;
		machine->halted++;
	}
	all = machine->halted == machine->config.program->vcpus;
	pthread_mutex_unlock(&machine->lock);
	if (all)
		power_off(machine, exit->time_ns);
}

/* No device is at any port or address: writes go nowhere, reads give all ones. */
static void on_no_device(struct vcpu *vcpu, struct lethe_exit *exit)
{
	exit->reply_value = exit->is_write ? LETHE_ACTION_NONE : UINT64_MAX;
}

/* A workload knows of no devices: this is memory that is not there. */
static void on_mmio(struct vcpu *vcpu, struct lethe_exit *exit)
{
	struct machine *machine = vcpu->machine;

	on_no_device(vcpu, exit);
	if (machine->config.linux_guest || !machine_end(machine, MACHINE_STOPPED))
		return;
	timeline_event(machine->timeline, exit->time_ns, "violation", "{s:I, s:s, s:s}", "gpa",
		exit->gpa, "kind", stop_words[LETHE_STOP_VIOLATION].name, "reason",
		"an access where there is no memory");
	log_error("the guest was stopped: vCPU %u accessed 0x%" PRIx64 ", where there is no "
		  "memory (add it before it is used)",
		vcpu->index, exit->gpa);
}

static void on_port(struct vcpu *vcpu, struct lethe_exit *exit)
{
	struct linux_guest *linux_guest = vcpu->machine->config.linux_guest;

	if (linux_guest)
		linux_port(linux_guest, exit);
	else
		on_no_device(vcpu, exit);
}

static const exit_fn exit_handler[] = {
	[LETHE_EXIT_CLOSED] = on_closed,
	[LETHE_EXIT_PRINT] = on_print,
	[LETHE_EXIT_PROTECT] = on_protect,
	[LETHE_EXIT_CONVERT] = on_convert,
	[LETHE_EXIT_RELEASE] = on_release,
	[LETHE_EXIT_DMA] = on_dma,
	[LETHE_EXIT_REBOOT] = on_reboot,
	[LETHE_EXIT_POWEROFF] = on_poweroff,
	[LETHE_EXIT_STOPPED] = on_stopped,
	[LETHE_EXIT_HALTED] = on_halted,
	[LETHE_EXIT_PIO] = on_port,
	[LETHE_EXIT_MMIO] = on_mmio,
};

static void serve(struct vcpu *vcpu, struct lethe_exit *exit)
{
	unsigned int type = exit->type;

	/* Only share, transfer, unshare, share ... is one run of transfers. */
	if (type != LETHE_EXIT_DMA && type != LETHE_EXIT_CONVERT)
		vcpu->dma_ns = 0;
	exit->reply = 0;
	exit->reply_value = 0;
	if (type < sizeof(exit_handler) / sizeof(exit_handler[0]) && exit_handler[type])
		exit_handler[type](vcpu, exit);
}

void *vcpu_main(void *arg)
{
	struct lethe_exit exit = {0};
	struct vcpu *vcpu = arg;
	int err;

	do {
		err = lethe_vcpu_run(vcpu->machine->vm, vcpu->index, &exit);
		if (err)
			machine_fail(vcpu->machine, "cannot run a vCPU", err);
		else
			serve(vcpu, &exit);
	} while (!err && exit.type != LETHE_EXIT_CLOSED);
	dma_free(&vcpu->dma);
	return NULL;
}
