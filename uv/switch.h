/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The switch to secure (uv/calls_svm.c), as far as others end it. */
#ifndef UV_SWITCH_H
#define UV_SWITCH_H

#include "uv/vm.h"

/*
 * TRANSIENT => NORMAL with its content as it was: the private windows under filling go.
 * Nothing to do otherwise.  Caller holds vm->lock.
 */
void switch_abandon(struct uv_vm *vm);

#endif
