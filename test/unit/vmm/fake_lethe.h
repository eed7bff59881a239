/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A liblethe without an ultravisor: vCPUs play scripts of exits, memory is a small array,
 * any function can be told to fail.  One VM at a time.
 */
#ifndef TEST_FAKE_LETHE_H
#define TEST_FAKE_LETHE_H

#include <pthread.h>

#include "lethe/lethe.h"

#define FAKE_MEMORY  (512 * 1024)
#define FAKE_VCPUS   4
#define FAKE_SCRIPT  16
#define FAKE_PRIVATE (256 * 1024) /* from here on memory is private */

struct fake_step {
	struct lethe_exit exit;
	bool dies; /* the ultravisor dies instead of an exit */
};

struct fake {
	pthread_mutex_t lock;
	pthread_cond_t changed;

	/* Set by the test. */
	struct fake_step script[FAKE_VCPUS][FAKE_SCRIPT];
	const char *fail_function; /* this one fails ... */
	int fail_error;            /* ... with this errno, positive */
	unsigned int fail_after;   /* ... after so many calls that succeed */
	bool hold_perform;         /* performs end only when cancelled */

	/* Seen by the test. */
	int open; /* VMs */
	unsigned int added, removed, loaded, protected, started, prepared, performed, resets;
	unsigned int script_at[FAKE_VCPUS];
	int reply[FAKE_VCPUS][FAKE_SCRIPT];
	uint64_t reply_value[FAKE_VCPUS][FAKE_SCRIPT];
	bool cancelled;
	uint8_t memory[FAKE_MEMORY];

	bool stopped, dead;
	bool not_protected;
	struct lethe_page_store *store; /* the VM's */
	char folder[32];                /* the VM's */
	int death_pipe[2];
};

extern struct fake fake;

/* Forgets everything and every script. */
void fake_reset(void);

/* Adds an exit to the script of @vcpu.  Returns it, to be filled in. */
struct lethe_exit *fake_exit(unsigned int vcpu, enum lethe_exit_type type);

/* Ends the script of @vcpu with the death of the ultravisor. */
void fake_death(unsigned int vcpu);

#endif
