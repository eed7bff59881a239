/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * userfaultfd: memory of this process whose missing pages the process itself brings.
 *
 * A thread that touches a missing page of a registered range sleeps, in the kernel or not,
 * until the page is there, the range is woken or it is registered no more.  KVM sleeps
 * that way too, so user mode alone would not do, and the descriptor needs a privilege: it is
 * opened before there are none left.
 *
 * Safe for use by several threads but for opening and closing.
 */
#ifndef OS_USERFAULT_H
#define OS_USERFAULT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct userfault {
	int fd;     /* -1: not open */
	int end_fd; /* readable when userfault_next() is to end */
};

/*
 * 0, or a negative errno and one line in @why (@size bytes) that says what is missing; *ret is
 * not open then.
 */
int userfault_open(struct userfault *ret, char *why, size_t size);

/* Wakes whoever sleeps.  Nothing to do if it is not open. */
void userfault_close(struct userfault *u);

static inline bool userfault_is_open(const struct userfault *u)
{
	return u->fd >= 0;
}

/*
 * From here on, missing pages of [start, start + bytes), all of it mapped, wait.  A range may
 * be registered again.  Each stretch of registered memory is a mapping of its own for the
 * kernel.  0 or a negative errno, -ENOMEM if there are too many.
 */
int userfault_register(const struct userfault *u, const uint8_t *start, uint64_t bytes);

/* Missing pages are zeros again, for those who sleep too.  0 or -errno. */
int userfault_unregister(const struct userfault *u, const uint8_t *start, uint64_t bytes);

/*
 * Puts missing pages of a registered range in place, with the content of @pages, in order, and
 * wakes who waits for them.  Pages up to the first that fails are there to stay, and
 * *ret_bytes says in any case how much that is.  0; -EEXIST a page is not missing; -ENOENT not
 * registered; another negative errno.
 */
int userfault_copy(const struct userfault *u, uint8_t *to, const uint8_t *pages, uint64_t bytes,
	uint64_t *ret_bytes);

/* The same for one page, with zeros. */
int userfault_zero(const struct userfault *u, uint8_t *to);

/* Who sleeps in [start, start + bytes) looks again.  0 or -errno. */
int userfault_wake(const struct userfault *u, const uint8_t *start, uint64_t bytes);

/*
 * Waits for a thread that falls asleep, at most @limit_ms (-1: for ever), and returns the page
 * that it needs; the thread may have been woken since.  -ETIMEDOUT; -ECANCELED after
 * userfault_end().
 */
int userfault_next(const struct userfault *u, int limit_ms, uint8_t **ret_page);

/* The userfault_next() under way, or else the next, returns -ECANCELED. */
void userfault_end(const struct userfault *u);

#endif
