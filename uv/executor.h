/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What runs guest code: software, or KVM.
 *
 * An executor's run() is called on the vCPU's own thread, inside (uv/vcpu.h), and
 * returns when the vCPU has nothing left to do in this incarnation or must stop.  It
 * reaches guest memory only between vcpu_enter() and vcpu_leave().
 *
 * Functions that an executor does not need are NULL, but for vcpu_init, vcpu_fini, run
 * and kick.
 */
#ifndef UV_EXECUTOR_H
#define UV_EXECUTOR_H

#include "uv/vm.h"

struct executor {
	enum abi_executor id;

	/* 0 or a negative errno; fini undoes init. */
	int (*vm_init)(struct uv_vm *vm);
	void (*vm_fini)(struct uv_vm *vm);
	int (*vcpu_init)(struct uv_vcpu *v);
	void (*vcpu_fini)(struct uv_vcpu *v);

	/*
	 * The memory of slot @id is now vm->memory_of[id].window, or none.  Called with
	 * vm->lock held and no access to the slot under way.  0 or a negative errno.
	 */
	int (*slot_changed)(struct uv_vm *vm, unsigned int id);

	/*
	 * Between the two, no vCPU accesses @range.  Called with vm->lock held, not
	 * vm->memory; the caller's vCPU, if it is one, is outside.
	 */
	void (*range_begin)(struct uv_vm *vm, struct gfn_range range);
	void (*range_end)(struct uv_vm *vm, struct gfn_range range);

	/*
	 * Sealed pages.  Called with vm->lock held.  seal_begin, with vm->memory held for writing:
	 * pages of @range are about to be sealed; from here on a vCPU that touches a sealed or a
	 * missing page of it comes to pager_fetch().  -EOPNOTSUPP: this executor cannot.  Where it
	 * is NULL, range_begin keeps vCPUs off, and the executor looks at the attributes itself; an
	 * executor with neither cannot.
	 */
	int (*seal_begin)(struct uv_vm *vm, unsigned int slot, struct gfn_range range);

	/*
	 * page_take gives the memory of pages back that have become sealed (NULL: they are
	 * discarded); page_put fills a run that is sealed no more (NULL: pages are decrypted in
	 * the window, before they are shown), and *ret_bytes is how much of it is filled, after
	 * a failure, too.  vm->memory is held for writing from the change of
	 * the attribute on, so whoever fills missing pages with zeros holds it for reading from the
	 * look at the attribute until that is done.  0 or a negative errno, nothing changed then.
	 */
	int (*page_take)(struct uv_vm *vm, unsigned int slot, uint64_t offset, uint64_t bytes);
	int (*page_put)(struct uv_vm *vm, unsigned int slot, uint64_t offset, const uint8_t *pages,
		uint64_t bytes, uint64_t *ret_bytes);

	/*
	 * Threads of the ultravisor touch memory of a slot through this (uv_vm_address()): what
	 * is missing of a part without sealed pages is filled, so that the touch does not
	 * wait.  Called with vm->memory held.  NULL: nothing ever waits.
	 */
	void (*settle)(struct uv_vm *vm, unsigned int slot, uint64_t offset, uint64_t bytes);

	/*
	 * Where a vCPU may wait for a page inside guest code, a kick does not reach it.  may_wait:
	 * this can happen now; waits: one is waiting for a sealed page, which a call has to
	 * bring.  give_up: a stop is under way and every vCPU has been kicked since it
	 * began; ends such waits, for good.  The last two are called with vm->run_lock held.
	 * All NULL, or none.
	 */
	bool (*may_wait)(struct uv_vm *vm);
	bool (*waits)(struct uv_vm *vm);
	void (*give_up)(struct uv_vm *vm);

	/* How many pages of @range were used since the last time; forgets it.  NULL: unknown. */
	uint64_t (*age)(struct uv_vm *vm, struct gfn_range range);

	/* What a vCPU's first instruction finds.  Caller holds vm->lock.  0 or -errno. */
	int (*set_state)(struct uv_vm *vm, const struct abi_vcpu_state *state);

	/* Adds the vCPUs' initial states to a measurement.  0 or -errno. */
	int (*measure)(struct uv_vm *vm, struct measure *m);

	/* An interrupt line.  0 or -errno. */
	int (*irq_line)(struct uv_vm *vm, unsigned int irq, bool level);

	/*
	 * All vCPUs to the state before their first instruction.  Called while they have
	 * ended, with vm->lock held.  0 or a negative errno.
	 */
	int (*reset)(struct uv_vm *vm);

	/*
	 * The incarnation ends: takes away what it had of the executor, in constant time.
	 * The result, which may be NULL, is given to bury() later, on another thread.
	 * Called while all vCPUs have ended, with vm->lock held.
	 */
	void *(*retire)(struct uv_vm *vm);
	void (*bury)(void *remains);

	void (*run)(struct uv_vcpu *v);

	/* Makes run() notice vm->attention soon.  Called from other threads. */
	void (*kick)(struct uv_vcpu *v);
};

extern const struct executor executor_sw;
extern const struct executor executor_kvm;

#endif
