/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A protected VM of the ultravisor in this process, whose guest and hypervisor are the test:
 * vCPU threads that never start stand still outside, so that the test may speak for them.
 */
#ifndef TEST_CONVERT_MODEL_H
#define TEST_CONVERT_MODEL_H

#include "uv/vm.h"

#define CM_PAGES 640 /* of all slots and the holes between them, from GPA 0 */
#define CM_SLOTS 4

struct cm {
	struct uv_vm vm;
	int socket;
	uint32_t seq;
	int memfd[CM_SLOTS];
	uint8_t *hva[CM_SLOTS]; /* the hypervisor's mapping of each slot */
};

/* The slots: the first three adjoin, the last is 2M after a hole. */
extern const struct gfn_range cm_slot[CM_SLOTS];

/* Makes a secure VM of zeros with @vcpus; any failure ends the process. */
void cm_begin(struct cm *c, unsigned int vcpus, uint32_t flags);
void cm_end(struct cm *c);

/* A reset, and all as cm_begin() left it. */
void cm_reset(struct cm *c);

/* The slot that holds @page, or -1. */
int cm_slot_of(uint64_t page);

/* The guest's page.  Caller holds vm->memory for reading, or nobody else is there. */
uint64_t *cm_guest(struct cm *c, uint64_t page);

/* The hypervisor's view of the page in the slot's memfd. */
uint64_t *cm_shared(struct cm *c, uint64_t page);

/* Replaces the policy.  The status. */
uint32_t cm_policy(struct cm *c, const struct abi_policy *policy);

/* One segment through the pages of @vcpu; the data lies in its copy area.  The status. */
uint32_t cm_copy(struct cm *c, unsigned int vcpu, uint64_t gpa, uint32_t bytes, bool to_guest);

#endif
