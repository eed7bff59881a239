/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * liblethe: protected virtual machines for VMM authors.
 *
 * A struct lethe_vm is one VM, whose memory and vCPUs live in a second process, the
 * ultravisor, which this library starts.  The calling process is the hypervisor: it
 * loads memory before the guest starts, serves exits, decides about conversions and
 * drives reboot and shutdown, and cannot read private memory.
 *
 * Order of use:
 *   lethe_vm_new -> lethe_slot_add... -> lethe_vm_load... [-> lethe_vm_protect]
 *   -> lethe_vm_start -> one thread per vCPU in lethe_vcpu_run
 *   reboot: lethe_destroy_prepare (or lethe_vm_reset), then again from lethe_slot_add,
 *   and lethe_destroy_perform from a thread of its own
 *   end: lethe_vm_close
 *
 * Every function that can fail returns 0 or a negative errno, and changes nothing on
 * failure unless it says otherwise.  Results (ret_...) are untouched on failure.
 * Common to all: -EPIPE the ultravisor is gone; -EPROTO not in this state of the VM.
 * All functions are thread-safe but lethe_vm_close, which must be the last call.
 * Sizes are bytes, addresses guest physical, times nanoseconds.
 */
#ifndef LETHE_LETHE_H
#define LETHE_LETHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "lethe/page_store.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LETHE_API __attribute__((visibility("default")))

#define LETHE_MEASUREMENT_SIZE 48 /* SHA-384 */

struct lethe_vm;

enum lethe_executor { LETHE_EXECUTOR_AUTO, LETHE_EXECUTOR_KVM, LETHE_EXECUTOR_SW };
enum lethe_share { LETHE_SHARE_AUTO, LETHE_SHARE_COPIED, LETHE_SHARE_MAPPED };

struct lethe_vm_config {
	const char *name;             /* 1 to 63 of [A-Za-z0-9._-], not starting with a dot; NULL:
				       * "vm-PID" and a count */
	unsigned int vcpus;           /* 1 to 64 */
	enum lethe_executor executor; /* AUTO: kvm where it works and does not interpret, else sw */
	enum lethe_share share;
	bool lazy_off;       /* the kill switch: nothing is ever set aside */
	bool wipe_off;       /* freed private memory is cleared by the kernel only */
	bool pc;             /* interrupt controllers and a timer, for a guest that expects a PC;
			      * needs KVM */
	bool discard_eager;  /* stale shared pages go before unshare returns */
	const char *uv_path; /* lethe-uv; NULL: beside this program, else the libexec folder */
};

/*
 * Starts an ultravisor and an empty VM in it, with an entry in the runtime directory.
 * -EINVAL a field is out of range; -EEXIST the name is in use; -ENOENT no lethe-uv;
 * -ENOTDIR the runtime directory is not there, not ours, or cannot be written;
 * -EPROTONOSUPPORT it is of another version; -EOPNOTSUPP the executor does not work
 * here; -ENOMEM; any errno of creating files, sockets and processes.
 * On failure no process and no file is left.
 */
LETHE_API int lethe_vm_new(const struct lethe_vm_config *config, struct lethe_vm **ret_vm);

/* How the last failure of this thread in liblethe came about: one line, never NULL. */
LETHE_API const char *lethe_error(void);

/*
 * Ends the VM: closes everything and frees @vm without waiting for memory to be
 * destroyed; the ultravisor does that by itself.  @wait_destroyed: wait for it.
 * Threads inside lethe_vcpu_run return LETHE_EXIT_CLOSED first; the caller joins them
 * before calling this, after lethe_vm_stop.
 */
LETHE_API void lethe_vm_close(struct lethe_vm *vm, bool wait_destroyed);

LETHE_API const char *lethe_vm_name(const struct lethe_vm *vm);

/*
 * The VM's folder in the runtime directory.  The hypervisor may put a socket named
 * `control` there; the ultravisor removes it with the folder.
 */
