/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What `lethe ps` sees: the status page.
 *
 * The page is private memory of this process; its fields are set with plain atomic stores
 * and the whole of it is written to the status file when something happened.  The file is
 * never mapped here: who can truncate it must not be able to end this process by SIGBUS.
 * What was truncated comes back with the next write.
 */
#ifndef UV_PUBLISH_H
#define UV_PUBLISH_H

#include "uv/vm.h"

/*
 * Makes the page from the file @fd, in which the hypervisor has left its part.  0, -ENOMEM
 * or another negative errno.  Takes @fd over on success only.
 */
int publish_open(struct uv_vm *vm, int fd);

/* Frees the page.  The file stays open: its lock says that the VM is there. */
void publish_close(struct uv_vm *vm);

/* What stays as it is; from now on the page is one that a reader believes. */
void publish_born(struct uv_vm *vm);

/* Notes states and sizes.  Caller holds vm->lock. */
void publish_vm(struct uv_vm *vm);

/* Notes all that changes by itself.  Called about once a second, without locks. */
void publish_refresh(struct uv_vm *vm);

/* Notes how far destroying is: @bytes more are gone, @left are not. */
void publish_progress(struct uv_vm *vm, uint64_t bytes, uint64_t left, uint64_t rate);

/* Notes how short memory is: 0, 1 or 2, as in abi/status.h. */
void publish_pressure(struct uv_vm *vm, uint32_t level);

/* Notes and writes VM state @state and @left bytes to destroy: for the end, which vm->state does
 * not know. */
void publish_end(struct uv_vm *vm, enum abi_vm_state state, uint64_t left);

/*
 * Writes the page to the file if something was noted since it was written.  Called without
 * locks: a file system may take its time.
 */
void publish_flush(struct uv_vm *vm);

#endif
