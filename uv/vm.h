/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The ultravisor's VM: one per process.
 *
 * Threads: the main thread performs uv calls, in part with a crew (os/crew.h); one thread per
 * vCPU runs guest code; one sweeper destroys and discards, with wipers; where they are needed,
 * one serves faults (uv/exec_kvm_fault.c) and one maps what is used much (uv/share_auto.h).
 * Crew and wipers take no lock of the VM.
 *
 * Lock order (an outer lock is taken first):
 *   1. lock        state, slots, attributes, pending conversions, incarnations
 *   2. memory      guest memory's mapping: held for reading around each access of a
 *                  vCPU or copy call, for writing while a mapping or attribute changes
 *   3. stale_lock  shared backing that waits to be discarded
 *   4. run_lock    who is inside guest code, pause and stop requests
 * send_lock is inside lock, and no other in it.
 * No lock is held while waiting for the hypervisor.
 */
#ifndef UV_VM_H
#define UV_VM_H

#include <pthread.h>
#include <stdatomic.h>

#include "abi/exit.h"
#include "abi/guestcall.h"
#include "abi/status.h"
#include "abi/uvcall.h"
#include "base/range_map.h"
#include "core/attr.h"
#include "core/incarnation.h"
#include "core/pending.h"
#include "core/slots.h"
#include "core/vm_state.h"
#include "os/meminfo.h"
#include "os/userfault.h"
#include "os/window.h"
#include "uv/meter.h"

struct crew;
struct dying;
struct executor;
struct measure;
struct seal;
struct seal_table;
struct share_auto;
struct uv_vm;

/* One memslot's memory.  Guarded by vm->lock and, for users of the window, vm->memory. */
struct slot_memory {
	int memfd;                 /* shared backing, -1: no slot */
	struct window window;      /* what the guest sees: the memfd, or private memory */
	struct window filling;     /* TRANSIENT: the private window to be */
	struct range_map *stale;   /* pages of memfd to be discarded; guarded by stale_lock */
	uint64_t stale_pages;      /* how many; guarded by stale_lock */
	struct seal_table *sealed; /* NULL until a page is sealed */
	uint8_t *idle;             /* of each 2M: COLDESTs since its last use; NULL until one */
};

struct uv_vcpu {
	struct uv_vm *vm;
	unsigned int id;
	pthread_t thread;
	void *exec; /* the executor's own */

	/* Private to the vCPU's thread. */
	struct abi_vcpu_page *page;
	uint8_t *copy_data; /* ABI_COPY_DATA bytes */
	uint32_t copy_seq;  /* of the request that was served last */
	uint32_t copied;    /* bytes in copy_data that go along with the next exit */
	uint32_t exit_seq;  /* the ultravisor's own count: the page's is only a copy */
	int64_t last_result;
	uint8_t buffer[ABI_EXIT_DATA] __attribute__((aligned(16)));

	/* Guarded by vm->run_lock. */
	bool inside;         /* may touch guest memory */
	bool ended;          /* has left guest code for this incarnation */
	uint64_t run_number; /* the start that it has seen */
};

#define VM_ID_SIZE 16

struct uv_vm {
	int socket;
	pthread_mutex_t send_lock; /* answers and events come from many threads */

	pthread_mutex_t lock;
	struct vm_state state;
	bool exists;    /* VM_CREATE has been performed */
	uint32_t flags; /* ABI_VM_* */
	uint64_t incarnation;
	/*
	 * Slots, their windows and attributes: read under lock or memory, changed under lock and
	 * memory for writing.
	 */
	struct slot_table slots;
	struct slot_memory memory_of[SLOTS_MAX];
	struct attr_map *attr; /* reclaimed under these, too */
	struct pending_set pending;
	struct abi_policy policy; /* checked; guarded by lock */
	struct share_counters {   /* guarded by lock */
		uint64_t policy_shares, policy_shared_bytes;
		uint64_t policy_unshares, policy_unshared_bytes;
		uint64_t auto_maps, auto_unmaps;
	} shares;
	struct incarnation_queue dying;
	const struct dying *dying_now; /* destroyed by who asked for it; not in the queue */
	struct meter meter;            /* of destroying */
	uint64_t quarantined_bytes;

