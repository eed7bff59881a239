/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Guest calls: what guest code asks of the ultravisor.
 *
 * On KVM a call is a 4-byte OUT of any value to GUEST_CALL_PORT (in dx) with the registers
 * rax = number, rdi, rsi, rcx, r8 = arguments; the result comes back in rax.  A
 * buffer is the GPA of its first byte; it must lie in memory of the caller.  In the
 * software executor the same numbers and arguments are a C call.
 *
 * Results: 0 or a positive value, or the negated enum abi_status of abi/uvcall.h.
 */
#ifndef ABI_GUESTCALL_H
#define ABI_GUESTCALL_H

#include <stdint.h>

#define GUEST_CALL_PORT 0x4c54u

/*
 * X(name, number, which argument is a buffer (-1: none), which is its size, element size,
 *   arguments)
 */
#define GUEST_CALL_TABLE(X)                                                                    \
	X(BOOTINFO, 0, -1, -1, 0, "buffer for struct guest_bootinfo")                          \
	X(PROTECT, 1, 0, 1, 16, "struct abi_range[], count: turn secure, these are necessary") \
	X(SHARE, 2, -1, -1, 0, "gpa, bytes: content kept")                                     \
	X(UNSHARE, 3, -1, -1, 0, "gpa, bytes: content kept")                                   \
	X(RELEASE, 4, -1, -1, 0, "gpa, bytes: give pages up for unplugging; content lost")     \
	X(DMA, 5, -1, -1, 0, "gpa, bytes: the device complements every byte")                  \
	X(REBOOT, 6, 0, 1, 8, "uint64_t[], count: handed back in guest_bootinfo.resume")       \
	X(POWEROFF, 7, -1, -1, 0, "")                                                          \
	X(PRINT, 8, 0, 1, 1, "text, bytes")                                                    \
	X(STOP, 9, 2, 3, 1, "enum abi_stop, gpa, text, bytes: stop the VM for this reason")    \
	X(HALT, 10, -1, -1, 0, "nothing left to do")                                           \
	X(SLEEP, 11, -1, -1, 0, "milliseconds")                                                \
	X(BARRIER, 12, -1, -1, 0, "key, vCPUs that meet: returns when all have come")          \
	X(AWAIT, 13, -1, -1, 0, "gpa, bytes: AGAIN until all of it is memory to be used")

enum guest_call {
#define X(name, number, buffer, size, element, text) GUEST_CALL_##name = number,
	GUEST_CALL_TABLE(X)
#undef X
};

#define GUEST_RESUME_WORDS 24

/* What a vCPU learns at its first instruction. */
struct guest_bootinfo {
	uint32_t vcpu;
	uint32_t vcpus;
	uint32_t caller;      /* 1 on the vCPU whose REBOOT began this incarnation */
	uint32_t resume_size; /* words handed over by REBOOT, 0 at first boot */
	uint64_t incarnation; /* reboots so far */
	uint64_t memory_end;  /* one past the highest GPA of memory */
	uint64_t resume[GUEST_RESUME_WORDS];
};

/*
 * Where a workload guest finds its program: at GUEST_TEXT_GPA a struct guest_text, then
 * the text.  Everything below GUEST_LOW_END belongs to the interpreter.
 */
#define GUEST_TEXT_GPA   0x80000u
#define GUEST_TEXT_MAX   0x80000u /* with the struct */
#define GUEST_LOW_END    0x100000u
#define GUEST_TEXT_MAGIC 0x7478657468746cull

struct guest_text {
	uint64_t magic;
	uint64_t bytes;
};

#endif
