/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The interpreter's machine in a KVM guest: memory is mapped one to one, calls are OUTs.
 *
 * Nothing here can stop a vCPU: when the ultravisor stops one, it does not run on.
 */
#include "guest/interp.h"

void guest_kvm_main(void) __attribute__((noreturn));

static uint8_t *translate(void *ctx, uint64_t gpa, uint64_t want, bool write, uint64_t *ret_len)
{
	*ret_len = want;
	return (uint8_t *)(uintptr_t)gpa;
}

static void release(void *ctx)
{
}

static int64_t call(
	void *ctx, enum guest_call nr, uint64_t a0, uint64_t a1, uint64_t a2, uint64_t a3)
{
	int64_t rax = nr;
	register uint64_t r8 __asm__("r8") = a3;

	__asm__ volatile("outl %%eax, %%dx"
			 : "+a"(rax)
			 : "d"(GUEST_CALL_PORT), "D"(a0), "S"(a1), "c"(a2), "r"(r8)
			 : "memory");
	return rax;
}

void guest_kvm_main(void)
{
	const struct guest_env env = {NULL, translate, release, call};

	guest_interp_run(&env);
	for (;;)
		__asm__ volatile("hlt");
}
