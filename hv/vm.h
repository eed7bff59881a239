/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What liblethe keeps of a VM.  Nothing here is believed by the ultravisor.
 *
 * Lock order: lock (slots, states, what the pager carries), bulk_lock, then conn's own and the
 * queue_lock of the pager.  vCPU pages belong to the vCPU's caller thread, but for exit_seq and
 * type, which the connection's death sets.
 */
#ifndef HV_VM_H
#define HV_VM_H

#include <pthread.h>

#include "abi/exit.h"
#include "abi/status.h"
#include "abi/uvcall.h"
#include "base/types.h"
#include "hv/conn.h"
#include "hv/gfn_state.h"
#include "hv/process.h"
#include "lethe/lethe.h"
#include "os/rundir.h"

struct pager;

struct slot {
	bool used;
	struct gfn_range range;
	int memfd;
	uint8_t *hva;
	struct gfn_states *states; /* NULL while the VM is normal */
};

struct vcpu_local {
	uint32_t seen;     /* the exit_seq that was last returned */
	uint32_t copy_seq; /* of the last copy request */

	/* The CONVERT that was accepted last. */
	struct gfn_range range;
	uint64_t life;      /* vm->life at that time */
	unsigned int saved; /* slots with something to take back; their states then: */
	struct gfn_saved *before[ABI_MAX_SLOTS];
};

struct lethe_vm {
	char name[ABI_NAME_MAX + 1];
	uint64_t id; /* no other VM of this process has or had it */
	enum lethe_executor executor;
	char executor_reason[160];
	unsigned int vcpus;
	pid_t uv_pid;
	struct process *process;
	struct rundir_entry entry;
	struct abi_status_page *status;
	struct abi_vcpu_page *pages;
	uint8_t *bulk;
	pthread_mutex_t bulk_lock;
	struct conn *conn;
	struct vcpu_local local[ABI_MAX_VCPUS];

	unsigned int references; /* the caller's, and one of each thread that outlives it; atomic */

	pthread_mutex_t lock;
	bool is_protected;               /* guarded by lock */
	bool has_policy;                 /* had one in this life: states lag; guarded by lock */
	struct slot slot[ABI_MAX_SLOTS]; /* guarded by lock */
	uint64_t life;                   /* incarnations seen; guarded by lock */
	struct pager *pager;             /* NULL: no page store.  Set once, atomic, under lock */
};

/* The page that @vcpu and its caller's thread share. */
static inline struct abi_vcpu_page *hv_vcpu_page(const struct lethe_vm *vm, unsigned int vcpu)
{
	return (struct abi_vcpu_page *)((uint8_t *)vm->pages + (size_t)vcpu * ABI_EXIT_PAGE);
}

/* One reference more, or less; the last frees @vm, its pager and its page store. */
void hv_get(struct lethe_vm *vm);
void hv_put(struct lethe_vm *vm);

/* The slot that holds all of @r, or NULL.  Caller holds vm->lock. */
struct slot *hv_find_slot(struct lethe_vm *vm, struct gfn_range r);

/* The first part of @r that lies in one slot.  NULL if its first page is no memory.  Likewise. */
struct slot *hv_first_part(struct lethe_vm *vm, struct gfn_range r, struct gfn_range *ret);

/* Forgets all slots; their memory is freed on a thread of its own.  Caller holds vm->lock. */
void hv_drop_slots(struct lethe_vm *vm);

/*
 * Notes that the conversion of @l->range is accepted, and in @l what was before.
 * -ENOMEM; -EINVAL an edge that the protocol does not have.
 */
int hv_note_converted(struct lethe_vm *vm, struct vcpu_local *l, bool to_shared);

/* The ultravisor did not complete it after all. */
void hv_take_back(struct lethe_vm *vm, struct vcpu_local *l);

/* The conversion has been settled: frees what hv_note_converted() saved. */
void hv_forget_saved(struct vcpu_local *l);

void hv_note_released(struct lethe_vm *vm, struct gfn_range r);

/*
 * Copies of a protected VM's memory through a mapping of this process's own, where pages
 * are mapped.  False: they are not, or not any more, and what was read is worth nothing.
 * Caller holds vm->lock and has checked that the range is memory.
 */
bool hv_copy_direct(struct lethe_vm *vm, uint64_t gpa, uint8_t *data, size_t bytes, bool to_guest);

/* The same where the VM is not protected, or may be reached.  Caller holds vm->lock. */
void hv_copy_mapping(struct lethe_vm *vm, uint64_t gpa, uint8_t *data, size_t bytes, bool to_guest);

/*
 * From here to hv_copy_close(), @vcpu waits for this thread and serves its copies.  It has
 * brought @bytes of what lies at @gpa along.
 */
void hv_copy_open(struct lethe_vm *vm, unsigned int vcpu, uint64_t gpa, uint32_t bytes);
void hv_copy_close(void);

/*
 * Has up to ABI_COPY_SEGMENTS pieces of together up to ABI_COPY_DATA bytes copied by the
 * vCPU that waits for this thread: all or none.  -ENODATA: there is none, or not any more.
 */
int hv_copy_by_vcpu(struct lethe_vm *vm, const struct lethe_copy *piece, size_t count);

/*
 * Copies to the guest that the open vCPU is to make when it takes its answer, which comes
 * next, if that is possible, else now.  0 or a negative errno.
 */
int hv_copy_then(struct lethe_vm *vm, const struct lethe_copy *piece, size_t count);

/* Settles AUTO.  0; -EOPNOTSUPP or another errno if the executor does not work here. */
int hv_choose_executor(const struct lethe_vm_config *config, struct lethe_vm *vm);

/* A call without descriptors, to this VM's ultravisor. */
int hv_call(struct lethe_vm *vm, enum abi_call call, const void *args, void *result);

#endif