	/* Sealed pages.  Guarded by lock. */
	uint8_t id[VM_ID_SIZE]; /* random, this VM's for its life */
	struct seal *seal;      /* NULL until a page of this incarnation is sealed */
	struct window scratch;  /* for pages that the executor puts in place; zero in between */
	uint64_t coldest_hand;  /* where COLDEST goes on */

	/* The switch to secure under way.  Guarded by lock. */
	struct measure *measure;
	uint64_t pages_copied;
	uint64_t switch_start_ns;
	bool switch_asked; /* a guest's PROTECT is being answered */
	uint32_t asked_count;
	struct abi_range asked[ABI_MAX_RANGES];
	struct range_map *paged_in; /* GFNs copied in this switch */

	pthread_rwlock_t memory;
	struct abi_share_page mapped;        /* uv/share_list.h; guarded by memory */
	struct abi_share_page *mapped_shown; /* the hypervisor's copy of it */
	pthread_mutex_t stale_lock;
	struct discard {
		/* The batch under way is taken from pages [start, end) of slot; NULL: none. */
		const struct slot_memory *slot;
		uint64_t start, end;
		pthread_cond_t ended;
		uint64_t since_ns; /* when the queue became what it is: not empty */
		uint64_t retry_ns; /* not before, after a failure */
		bool draining;     /* it is time, until the queue is empty */
		bool armed;        /* the sweeper looks by itself when it is time */
	} discard;                 /* guarded by stale_lock */

	pthread_mutex_t run_lock;
	pthread_cond_t run_changed;
	unsigned int paused;           /* pause requests; guarded by run_lock */
	bool held;                     /* until hold_end_ns, as if paused; guarded by run_lock */
	uint64_t hold_end_ns;          /* 0: the last hold led to a pause; guarded by run_lock */
	bool stopping;                 /* guarded by run_lock */
	uint64_t run_number;           /* starts so far; guarded by run_lock */
	uint64_t arrivals;             /* times sealed pages came back; guarded by run_lock */
	_Atomic bool attention;        /* paused or stopping: read without lock at checkpoints */
	bool quitting;                 /* vCPU threads shall end; guarded by run_lock */
	uint64_t first_instruction_ns; /* guarded by run_lock */

	/* Rendezvous of BARRIER calls.  Guarded by run_lock. */
	struct {
		uint64_t key;
		unsigned int waiting;
		uint64_t round;
	} barrier[16];

	/* What REBOOT handed over.  Written while no vCPU runs. */
	unsigned int resume_caller;
	unsigned int resume_size;
	uint64_t resume[GUEST_RESUME_WORDS];

	const struct executor *executor;
	void *exec;
	int kvm_fd; /* opened before the sandbox closes; -1: KVM does not work here */
	struct userfault userfault; /* likewise; may not be open */
	unsigned int vcpu_count;
	struct uv_vcpu *vcpu; /* vcpu_count of them */
	struct abi_vcpu_page *pages;
	uint8_t *bulk;
	struct abi_status_page *status; /* private memory, see uv/publish.h */
	int status_fd;
	_Atomic bool status_changed; /* since it was written to the file */
	pthread_mutex_t status_lock; /* held while writing it; inside no other, nor other in it */
	struct sweeper *sweeper;
	struct share_auto *share_auto; /* NULL unless ABI_VM_SHARE_AUTO */
	struct crew *crew;             /* for work of the main thread that can be cut into pieces */
	int folder;                    /* of the runtime directory; removed at the end */
	char name[ABI_NAME_MAX + 1];
	int statm;              /* /proc/self/statm, opened before the sandbox closes */
	uint64_t own_bytes;     /* resident without any guest memory */
	struct meminfo meminfo; /* opened before the sandbox closes */
};

/*
 * The address of guest memory at @a and in *ret_len how many of @want bytes lie there in
 * one window; NULL outside slots.  Caller holds vm->memory.
 */
uint8_t *uv_vm_address(struct uv_vm *vm, gpa_t a, uint64_t want, uint64_t *ret_len);

/*
 * Bytes of guest memory that are resident now, what leaves included: an estimate in
 * constant time.
 */
uint64_t uv_vm_resident(const struct uv_vm *vm);

/* Of these, what belongs to the current incarnation.  Caller holds vm->lock. */
uint64_t uv_vm_current(const struct uv_vm *vm);

#endif