LETHE_API const char *lethe_vm_folder(const struct lethe_vm *vm);

LETHE_API enum lethe_executor lethe_vm_executor(const struct lethe_vm *vm);

/* Why it is that one: one line. */
LETHE_API const char *lethe_vm_executor_reason(const struct lethe_vm *vm);

LETHE_API pid_t lethe_vm_uv_pid(const struct lethe_vm *vm);

/* Becomes readable when the ultravisor is gone.  Owned by @vm. */
LETHE_API int lethe_vm_death_fd(const struct lethe_vm *vm);

/* How the ultravisor ended: -EAGAIN it has not; 0 and *ret_status as of waitpid. */
LETHE_API int lethe_vm_uv_status(struct lethe_vm *vm, int *ret_status);

/* ---- memory ---- */

/*
 * Adds @bytes of zeroed memory at @gpa as memslot @id (0 to 31), backed by a new memfd.
 * In a protected VM the slot is private at once.
 * -EINVAL alignment or size; -ERANGE beyond 2^48; -EEXIST id taken or overlap; -ENOMEM.
 */
LETHE_API int lethe_slot_add(struct lethe_vm *vm, unsigned int id, uint64_t gpa, uint64_t bytes);

/*
 * Removes memslot @id.  In a protected VM every page must have been released by the
 * guest: -EBUSY otherwise.  -ENOENT no such slot; -EAGAIN a page of it is being converted.
 */
LETHE_API int lethe_slot_remove(struct lethe_vm *vm, unsigned int id);

/*
 * Moves memslot @id to @gpa: as if it were removed and added there.  Of a protected VM it is
 * then private and zero; else it keeps its content.  lethe_slot_mapping() is not affected.
 * As lethe_slot_remove() and lethe_slot_add(), and on failure nothing has changed.
 */
LETHE_API int lethe_slot_move(struct lethe_vm *vm, unsigned int id, uint64_t gpa);

/*
 * The slot's shared backing in this process, for devices that want pointers: what a
 * private page shows there is stale or zero and never the guest's content.  Valid until
 * the slot is removed or the VM is reset.  -ENOENT.
 */
LETHE_API int lethe_slot_mapping(
	struct lethe_vm *vm, unsigned int id, void **ret_hva, uint64_t *ret_bytes);

/*
 * Copies into a VM that is not protected.  -EPERM if it is; -ENOENT outside slots.
 *
 * Before the start memory is populated in place: filled by this or through
 * lethe_slot_mapping, then handed over, measured, by one lethe_vm_protect.
 */
LETHE_API int lethe_vm_load(struct lethe_vm *vm, uint64_t gpa, const void *data, size_t bytes);

/*
 * Device access: reads or writes guest memory that is shared (or any of a VM that is not
 * protected).  The whole range or nothing: -EPERM a page is private; -ENOENT outside slots.
 * But a write to a page that is mapped (enum lethe_share), and that the guest takes back at
 * this moment, may have been done in part when it is refused.
 */
LETHE_API int lethe_mem_read(struct lethe_vm *vm, uint64_t gpa, void *data, size_t bytes);
LETHE_API int lethe_mem_write(struct lethe_vm *vm, uint64_t gpa, const void *data, size_t bytes);

/* One piece of a lethe_mem_copy(). */
struct lethe_copy {
	uint64_t gpa;
	void *data;
	size_t bytes;  /* 0 is nothing */
	bool to_guest; /* else from it */
};

/*
 * Device access in several pieces, which are copied in any order, each whole or not at all;
 * on failure some may have been.  On the thread to which lethe_vcpu_run() has returned an exit that
 * waits for its answer, the waiting vCPU copies up to 32 pieces of together up to 64 KiB in one go,
 * without a system call.  What LETHE_EXIT_DMA names has come along with that exit: the first
 * read of it on this thread gives what it was then.  Errors as of lethe_mem_read().
 */
