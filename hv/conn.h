/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The connection to an ultravisor: calls from any thread, answers matched by number.
 *
 * One thread reads answers and gives each to the caller that waits for it; PERFORM may
 * be answered long after later calls.  What comes unasked is an event.  At end of file, or at
 * what is neither an answer of ours nor an event, the connection is dead for good: every caller
 * gets -EPIPE and on_death runs.
 */
#ifndef HV_CONN_H
#define HV_CONN_H

#include <stdbool.h>
#include <stdint.h>

#include "abi/uvcall.h"

struct conn;

/*
 * Called on the reader's thread, which reads no answers meanwhile: neither may wait for one.
 */
struct conn_handlers {
	void *ctx;

	/* Once.  May be NULL. */
	void (*on_death)(void *ctx);

	/* False, or NULL here: no event that may come. */
	bool (*on_event)(void *ctx, const struct abi_event *event);
};

/* Takes @fd over.  0 or a negative errno; @fd is then still the caller's. */
int conn_new(int fd, const struct conn_handlers *handlers, struct conn **ret);

/* Shuts the socket and joins the reader.  Once; calls fail with -EPIPE from here on. */
void conn_stop(struct conn *c);

/* After conn_stop().  No call may be under way. */
void conn_free(struct conn *c);

/*
 * Performs a call; sizes of @args and @result (NULL: not wanted) are those of the table.
 * Returns 0 or the negative errno of its status; -EPIPE when the connection is dead.
 * *result is written for 0, -ECANCELED, -EUCLEAN and -EPROTONOSUPPORT.
 */
int conn_call(struct conn *c, enum abi_call call, const void *args, void *result, const int *fds,
	unsigned int nfds);

/*
 * Says hello.  As conn_call(); -ETIMEDOUT if there is no answer within @timeout_ms, and
 * the connection is dead then: whoever is at the other end does not know the protocol.
 */
int conn_hello(struct conn *c, unsigned int timeout_ms, struct abi_hello_ret *ret);

/* The negative errno of a status; 0 for ABI_ST_OK and for what is no status. */
int conn_errno(uint32_t status);

bool conn_is_dead(struct conn *c);

/* An eventfd that becomes readable at death.  Owned by @c. */
int conn_death_fd(const struct conn *c);

#endif
