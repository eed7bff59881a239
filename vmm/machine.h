/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The machine: one VM from its creation to the end of its guest.
 *
 *   machine_new -> (give up root) -> machine_run -> machine_free
 */
#ifndef VMM_MACHINE_H
#define VMM_MACHINE_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "lethe/lethe.h"
#include "vmm/costs.h"
#include "vmm/program.h"
#include "vmm/timeline.h"

enum machine_protect {
	MACHINE_PROTECT_GUEST, /* starts normal, turns secure when the guest asks */
	MACHINE_PROTECT_BOOT,  /* is secure before the guest's first instruction */
	MACHINE_PROTECT_OFF    /* the guest's request is refused */
};

/* How a run ended; also the exit status of `lethe run`.  128 + N: by signal N. */
enum machine_status {
	MACHINE_POWEROFF = 0,
	MACHINE_FAILED = 1,
	MACHINE_STOPPED = 3, /* by the ultravisor */
	MACHINE_DIED = 4     /* the ultravisor itself */
};

struct machine_config {
	const char *name;                /* NULL: made up */
	const struct program *program;   /* its image is not used where linux_guest is set */
	struct linux_guest *linux_guest; /* NULL: a workload */
	enum lethe_executor executor;
	enum lethe_share share;
	enum machine_protect protect;
	bool lazy_off;
	bool wipe_off;
	bool discard_eager;
	struct lethe_page_store **page_store; /* NULL: none; *page_store becomes NULL when
					       * the VM has taken it over */
	FILE *console;                        /* where the guest prints; NULL: nowhere */
	FILE *progress;         /* a terminal for a line of what is to be forgotten, or NULL */
	bool see_it_out;        /* wait until all memory is destroyed before the run ends */
	bool poweroff_destroys; /* the old way: memory goes first, then the VM */
};

struct machine;

/* The exit status for what machine_new() returned. */
static inline int machine_new_status(int err)
{
	return err == -EPIPE ? MACHINE_DIED : MACHINE_FAILED;
}

/*
 * Creates the VM, adds its memory and loads the program.  *config is copied; the program,
 * the console and @timeline must outlive the machine.
 * Returns 0, or the negative errno of the step that failed, logged in one line; nothing
 * is left then.
 */
int machine_new(
	const struct machine_config *config, struct timeline *timeline, struct machine **ret);

/*
 * Starts the guest, serves it until it ends or a signal comes from @signal_fd, and closes
 * the VM.  Returns an exit status (enum machine_status, or 128 + signal).  Once only.
 */
int machine_run(struct machine *machine, int signal_fd);

/* What its operations cost.  After machine_run(). */
const struct costs *machine_costs(const struct machine *machine);

/* Closes what is open and frees @machine; NULL is allowed. */
void machine_free(struct machine *machine);

#endif
