/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * uv calls: from a packet to its performer.
 *
 * A packet is copied once, into private memory, by receiving it.  Its header, size,
 * descriptors and the VM's state are checked against ABI_CALL_TABLE before the call's
 * function sees typed arguments; reserved fields must be zero.  What a call does is in
 * calls_FAMILY.c.
 */
#ifndef UV_DISPATCH_H
#define UV_DISPATCH_H

#include "uv/vm.h"

/* The answer is sent later, by whoever finishes the work. */
#define CALL_LATER 1

union call_args {
	struct abi_none none;
	struct abi_hello hello;
	struct abi_vm_create vm_create;
	struct abi_slot slot;
	struct abi_page_in page_in;
	struct abi_mem mem;
	struct abi_vcpu_state vcpu_state;
	struct abi_irq_line irq_line;
	struct abi_page_out page_out;
	struct abi_page_in_sealed page_in_sealed;
	struct abi_page_lost page_lost;
	struct abi_slot_move slot_move;
	struct abi_coldest coldest;
	struct abi_policy policy;
	struct abi_audit audit;
};

union call_result {
	struct abi_none none;
	struct abi_hello_ret hello;
	struct abi_page_in_ret page_in;
	struct abi_init_done_ret init_done;
	struct abi_vm_start_ret vm_start;
	struct abi_prepare_ret prepare;
	struct abi_perform_ret perform;
	struct abi_info_ret info;
	struct abi_audit_ret audit;
	struct abi_page_out_ret page_out;
	struct abi_coldest_ret coldest;
};

struct call {
	uint32_t number, seq;
	const union call_args *args;
	const int *fds; /* the performer's to keep if it returns 0 */
	union call_result *result;
};

/*
 * Receives one call, performs it and answers.  Returns false when the hypervisor is gone
 * or sent what is no packet of ours: the connection is over.
 */
bool dispatch_one(struct uv_vm *vm);

/*
 * Sends an answer.  @err 0 or a negative errno.  Ends the connection if so many answers lie
 * unread that there is no room.
 */
void dispatch_answer(
	struct uv_vm *vm, uint32_t call, uint32_t seq, int err, const union call_result *result);

/* The performers: 0, CALL_LATER, or a negative errno with nothing changed. */
int call_hello(struct uv_vm *vm, const struct call *c);
int call_vm_create(struct uv_vm *vm, const struct call *c);
int call_vm_start(struct uv_vm *vm, const struct call *c);
int call_vm_stop(struct uv_vm *vm, const struct call *c);
int call_vcpu_state(struct uv_vm *vm, const struct call *c);
int call_irq_line(struct uv_vm *vm, const struct call *c);
int call_info(struct uv_vm *vm, const struct call *c);
int call_slot_register(struct uv_vm *vm, const struct call *c);
int call_slot_unregister(struct uv_vm *vm, const struct call *c);
int call_init_start(struct uv_vm *vm, const struct call *c);
int call_page_in(struct uv_vm *vm, const struct call *c);
int call_init_done(struct uv_vm *vm, const struct call *c);
int call_init_abort(struct uv_vm *vm, const struct call *c);
int call_prepare(struct uv_vm *vm, const struct call *c);
int call_perform(struct uv_vm *vm, const struct call *c);
int call_cancel(struct uv_vm *vm, const struct call *c);
int call_reset(struct uv_vm *vm, const struct call *c);
int call_mem_read(struct uv_vm *vm, const struct call *c);
int call_mem_write(struct uv_vm *vm, const struct call *c);
int call_page_out(struct uv_vm *vm, const struct call *c);
int call_page_in_sealed(struct uv_vm *vm, const struct call *c);
int call_page_lost(struct uv_vm *vm, const struct call *c);
int call_slot_move(struct uv_vm *vm, const struct call *c);
int call_coldest(struct uv_vm *vm, const struct call *c);
int call_policy(struct uv_vm *vm, const struct call *c);
int call_audit(struct uv_vm *vm, const struct call *c);

#endif
