/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vCPU exits: what the ultravisor asks of the hypervisor while guest code runs.
 *
 * One shared page per vCPU.  Each side writes its own half and its own sequence
 * number, so neither can overwrite the other's news:
 *
 *   ultravisor  fills exit, increments exit_seq (release), wakes exit_seq
 *   hypervisor  waits for exit_seq != the last one it saw (acquire), copies exit,
 *               acts, fills reply, sets reply_seq = that exit_seq (release), wakes it
 *   ultravisor  waits for reply_seq == exit_seq (acquire), copies reply once
 *
 * Both waits are futex waits on the sequence number (process-shared).  A reply to an
 * exit that a reset has overtaken has an old number and is ignored.  When the other
 * side dies, its survivor's socket watcher bumps the number that the waiter sleeps on:
 * for the hypervisor, exit_seq with type ABI_EXIT_CLOSED.
 *
 * The ultravisor trusts nothing here: it reads its own copy of exit_seq from private
 * memory, and reply fields once.
 */
#ifndef ABI_EXIT_H
#define ABI_EXIT_H

#include <stdint.h>

#define ABI_EXIT_PAGE 4096u
#define ABI_EXIT_DATA 3072u

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

struct abi_vcpu_page {
	/* Written by the ultravisor. */
	uint32_t exit_seq;   /* atomic, futex */
	uint32_t type;       /* enum abi_exit_type */
	uint64_t time_ns;    /* CLOCK_MONOTONIC when the guest asked */
	int64_t last_result; /* how this vCPU's previous CONVERT ended: 0 or -enum abi_status */
	uint64_t arg[6];
	uint32_t data_size;
	uint32_t reserved0;
	uint8_t data[ABI_EXIT_DATA];

	/* Written by the hypervisor, on another cache line. */
	uint32_t reply_seq __attribute__((aligned(64))); /* atomic, futex */
	uint32_t reply_status;                           /* enum abi_status */
	uint64_t reply_value;
};

_Static_assert(sizeof(struct abi_vcpu_page) <= ABI_EXIT_PAGE, "one page per vCPU");

#endif
