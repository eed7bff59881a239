/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A stand-in for the hypervisor's paging: a page store, and a guest that uses it. */
#ifndef UV_STORE_H
#define UV_STORE_H

#include "test/system/uv_client.h"

#define MEMORY (10 * MIB)
#define PAGES  (ABI_BULK_SIZE / PAGE)

uint32_t uvc_page_out(struct uvc *c, uint64_t gpa, uint64_t bytes, struct abi_page_out_ret *ret);

uint32_t uvc_page_in_sealed(struct uvc *c, uint64_t gpa, uint64_t bytes,
	const uint64_t present[PAGES / 64], uint64_t *ret_pages);

uint32_t uvc_page_lost(struct uvc *c, uint64_t gpa);

uint32_t uvc_coldest(struct uvc *c, uint64_t bytes, struct abi_coldest_ret *ret);

/* What the hypervisor keeps: the ciphertext of each page of the VM's memory. */
struct store {
	uint8_t page[MEMORY / PAGE][PAGE];
	bool has[MEMORY / PAGE];
};

struct store *store_new(void);

/* Pages a range out into @s.  The status, and how many pages; @ret_pages may be NULL. */
uint32_t store_try_out(
	struct uvc *c, struct store *s, uint64_t gpa, uint64_t bytes, uint64_t *ret_pages);

/* The same for what must succeed.  Returns how many. */
uint64_t store_out(struct uvc *c, struct store *s, uint64_t gpa, uint64_t bytes);

/* Brings back what @s has of a range. */
uint32_t store_in(
	struct uvc *c, struct store *s, uint64_t gpa, uint64_t bytes, uint64_t *ret_pages);

/* Brings what the guest wants from @s, if it wants something within a moment. */
void store_serve_event(struct uvc *c, struct store *s);

/* Serves @vcpu from @s until its exit of @type, which is not answered. */
void store_serve(struct uvc *c, struct store *s, unsigned int vcpu, uint32_t type,
	struct abi_vcpu_page *ret);

/* A protected guest that runs @text; it waits in its first print. */
void uvc_begin_protected(struct uvc *c, unsigned int vcpus, uint32_t flags, const char *text);

bool uvc_has_exit(const struct uvc *c, unsigned int vcpu);

/* Ends lethe-uv and frees @s. */
void store_end(struct uvc *c, struct store *s);

/* Answers the print that vCPU 0 waits in, and serves it until it powers off.  Frees @s. */
void store_finish(struct uvc *c, struct store *s);

#endif
