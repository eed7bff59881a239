/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What runs guest code: software, or KVM.
 *
 * An executor's run() is called on the vCPU's own thread, inside (uv/vcpu.h), and
 * returns when the vCPU has nothing left to do in this incarnation or must stop.  It
 * reaches guest memory only between vcpu_enter() and vcpu_leave().
 */
#ifndef UV_EXECUTOR_H
#define UV_EXECUTOR_H

#include "uv/vm.h"

struct executor {
	const char *name;
	enum abi_executor id;

	/* 0 or a negative errno; fini undoes init.  vm_init may be NULL. */
	int (*vm_init)(struct uv_vm *vm);
	void (*vm_fini)(struct uv_vm *vm);
	int (*vcpu_init)(struct uv_vcpu *v);
	void (*vcpu_fini)(struct uv_vcpu *v);

	/*
	 * The memory of slot @id is now vm->memory_of[id].window, or none.  Called with
	 * vm->lock held and no vCPU inside.  0 or a negative errno.  May be NULL.
	 */
	int (*slot_changed)(struct uv_vm *vm, unsigned int id);

	/* To the state before the first instruction.  Called while the vCPU has ended. */
	int (*vcpu_reset)(struct uv_vcpu *v);
	void (*run)(struct uv_vcpu *v);

	/* Makes run() notice vm->attention soon.  Called from other threads. */
	void (*kick)(struct uv_vcpu *v);
};

extern const struct executor executor_sw;

#endif
