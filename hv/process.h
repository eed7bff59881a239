/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The ultravisor's process, and who reaps it.
 *
 * lethe-uv replaces itself by a child that was never dumpable and that is a child of its
 * own parent: this process gets two children, one of which nobody has a number of until
 * HELLO is answered, and which may go on sweeping long after the VM was closed.
 * Therefore each ultravisor is started by a thread of its own, the keeper, which waits
 * for its own children only (__WNOTHREAD) until none is left.  No zombie stays, whatever
 * goes wrong and when, and no other child of the program is touched.
 */
#ifndef HV_PROCESS_H
#define HV_PROCESS_H

#include <stdbool.h>
#include <sys/types.h>

struct process;

/*
 * Starts @path with @fd as its descriptor ABI_SOCKET_FD; @fd stays the caller's.
 * 0; -ENOENT, -EACCES or what else exec says; -ENOMEM, -EAGAIN.
 */
int process_start(const char *path, int fd, struct process **ret);

/* Says which process answers calls, once that is known. */
void process_set_pid(struct process *p, pid_t pid);

/*
 * How that process ended, waiting up to @timeout_ms for it.  0 and *ret_status as of
 * waitpid; -EAGAIN it runs; -ECHILD somebody else reaped it.
 */
int process_status(struct process *p, unsigned int timeout_ms, int *ret_status);

/* Ends what is known of it and still runs, at once. */
void process_kill(struct process *p);

/* Gives @p up; the keeper goes on until all has ended.  @wait: wait for that. */
void process_leave(struct process *p, bool wait);

#endif
