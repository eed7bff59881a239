/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the files of the machine share.  Not for other rooms.
 *
 * Threads: the main one waits for the end (machine.c); one per vCPU serves exits (exits.c)
 * and, where its guest reboots, drives the reboot (reboot.c); one per incarnation set aside
 * waits for its destruction (forget.c); one serves the control socket (control.c).
 *
 * Locks, in this order: life (over everything that starts or stops vCPUs), then lock.
 * The end is decided once, by machine_end(); whoever decides it also logs why.
 */
#ifndef VMM_MACHINE_STATE_H
#define VMM_MACHINE_STATE_H

#include <pthread.h>

#include "vmm/control.h"
#include "vmm/dma.h"
#include "vmm/machine.h"
#include "vmm/progress.h"

#define MEMORY_SLOTS 32

struct vcpu {
	struct machine *machine;
	unsigned int index;
	pthread_t thread;
	bool halted; /* Guarded by machine->lock. */

	struct dma dma; /* Own thread. */

	/* The DMA transfer before this one, if nothing else came between.  Own thread. */
	uint64_t dma_ns, dma_gpa, dma_bytes;
};

/* The destruction of one incarnation, under way in a thread of its own. */
struct forgetting {
	struct machine *machine;
	struct forgetting *next;
	uint64_t incarnation;
	pthread_t thread;
	bool done; /* Guarded by machine->lock. */
};

struct memory_slot {
	bool used;
	bool added; /* while the VM ran; else it is what the VM began with */
	uint64_t gpa, bytes;
};

struct machine {
	struct machine_config config;
	struct lethe_vm *vm; /* NULL once closed */
	struct timeline *timeline;
	struct control *control;
	struct vcpu *vcpus;
	unsigned int vcpu_count; /* vcpus whose threads run */
	int end_fd;              /* eventfd, readable when the end is decided */

	pthread_mutex_t life;
	struct forgetting *forgettings;        /* Guarded by life. */
	struct memory_slot slot[MEMORY_SLOTS]; /* Guarded by life. */
	struct progress progress;              /* Switched under life, or by the last thread. */
	char name[64];                         /* of the VM, also once that is closed */

	pthread_mutex_t lock;
	pthread_cond_t forgotten;      /* a forgetting is done */
	bool ended;                    /* Guarded by lock. */
	int status;                    /* Guarded by lock; valid if ended. */
	uint64_t poweroff_ns;          /* Guarded by lock; 0: the guest did not power off. */
	uint64_t born_ns;              /* Guarded by lock; older exits are of a past incarnation. */
	unsigned int halted;           /* Guarded by lock. */
	unsigned int forgetting_count; /* Guarded by lock; not done yet. */
	struct costs costs;            /* Guarded by lock. */
};

/* machine.c */

/* Decides how the run ends.  False if that is decided already. */
bool machine_end(struct machine *machine, int status);

/* Ends the run because @what failed with @err, and logs it; -EPIPE is the ultravisor's death. */
void machine_fail(struct machine *machine, const char *what, int err);

bool machine_has_ended(struct machine *machine);

/* exits.c */

/* The thread of one vCPU: serves its exits until there are no more.  @arg: struct vcpu. */
void *vcpu_main(void *arg);

/* populate.c */

/*
 * Fills an empty VM: slots, program, and protection if it protects at boot.
 * Returns 0 or a negative errno; *ret_what then says in words what failed.
 */
int machine_populate(struct machine *machine, const char **ret_what);

/*
 * Lets the ultravisor do every conversion without asking, unless each is to be an event of
 * the timeline, or the old way is asked for.  0 or a negative errno.
 */
int machine_set_policy(struct machine *machine);

/* Turns the VM secure, and records it.  As lethe_vm_protect(). */
int machine_protect(struct machine *machine, const struct lethe_range *necessary, size_t count);

/* memory.c: memslots.  The caller holds life, unless nobody else knows the machine yet. */

/*
 * Adds zeroed memory as memslot @id, and records it.  As lethe_slot_add().
 */
int memory_add_slot(
	struct machine *machine, unsigned int id, uint64_t gpa, uint64_t bytes, bool added);

/* Records that an incarnation took all memslots along. */
void memory_record_gone(struct machine *machine);

/* Adds what was added to an earlier incarnation.  0 or a negative errno. */
int memory_add_again(struct machine *machine);

/* Why something is refused. */
struct refusal {
	char why[256];
	const char *todo;
};

/*
 * Adds memory while the VM runs: at *at, or where there is room if @at is NULL.
 * 0 and *ret_id; -EINVAL, -ERANGE not a range of whole pages below 2^48; -EEXIST it is in
 * use; -ENOSPC no memslot is free; -ESHUTDOWN the guest has ended; what lethe_slot_add()
 * returns.  On failure *why says more and nothing has changed.
 */
int memory_add(struct machine *machine, uint64_t bytes, const uint64_t *at, unsigned int *ret_id,
	struct refusal *why);

/*
 * Removes memslot @id, which was added while the VM ran.  0; -ENOENT; -EPERM it is what the
 * VM began with; -EBUSY the guest has not released all of it; -ESHUTDOWN; what
 * lethe_slot_remove() returns.  On failure as above.
 */
int memory_remove(struct machine *machine, unsigned int id, struct refusal *why);

/* commands.c */

/* Performs a request of the control socket.  @ctx: the machine. */
json_t *commands_perform(void *ctx, const json_t *request);

/* reboot.c */

/* Begins the next incarnation for a guest that asked at @asked_ns. */
void machine_reboot(struct machine *machine, uint64_t asked_ns);

/* forget.c */

/*
 * Starts to destroy what was set aside as @incarnation.  The caller holds life.
 * Returns 0; -ENOMEM or -EAGAIN no thread: it stays set aside until the VM is closed.
 */
int forget_begin(struct machine *machine, uint64_t incarnation);

/* Records a destruction that is over, in the timeline and the costs. */
void forget_record(struct machine *machine, uint64_t incarnation,
	const struct lethe_destroy_result *result, bool cancelled);

/* Waits for every destruction, cancelling them first if @cancel. */
void forget_finish(struct machine *machine, bool cancel);

/* How much is still to be forgotten, for machine->progress.  @ctx: struct machine. */
uint64_t forget_left(void *ctx);

#endif
