/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Forgetting: the destruction of incarnations that reboots set aside, each waited for in a
 * thread of its own while the guest goes on.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "os/clock.h"
#include "vmm/machine_state.h"

/* A cancel that comes before its perform finds nothing to cancel: ask again after this. */
#define CANCEL_AGAIN_NS (2 * NS_PER_MS)

void forget_record(struct machine *machine, uint64_t incarnation,
	const struct lethe_destroy_result *result, bool cancelled)
{
	struct costs *costs = &machine->costs;

	timeline_event(machine->timeline, 0, "destroy-end", "{s:I, s:I, s:I, s:b}", "incarnation",
		incarnation, "bytes", result->bytes, "duration_ns", result->duration_ns,
		"cancelled", cancelled);
	timeline_count(machine->timeline, TIMELINE_destroyed_bytes, result->bytes);
	timeline_count(machine->timeline, TIMELINE_quarantined_bytes, result->quarantined);
	log_info("%s: incarnation %" PRIu64 ": %" PRIu64 " bytes destroyed in %" PRIu64 " ns%s",
		lethe_vm_name(machine->vm), incarnation, result->bytes, result->duration_ns,
		cancelled ? ", cancelled" : "");
	pthread_mutex_lock(&machine->lock);
	costs->destroy.count++;
	costs->destroy.bytes += result->bytes;
	costs->destroy.duration_ns += result->duration_ns;
	costs->destroy.cancelled += cancelled;
	pthread_mutex_unlock(&machine->lock);
}

/* What the status of the VM says; false if that cannot be read. */
static bool find_left(const char *name, uint64_t *ret_left)
{
	struct lethe_ps_entry *entries;
	size_t count;

	if (lethe_ps(&entries, &count) != 0)
		return false;
	*ret_left = 0;
	for (size_t i = 0; i < count; i++) {
		if (strcmp(entries[i].name, name) == 0)
			*ret_left = entries[i].forget_bytes;
	}
	free(entries);
	return true;
}

/*
 * Who has given up root may not read the runtime directory any more: then the ultravisor is
 * asked as long as there is a connection.
 */
uint64_t forget_left(void *ctx)
{
	struct machine *machine = ctx;
	struct lethe_info info;
	uint64_t left;
	bool any;

	pthread_mutex_lock(&machine->lock);
	any = machine->vm == NULL || machine->forgetting_count > 0;
	pthread_mutex_unlock(&machine->lock);
	if (!any)
		return 0;
	if (find_left(machine->name, &left))
		return left;
	if (machine->vm == NULL)
		return PROGRESS_UNKNOWN;
	return lethe_vm_info(machine->vm, &info) == 0 ? info.set_aside_bytes : 0;
}

static void *forget_main(void *arg)
{
	struct forgetting *forgetting = arg;
	struct machine *machine = forgetting->machine;
	struct lethe_destroy_result result = {0};
	int err;

	timeline_event(machine->timeline, 0, "destroy-start", "{s:I}", "incarnation",
		forgetting->incarnation);
	err = lethe_destroy_perform(machine->vm, &result);
	/* -ENODATA: an earlier perform went on to this incarnation and took it along. */
	if (err == 0 || err == -ECANCELED || err == -EUCLEAN || err == -ENODATA)
		forget_record(machine, forgetting->incarnation, &result, err == -ECANCELED);
	if (err == -EUCLEAN)
		log_warn("%s: %" PRIu64 " bytes could not be destroyed and are kept out of use "
			 "(close the VM to give them back to the kernel)",
			lethe_vm_name(machine->vm), result.quarantined);
	pthread_mutex_lock(&machine->lock);
	forgetting->done = true;
	machine->forgetting_count--;
	pthread_cond_broadcast(&machine->forgotten);
	pthread_mutex_unlock(&machine->lock);
	return NULL;
}

static bool is_done(struct forgetting *forgetting)
{
	bool done;

	pthread_mutex_lock(&forgetting->machine->lock);
	done = forgetting->done;
	pthread_mutex_unlock(&forgetting->machine->lock);
	return done;
}

/* Joins and frees every forgetting, or only those that are done. */
static void reap(struct machine *machine, bool all)
{
	struct forgetting **link = &machine->forgettings;

	while (*link) {
		struct forgetting *forgetting = *link;

		if (!all && !is_done(forgetting)) {
			link = &forgetting->next;
			continue;
		}
		pthread_join(forgetting->thread, NULL);
		*link = forgetting->next;
		free(forgetting);
	}
}

int forget_begin(struct machine *machine, uint64_t incarnation)
{
	struct forgetting *forgetting = calloc(1, sizeof(*forgetting));
	int err;

	reap(machine, false);
	if (!forgetting)
		return -ENOMEM;
	forgetting->machine = machine;
	forgetting->incarnation = incarnation;
	pthread_mutex_lock(&machine->lock);
	machine->forgetting_count++;
	pthread_mutex_unlock(&machine->lock);
	err = pthread_create(&forgetting->thread, NULL, forget_main, forgetting);
	if (err) {
		pthread_mutex_lock(&machine->lock);
		machine->forgetting_count--;
		pthread_mutex_unlock(&machine->lock);
		free(forgetting);
		return -err;
	}
	forgetting->next = machine->forgettings;
	machine->forgettings = forgetting;
	progress_start(&machine->progress);
	return 0;
}

/* What `lethe ps` would say now, for the timeline: the last that this process learns. */
static void record_figures(struct machine *machine)
{
	struct lethe_info info;

	if (lethe_vm_info(machine->vm, &info) != 0)
		return;
	timeline_count(machine->timeline, TIMELINE_resident_bytes, info.resident_bytes);
	timeline_count(machine->timeline, TIMELINE_forget_bytes, info.set_aside_bytes);
	timeline_count(machine->timeline, TIMELINE_forget_rate, info.forget_rate);
	timeline_count(machine->timeline, TIMELINE_pressure, info.pressure);
}

void forget_finish(struct machine *machine, bool cancel)
{
	struct timespec until;

	pthread_mutex_lock(&machine->lock);
	while (cancel && machine->forgetting_count) {
		pthread_mutex_unlock(&machine->lock);
		lethe_destroy_cancel(machine->vm);
		pthread_mutex_lock(&machine->lock);
		until = clock_deadline(CANCEL_AGAIN_NS);
		if (machine->forgetting_count)
			pthread_cond_timedwait(&machine->forgotten, &machine->lock, &until);
	}
	pthread_mutex_unlock(&machine->lock);
	pthread_mutex_lock(&machine->life);
	reap(machine, true);
	progress_stop(&machine->progress);
	pthread_mutex_unlock(&machine->life);
	record_figures(machine);
}
