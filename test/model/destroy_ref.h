/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The reference of the model test: what a VM's memory is and what each call must answer,
 * as an array of pages and a few enums.
 *
 * It shares no code with the ultravisor, only the numbers of abi/.  A function that stands
 * for a call returns the status that the call must have, and commits it if that is OK.
 * Content is a number per page: 0 for zeros, else the token that the page was filled with.
 */
#ifndef DESTROY_REF_H
#define DESTROY_REF_H

#include <stdbool.h>
#include <stdint.h>

#include "abi/uvcall.h"

#define REF_PAGES 4096u
#define REF_SLOTS 4u
#define REF_ASKED 4u

enum ref_phase { REF_SETUP, REF_RUNNING, REF_STOPPED };
enum ref_security { REF_NORMAL, REF_SWITCHING, REF_SECURE };
enum ref_state { REF_NONE, REF_OPEN, REF_PRIVATE, REF_SHARED, REF_RELEASED };

struct ref_range {
	uint32_t first, count;
};

struct ref_page {
	enum ref_state state;
	bool taken; /* by PAGE_IN, in this switch */
	uint64_t content, taken_content;
};

struct ref {
	bool lazy_off;
	enum ref_phase phase;
	enum ref_security security;
	uint64_t incarnation;
	bool set_aside;                   /* one waits whose destruction has not begun */
	struct ref_range slot[REF_SLOTS]; /* count 0: none */
	struct ref_page page[REF_PAGES];
	bool asked; /* the guest's PROTECT is being answered */
	uint32_t asked_count;
	struct ref_range asked_range[REF_ASKED];
};

/* What a guest's request to convert comes to. */
enum ref_conversion { REF_REFUSED, REF_ALREADY, REF_ASKS_HYPERVISOR };

uint32_t ref_slot_add(struct ref *r, uint32_t id, struct ref_range range);
uint32_t ref_slot_delete(struct ref *r, uint32_t id);
uint32_t ref_init_start(struct ref *r);
uint32_t ref_page_in(struct ref *r, struct ref_range range);
uint32_t ref_init_done(struct ref *r);
uint32_t ref_init_abort(struct ref *r);
uint32_t ref_start(struct ref *r);
uint32_t ref_stop(struct ref *r);
uint32_t ref_prepare(struct ref *r);
uint32_t ref_reset(struct ref *r);

/* Whether the hypervisor may copy all of @range. */
uint32_t ref_copy(const struct ref *r, struct ref_range range);

/* A guest's SHARE or UNSHARE; *ret_status is set if it is refused. */
enum ref_conversion ref_convert(
	const struct ref *r, struct ref_range range, bool to_shared, uint32_t *ret_status);
void ref_convert_commit(struct ref *r, struct ref_range range, bool to_shared);

/* A guest's RELEASE and PROTECT: the status of the call's checks. */
uint32_t ref_release(struct ref *r, struct ref_range range);
uint32_t ref_ask_protect(struct ref *r, const struct ref_range *range, uint32_t count);

/* The vCPUs have stopped, by the guest's doing. */
void ref_guest_stopped(struct ref *r);

/* The slot that holds all of @range, or -1. */
int ref_slot_of(const struct ref *r, struct ref_range range);

#endif
