/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Runs from beginning to end: of a workload, and the built-in tour. */
#ifndef VMM_RUN_H
#define VMM_RUN_H

#include "vmm/machine.h"

/* What the tour needs at least. */
#define TOUR_MEMORY_MIN ((uint64_t)64 << 20)

/*
 * Runs config->program in one VM.  Root is given up on the way.  @table: where to print
 * what its operations cost; NULL: nowhere.  Returns an exit status; a failure has been
 * logged.
 */
int run_program(
	const struct machine_config *config, struct timeline *timeline, int signal_fd, FILE *table);

/*
 * Runs the tour: a workload of every whole-VM operation, once with config's options and
 * once the old way, where each operation does all of its work first, and prints both in
 * one table to config->console.  config->program is not used; config->protect is not OFF.
 * @memory_bytes: 0, or at least TOUR_MEMORY_MIN; @vcpus: 0 is 1.  Returns an exit status;
 * the timeline is of the first run.
 */
int tour_run(const struct machine_config *config, uint64_t memory_bytes, unsigned int vcpus,
	struct timeline *timeline, int signal_fd);

#endif