LETHE_API int lethe_mem_copy(struct lethe_vm *vm, const struct lethe_copy *piece, size_t count);

/* ---- protection ---- */

struct lethe_range {
	uint64_t gpa;
	uint64_t bytes; /* both page-aligned */
};

struct lethe_protect_result {
	uint64_t duration_ns; /* the guest waited this long; 0 before start */
	uint64_t pages_copied;
	uint64_t pages_secured;
	uint8_t measurement[LETHE_MEASUREMENT_SIZE];
};

/*
 * Turns the VM secure: the @necessary ranges keep their content, copied and measured in
 * this order; every other page becomes private and zero.  Before start: any ranges.
 * While it runs: only in answer to LETHE_EXIT_PROTECT, with that exit's ranges, between
 * the exit and the vCPU's next lethe_vcpu_run; -EPROTO otherwise, and when it is secure.
 * -EINVAL, -ERANGE, -ENOENT a bad range; -EEXIST overlapping ranges; -ENOMEM.  On failure
 * the VM is normal again with its content intact.
 */
LETHE_API int lethe_vm_protect(struct lethe_vm *vm, const struct lethe_range *necessary,
	size_t count, struct lethe_protect_result *ret);

/*
 * Says beforehand which conversions are accepted: those inside one of the ranges, as long as
 * at most @max_shared_bytes of the VM are shared then.  They cause no LETHE_EXIT_CONVERT;
 * all others do as before.  Replaces the former policy; @count 0 (@ranges may be NULL): none.
 * Ends with the incarnation.  At most 32 ranges, which need not be memory.
 * -EINVAL, -ERANGE a bad range, or too many: the former policy holds.
 */
LETHE_API int lethe_vm_set_policy(struct lethe_vm *vm, const struct lethe_range *ranges,
	size_t count, uint64_t max_shared_bytes);

LETHE_API bool lethe_vm_is_protected(const struct lethe_vm *vm);

enum lethe_gfn_state { LETHE_GFN_NORMAL, LETHE_GFN_SECURE, LETHE_GFN_SHARED, LETHE_GFN_PAGED_OUT };

/* What this side holds the page at @gpa to be.  -ENOENT outside slots. */
LETHE_API int lethe_gfn_state(struct lethe_vm *vm, uint64_t gpa, enum lethe_gfn_state *ret);

/* ---- paging ---- */

/*
 * A page store in a sparse file, at "PATH" or "file:PATH", in which each page has its place
 * by its address.  Space is given back by holes; I/O goes past the page cache where the file
 * system can (O_DIRECT).
 *
 * The file that is made there has no name from then on: nobody else finds it, and it goes with
 * this process, however that ends.  An empty file that is there already is locked, used, emptied
 * by close and left.
 * -EINVAL no path, or another scheme than "file:"; -EBUSY in use by another VM; -EEXIST it is
 * not empty, or no regular file; -ENOMEM; any errno of opening and writing a file.
 */
LETHE_API int lethe_page_store_file(const char *url, struct lethe_page_store **ret_store);

/*
 * From here on pages of @vm can be paged out to @store, and are brought back when the guest
 * needs them.  While memory is short, what was not used for longest goes out by itself.  @vm
 * closes @store at its end; lethe_vm_close waits two seconds for what the store is at, and where
 * it is still at it then, @store is closed when it comes back.  On failure it is still the
 * caller's.  Any time, once: it stays through reboots, at which its content is dropped.
 * -EEXIST @vm has one; -EINVAL a function is missing; -ENOMEM, -EAGAIN no threads.
 */
LETHE_API int lethe_vm_set_page_store(struct lethe_vm *vm, struct lethe_page_store *store);

