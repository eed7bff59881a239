/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What this host offers: probed by trying, so that an answer holds for this very process. */
#ifndef VMM_HOST_H
#define VMM_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HOST_TEXT_MAX 192

struct host_feature {
	const char *name;
	bool available;
	char value[HOST_TEXT_MAX];  /* what there is: a mode, a number; may be empty */
	char reason[HOST_TEXT_MAX]; /* what is missing, why, and what it costs; may be empty */
};

/* Probes feature @index: false when there are no more. */
bool host_feature_probe(size_t index, struct host_feature *ret);

/* MemAvailable in bytes; 0 if the kernel does not say. */
uint64_t host_memory_available(void);

#endif
