/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Starting lethe-uv. */
#ifndef OS_LAUNCH_H
#define OS_LAUNCH_H

#include <stddef.h>
#include <sys/types.h>

/*
 * Runs @path with @fd as its descriptor @as_fd and no other but the standard streams,
 * with default signals, SIGINT and SIGHUP blocked until it unblocks them.  Safe in a process with
 * threads.  0 and *ret_pid, or -errno.
 */
int spawn_with_fd(const char *path, int fd, int as_fd, pid_t *ret_pid);

/*
 * Finds @name beside this program, else in @fallback_dir.  0; -ENOENT if it is in neither;
 * -ENAMETOOLONG.
 */
int find_beside(const char *name, const char *fallback_dir, char *ret_path, size_t size);

#endif