/*
 * Pages out what is private and in use of [gpa, gpa + bytes): encrypts it, puts it into the
 * store and gives its memory back.  *ret_pages: how many went.  What is shared, released, out
 * already or was never touched stays as it is.
 * -ENODEV no page store; -EINVAL, -ERANGE no range of whole pages; -ENOENT part of it is no
 * memory; -EPROTO not protected; -EOPNOTSUPP its executor cannot; -EAGAIN a conversion is in the
 * way for long; -ENOMEM; what the store said, the pages that it did not take are in memory again
 * then.  On failure parts may have gone out.
 */
LETHE_API int lethe_page_out(
	struct lethe_vm *vm, uint64_t gpa, uint64_t bytes, uint64_t *ret_pages);

/*
 * The same with about @bytes of what was not used for longest, as far as the executor knows.
 * *ret_bytes: how many went.  Less if less is in use: all memory has its turn once, and what the
 * guest brings back meanwhile stays.
 */
LETHE_API int lethe_page_out_cold(struct lethe_vm *vm, uint64_t bytes, uint64_t *ret_bytes);

/* ---- vCPUs ---- */

/* A segment register with its hidden part; flags as below. */
struct lethe_segment {
	uint64_t base;
	uint32_t limit; /* bytes - 1 */
	uint16_t selector;
	uint8_t type; /* as in a descriptor */
	uint8_t flags;
};

#define LETHE_SEG_PRESENT      1u
#define LETHE_SEG_CODE_OR_DATA 2u
#define LETHE_SEG_DEFAULT_32   4u
#define LETHE_SEG_LONG         8u
#define LETHE_SEG_GRANULAR     16u

/* An x86-64 vCPU at its first instruction. */
struct lethe_cpu_state {
	uint32_t reserved[2];
	uint64_t rip, rsp, rflags, rax, rbx, rcx, rdx, rsi, rdi;
	uint64_t cr0, cr3, cr4, efer;
	uint64_t gdt_base, gdt_limit;
	struct lethe_segment cs, data, tr; /* data: ds, es, fs, gs and ss */
};

/*
 * Sets what @vcpu finds at its first instruction in this incarnation, instead of reset.
 * Measured; refused once the VM is protected or has started (-EPROTO).
 * -EINVAL no such vCPU; -EOPNOTSUPP the executor has no registers.
 */
LETHE_API int lethe_vcpu_set_state(
	struct lethe_vm *vm, unsigned int vcpu, const struct lethe_cpu_state *state);

/* Sets interrupt line @irq (0 to 23) of a PC.  -EINVAL; -ENOENT no PC, or no memory yet. */
LETHE_API int lethe_irq_line(struct lethe_vm *vm, unsigned int irq, bool level);

/*
 * Lets all vCPUs go, from their first instruction.  *ret_first_ns (may be NULL): when
 * vCPU 0 went on, CLOCK_MONOTONIC.
 */
LETHE_API int lethe_vm_start(struct lethe_vm *vm, uint64_t *ret_first_ns);

/* Stops all vCPUs for good in this incarnation, in bounded time.  No-op if stopped. */
LETHE_API int lethe_vm_stop(struct lethe_vm *vm);

enum lethe_exit_type {
	LETHE_EXIT_CLOSED = 1, /* the VM or its ultravisor is gone; vCPUs have ended */
	LETHE_EXIT_PRINT,      /* text */
	LETHE_EXIT_PROTECT,    /* ranges: call lethe_vm_protect, reply its result */
	LETHE_EXIT_CONVERT,    /* gpa, bytes, to_shared: reply 0 to allow, else an errno */
	LETHE_EXIT_RELEASE,    /* gpa, bytes were given up */
	LETHE_EXIT_DMA,        /* gpa, bytes: complement every byte, reply the result */
	LETHE_EXIT_REBOOT,     /* all vCPUs have stopped */
	LETHE_EXIT_POWEROFF,   /* all vCPUs have stopped */
	LETHE_EXIT_STOPPED,    /* stopped by the ultravisor: stop, gpa, text */
	LETHE_EXIT_HALTED,     /* this vCPU has nothing left to do until a reset */
	LETHE_EXIT_PIO,        /* port (in gpa), bytes, is_write, value: reply_value */
	LETHE_EXIT_MMIO        /* gpa, bytes, is_write, value: reply_value */
};

