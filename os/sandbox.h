/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How the ultravisor shuts itself off from everybody else.
 *
 * A process may open /proc/PID/mem in the moment between exec and PR_SET_DUMPABLE, and
 * keep it: the permission is checked at open.  Therefore the process image that holds
 * guest memory is one that was never dumpable: sandbox_reborn() forbids dumping, then
 * forks; the child's address space is new, inherits the flag from its first instruction,
 * and no descriptor opened before refers to it.
 */
#ifndef OS_SANDBOX_H
#define OS_SANDBOX_H

#include <stdbool.h>

/*
 * Continues in a child process that was never dumpable, is the child of this process's
 * parent, leads its own session and has no standard streams but /dev/null.  The original
 * process exits with status 0, or 1 if that failed.  To be called with one thread.
 * Returns 0 in the child, or -EPERM if somebody traces it.
 */
int sandbox_reborn(void);

/* Gives up every capability, for good.  0 or -errno. */
int sandbox_drop_capabilities(void);

/*
 * Allows only the system calls on the ultravisor's list from here on, in all threads.
 * 0 or -errno; -EOPNOTSUPP where the kernel or this build (sanitizers need more) has no
 * seccomp.
 */
int sandbox_seccomp(void);

#endif
