/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A guest to measure with: a workload whose exits are served by the calling thread, or by
 * one for each vCPU.
 */
#ifndef BENCH_GUEST_H
#define BENCH_GUEST_H

#include "lethe/lethe.h"
#include "vmm/dma.h"
#include "vmm/program.h"

struct guest {
	struct lethe_vm *vm;
	struct program program;
	struct dma dma;
	struct lethe_exit exit;                 /* the last one */
	struct lethe_protect_result protected_; /* the last switch */
};

/*
 * Makes a VM of @memory_bytes that will run @text; *config says how it is to be.  No
 * vCPUs are one, and AUTO is the software executor: figures are compared.  0, or a negative errno;
 * *ret_why (static or of lethe_error()) says why.
 */
int guest_new(const char *text, uint64_t memory_bytes, const struct lethe_vm_config *config,
	struct guest *ret, const char **ret_why);

/* Adds the memory and loads the program into a VM without memory: at first, at reboots. */
int guest_populate(struct guest *guest);

/*
 * Serves exits until one of type PRINT, REBOOT or an end comes, which is in guest->exit
 * then.  Switches are made, conversions allowed, DMA done.  0; -EPIPE the guest was
 * stopped, or its ultravisor died; another errno.
 */
int guest_run(struct guest *guest);

/* The same for one of several vCPUs, and *exit.  Only one of them may turn secure or do DMA. */
int guest_run_vcpu(struct guest *guest, unsigned int vcpu, struct lethe_exit *exit);

/* Stops the guest and closes its VM; waits for its memory to be back. */
void guest_free(struct guest *guest);

#endif
