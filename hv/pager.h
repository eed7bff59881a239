/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The pager: takes sealed pages from the ultravisor to the page store and back.
 *
 * Theory.  The ultravisor seals and unseals; the pager only carries.  Out: PAGE_OUT leaves the
 * sealed pages of a run in the bulk buffer, the pager copies them to a buffer of its own and
 * puts that into the store.  In: a thread in the ultravisor that wants sealed pages makes it
 * send an event; one of the pager's workers reads the store and calls PAGE_IN_SEALED, or
 * PAGE_LOST if the store has failed for good.
 *
 * What is under way is a transfer, on a list.  Two transfers never overlap, but for one: pages
 * that are still being written are brought back from the writer's buffer.  So the store never
 * works twice on a page at a time, and a page that went out again cannot be hit by the end of
 * what happened to it before.
 *
 * Invariants (guarded by vm->lock):
 *   - `stored` holds every GFN that the ultravisor has sealed: its content is in the store, or
 *     in the buffer of a transfer.  GFN states are not consulted.
 *   - A call that seals or unseals is made under vm->lock, together with what is noted of it.
 *     An incarnation that ends (PREPARE, RESET: likewise under vm->lock) therefore never meets
 *     half of one, and vm->life says whether a transfer is still of this one.
 *   - A store is never waited for under vm->lock.
 */
#ifndef HV_PAGER_H
#define HV_PAGER_H

#include <stdbool.h>

#include "base/types.h"
#include "lethe/lethe.h"

struct pager;

/*
 * Ends its threads, once what they do in the store is done.  Calls still work meanwhile.  A
 * thread that the store does not let go for long is left to itself: it takes a reference to the
 * VM (hv_get()), and nothing that it does later reaches the ultravisor once vm->life has changed.
 */
void pager_stop(struct pager *p);

/* Closes the store and frees @p, whose threads have ended and whom nobody calls any more. */
void pager_free(struct pager *p);

/*
 * The ultravisor wants @r.  Never waits.  False: that is more at a time than an ultravisor
 * has threads.
 */
bool pager_want(struct pager *p, struct gfn_range r);

/* Waits @ms or until the pager stops.  False: it stops. */
bool pager_pause(struct pager *p, unsigned int ms);

/* Waits until pages come in, or for @ms, or until the pager stops.  False: it stops. */
bool pager_await(struct pager *p, unsigned int ms);

/* The content of @r is of no use any more.  Caller holds vm->lock. */
void pager_forget(struct pager *p, struct gfn_range r);

/* The incarnation has ended: nothing that is stored can be read any more.  Likewise. */
void pager_reset(struct pager *p);

/* Notes PAGED-OUT again for what is sealed of @r.  Caller holds vm->lock. */
void pager_restate(struct pager *p, struct gfn_range r);

/* How many pages of @r are out.  Caller holds vm->lock. */
uint64_t pager_stored(const struct pager *p, struct gfn_range r);

/* Why the store could not give back the page at @gpa; 0 if that is not known.  Likewise. */
int pager_lost_error(const struct pager *p, uint64_t gpa);

/* How many pages went out and came in so far.  Caller holds vm->lock. */
void pager_counters(const struct pager *p, uint64_t *ret_out, uint64_t *ret_in);

#endif
