/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where the sealed pages of a VM are kept while they are paged out.
 *
 * A store keeps pages of LETHE_PAGE_SIZE bytes, each under its guest physical address.  What
 * it is given is ciphertext, and what it gives back is verified by the ultravisor before the
 * guest sees it: a store need not be trusted, and one that returns other bytes than it was
 * given stops the VM (LETHE_STOP_LOST_PAGE).  It may be slow, full, or gone.
 *
 * liblethe calls put, get and drop from several threads at once, but never two of them at a
 * time for the same page (nor get while a put or drop of it is under way), and drop_all and
 * close while no other function of the store runs.  Buffers are aligned to LETHE_PAGE_SIZE
 * and belong to the caller.  Threads that wait in a store hold no lock of liblethe; a vCPU
 * that wants another page is not held up until LETHE_STORE_GETS of them wait.
 *
 * A VMM of its own store embeds the struct, fills in the functions and gives it to
 * lethe_vm_set_page_store().
 */
#ifndef LETHE_PAGE_STORE_H
#define LETHE_PAGE_STORE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LETHE_PAGE_SIZE 4096

/* A put or get is of this many pages at most. */
#define LETHE_STORE_RUN 256

/* As many calls of get run at a time. */
#define LETHE_STORE_GETS 4

struct lethe_page_store {
	const char *name; /* for messages; valid until close */

	/*
	 * Keeps @count pages from @gpa on, in place of what it may hold there.  0; -ENOSPC or
	 * another negative errno: the pages stay in memory, and what the store holds in that
	 * range is not asked for again.
	 */
	int (*put)(struct lethe_page_store *store, uint64_t gpa, const void *pages, size_t count);

	/*
	 * Reads @count pages, all of which were put.  0 or a negative errno: it is asked again a
	 * few times within a second, and then the VM is stopped.
	 */
	int (*get)(struct lethe_page_store *store, uint64_t gpa, void *pages, size_t count);

	/* Gives the space of @count pages back; not all of them need have been put. */
	void (*drop)(struct lethe_page_store *store, uint64_t gpa, size_t count);

	/* Gives all space back: the VM has been reset, nothing can be read any more. */
	void (*drop_all)(struct lethe_page_store *store);

	/*
	 * The end of the store, and of its content.  Within lethe_vm_close(); or later, on a
	 * thread of liblethe's, if a call of the store held on for long.  Should not itself.
	 */
	void (*close)(struct lethe_page_store *store);
};

#ifdef __cplusplus
}
#endif

#endif
