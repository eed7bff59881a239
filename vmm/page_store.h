/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A page store whose traffic is on record in a timeline. */
#ifndef VMM_PAGE_STORE_H
#define VMM_PAGE_STORE_H

#include "lethe/page_store.h"
#include "vmm/timeline.h"

/*
 * A store that hands everything to @inner and records what is put and got in @timeline,
 * which must outlive it.  Takes @inner over; on -ENOMEM it is still the caller's.
 */
int page_store_recorded(struct lethe_page_store *inner, struct timeline *timeline,
	struct lethe_page_store **ret_store);

#endif
