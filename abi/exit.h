/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vCPU exits: what the ultravisor asks of the hypervisor while guest code runs.
 *
 * One shared page per vCPU.  Each side writes its own half and its own sequence
 * number, so neither can overwrite the other's news:
 *
 *   ultravisor  fills exit, increments exit_seq (release), rings
 *   hypervisor  waits for exit_seq != the last one it saw (acquire), copies exit,
 *               acts, fills reply, sets reply_seq = that exit_seq (release), rings
 *   ultravisor  waits for reply_seq == exit_seq (acquire), copies reply once
 *
 * While an exit waits for its reply, the hypervisor may have shared guest memory copied,
 * as often as it likes, by the vCPU's thread, which has nothing else to do:
 *
 *   hypervisor  fills copy, copy_count and what is to be written into the data area,
 *               increments copy_seq (release), rings
 *   ultravisor  takes the request over once, checks all of it, copies all of it or
 *               nothing, sets copy_status and copy_done = copy_seq (release), rings
 *   hypervisor  waits for copy_done == copy_seq (acquire), or for exit_seq or served_seq to
 *               be another than this exit's: then the vCPU has gone away, and the request
 *               is served by its next exit, if ever; until then there must be no other
 *
 * Copies may also come with the reply: copy and reply_copies, their number, instead of
 * copy_count.  They are made before the reply is taken; if they fail, their status is that
 * of a reply that accepts.
 *
 * To ring is to increment one's own bell and, if the other side says that it sleeps, to
 * wake it there (a process-shared futex).  Who is about to sleep says so, then looks
 * again, then sleeps if the bell is still what it was before that look.
 *
 * A reply to an exit that a reset has overtaken has an old number and is ignored.  When
 * the ultravisor dies, the hypervisor's socket watcher increments exit_seq with type
 * ABI_EXIT_CLOSED and rings in its place.
 *
 * The ultravisor trusts nothing here: it reads its own copies of exit_seq and copy_seq
 * from private memory, and what the hypervisor writes once.
 */
#ifndef ABI_EXIT_H
#define ABI_EXIT_H

#include <stdint.h>

#define ABI_EXIT_PAGE 4096u
#define ABI_EXIT_DATA 3072u

/* Of each vCPU: what its copies read and write, one segment after the other. */
#define ABI_COPY_DATA     (64u << 10)
#define ABI_COPY_SEGMENTS 32u

/*
 * The memfd of VM_CREATE: the exit pages of all vCPUs, the data areas of all vCPUs, and the
 * page that says what is mapped.
 */
#define ABI_COPY_OFFSET(vcpus)  ((uint64_t)(vcpus)*ABI_EXIT_PAGE)
#define ABI_SHARE_OFFSET(vcpus) (ABI_COPY_OFFSET(vcpus) + (uint64_t)(vcpus)*ABI_COPY_DATA)
#define ABI_PAGES_BYTES(vcpus)  (ABI_SHARE_OFFSET(vcpus) + ABI_SHARE_PAGE)

/*
 * X(name, number, meaning; arguments; reply)
 */
#define ABI_EXIT_TABLE(X)                                                                       \
	X(NONE, 0, "nothing")                                                                   \
	X(CLOSED, 1, "the VM is gone: no more exits")                                           \
	X(PRINT, 2, "data: text for the console, without a newline")                            \
	X(PROTECT, 3, "the guest asks to turn secure; data: struct abi_range[], necessary")     \
	X(CONVERT, 4, "arg: gpa, bytes, 1 to share or 0 to unshare; reply.status 0 accepts")    \
	X(RELEASE, 5, "arg: gpa, bytes: the guest gave these pages up")                         \
	X(DMA, 6, "arg: gpa, bytes: the device is to complement them; reply.status")            \
	X(REBOOT, 7, "all vCPUs have stopped; set aside or reset, load, start")                 \
	X(POWEROFF, 8, "all vCPUs have stopped; the guest wants no more")                       \
	X(STOPPED, 9, "the ultravisor stopped the VM; arg: enum abi_stop, gpa; data: why")      \
	X(HALTED, 10, "this vCPU has nothing left to do until the next reset")                  \
	X(PIO, 11, "arg: port, bytes, 1 for out, value; reply.value: in's value, out's action") \
	X(MMIO, 12, "arg: gpa, bytes, 1 for write, value; reply.value as for PIO")

