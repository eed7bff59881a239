/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One sweep: destroying an incarnation that is on its way out.
 *
 * Its windows are taken chunk by chunk (2M) from the front: find what is resident, have it
 * wiped (uv/wiper.h), unmap it.  Several chunks are being wiped while those before them are
 * given back, a few at a time.  What is left of a window is always what struct window says,
 * so that a cancelled sweep goes on where it was and nothing is wiped or unmapped that has
 * become somebody else's.  A chunk that fails stays mapped, out of reach: quarantined.
 *
 * The pace is that of the idle wiper.  Who cancels, or is short of memory, does not wait for
 * it: what it has begun is wiped a second time, and stays mapped, as zeros, until it is out
 * of it.
 *
 * No lock of the VM is held over a chunk, and what takes long has a look at the cancel flag,
 * at the figures for `lethe ps` and, if the sweep is paced, at memory pressure in between.
 */
#ifndef UV_SWEEP_H
#define UV_SWEEP_H

#include "uv/dying.h"
#include "uv/wiper.h"

struct sweep {
	struct uv_vm *vm;
	struct wipers *wipers;
	const _Atomic bool *cancel; /* NULL: goes to its end */

	/*
	 * Paced: waits for the idle wiper, until pressure brings helpers.  Else this thread
	 * wipes too.
	 */
	bool paced;

	/* The sweep's own. */
	struct dying *dying;
	bool urgent;        /* paced, but there is pressure */
	uint64_t ahead;     /* bytes of the window that are in the queue */
	uint64_t bytes;     /* resident ones that were dealt with */
	uint64_t announced; /* of these */
	uint64_t started_ns, looked_ns;
};

/* Destroys @d.  0, -ECANCELED or -EUCLEAN (some is quarantined); adds to *figures. */
int sweep_run(struct sweep *s, struct dying *d, struct abi_perform_ret *figures);

#endif
