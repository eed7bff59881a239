/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The first instruction of every vCPU: 64-bit mode, rsp at the top of its own stack.
 * guest_kvm_main does not return; it runs on the stack as a called function.
 */
	.section .entry, "ax", @progbits
	.globl guest_kvm_entry
guest_kvm_entry:
	xorl	%ebp, %ebp
	cld
	call	guest_kvm_main
	ud2

	.section .note.GNU-stack, "", @progbits