enum abi_exit_type {
#define X(name, number, text) ABI_EXIT_##name = number,
	ABI_EXIT_TABLE(X)
#undef X
};

/* What a write to a device does to the whole VM: reply.value of a write. */
enum abi_device_action { ABI_DEVICE_NOTHING = 0, ABI_DEVICE_RESET = 1, ABI_DEVICE_POWEROFF = 2 };

/* Why the ultravisor stopped a VM. */
enum abi_stop {
	ABI_STOP_CHECK = 1,     /* the guest found wrong memory content */
	ABI_STOP_VIOLATION = 2, /* an access that no state allows */
	ABI_STOP_LOST_PAGE = 3, /* a sealed page is missing or was changed */
	ABI_STOP_GUEST = 4,     /* the guest cannot go on: a bad program, a refused call */
	ABI_STOP_HOST = 5       /* the host failed the ultravisor: memory, KVM */
};

struct abi_range {
	uint64_t gpa;
	uint64_t bytes;
};

/* One piece of a copy request: guest memory that is shared. */
struct abi_copy {
	uint64_t gpa;      /* any alignment */
	uint32_t bytes;    /* 1 or more; all segments together at most ABI_COPY_DATA */
	uint32_t to_guest; /* 1: from the data area to the guest; 0: the other way */
};

struct abi_vcpu_page {
	/* Written by the ultravisor. */
	uint32_t exit_seq;   /* atomic */
	uint32_t type;       /* enum abi_exit_type */
	uint64_t time_ns;    /* CLOCK_MONOTONIC when the guest asked */
	int64_t last_result; /* how this vCPU's previous CONVERT ended: 0 or -enum abi_status */
	uint64_t arg[6];
	uint32_t data_size;
	uint32_t bell;        /* atomic, futex: the hypervisor sleeps here */
	uint32_t sleeps;      /* atomic: the ultravisor sleeps at reply_bell */
	uint32_t copy_done;   /* atomic: the copy_seq that was served last */
	uint32_t copy_status; /* enum abi_status */
	uint32_t copied;      /* DMA: so many bytes of the range lie in the data area; 0: none */
	uint32_t reserved1;
	uint32_t served_seq; /* atomic: the exit_seq that the vCPU waits with */
	uint8_t data[ABI_EXIT_DATA];

	/* Written by the hypervisor, on another cache line. */
	uint32_t reply_seq __attribute__((aligned(64))); /* atomic */
	uint32_t reply_status;                           /* enum abi_status */
	uint64_t reply_value;
	uint32_t reply_bell;   /* atomic, futex: the ultravisor sleeps here */
	uint32_t reply_sleeps; /* atomic: the hypervisor sleeps at bell */
	uint32_t copy_seq;     /* atomic */
	uint32_t copy_count;   /* 1 .. ABI_COPY_SEGMENTS */
	uint32_t reply_copies; /* 0 .. ABI_COPY_SEGMENTS */
	uint32_t reserved2;
	struct abi_copy copy[ABI_COPY_SEGMENTS];
};

/*
 * What is mapped: ranges whose pages the hypervisor finds in its own mapping of the slots'
 * memfds.  Ranges may be missing here (those are copied), none is wrong while generation is
 * even and stays what it was: it is raised to an odd number before a mapped page goes away,
 * and to the next even one when the list is right again.  So who copied, and finds the
 * generation of before after a full barrier, has read or written what the guest has.
 */
#define ABI_SHARE_PAGE   4096u
#define ABI_SHARE_RANGES 64u

struct abi_share_page {
	uint32_t generation; /* atomic */
	uint32_t count;      /* atomic */
	struct abi_range range[ABI_SHARE_RANGES];
};

_Static_assert(sizeof(struct abi_vcpu_page) <= ABI_EXIT_PAGE, "one page per vCPU");
_Static_assert(sizeof(struct abi_share_page) <= ABI_SHARE_PAGE, "one page per VM");

#endif
