/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The runtime directory: one folder per VM, for `lethe ps` and control sockets.
 *
 * LETHE_RUNTIME_DIR, else /run/lethe for root, $XDG_RUNTIME_DIR/lethe, /tmp/lethe-UID.
 * A folder holds `status` (abi/status.h), which both processes of the VM keep open and
 * locked (flock on one shared open file description): a status file that can be locked
 * belongs to nobody any more, and whoever finds it removes the folder.
 */
#ifndef OS_RUNDIR_H
#define OS_RUNDIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rundir_entry {
	int folder; /* directory descriptor */
	int status; /* open for reading and writing, locked */
	char path[512];
};

/*
 * Claims @name: its folder and a status file of @bytes zeroes, with disk space for them.
 * 0; -EEXIST a VM of that name is there; -EPERM the directory is not ours; another negative
 * errno.
 */
int rundir_claim(const char *name, uint64_t bytes, struct rundir_entry *ret);

/* Removes what rundir_claim() made, if it is still there, and closes it. */
void rundir_drop(struct rundir_entry *entry);

/* The path of the runtime directory, there or not.  0 or -ENAMETOOLONG, @ret being cut off. */
int rundir_base(char *ret, size_t size);

/* The path of the folder of @name, there or not.  0 or -ENAMETOOLONG. */
int rundir_path(const char *name, char *ret, size_t size);

/* Calls @visit for each VM with its open status file; removes what is stale. */
typedef void (*rundir_visit_fn)(void *ctx, const char *name, int status_fd);
int rundir_list(rundir_visit_fn visit, void *ctx);

#endif
