/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the whole-VM operations of one run cost: sums for the table at its end. */
#ifndef VMM_COSTS_H
#define VMM_COSTS_H

#include <stdbool.h>
#include <stdint.h>

/* Operations of one kind; times are nanoseconds summed over all of them. */
struct costs {
	uint64_t memory_bytes;
	bool wiped; /* destroyed memory was overwritten, not just freed */

	struct {
		uint64_t count, guest_ns;
		uint64_t pages_copied, pages_secured;
	} protect;

	/* Transfers of the DMA device that follow one another; each shares and unshares. */
	struct {
		uint64_t count, guest_ns;
		uint64_t bytes; /* of one transfer, the last */
	} dma;

	struct {
		uint64_t count, guest_ns;
		uint64_t eager; /* of them, destroyed first */
	} reboot;

	/* What reboots left to forget. */
	struct {
		uint64_t count, bytes, duration_ns;
		uint64_t cancelled;
	} destroy;

	struct {
		uint64_t count, guest_ns;
		uint64_t freed_ns; /* until all memory was back; 0: not waited for */
	} poweroff;
};

#endif