/*
 * What a write to a device does to the whole VM: after RESET or POWEROFF all vCPUs stop and
 * LETHE_EXIT_REBOOT or LETHE_EXIT_POWEROFF follows on the vCPU that wrote.
 */
enum lethe_action { LETHE_ACTION_NONE, LETHE_ACTION_RESET, LETHE_ACTION_POWEROFF };

enum lethe_stop {
	LETHE_STOP_CHECK = 1,
	LETHE_STOP_VIOLATION,
	LETHE_STOP_LOST_PAGE,
	LETHE_STOP_GUEST,
	LETHE_STOP_HOST
};

struct lethe_exit {
	enum lethe_exit_type type;
	uint64_t time_ns; /* when the guest asked, CLOCK_MONOTONIC */
	uint64_t gpa;
	uint64_t bytes;
	uint64_t value;
	bool is_write;
	bool to_shared;
	enum lethe_stop stop;
	size_t count; /* of ranges, or bytes of text */
	union {
		char text[3072]; /* NUL-terminated */
		struct lethe_range ranges[128];
	};
	/* The answer: set before the next lethe_vcpu_run. */
	int reply;            /* 0 or a negative errno */
	uint64_t reply_value; /* PIO, MMIO: what a read gives; an enum lethe_action of a write */
	/*
	 * With a reply of 0: copies to the guest, done before it goes on, for nothing but the
	 * answer.  If one fails, the guest gets that as the answer.
	 */
	const struct lethe_copy *then;
	size_t then_count;
};

/*
 * Answers the exit in *exit, if it is one of this vCPU that waits for an answer, and
 * waits for the next.  Zero *exit before the first call.  One thread per vCPU.
 * -EINVAL no such vCPU.  Returns 0 with LETHE_EXIT_CLOSED when there will be no more.
 */
LETHE_API int lethe_vcpu_run(struct lethe_vm *vm, unsigned int vcpu, struct lethe_exit *exit);

/* ---- forgetting ---- */

struct lethe_destroy_result {
	uint64_t incarnation;
	uint64_t bytes; /* destroyed by this call */
	uint64_t left;  /* still to destroy */
	uint64_t quarantined;
	uint64_t duration_ns;
};

/*
 * Sets the protected incarnation aside in constant time: the VM goes on without slots,
 * not protected.  *ret_resident: bytes that wait to be destroyed.
 * -EBUSY vCPUs run; -ENODATA nothing is protected; -EALREADY one is set aside whose
 * destruction has not begun; -EOPNOTSUPP the kill switch; -ENOMEM too little memory for
 * the next incarnation beside this one.  The caller then uses lethe_vm_reset.
 */
LETHE_API int lethe_destroy_prepare(
	struct lethe_vm *vm, uint64_t *ret_incarnation, uint64_t *ret_resident);

/*
 * Destroys what is set aside; blocks until done or cancelled.  From a thread of its own.
 * -ENODATA nothing is set aside; -ECANCELED (*ret is valid: how far it came);
 * -EUCLEAN some memory could not be destroyed and is quarantined (*ret is valid).
 */
LETHE_API int lethe_destroy_perform(struct lethe_vm *vm, struct lethe_destroy_result *ret);

/* Makes a running perform return -ECANCELED soon.  -ENODATA none runs. */
LETHE_API int lethe_destroy_cancel(struct lethe_vm *vm);

/*
 * The old way: destroys the current incarnation before it returns and drops all slots.
 * Also for a VM that is not protected.  -EBUSY vCPUs run; -EUCLEAN (*ret is valid).
 */
LETHE_API int lethe_vm_reset(struct lethe_vm *vm, struct lethe_destroy_result *ret);

