/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A table entry: one 64-bit atomic.
 *
 *	63..48	handle of the slot that a leaf belongs to
 *	47..12	frame: bits 47..12 of the host pointer to the page, or of the next table
 *	5	leaf
 *	4	shared
 *	3	dirty
 *	2	accessed
 *	1	write
 *	0	present
 *
 * A table entry goes 0 -> leaf, 0 -> table and leaf -> table by a fault; to 0 by anyone who
 * takes the mapping away; a leaf's bits 1..3 change.  Only a fault sets bits of the frame, only
 * inside the fault gate (gate.h) and only by compare-and-swap, so whoever holds the gate
 * closed once knows that from then on no fault will install what he has forbidden.
 */
#ifndef MMU_ENTRY_H
#define MMU_ENTRY_H

#include <stdatomic.h>

#include "base/types.h"

#define ENTRY_PRESENT    ((uint64_t)1 << 0)
#define ENTRY_WRITE      ((uint64_t)1 << 1)
#define ENTRY_ACCESSED   ((uint64_t)1 << 2)
#define ENTRY_DIRTY      ((uint64_t)1 << 3)
#define ENTRY_SHARED     ((uint64_t)1 << 4)
#define ENTRY_LEAF       ((uint64_t)1 << 5)
#define ENTRY_FRAME      (((uint64_t)1 << 48) - PAGE_SIZE)
#define ENTRY_SLOT_SHIFT 48

#define TABLE_ENTRIES 512
#define TABLE_LEVELS  4

typedef _Atomic uint64_t entry_t;

static inline bool entry_is_leaf(uint64_t value)
{
	return (value & (ENTRY_PRESENT | ENTRY_LEAF)) == (ENTRY_PRESENT | ENTRY_LEAF);
}

static inline bool entry_is_table(uint64_t value)
{
	return (value & (ENTRY_PRESENT | ENTRY_LEAF)) == ENTRY_PRESENT;
}

static inline unsigned int entry_slot(uint64_t value)
{
	return value >> ENTRY_SLOT_SHIFT;
}

static inline entry_t *entry_table(uint64_t value)
{
	return (entry_t *)(uintptr_t)(value & ENTRY_FRAME);
}

/* The host pointer to the page of @frame, which the leaf @value of @level maps. */
static inline uint8_t *entry_host(uint64_t value, unsigned int level, uint64_t frame)
{
	uint64_t inside = frame & (((uint64_t)1 << (9 * (level - 1))) - 1);

	return (uint8_t *)(uintptr_t)((value & ENTRY_FRAME) + (inside << PAGE_SHIFT));
}

static inline unsigned int table_index(uint64_t frame, unsigned int level)
{
	return (frame >> (9 * (level - 1))) & (TABLE_ENTRIES - 1);
}

/*
 * Takes the leaf out of @entry.  Returns what it was, 0 if there was none: a table is left
 * alone, because the leaf that the caller came for was split meanwhile.
 */
static inline uint64_t entry_take_leaf(entry_t *entry)
{
	uint64_t value = atomic_load(entry);

	while (entry_is_leaf(value)) {
		if (atomic_compare_exchange_weak_explicit(
			    entry, &value, 0, memory_order_acq_rel, memory_order_acquire))
			return value;
	}
	return 0;
}

/* Clears @bits of the leaf in @entry, if it is one.  Returns the bits that were set. */
static inline uint64_t entry_clear_bits(entry_t *entry, uint64_t bits)
{
	uint64_t value = atomic_load_explicit(entry, memory_order_acquire);

	while (entry_is_leaf(value) && (value & bits) != 0) {
		if (atomic_compare_exchange_weak_explicit(entry, &value, value & ~bits,
			    memory_order_acq_rel, memory_order_acquire))
			return value & bits;
	}
	return 0;
}

#endif
