/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The model test's parts: what its operations share, and the operations themselves.
 *
 * An operation performs one call or one piece of guest work with arguments that it draws,
 * and ends the process if the answer is not the reference's.
 */
#ifndef DESTROY_MODEL_H
#define DESTROY_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "test/model/destroy_ref.h"

#define BLOCK 250u /* sequences of one VM */

extern struct ref ref;
extern uint32_t vm_flags; /* ABI_VM_* */
extern uint64_t seed, block;
extern struct ref_range watched; /* by vCPU 1; count 0: it is free */
extern const struct ref_range nowhere;

/* Starts the random numbers and the history of sequence @number of this block. */
void begin_sequence(uint64_t number);

/* A random number below @sides. */
uint32_t dice(uint32_t sides);

void note(const char *name, struct ref_range range, uint32_t status);

/* The status that a call had, and the one that it must have. */
void expect(const char *name, struct ref_range range, uint32_t got, uint32_t want);

/* @count new tokens; 0: this sequence has used its share. */
uint64_t new_tokens(uint32_t count);

/* The hypervisor may see @token. */
void make_known(uint64_t token);

/* A slot's id, most often one that is there. */
uint32_t some_slot(void);

/* Up to @max pages, most often inside a slot. */
struct ref_range some_range(uint32_t max);

unsigned int some_vcpu(void);
bool is_watched(struct ref_range r);
void end_watch(void);

/* The vCPUs have stopped. */
void after_stop(void);

void check_filled(const uint64_t *page, uint64_t token, uint32_t gfn, const char *whose);

/* Pages of a normal VM, and those that are mapped when shared, are the hypervisor's too. */
bool is_in_sight(const struct ref_page *page);

void check_hypervisor(void);

/* Every page that the guest may read. */
void check_guest(void);

/* ---- destroy_memory.c ---- */

void slot_add(uint32_t id, struct ref_range r);
void slot_delete(uint32_t id);
void do_slot_add(void);
void do_slot_delete(void);

/* The hypervisor writes to memory of its own, whatever that is to the guest. */
void do_scribble(void);
void do_copy_out(void);
void do_copy_in(void);

/* ---- destroy_switch.c ---- */

void stop(void);
void do_switch_step(void);

/* All of a switch before the start. */
void do_switch(void);

/* The guest asks to be protected. */
void do_protect(void);

/* ---- destroy_life.c ---- */

void do_start(void);
void do_stop(void);
void do_guest_write(void);
void do_guest_check(void);
void do_guest_watch(void);
void do_convert(void);
void do_release(void);

/* A whole slot is given up, goes, and sometimes comes back at once. */
void do_unplug(void);

/* The guest ends this incarnation by itself, or by an access that nothing allows. */
void do_guest_end(void);

/* ---- destroy_forget.c ---- */

/* Takes what answers to PERFORMs there are, or waits for all. */
void take_answers(bool all);

/* Until nothing is set aside or left. */
void finish_forgetting(void);

void do_prepare(void);
void do_perform(void);
void do_cancel(void);

/* Of a protected VM, it destroys also what was set aside or left, before it answers. */
void do_reset(void);
void do_info(void);
void do_check_hypervisor(void);

#endif
