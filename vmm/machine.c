/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/machine.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "os/clock.h"
#include "vmm/linux.h"
#include "vmm/machine_state.h"
#include "vmm/notify.h"
#include "vmm/page_store.h"

/* How long the kernel may take to tell how a process ended whose end was noticed. */
#define DEATH_WAIT_MS 2000

bool machine_end(struct machine *machine, int status)
{
	uint64_t one = 1;
	bool decided;

	pthread_mutex_lock(&machine->lock);
	decided = !machine->ended;
	if (decided) {
		machine->ended = true;
		machine->status = status;
	}
	pthread_mutex_unlock(&machine->lock);
	/* Whoever decides the end may have something to say. */
	progress_hide(&machine->progress);
	/* Cannot fail: an eventfd takes 2^64 - 1 of these. */
	if (decided && write(machine->end_fd, &one, sizeof(one)) != sizeof(one))
		log_error("cannot wake the main thread: %s", strerror(errno));
	return decided;
}

static int status_of(struct machine *machine)
{
	int status;

	pthread_mutex_lock(&machine->lock);
	status = machine->status;
	pthread_mutex_unlock(&machine->lock);
	return status;
}

bool machine_has_ended(struct machine *machine)
{
	bool ended;

	pthread_mutex_lock(&machine->lock);
	ended = machine->ended;
	pthread_mutex_unlock(&machine->lock);
	return ended;
}

/* What a user can do about @err of the library. */
static const char *advice(int err)
{
	switch (-err) {
	case EEXIST:
		return "choose another --name, or see lethe ps";
	case ENOENT:
		return "put lethe-uv beside lethe, or install both";
	case ENOTDIR:
		return "name a directory of your own in LETHE_RUNTIME_DIR";
	case ENOSPC:
		return "make room on that disk";
	case EPROTONOSUPPORT:
		return "install lethe and lethe-uv of one version";
	case EOPNOTSUPP:
		return "see lethe capabilities";
	case ENOMEM:
		return "give it less --memory, or free some";
	case EMFILE:
	case ENFILE:
		return "raise the limit of open files";
	case EFBIG:
		return "raise the limit of file sizes, ulimit -f";
	case EPIPE:
		return "the ultravisor died: run it again";
	case EAGAIN:
		return "raise the limit of processes";
	default:
		return "see lethe capabilities, or run with -v";
	}
}

void machine_fail(struct machine *machine, const char *what, int err)
{
	if (err == -EPIPE)
		machine_end(machine, MACHINE_DIED);
	else if (machine_end(machine, MACHINE_FAILED))
		log_error("%s: %s (%s)", what, lethe_error(), advice(err));
}

static const char *executor_name(enum lethe_executor executor)
{
	return executor == LETHE_EXECUTOR_KVM ? "kvm" : "sw";
}

static int create_vm(struct machine *machine)
{
	const struct machine_config *config = &machine->config;
	const struct lethe_vm_config vm_config = {
		.name = config->name,
		.vcpus = config->program->vcpus,
		.executor = config->executor,
		.share = config->share,
		.lazy_off = config->lazy_off,
		.wipe_off = config->wipe_off,
		.discard_eager = config->discard_eager,
		.pc = config->linux_guest != NULL,
	};
	int err = lethe_vm_new(&vm_config, &machine->vm);

	if (err) {
		log_error("cannot create the VM: %s (%s)", lethe_error(), advice(err));
		return err;
	}
	snprintf(machine->name, sizeof(machine->name), "%s", lethe_vm_name(machine->vm));
	timeline_describe(machine->timeline, lethe_vm_name(machine->vm),
		config->program->memory_bytes, config->program->vcpus,
		executor_name(lethe_vm_executor(machine->vm)));
	log_info("%s: created, ultravisor %d, executor %s: %s", lethe_vm_name(machine->vm),
		(int)lethe_vm_uv_pid(machine->vm), executor_name(lethe_vm_executor(machine->vm)),
		lethe_vm_executor_reason(machine->vm));
	timeline_event(machine->timeline, 0, "create", "{s:i}", "uv_pid",
		(int)lethe_vm_uv_pid(machine->vm));
	return 0;
}

