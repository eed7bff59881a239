/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The life of the VM: made connected and empty, becoming what VM_CREATE asks for, ending
 * when the hypervisor is gone, with all of its memory.
 */
#ifndef UV_VM_LIFE_H
#define UV_VM_LIFE_H

#include "uv/vm.h"

/* An empty, connected VM.  0 or -ENOMEM. */
int uv_vm_init(struct uv_vm *vm, int socket);

/*
 * Makes the VM that VM_CREATE asks for; takes @fds over on success only.
 * 0 or a negative errno, nothing changed.
 */
int uv_vm_create(struct uv_vm *vm, const struct abi_vm_create *args, const int fds[4]);

/* The end: stops vCPUs, destroys all memory.  Called once, from the main thread. */
void uv_vm_finish(struct uv_vm *vm);

#endif
