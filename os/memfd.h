/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Shared memory by descriptor: made here, or received from the other side and checked. */
#ifndef OS_MEMFD_H
#define OS_MEMFD_H

#include <stdint.h>

/*
 * A new memfd of @bytes zeroes, sealed against growing, shrinking and further seals, so
 * that whoever maps it never meets SIGBUS.  Returns the descriptor or a negative errno.
 */
int memfd_new(const char *name, uint64_t bytes);

/*
 * Checks that @fd, which somebody else sent, is a memfd of small pages and of at least
 * @bytes that cannot shrink and may be written to.  Returns 0; -EINVAL if not.
 */
int memfd_check(int fd, uint64_t bytes);

/* Maps the first @bytes shared, for reading and writing.  Returns 0 or a negative errno. */
int memfd_map(int fd, uint64_t bytes, void **ret);

/*
 * Copies a part of @fd to @to.  Cheaper than through a mapping where that has not been
 * touched.  0 or a negative errno.
 */
int memfd_read(int fd, uint64_t offset, void *to, uint64_t bytes);

/* Gives the pages of [offset, offset + bytes) back; they read as zeros.  0 or -errno. */
int memfd_discard(int fd, uint64_t offset, uint64_t bytes);

/* Bytes of @fd that hold memory.  Returns 0 or a negative errno. */
int memfd_resident(int fd, uint64_t *ret_bytes);

/*
 * Bytes of [offset, offset + bytes) that hold memory, written to or not: memfd_next_data()
 * does not find what was only allocated.  0; -ENOSYS before Linux 6.5; another negative errno.
 */
int memfd_held(int fd, uint64_t offset, uint64_t bytes, uint64_t *ret_bytes);

/*
 * Finds the next part of @fd at or after @offset that holds memory.  Returns 0;
 * -ENXIO if there is none before @end; another negative errno.
 */
int memfd_next_data(int fd, uint64_t offset, uint64_t end, uint64_t *ret_start, uint64_t *ret_end);

#endif