static int allocate(
	const struct machine_config *config, struct timeline *timeline, struct machine **ret)
{
	struct machine *machine = calloc(1, sizeof(*machine));
	pthread_condattr_t monotonic;

	if (!machine)
		return -ENOMEM;
	machine->config = *config;
	machine->timeline = timeline;
	machine->costs.memory_bytes = config->program->memory_bytes;
	machine->costs.wiped = !config->wipe_off;
	machine->vcpus = calloc(config->program->vcpus, sizeof(*machine->vcpus));
	machine->end_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!machine->vcpus || machine->end_fd < 0) {
		int err = machine->vcpus ? -errno : -ENOMEM;

		if (machine->end_fd >= 0)
			close(machine->end_fd);
		free(machine->vcpus);
		free(machine);
		return err;
	}
	pthread_mutex_init(&machine->life, NULL);
	pthread_mutex_init(&machine->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&machine->forgotten, &monotonic);
	pthread_condattr_destroy(&monotonic);
	progress_init(&machine->progress, config->progress, forget_left, machine);
	*ret = machine;
	return 0;
}

static int attach_page_store(struct machine *machine)
{
	struct lethe_page_store **from = machine->config.page_store, *store;
	int err;

	if (!from || !*from)
		return 0;
	err = page_store_recorded(*from, machine->timeline, &store);
	if (!err) {
		*from = NULL;
		err = lethe_vm_set_page_store(machine->vm, store);
		if (err)
			store->close(store);
	}
	if (err)
		log_error("cannot use the page store: %s (%s)", strerror(-err), advice(err));
	return err;
}

/* While this process may still write to a runtime directory of root's. */
static int make_control(struct machine *machine)
{
	int err = control_new(lethe_vm_folder(machine->vm), &machine->control);

	if (err)
		log_error("cannot make the control socket: %s (see the runtime directory %s)",
			strerror(-err), lethe_vm_folder(machine->vm));
	return err;
}

int machine_new(
	const struct machine_config *config, struct timeline *timeline, struct machine **ret)
{
	struct machine *machine = NULL;
	const char *what;
	int err;

	err = allocate(config, timeline, &machine);
	if (err) {
		log_error("cannot create the VM: %s (%s)", strerror(-err), advice(err));
		return err;
	}
	err = create_vm(machine);
	if (!err) {
		err = machine_populate(machine, &what);
		if (err)
			log_error("%s: %s (%s)", what, lethe_error(), advice(err));
	}
	if (!err)
		err = attach_page_store(machine);
	if (!err)
		err = make_control(machine);
	if (err) {
		machine_free(machine);
		return err;
	}
	*ret = machine;
	return 0;
}

void machine_free(struct machine *machine)
{
	if (!machine)
		return;
	control_free(machine->control);
	if (machine->vm)
		lethe_vm_close(machine->vm, false);
	progress_fini(&machine->progress);
	close(machine->end_fd);
	pthread_cond_destroy(&machine->forgotten);
	pthread_mutex_destroy(&machine->lock);
	pthread_mutex_destroy(&machine->life);
	free(machine->vcpus);
	free(machine);
}

const struct costs *machine_costs(const struct machine *machine)
{
	return &machine->costs;
}

/* Starts the guest and a thread for each of its vCPUs. */
static void start(struct machine *machine)
{
	struct linux_guest *linux_guest = machine->config.linux_guest;
	int err;

	if (linux_guest && linux_attach(linux_guest, machine) != 0) {
		machine_end(machine, MACHINE_FAILED);
		return;
	}
	err = control_start(machine->control, commands_perform, machine);
	if (err) {
		if (machine_end(machine, MACHINE_FAILED))
			log_error("cannot serve the control socket: %s (%s)", strerror(-err),
				advice(err));
		return;
	}
	err = lethe_vm_start(machine->vm, NULL);
	if (err) {
		machine_fail(machine, "cannot start the VM", err);
		return;
	}
	while (machine->vcpu_count < machine->config.program->vcpus) {
		struct vcpu *vcpu = &machine->vcpus[machine->vcpu_count];

		vcpu->machine = machine;
		vcpu->index = machine->vcpu_count;
		err = pthread_create(&vcpu->thread, NULL, vcpu_main, vcpu);
		if (err) {
			if (machine_end(machine, MACHINE_FAILED))
				log_error("cannot start a vCPU: %s (%s)", strerror(err),
					advice(-err));
			return;
		}
		machine->vcpu_count++;
	}
}

/* Waits until the end is decided, by the guest, a signal or the ultravisor's death. */
static void wait_for_end(struct machine *machine, int signal_fd)
{
	struct pollfd fds[] = {
		{.fd = machine->end_fd, .events = POLLIN},
		{.fd = signal_fd, .events = POLLIN},
		{.fd = lethe_vm_death_fd(machine->vm), .events = POLLIN},
	};
	struct signalfd_siginfo signal;

	while (!machine_has_ended(machine)) {
		if (poll(fds, 3, -1) < 0)
			continue;
		if (fds[0].revents)
			return;
		if ((fds[1].revents & POLLIN) &&
			read(signal_fd, &signal, sizeof(signal)) == sizeof(signal))
			machine_end(machine, 128 + (int)signal.ssi_signo);
		else if (fds[2].revents)
			machine_end(machine, MACHINE_DIED);
	}
}

