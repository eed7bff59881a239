/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * uv calls: what the hypervisor may ask of the ultravisor.
 *
 * Transport: one SOCK_SEQPACKET pair per VM.  A request is one packet: a header and
 * the argument struct of its call, of exactly the size in the table, with the file
 * descriptors that the call names.  The answer is one packet: a header with the same
 * seq, and on ABI_ST_OK the result struct of the call.  Calls are performed one after
 * another in the order of arrival; PERFORM alone answers later, from the sweeper, so
 * that other calls go on meanwhile.  Between answers the ultravisor may send a struct
 * abi_event, which nobody asked for and nobody answers.
 *
 * The table below is the only place that says who may call what and when: dispatch in
 * uv/ is generated from it, and so are the names in logs.  Freestanding: includes no
 * other room, and nothing of libc but the integer types.
 *
 * IN fields are read by the ultravisor, OUT fields written by it.  Reserved fields
 * must be zero.  Little-endian, naturally aligned, no implicit padding.
 */
#ifndef ABI_UVCALL_H
#define ABI_UVCALL_H

#include <stdint.h>

#include "abi/exit.h"
#include "abi/vcpu_state.h"

#define ABI_MAGIC       0x6c746875u /* "uhtl" */
#define ABI_EVENT_MAGIC 0x6c746876u
#define ABI_VERSION     2u

/* The descriptor on which lethe-uv finds its socket. */
#define ABI_SOCKET_FD 3

#define ABI_MAX_SLOTS        32u
#define ABI_MAX_VCPUS        64u
#define ABI_MAX_RANGES       128u
#define ABI_POLICY_RANGES    32u
#define ABI_MEASUREMENT_SIZE 48u /* SHA-384 */
#define ABI_BULK_SIZE        (1u << 20)
#define ABI_MAX_PACKET       4096u

/*
 * Answers.  X(name, number, errno that liblethe returns for it, meaning)
 */
#define ABI_STATUS_TABLE(X)                                                                 \
	X(OK, 0, 0, "done")                                                                 \
	X(INVALID, 1, EINVAL, "an argument is malformed")                                   \
	X(RANGE, 2, ERANGE, "a range wraps or lies beyond the address space")               \
	X(NO_MEMORY, 3, ENOMEM, "not enough memory")                                        \
	X(BUSY, 4, EBUSY, "vCPUs run, or the object is in use")                             \
	X(DENIED, 5, EPERM, "the page is private, or the call is not for this caller")      \
	X(EXISTS, 6, EEXIST, "the id or a part of the range is taken")                      \
	X(NOT_FOUND, 7, ENOENT, "no such slot, range or object")                            \
	X(WRONG_STATE, 8, EPROTO, "not in this state of the VM")                            \
	X(UNKNOWN_CALL, 9, ENOTTY, "no such call")                                          \
	X(VERSION, 10, EPROTONOSUPPORT, "another version of the interface")                 \
	X(NOT_SUPPORTED, 11, EOPNOTSUPP, "not supported here, or switched off")             \
	X(PENDING, 12, EALREADY, "one is set aside whose destruction has not begun")        \
	X(NOTHING, 13, ENODATA, "nothing is protected, set aside or sealed")                \
	X(CANCELLED, 14, ECANCELED, "cancelled; the rest is kept for later")                \
	X(QUARANTINED, 15, EUCLEAN, "memory could not be destroyed and is kept out of use") \
	X(IO, 16, EIO, "the host failed an operation")                                      \
	X(BAD_PAGE, 17, EBADMSG, "a sealed page failed its check")                          \
	X(AGAIN, 18, EAGAIN, "overlaps an operation under way; try again")

enum abi_status {
#define X(name, number, err, text) ABI_ST_##name = number,
	ABI_STATUS_TABLE(X)
#undef X
};

/* Where a VM is in its life, as a bit so that the table can name sets. */
enum abi_phase {
	ABI_PHASE_NEW = 1,     /* connected, hello not yet said */
	ABI_PHASE_GREETED = 2, /* versions agree, no VM yet */
	ABI_PHASE_SETUP = 4,   /* a VM, vCPUs not started in this incarnation */
	ABI_PHASE_RUNNING = 8, /* vCPUs may execute */
	ABI_PHASE_STOPPED = 16 /* vCPUs have stopped for good in this incarnation */
};

/* What the memory of the current incarnation is, likewise. */
enum abi_security {
	ABI_SEC_NORMAL = 1,    /* memory is the hypervisor's */
	ABI_SEC_TRANSIENT = 2, /* INIT_START seen, INIT_DONE not yet */
	ABI_SEC_SECURE = 4     /* memory is private unless shared */
};

