/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The software executor: a native thread per vCPU that interprets a workload and reaches
 * guest memory only through the stage-2 MMU (mmu/mmu.h).
 *
 * Inside (uv/vcpu.h) and in the MMU's guest mode are the same here, but for moments: a
 * vCPU that waits for anything - a pause, the hypervisor, a conversion of the page that it
 * wants - has left both.  resolve() runs in guest mode and so never waits for vm->memory,
 * whose writers wait for vCPUs.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest/interp.h"
#include "mmu/mmu.h"
#include "uv/executor.h"
#include "uv/guestcall.h"
#include "uv/pager.h"
#include "uv/vcpu.h"

struct sw_exec {
	struct mmu *mmu;
	struct mmu_invalidation converting; /* guarded by vm->lock */
};

/* ---- what the MMU asks ---- */

/*
 * -EAGAIN: a mapping is being changed; -EACCES: the guest gave the page up; -ENODATA: it is
 * sealed.
 */
static int resolve(void *ctx, gfn_t gfn, bool write, struct mmu_resolution *ret)
{
	struct uv_vm *vm = ctx;
	enum page_attr attr;
	uint64_t unused;
	uint8_t *host;
	int err = 0;

	if (pthread_rwlock_tryrdlock(&vm->memory) != 0)
		return -EAGAIN;
	host = uv_vm_address(vm, gfn_to_gpa(gfn), PAGE_SIZE, &unused);
	attr = attr_get(vm->attr, gfn);
	if (host == NULL)
		err = -ENOENT;
	else if (attr == ATTR_RELEASED)
		err = -EACCES;
	else if (attr == ATTR_SEALED)
		err = -ENODATA;
	else
		*ret = (struct mmu_resolution){.host = host,
			.writable = true,
			.shared = attr_is_shared(attr),
			.max_level = MMU_1G};
	pthread_rwlock_unlock(&vm->memory);
	return err;
}

/*
 * Private and shared pages lie in one window; only released and sealed ones must not be
 * mapped.
 */
static bool uniform(void *ctx, struct gfn_range range)
{
	struct uv_vm *vm = ctx;

	return attr_all(vm->attr, range, ATTR_RELEASED) || attr_all(vm->attr, range, ATTR_SEALED) ||
	       (attr_none(vm->attr, range, ATTR_RELEASED) &&
		       attr_none(vm->attr, range, ATTR_SEALED));
}

static int vm_init(struct uv_vm *vm)
{
	static const struct mmu_ops ops = {.resolve = resolve, .uniform = uniform};
	struct sw_exec *e = calloc(1, sizeof(*e));
	int ret;

	if (e == NULL)
		return -ENOMEM;
	ret = mmu_new(&(struct mmu_config){.ops = &ops, .ctx = vm}, &e->mmu);
	if (ret < 0) {
		free(e);
		return ret;
	}
	vm->exec = e;
	return 0;
}

static void vm_fini(struct uv_vm *vm)
{
	struct sw_exec *e = vm->exec;

	mmu_free(e->mmu);
	free(e);
	vm->exec = NULL;
}

static int slot_changed(struct uv_vm *vm, unsigned int id)
{
	struct sw_exec *e = vm->exec;
	int ret = mmu_slot_delete(e->mmu, id);

	if (ret < 0 && ret != -ENOENT)
		return ret;
	if (!vm->slots.slot[id].used)
		return 0;
	return mmu_slot_add(e->mmu, id, vm->slots.slot[id].range, vm->memory_of[id].window.base);
}

/* What could not be taken from the MMU when its incarnation left goes now, or nothing runs. */
static int reset(struct uv_vm *vm)
{
	struct sw_exec *e = vm->exec;

	for (unsigned int id = 0; id < SLOTS_MAX; id++) {
		int ret = vm->slots.slot[id].used ? 0 : mmu_slot_delete(e->mmu, id);

		if (ret < 0 && ret != -ENOENT)
			return ret;
	}
	return 0;
}

static void range_begin(struct uv_vm *vm, struct gfn_range range)
{
	struct sw_exec *e = vm->exec;

	mmu_invalidate_begin(e->mmu, &e->converting, range);
}

static void range_end_change(struct uv_vm *vm, struct gfn_range range)
{
	struct sw_exec *e = vm->exec;

	/* A change that failed may leave a mixture inside, which an update would not look at. */
	if (uniform(vm, range))
		mmu_large_update(e->mmu, range);
	else
		mmu_large_rebuild(e->mmu, range);
	mmu_invalidate_end(e->mmu, &e->converting);
}

static uint64_t age(struct uv_vm *vm, struct gfn_range range)
{
	struct sw_exec *e = vm->exec;

	return mmu_age(e->mmu, range);
}

/* ---- what the interpreter asks ---- */