struct lethe_info {
	uint64_t incarnation;
	uint64_t shared_bytes;
	uint64_t set_aside_bytes;
	uint64_t stale_bytes;
	uint64_t quarantined_bytes;
	uint64_t mapped_bytes; /* of the shared ones: in this process's reach without a copy */
	/* Conversions that a policy accepted, since the VM was made. */
	uint64_t policy_shares, policy_shared_bytes;
	uint64_t policy_unshares, policy_unshared_bytes;
	/* LETHE_SHARE_AUTO: ranges mapped for being used, and copied again for flipping. */
	uint64_t auto_maps, auto_unmaps;
	uint64_t paged_out_bytes;     /* now */
	uint64_t pages_out, pages_in; /* since the start */
	/* As in struct lethe_ps_entry; pressure: 0 none, 1 raised, 2 high. */
	uint64_t resident_bytes, forgotten_bytes, forget_rate, pressure;
};

LETHE_API int lethe_vm_info(struct lethe_vm *vm, struct lethe_info *ret);

/* Bytes that a memslot takes, by what they are for. */
struct lethe_audit {
	uint64_t private_bytes; /* pages that only the guest and the ultravisor reach */
	uint64_t shared_bytes;  /* shared pages, in either place; all pages while not protected */
	uint64_t stale_bytes;   /* shared backing that was left behind and waits to be discarded */
	uint64_t doubly_held_bytes; /* shared backing that this process allocated (through
				     * lethe_slot_mapping, say) for pages that lie elsewhere */
	uint64_t paged_out_bytes;   /* none of it in memory: with the page store */
};

/*
 * Looks through memslot @id.  What is doubly held is queued to be discarded, so the next audit
 * finds it stale, or gone; the guest's memory is untouched.  The slot is looked at in parts,
 * between which the guest runs: the sums are of several moments.  Before Linux 6.5, memory that
 * was allocated and never written is not seen.
 * -ENOENT, -EINVAL no such slot; -ERANGE it changed meanwhile; -ENOMEM.
 */
LETHE_API int lethe_vm_audit(struct lethe_vm *vm, unsigned int id, struct lethe_audit *ret);

/* ---- the process and the host ---- */

/*
 * Gives up root for good: becomes SUDO_UID/SUDO_GID where set, else nobody, with no
 * supplementary groups and no capabilities.  Nothing to do if not root.  Call it after
 * opening what needs root and before lethe_vm_start.
 */
LETHE_API int lethe_drop_root(void);

/* Whether executor @which works here: 0, or an errno with lethe_error() saying why. */
LETHE_API int lethe_executor_probe(enum lethe_executor which);

struct lethe_ps_entry {
	char name[64];
	pid_t uv_pid, hv_pid;
	bool hv_alive;
	const char *state; /* starting, normal, secure, stopped, forgetting */
	const char *executor;
	const char *pressure; /* none, raised, high */
	unsigned int vcpus;
	uint64_t memory_bytes, resident_bytes, forget_bytes, forgotten_bytes, forget_rate;
	uint64_t stale_bytes, quarantined_bytes, incarnation, started_ns;
};

/*
 * Lists the VMs of this user's runtime directory (root sees root's), by name.  Entries
 * whose processes are both gone are removed on the way.  Caller frees *ret_entries.
 */
LETHE_API int lethe_ps(struct lethe_ps_entry **ret_entries, size_t *ret_count);

/*
 * Finds the VM called @name in the same directory: its entry, and in @ret_folder, of @size
 * bytes, the path of its folder.  -ENOENT no such VM; -ENAMETOOLONG @size is too small.
 */
LETHE_API int lethe_vm_find(
	const char *name, struct lethe_ps_entry *ret, char *ret_folder, size_t size);

LETHE_API const char *lethe_version(void);

#ifdef __cplusplus
}
#endif

#endif