#define ABI_PHASE_VM (ABI_PHASE_SETUP | ABI_PHASE_RUNNING | ABI_PHASE_STOPPED)
#define ABI_SEC_ANY  (ABI_SEC_NORMAL | ABI_SEC_TRANSIENT | ABI_SEC_SECURE)
#define ABI_SEC_REST (ABI_SEC_NORMAL | ABI_SEC_SECURE)

/*
 * X(name, number, argument struct, result struct, descriptors passed, phases, security)
 */
#define ABI_CALL_TABLE(X)                                                                    \
	X(HELLO, 1, abi_hello, abi_hello_ret, 0, ABI_PHASE_NEW, ABI_SEC_ANY)                 \
	X(VM_CREATE, 2, abi_vm_create, abi_none, 4, ABI_PHASE_GREETED, ABI_SEC_ANY)          \
	X(SLOT_REGISTER, 3, abi_slot, abi_none, 1, ABI_PHASE_VM, ABI_SEC_REST)               \
	X(SLOT_UNREGISTER, 4, abi_slot, abi_none, 0, ABI_PHASE_VM, ABI_SEC_REST)             \
	X(INIT_START, 5, abi_none, abi_none, 0, ABI_PHASE_SETUP | ABI_PHASE_RUNNING,         \
		ABI_SEC_NORMAL)                                                              \
	X(PAGE_IN, 6, abi_page_in, abi_page_in_ret, 0, ABI_PHASE_SETUP | ABI_PHASE_RUNNING,  \
		ABI_SEC_TRANSIENT)                                                           \
	X(INIT_DONE, 7, abi_none, abi_init_done_ret, 0, ABI_PHASE_SETUP | ABI_PHASE_RUNNING, \
		ABI_SEC_TRANSIENT)                                                           \
	X(INIT_ABORT, 8, abi_none, abi_none, 0, ABI_PHASE_VM, ABI_SEC_TRANSIENT)             \
	X(VM_START, 9, abi_none, abi_vm_start_ret, 0, ABI_PHASE_SETUP, ABI_SEC_REST)         \
	X(VM_STOP, 10, abi_none, abi_none, 0, ABI_PHASE_VM, ABI_SEC_ANY)                     \
	X(PREPARE, 11, abi_none, abi_prepare_ret, 0, ABI_PHASE_VM, ABI_SEC_ANY)              \
	X(PERFORM, 12, abi_none, abi_perform_ret, 0, ABI_PHASE_VM, ABI_SEC_ANY)              \
	X(CANCEL, 13, abi_none, abi_none, 0, ABI_PHASE_VM, ABI_SEC_ANY)                      \
	X(RESET, 14, abi_none, abi_perform_ret, 0, ABI_PHASE_VM, ABI_SEC_ANY)                \
	X(MEM_READ, 15, abi_mem, abi_none, 0, ABI_PHASE_VM, ABI_SEC_REST)                    \
	X(MEM_WRITE, 16, abi_mem, abi_none, 0, ABI_PHASE_VM, ABI_SEC_REST)                   \
	X(INFO, 17, abi_none, abi_info_ret, 0, ABI_PHASE_VM, ABI_SEC_ANY)                    \
	X(VCPU_STATE, 18, abi_vcpu_state, abi_none, 0, ABI_PHASE_SETUP, ABI_SEC_NORMAL)      \
	X(IRQ_LINE, 19, abi_irq_line, abi_none, 0, ABI_PHASE_VM, ABI_SEC_ANY)                \
	X(PAGE_OUT, 20, abi_page_out, abi_page_out_ret, 0, ABI_PHASE_VM, ABI_SEC_SECURE)     \
	X(PAGE_IN_SEALED, 21, abi_page_in_sealed, abi_page_in_ret, 0, ABI_PHASE_VM,          \
		ABI_SEC_SECURE)                                                              \
	X(PAGE_LOST, 22, abi_page_lost, abi_none, 0, ABI_PHASE_VM, ABI_SEC_SECURE)           \
	X(SLOT_MOVE, 23, abi_slot_move, abi_none, 0, ABI_PHASE_VM, ABI_SEC_REST)             \
	X(COLDEST, 24, abi_coldest, abi_coldest_ret, 0, ABI_PHASE_VM, ABI_SEC_SECURE)        \
	X(POLICY, 30, abi_policy, abi_none, 0, ABI_PHASE_VM, ABI_SEC_ANY)                    \
	X(AUDIT, 31, abi_audit, abi_audit_ret, 0, ABI_PHASE_VM, ABI_SEC_REST)

enum abi_call {
#define X(name, number, args, result, fds, phases, security) ABI_CALL_##name = number,
	ABI_CALL_TABLE(X)
#undef X
};

