/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * liblethe pages out and in on threads of its own; what it does is seen where it passes: at
 * the store.
 */
#include "vmm/page_store.h"

#include <errno.h>
#include <stdlib.h>

struct recorded {
	struct lethe_page_store store; /* first: liblethe gives it back */
	struct lethe_page_store *inner;
	struct timeline *timeline;
};

static struct recorded *recorded_of(struct lethe_page_store *store)
{
	return (struct recorded *)store;
}

static int put(struct lethe_page_store *store, uint64_t gpa, const void *pages, size_t count)
{
	struct recorded *r = recorded_of(store);
	int err = r->inner->put(r->inner, gpa, pages, count);

	if (!err)
		timeline_paging(r->timeline, count * LETHE_PAGE_SIZE, true);
	return err;
}

static int get(struct lethe_page_store *store, uint64_t gpa, void *pages, size_t count)
{
	struct recorded *r = recorded_of(store);
	int err = r->inner->get(r->inner, gpa, pages, count);

	if (!err)
		timeline_paging(r->timeline, count * LETHE_PAGE_SIZE, false);
	return err;
}

static void drop(struct lethe_page_store *store, uint64_t gpa, size_t count)
{
	struct recorded *r = recorded_of(store);

	r->inner->drop(r->inner, gpa, count);
}

static void drop_all(struct lethe_page_store *store)
{
	struct recorded *r = recorded_of(store);

	r->inner->drop_all(r->inner);
}

static void close_store(struct lethe_page_store *store)
{
	struct recorded *r = recorded_of(store);

	r->inner->close(r->inner);
	free(r);
}

int page_store_recorded(struct lethe_page_store *inner, struct timeline *timeline,
	struct lethe_page_store **ret_store)
{
	struct recorded *r = malloc(sizeof(*r));

	if (!r)
		return -ENOMEM;
	*r = (struct recorded){
		.store = {.name = inner->name,
			.put = put,
			.get = get,
			.drop = drop,
			.drop_all = drop_all,
			.close = close_store},
		.inner = inner,
		.timeline = timeline,
	};
	*ret_store = &r->store;
	return 0;
}