/* A descriptor that becomes readable when the ultravisor has ended, or -1. */
static int open_uv(const struct machine *machine)
{
	return (int)syscall(SYS_pidfd_open, lethe_vm_uv_pid(machine->vm), 0);
}

/*
 * Says how the ultravisor died.  Its socket closes a little before it can be waited for,
 * and without its end, if it closed the socket itself.
 */
static void report_death(struct machine *machine)
{
	static const char todo[] = "the guest is lost: run it again";
	struct pollfd end = {.fd = open_uv(machine), .events = POLLIN};
	int status;

	if (end.fd >= 0) {
		poll(&end, 1, DEATH_WAIT_MS);
		close(end.fd);
	}
	if (lethe_vm_uv_status(machine->vm, &status) != 0)
		log_error("the ultravisor died: it closed its socket (%s)", todo);
	else if (WIFSIGNALED(status))
		log_error("the ultravisor died: killed by signal %d (%s)", WTERMSIG(status), todo);
	else
		log_error("the ultravisor died: exit status %d (%s)", WEXITSTATUS(status), todo);
}

static void stop_vcpus(struct machine *machine)
{
	/* Under life, so that no reboot starts them again. */
	pthread_mutex_lock(&machine->life);
	lethe_vm_stop(machine->vm);
	pthread_mutex_unlock(&machine->life);
	for (unsigned int i = 0; i < machine->vcpu_count; i++)
		pthread_join(machine->vcpus[i].thread, NULL);
	machine->vcpu_count = 0;
}

/* Conversions that did not ask are counted by the ultravisor. */
static void count_conversions(struct machine *machine)
{
	struct lethe_info info = {0};

	if (lethe_vm_info(machine->vm, &info) != 0)
		return;
	timeline_count(machine->timeline, TIMELINE_shares, info.policy_shares);
	timeline_count(machine->timeline, TIMELINE_unshares, info.policy_unshares);
	timeline_count(machine->timeline, TIMELINE_shared_bytes, info.policy_shared_bytes);
	timeline_count(machine->timeline, TIMELINE_unshared_bytes, info.policy_unshared_bytes);
	timeline_count(machine->timeline, TIMELINE_mapped_ranges, info.auto_maps);
	timeline_count(machine->timeline, TIMELINE_unmapped_ranges, info.auto_unmaps);
}

/* Closes the VM and records how long that took, and until all memory was back. */
static void close_vm(struct machine *machine)
{
	struct pollfd gone = {.fd = open_uv(machine), .events = POLLIN};
	struct lethe_destroy_result result;
	uint64_t began = clock_ns();

	if (machine->config.poweroff_destroys)
		lethe_vm_reset(machine->vm, &result);
	lethe_vm_close(machine->vm, false);
	machine->vm = NULL;
	machine->costs.poweroff.guest_ns += clock_ns() - began;
	if (gone.fd < 0)
		return;
	if (machine->config.see_it_out) {
		progress_start(&machine->progress);
		if (poll(&gone, 1, -1) == 1)
			machine->costs.poweroff.freed_ns = clock_ns() - began;
		progress_stop(&machine->progress);
	}
	close(gone.fd);
}

/* What the guest's power off has waited for so far: its vCPUs. */
static void record_poweroff(struct machine *machine)
{
	pthread_mutex_lock(&machine->lock);
	if (machine->poweroff_ns) {
		machine->costs.poweroff.count = 1;
		machine->costs.poweroff.guest_ns = clock_ns() - machine->poweroff_ns;
	}
	pthread_mutex_unlock(&machine->lock);
}

int machine_run(struct machine *machine, int signal_fd)
{
	int status;

	start(machine);
	if (!machine_has_ended(machine))
		notify_supervisor("READY=1\nSTATUS=the guest runs");
	wait_for_end(machine, signal_fd);
	notify_supervisor("STOPPING=1\nSTATUS=the guest has ended, its memory is being destroyed");
	status = status_of(machine);
	if (status == MACHINE_DIED)
		report_death(machine);
	control_free(machine->control);
	machine->control = NULL;
	if (machine->config.linux_guest)
		linux_hang_up(machine->config.linux_guest);
	stop_vcpus(machine);
	if (machine->config.linux_guest)
		linux_detach(machine->config.linux_guest);
	record_poweroff(machine);
	count_conversions(machine);
	forget_finish(machine, !machine->config.see_it_out);
	close_vm(machine);
	return status;
}
