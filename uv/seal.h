/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sealing: pages encrypted for the hypervisor to keep.
 *
 * AES-256-GCM under a random key that an incarnation has and nobody else, gone with it.
 * Each sealing takes the next version, which is the nonce and so never comes twice under a
 * key.  Authenticated beside the content: the VM, the incarnation, the GFN and the version.
 * Version and tag of a page that is sealed are kept here, in a table per slot, so what the
 * hypervisor brings back is the content last sealed at this GFN, or refused: neither
 * changed, nor another page's, nor older.
 *
 * A record of the table means something only while its page is ATTR_SEALED.
 *
 * What the hypervisor can write to is never read twice nor read back: a page is encrypted
 * into private memory and copied out from there, for the tag is computed over what was
 * written; and it is copied in whole before it is checked and decrypted.
 */
#ifndef UV_SEAL_H
#define UV_SEAL_H

#include <stddef.h>

#include "base/types.h"
#include "os/crew.h"
#include "uv/vm.h"

/* Before the sandbox closes.  0 or -EIO. */
int seal_setup(void);

/* Fills @size bytes with randomness.  0 or -EIO. */
int seal_random(void *ret, size_t size);

/* ---- the key of an incarnation ---- */

struct seal;

/* A fresh key.  0, -ENOMEM or -EIO. */
int seal_new(const uint8_t vm_id[VM_ID_SIZE], uint64_t incarnation, struct seal **ret);

/* Forgets the key: nothing that was sealed under it opens again.  NULL is allowed. */
void seal_free(struct seal *s);

/* ---- the table of a slot ---- */

struct seal_record {
	uint64_t version; /* and SEAL_WANTED */
	uint8_t tag[16];
};

/* In a version: the hypervisor has been told that this page is wanted. */
#define SEAL_WANTED ((uint64_t)1 << 63)

struct seal_table {
	struct seal_record *record; /* of each page; memory that costs nothing until touched */
	uint64_t bytes;
	uint64_t freed; /* how far seal_table_free_some() has come */
};

/* For @pages pages.  0 or -ENOMEM. */
int seal_table_new(uint64_t pages, struct seal_table **ret);

/* Gives at most 2M back.  False when that was the last, and the table is gone. */
bool seal_table_free_some(struct seal_table *t);

/* ---- pages ---- */

struct seal_page {
	struct seal_record *record;
	gfn_t gfn;
	uint8_t *plain;  /* private memory */
	uint8_t *cipher; /* memory that the hypervisor can write to */
};

/*
 * Encrypts plain to cipher and fills the records, with the help of @crew.  One at a time for
 * each @s.  0; -EOVERFLOW there are no versions left; -EIO.  After a failure records and
 * ciphertexts are worthless, and nothing else has changed.
 */
int seal_pages(struct seal *s, struct crew *crew, const struct seal_page *page, unsigned int count);

/*
 * Checks and decrypts cipher to plain, likewise.  0; -EBADMSG with the number of a page that
 * failed in *ret_bad: no plain is left then.
 */
int seal_open_pages(struct seal *s, struct crew *crew, const struct seal_page *page,
	unsigned int count, unsigned int *ret_bad);

#endif
