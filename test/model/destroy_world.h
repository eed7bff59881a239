/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The hypervisor's side of the model test: the ultravisor in this process, spoken to in
 * packets over a socket, and the memory that the hypervisor sees.
 */
#ifndef DESTROY_WORLD_H
#define DESTROY_WORLD_H

#include "abi/exit.h"
#include "test/model/destroy_ref.h"
#include "uv/vm.h"

/* Makes a VM with @flags (ABI_VM_*), or ends the process. */
void world_begin(uint32_t flags);

/* The socket closes, and everything must go. */
void world_end(void);

extern struct uv_vm world_vm;
extern uint8_t *world_bulk;

/* Performs a call and waits for its answer: the status.  @ret may be NULL. */
uint32_t world_call(uint32_t nr, const void *args, uint32_t size, void *ret, uint32_t ret_size);
uint32_t world_call0(uint32_t nr);
uint32_t world_call_range(uint32_t nr, struct ref_range range);

/* PERFORM: its seq in *ret_seq, and whether it was refused: the status, else ABI_ST_OK. */
uint32_t world_perform(uint32_t *ret_seq);

/* The next answer to a PERFORM: false if there is none yet and not @wait. */
bool world_answer(bool wait, uint32_t *ret_seq, uint32_t *ret_status);

/* Registers fresh memory as slot @id.  The status. */
uint32_t world_slot_add(uint32_t id, struct ref_range range);

/* Slot @id, or all, are no longer the guest's.  Their memory can still be looked at. */
void world_slot_drop(uint32_t id);
void world_slots_drop(void);

/* All memory that was dropped may be used again: nobody knows of it any more. */
void world_recycle(void);

/* The hypervisor's view of page @gfn, which is in slot @id. */
uint64_t *world_page(uint32_t id, uint32_t gfn);

/* Calls @visit for each page with content of all memory that the guest has or had. */
void world_each_page(void (*visit)(const uint64_t *page));

/* Waits for an exit of @vcpu, which must be of @type; answers the last one. */
void world_exit(unsigned int vcpu, uint32_t type);
void world_reply(unsigned int vcpu, uint32_t status);

/* Forgets an exit that nobody waited for. */
void world_skip_exits(void);

#endif
