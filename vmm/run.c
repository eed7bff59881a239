/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/run.h"

#include "base/log.h"
#include "vmm/table.h"

int run_program(
	const struct machine_config *config, struct timeline *timeline, int signal_fd, FILE *table)
{
	struct machine *machine;
	int status = MACHINE_FAILED;
	int err = machine_new(config, timeline, &machine);

	if (err)
		return machine_new_status(err);
	if (lethe_drop_root() != 0)
		log_error("cannot give up root: %s (run it as an ordinary user)", lethe_error());
	else
		status = machine_run(machine, signal_fd);
	if (table && status == MACHINE_POWEROFF)
		table_print(table, machine_costs(machine), NULL);
	machine_free(machine);
	return status;
}
