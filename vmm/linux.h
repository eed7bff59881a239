/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A PC that boots a kernel image: its files, its devices, its console.
 *
 *   linux_read -> machine_new (which populates) -> linux_attach -> machine_run
 *   -> linux_detach -> linux_free
 */
#ifndef VMM_LINUX_H
#define VMM_LINUX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lethe/lethe.h"

struct linux_guest;
struct machine;

struct linux_config {
	const char *kernel;    /* path */
	const char *initrd;    /* path, or NULL */
	const char *cmdline;   /* NULL: console=ttyS0 */
	uint64_t memory_bytes; /* whole pages */
	unsigned int vcpus;
};

/*
 * Reads and checks everything, and prepares the boot.  0, or a negative errno that has
 * been logged in one line.
 */
int linux_read(const struct linux_config *config, struct linux_guest **ret);
void linux_free(struct linux_guest *guest);

/* Fills an empty VM: slots, image, registers.  0 or a negative errno and what failed. */
int linux_populate(struct linux_guest *guest, struct machine *machine, const char **ret_what);

/* Memory may be added from here on. */
uint64_t linux_hotplug_gpa(void);

/* Whether the range is free of devices. */
bool linux_may_be_memory(uint64_t gpa, uint64_t bytes);

/* The pages that a protected boot must keep.  Valid as long as @guest. */
const struct lethe_range *linux_pages(const struct linux_guest *guest, size_t *ret_count);

/* Takes the terminal as the guest's serial console.  0 or a logged negative errno. */
int linux_attach(struct linux_guest *guest, struct machine *machine);

/* Lets no vCPU wait for the terminal any more. */
void linux_hang_up(struct linux_guest *guest);

/* Gives the terminal back; no vCPU runs. */
void linux_detach(struct linux_guest *guest);

/* Serves an access to an I/O port. */
void linux_port(struct linux_guest *guest, struct lethe_exit *exit);

#endif