/* Stops the VM for an access that no state allows. */
static uint8_t *violation(struct uv_vcpu *v, uint64_t at, int err)
{
	const char *what = err == -ENOENT   ? "where there is no memory"
			   : err == -EACCES ? "which it had released"
					    : "which could not be mapped";
	char text[128];

	mmu_vcpu_leave(v->exec);
	snprintf(text, sizeof(text), "vCPU %u accessed 0x%llx, %s", v->id, (unsigned long long)at,
		what);
	guest_stop(v, err == -ENOMEM ? ABI_STOP_HOST : ABI_STOP_VIOLATION, at, text);
	return NULL;
}

/* Out of guest mode until there is nothing to wait for.  False if the vCPU must stop. */
static bool wait_outside(struct uv_vcpu *v)
{
	bool go;

	mmu_vcpu_leave(v->exec);
	vcpu_leave(v);
	/* Whoever changes a mapping holds this for writing. */
	pthread_rwlock_rdlock(&v->vm->memory);
	pthread_rwlock_unlock(&v->vm->memory);
	go = vcpu_enter(v);
	if (go)
		mmu_vcpu_enter(v->exec);
	return go;
}

/* Out of guest mode until a sealed page has come.  False if the vCPU must stop. */
static bool fetch(struct uv_vcpu *v, uint64_t at)
{
	bool go;

	mmu_vcpu_leave(v->exec);
	vcpu_leave(v);
	go = pager_fetch(v, (struct gfn_range){gpa_to_gfn(gpa(at)), 1}) && vcpu_enter(v);
	if (go)
		mmu_vcpu_enter(v->exec);
	return go;
}

static uint8_t *translate(void *ctx, uint64_t at, uint64_t want, bool write, uint64_t *ret_len)
{
	struct uv_vcpu *v = ctx;
	uint8_t *p;

	mmu_vcpu_checkpoint(v->exec);
	if (atomic_load_explicit(&v->vm->attention, memory_order_relaxed) && !wait_outside(v))
		return NULL;
	while ((p = mmu_vcpu_translate(v->exec, gpa(at), write, ret_len)) == NULL) {
		int err = mmu_vcpu_error(v->exec);

		if (err == -ENODATA) {
			if (!fetch(v, at))
				return NULL;
			continue;
		}
		if (err != -EAGAIN)
			return violation(v, at, err);
		mmu_vcpu_wait(v->exec);
		if (!wait_outside(v))
			return NULL;
	}
	if (*ret_len > want)
		*ret_len = want;
	return p;
}

/* The pointer is good until the next checkpoint, which is in translate(). */
static void release(void *ctx)
{
}

static int64_t call(
	void *ctx, enum guest_call nr, uint64_t a0, uint64_t a1, uint64_t a2, uint64_t a3)
{
	const struct guest_call_info *info = guest_call_info(nr);
	const uint64_t arg[4] = {a0, a1, a2, a3};
	struct uv_vcpu *v = ctx;
	uint32_t size = 0;
	int64_t ret;

	if (info->buffer >= 0) {
		uint64_t bytes = arg[info->count] * info->element;

		if (arg[info->count] > sizeof(v->buffer) || bytes > sizeof(v->buffer))
			return -(int64_t)ABI_ST_INVALID;
		size = (uint32_t)bytes;
		memcpy(v->buffer, (const void *)(uintptr_t)arg[info->buffer], size);
	}
	mmu_vcpu_leave(v->exec);
	ret = guest_call(v, nr, arg, size);
	if (ret == GUEST_CALL_ENDED)
		return ret;
	mmu_vcpu_enter(v->exec);
	if (ret == 0 && nr == GUEST_CALL_BOOTINFO)
		memcpy((void *)(uintptr_t)a0, v->buffer, sizeof(struct guest_bootinfo));
	return ret;
}

static int vcpu_init(struct uv_vcpu *v)
{
	struct sw_exec *e = v->vm->exec;
	struct mmu_vcpu *m;
	int ret = mmu_vcpu_new(e->mmu, &m);

	if (ret == 0)
		v->exec = m;
	return ret;
}

static void vcpu_fini(struct uv_vcpu *v)
{
	mmu_vcpu_free(v->exec);
}

/* Every way out of the interpreter has left guest mode. */
static void run(struct uv_vcpu *v)
{
	const struct guest_env env = {
		.ctx = v, .translate = translate, .release = release, .call = call};

	mmu_vcpu_attach(v->exec);
	mmu_vcpu_enter(v->exec);
	guest_interp_run(&env);
	mmu_vcpu_detach(v->exec);
}

/* The checkpoint in translate() sees vm->attention by itself. */
static void kick(struct uv_vcpu *v)
{
}

const struct executor executor_sw = {
	.id = ABI_EXEC_SW,
	.vm_init = vm_init,
	.vm_fini = vm_fini,
	.vcpu_init = vcpu_init,
	.vcpu_fini = vcpu_fini,
	.slot_changed = slot_changed,
	.range_begin = range_begin,
	.range_end = range_end_change,
	.age = age,
	.reset = reset,
	.run = run,
	.kick = kick,
};
