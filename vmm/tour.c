/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The built-in tour.  Two VMs run the same workload one after the other; the second one
 * does everything the old way: all of memory is copied and measured when it turns secure,
 * stale shared pages are discarded before each unshare returns, memory is destroyed before
 * a reboot goes on and before a power off is done.
 *
 * Both VMs are created before root is given up, so that neither needs it later.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "vmm/host.h"
#include "vmm/run.h"
#include "vmm/table.h"

#define MIB ((uint64_t)1 << 20)

#define TOUR_MEMORY_MAX ((uint64_t)1 << 30)
#define NECESSARY_BYTES (8 * MIB)
#define TRANSFERS       500

/*
 * Writes the workload.  What is kept when turning secure lies at 1M; the bulk of what the
 * guest writes is the second and third quarter of memory.  @necessary: bytes from 1M that
 * the guest names when it turns secure; 0: it is secure from the start.
 */
static size_t write_workload(
	char *text, size_t size, uint64_t memory, unsigned int vcpus, uint64_t necessary)
{
	uint64_t bulk = memory / 4, bulk_bytes = memory / 2;
	char protect[64] = "# secure since boot";

	if (necessary)
		snprintf(protect, sizeof(protect), "protect 1M %" PRIu64, necessary);
	return (size_t)snprintf(text, size,
		"memory %" PRIu64 "\n"
		"vcpus %u\n"
		"vcpu 0\n"
		"print guest: filling 8M, then turning secure\n"
		"write 1M 8M\n"
		"%s\n"
		"check 1M 8M\n"
		"print guest: secure, the 8M intact; filling half of memory\n"
		"write %" PRIu64 " %" PRIu64 "\n"
		"print guest: %d transfers of 8K through shared memory\n"
		"dma 12M 8K %d\n"
		"check 1M 8M\n"
		"print guest: rebooting\n"
		"reboot\n"
		"print guest: rebooted; memory must be zero, turned secure or not\n"
		"zero 1M 8M\n"
		"%s\n"
		"zero 1M %" PRIu64 "\n"
		"print guest: all zero; filling half of it again\n"
		"write %" PRIu64 " %" PRIu64 "\n"
		"check %" PRIu64 " 8M\n"
		"print guest: powering off\n"
		"poweroff\n",
		memory, vcpus, protect, bulk, bulk_bytes, TRANSFERS, TRANSFERS, protect,
		memory - MIB, bulk, bulk_bytes, bulk);
}

/* As much as leaves the machine room for the copies of the old way. */
static uint64_t choose_memory(void)
{
	uint64_t available = host_memory_available();
	uint64_t memory = TOUR_MEMORY_MAX;

	while (memory > TOUR_MEMORY_MIN && memory > available / 4)
		memory /= 2;
	return memory;
}

static int make_program(
	uint64_t memory, unsigned int vcpus, uint64_t necessary, struct program *ret)
{
	char text[2048];
	size_t len = write_workload(text, sizeof(text), memory, vcpus, necessary);

	return program_from_text("the tour", text, len, memory, vcpus, ret);
}

struct tour {
	struct program program, old_program;
	struct timeline *no_timeline; /* the old run is not on record */
	struct machine *machine, *old_machine;
};

/* How the old way is configured. */
static struct machine_config old_config(
	const struct machine_config *config, const struct program *program, char *name, size_t size)
{
	struct machine_config old = *config;

	if (config->name) {
		snprintf(name, size, "%.58s-old", config->name);
		old.name = name;
	}
	old.program = program;
	old.page_store = NULL;
	old.console = NULL;
	old.lazy_off = true;
	old.discard_eager = true;
	old.poweroff_destroys = true;
	old.see_it_out = true;
	return old;
}

static int tour_create(struct tour *tour, const struct machine_config *config,
	struct timeline *timeline, uint64_t memory, unsigned int vcpus)
{
	bool asks = config->protect == MACHINE_PROTECT_GUEST;
	struct machine_config first = *config, old;
	char old_name[64];
	int err;

	/* It measures operations on memory, not the guest's instructions. */
	if (first.executor == LETHE_EXECUTOR_AUTO)
		first.executor = LETHE_EXECUTOR_SW;
	first.program = &tour->program;
	first.see_it_out = true;
	old = old_config(&first, &tour->old_program, old_name, sizeof(old_name));
	err = make_program(memory, vcpus, asks ? NECESSARY_BYTES : 0, &tour->program);
	if (!err)
		err = make_program(memory, vcpus, asks ? memory - MIB : 0, &tour->old_program);
	if (!err)
		err = timeline_open(NULL, &tour->no_timeline);
	if (!err)
		err = machine_new(&first, timeline, &tour->machine);
	if (!err)
		err = machine_new(&old, tour->no_timeline, &tour->old_machine);
	return err;
}

static int tour_perform(struct tour *tour, FILE *out, int signal_fd)
{
	int status;

	if (lethe_drop_root() != 0) {
		log_error("cannot give up root: %s (run it as an ordinary user)", lethe_error());
		return MACHINE_FAILED;
	}
	status = machine_run(tour->machine, signal_fd);
	if (status != MACHINE_POWEROFF)
		return status;
	fprintf(out, "The same again the old way, which does all the work first ...\n");
	fflush(out);
	status = machine_run(tour->old_machine, signal_fd);
	if (status != MACHINE_POWEROFF)
		return status;
	fputc('\n', out);
	table_print(out, machine_costs(tour->machine), machine_costs(tour->old_machine));
	return status;
}

static void tour_free(struct tour *tour)
{
	machine_free(tour->machine);
	machine_free(tour->old_machine);
	timeline_free(tour->no_timeline);
	program_free(&tour->program);
	program_free(&tour->old_program);
}

int tour_run(const struct machine_config *config, uint64_t memory_bytes, unsigned int vcpus,
	struct timeline *timeline, int signal_fd)
{
	struct tour tour = {0};
	int status, err;

	err = tour_create(&tour, config, timeline, memory_bytes ? memory_bytes : choose_memory(),
		vcpus ? vcpus : 1);
	status = err ? machine_new_status(err) : tour_perform(&tour, config->console, signal_fd);
	tour_free(&tour);
	return status;
}
