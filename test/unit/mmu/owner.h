/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A hypervisor for tests: it owns an MMU, one vCPU and some memory, and answers the MMU's
 * questions as a test tells it to.  The test's thread is the vCPU's thread.
 */
#ifndef TEST_MMU_OWNER_H
#define TEST_MMU_OWNER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "mmu/internal.h"

#define OWNER_SLOTS 8

struct owner {
	struct mmu *mmu;
	struct mmu_vcpu *vcpu;
	struct {
		struct gfn_range range;
		uint8_t *host;
	} slot[OWNER_SLOTS];
	enum mmu_level max_level;
	bool read_only, shared;
	int fail;        /* errno of resolve; 0 */
	uint8_t *answer; /* instead of the slot's memory; NULL */
	unsigned int calls;
	void (*hook)(struct owner *o, gfn_t at);                  /* inside resolve; NULL */
	bool (*uniform)(struct owner *o, struct gfn_range range); /* NULL: yes */
	void *data;
};

void owner_open(struct owner *o);

/* Ends it, and checks that the MMU gave everything back. */
void owner_close(struct owner *o);

/* Memory of @bytes, aligned to 1G plus @offset: addresses only, nothing need be touched. */
uint8_t *owner_memory(uint64_t bytes, uint64_t offset);

/* Adds slot @id, in the MMU and in the owner's book. */
void owner_slot(struct owner *o, unsigned int id, uint64_t start, uint64_t count, uint8_t *host);

/* One access in guest mode.  Returns the pointer, or NULL. */
uint8_t *owner_touch(struct owner *o, uint64_t frame, bool write);

/* The same with an empty TLB: taking a mapping apart need not flush what stays right. */
uint8_t *owner_touch_anew(struct owner *o, uint64_t frame, bool write);

/* The level at which @frame is mapped, 0 if it is not. */
unsigned int owner_level(struct owner *o, uint64_t frame);
bool owner_writable(struct owner *o, uint64_t frame);

struct mmu_stats owner_stats(struct owner *o);

static inline struct gfn_range frames(uint64_t start, uint64_t count)
{
	return (struct gfn_range){gfn(start), count};
}

#define BLOCK_2M ((uint64_t)512)
#define BLOCK_1G ((uint64_t)512 * 512)

/* cmocka fixtures: *state is a struct owner. */
int owner_setup(void **state);
int owner_teardown(void **state);

#define owner_test(fn) cmocka_unit_test_setup_teardown(fn, owner_setup, owner_teardown)

#endif
