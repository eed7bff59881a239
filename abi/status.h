/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The status page: what `lethe ps` reads, written by the ultravisor into a small file
 * that the hypervisor made in the runtime directory.  It outlives the hypervisor.
 *
 * The hypervisor writes its pid, the name and the start before VM_CREATE; from then on the
 * ultravisor writes the whole page when something happens, and about once a second while
 * the hypervisor lives or memory is destroyed.  It never maps the file, so that truncating
 * it harms nobody; the next write makes it whole.  A reader may see fields of two moments.
 * Readers believe nothing that matters.
 */
#ifndef ABI_STATUS_H
#define ABI_STATUS_H

#include <stdint.h>

#define ABI_STATUS_MAGIC 0x7361746c
#define ABI_STATUS_PAGE  4096u
#define ABI_NAME_MAX     63u

enum abi_vm_state {
	ABI_VM_STARTING = 0,
	ABI_VM_NORMAL = 1,     /* running, not protected */
	ABI_VM_SECURE = 2,     /* running, protected */
	ABI_VM_STOPPED = 3,    /* vCPUs have stopped */
	ABI_VM_FORGETTING = 4, /* the hypervisor is gone, memory is being destroyed */
	ABI_VM_GONE = 5        /* all memory is back */
};

struct abi_status_page {
	uint32_t magic;
	uint32_t version; /* ABI_VERSION */
	int32_t uv_pid;
	int32_t hv_pid;
	char name[ABI_NAME_MAX + 1]; /* written by the hypervisor, NUL-terminated */
	uint32_t state;              /* enum abi_vm_state */
	uint32_t vcpus;
	uint32_t executor; /* enum abi_executor */
	uint32_t pressure; /* 0 none, 1 raised, 2 high */
	uint64_t memory_bytes;
	uint64_t incarnation;
	uint64_t resident_bytes;  /* of the current incarnation; refreshed about once a second */
	uint64_t forget_bytes;    /* set aside, still to destroy */
	uint64_t forgotten_bytes; /* destroyed since the start */
	uint64_t forget_rate;     /* bytes per second, over the last second of sweeping */
	uint64_t stale_bytes;     /* shared backing that waits to be discarded */
	uint64_t quarantined_bytes;
	uint64_t started_ns; /* CLOCK_REALTIME */
	uint64_t updated_ns; /* CLOCK_MONOTONIC */
};

_Static_assert(sizeof(struct abi_status_page) <= ABI_STATUS_PAGE, "one page");

#endif