struct abi_request {
	uint32_t magic;
	uint32_t call; /* enum abi_call */
	uint32_t seq;  /* chosen by the caller, returned in the answer */
	uint32_t size; /* bytes of the argument struct that follows */
};

struct abi_answer {
	uint32_t magic;
	uint32_t status; /* enum abi_status */
	uint32_t seq;
	uint32_t size; /* bytes of the result struct that follows; 0 unless ABI_ST_OK,
			* except VERSION, CANCELLED and QUARANTINED, which carry it too */
};

struct abi_none {
	uint64_t reserved;
};

struct abi_hello {
	uint32_t version; /* IN: ABI_VERSION of the hypervisor */
	uint32_t reserved;
};

struct abi_hello_ret {
	uint32_t version; /* OUT: the ultravisor's; also sent with ABI_ST_VERSION */
	int32_t pid;      /* OUT: the ultravisor's process id */
};

/* abi_vm_create.executor */
enum abi_executor { ABI_EXEC_SW = 1, ABI_EXEC_KVM = 2 };

/* abi_vm_create.flags */
#define ABI_VM_LAZY_OFF      1u  /* the kill switch: PREPARE refuses */
#define ABI_VM_WIPE_OFF      2u  /* freed memory is left for the kernel to clear */
#define ABI_VM_SHARE_MAPPED  4u  /* conversions lay the memfd over the window */
#define ABI_VM_DISCARD_EAGER 8u  /* stale shared pages are punched before unshare returns */
#define ABI_VM_PC            16u /* a PC: interrupt controllers and timer; needs ABI_EXEC_KVM */
#define ABI_VM_SHARE_AUTO    32u /* copied at first; what stays shared and is used is mapped */

/*
 * Descriptors: the vCPU exit pages and what follows them (memfd of ABI_PAGES_BYTES(vcpus),
 * sealed against resizing), the bulk buffer (memfd of ABI_BULK_SIZE bytes, likewise), the status
 * file (at least 4096 bytes, a regular file or memfd) whose name field is filled in, and the VM's
 * folder in the runtime directory, which the ultravisor removes at its end, with the files `status`
 * and `control` in it.
 */
struct abi_vm_create {
	uint32_t vcpus;    /* IN: 1 .. ABI_MAX_VCPUS */
	uint32_t executor; /* IN: enum abi_executor */
	uint32_t flags;    /* IN: ABI_VM_* */
	uint32_t reserved;
};

/* Descriptor: the slot's shared backing (memfd, sealed against shrinking). */
struct abi_slot {
	uint32_t id; /* IN: 0 .. ABI_MAX_SLOTS - 1 */
	uint32_t reserved;
	uint64_t gpa;   /* IN: page-aligned */
	uint64_t bytes; /* IN: whole pages; 0 for UNREGISTER */
};

struct abi_page_in {
	uint64_t gpa;   /* IN: page-aligned */
	uint64_t bytes; /* IN: whole pages, inside one slot */
};

struct abi_page_in_ret {
	uint64_t pages; /* OUT: pages that were taken in */
};

#define ABI_SEALED_PAGES (ABI_BULK_SIZE / 4096)

/*
 * The private pages of a range that hold something are encrypted into the bulk buffer, the
 * page at gpa + 4096 * i to byte 4096 * i, and their memory is given back.  What is shared,
 * released, sealed already or was never touched is left alone.
 */
struct abi_page_out {
	uint64_t gpa;   /* IN: page-aligned */
	uint64_t bytes; /* IN: whole pages, inside one slot, at most ABI_BULK_SIZE */
};

struct abi_page_out_ret {
	uint64_t pages;                         /* OUT: pages sealed by this call */
	uint64_t sealed[ABI_SEALED_PAGES / 64]; /* OUT: bit i: the page at gpa + 4096 * i */
};

/*
 * The way back.  Of the pages in `present`, whose ciphertext is in the bulk buffer as above,
 * those that are sealed are checked and decrypted; the others are left alone.  One that
 * fails its check is ABI_ST_BAD_PAGE: none is taken in, and the VM stops.
 */
struct abi_page_in_sealed {
	uint64_t gpa;                            /* IN: page-aligned */
	uint64_t bytes;                          /* IN: as for abi_page_out */
	uint64_t present[ABI_SEALED_PAGES / 64]; /* IN: no bit beyond the range */
};

/* The hypervisor cannot bring a sealed page back: the VM stops. */
struct abi_page_lost {
	uint64_t gpa; /* IN: page-aligned */
};

struct abi_slot_move {
	uint32_t id; /* IN */
	uint32_t reserved;
	uint64_t gpa; /* IN: page-aligned, where the slot shall begin */
};

struct abi_coldest {
	uint64_t bytes; /* IN: whole pages: how much to find */
};

/*
 * Where private memory lies that was not used for longest, the coldest first.  Who adds up
 * `looked` knows when all memory had its turn; what is found after that has come back.
 */
struct abi_coldest_ret {
	uint32_t count; /* OUT */
	uint32_t reserved;
	uint64_t looked; /* OUT: bytes of the guest that this answer is about */
	struct abi_range range[ABI_MAX_RANGES]; /* OUT: each inside one slot */
};

struct abi_init_done_ret {
	uint64_t pages_copied;                     /* OUT */
	uint64_t pages_secured;                    /* OUT: made secure without a copy */
	uint64_t duration_ns;                      /* OUT: vCPUs paused to vCPUs going on */
	uint8_t measurement[ABI_MEASUREMENT_SIZE]; /* OUT */
};

struct abi_vm_start_ret {
	uint64_t first_instruction_ns; /* OUT: CLOCK_MONOTONIC when vCPU 0 went on */
};

struct abi_prepare_ret {
	uint64_t incarnation; /* OUT: the one set aside */
	uint64_t resident;    /* OUT: bytes that wait to be destroyed, an estimate */
};

struct abi_perform_ret {
	uint64_t incarnation; /* OUT: the last one destroyed or begun */
	uint64_t bytes;       /* OUT: bytes destroyed by this call */
	uint64_t left;        /* OUT: bytes still to destroy */
	uint64_t quarantined; /* OUT: bytes kept out of use because a step failed */
	uint64_t duration_ns; /* OUT */
};

/* Copies between the bulk buffer's start and guest memory that is shared. */
struct abi_mem {
	uint64_t gpa;   /* IN: any alignment */
	uint32_t bytes; /* IN: 1 .. ABI_BULK_SIZE */
	uint32_t reserved;
};

/* An interrupt line of a PC's interrupt controllers. */
struct abi_irq_line {
	uint32_t irq;   /* IN: 0 .. 23 */
	uint32_t level; /* IN: 0 or 1 */
};

/*
 * Which conversions need no exit: those inside one of the ranges, as long as no more than
 * @max_shared_bytes of the whole VM are shared then.  Replaces the former policy; no range
 * is none.  Ends with the incarnation.
 */
struct abi_policy {
	uint64_t max_shared_bytes; /* IN */
	uint32_t count;            /* IN: 0 .. ABI_POLICY_RANGES */
	uint32_t reserved;
	struct abi_range range[ABI_POLICY_RANGES]; /* IN: page-aligned, not empty */
};

/*
 * What a part of a slot holds.  Each call looks at a bounded part, from @offset to @next;
 * what it finds doubly held it queues to be discarded.
 */
struct abi_audit {
	uint32_t id; /* IN: of the slot */
	uint32_t reserved;
	uint64_t offset; /* IN: in bytes, whole pages: 0, then what the call before said */
};

struct abi_audit_ret {
	uint64_t private_resident; /* OUT: bytes of private pages */
	uint64_t shared_resident;  /* OUT: of shared ones, or all in a VM that is not protected */
	uint64_t stale;            /* OUT: shared backing that waited to be discarded before */
	uint64_t doubly_held;      /* OUT: shared backing of pages that lie elsewhere */
	uint64_t next;             /* OUT: where to go on; 0: this was the slot's end */
};

struct abi_info_ret {
	uint32_t phase;       /* OUT: enum abi_phase */
	uint32_t security;    /* OUT: enum abi_security */
	uint64_t incarnation; /* OUT */
	uint64_t shared_pages;
	uint64_t set_aside_bytes;
	uint64_t stale_bytes; /* OUT: shared backing that waits to be discarded */
	uint64_t quarantined_bytes;
	uint64_t sealed_pages; /* OUT: private pages that are with the hypervisor, encrypted */
	/* Since VM_CREATE: conversions that needed no exit, and what sharing has cost. */
	uint64_t policy_shares, policy_shared_bytes;
	uint64_t policy_unshares, policy_unshared_bytes;
	uint64_t mapped_pages; /* OUT: of the shared ones, now */
	uint64_t auto_maps;    /* OUT: copied ranges that were mapped for being used */
	uint64_t auto_unmaps;  /* OUT: mapped ranges that are copied again for flipping */
	/* OUT: as in the status page. */
	uint64_t resident_bytes, forgotten_bytes, forget_rate, pressure;
};

enum abi_event_type {
	/* A vCPU waits for these pages, which are sealed.  Sent once until they have come. */
	ABI_EVENT_PAGE_WANTED = 1
};

struct abi_event {
	uint32_t magic; /* ABI_EVENT_MAGIC */
	uint32_t type;  /* enum abi_event_type */
	uint64_t gpa;
	uint64_t bytes; /* whole pages, inside one slot, at most ABI_BULK_SIZE */
};

#endif
