/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The software executor: a native thread that interprets a workload.
 *
 * It reaches guest memory only through translate(): a checkpoint, a lookup, and the
 * memory lock held for reading until release(), so that no conversion changes a mapping
 * under an access.
 */
#include "guest/interp.h"
#include "uv/executor.h"
#include "uv/guestcall.h"
#include "uv/vcpu.h"

#include <stdio.h>
#include <string.h>

/* Stops the VM for an access that no state allows. */
static uint8_t *violation(struct uv_vcpu *v, uint64_t at, const char *what)
{
	char text[128];

	pthread_rwlock_unlock(&v->vm->memory);
	snprintf(text, sizeof(text), "vCPU %u accessed 0x%llx, %s", v->id, (unsigned long long)at,
		what);
	guest_stop(v, ABI_STOP_VIOLATION, at, text);
	return NULL;
}

static uint8_t *translate(void *ctx, uint64_t at, uint64_t want, bool write, uint64_t *ret_len)
{
	struct uv_vcpu *v = ctx;
	struct range_run run;
	uint8_t *p;

	if (!vcpu_checkpoint(v))
		return NULL;
	pthread_rwlock_rdlock(&v->vm->memory);
	p = uv_vm_address(v->vm, gpa(at), want, ret_len);
	if (p == NULL)
		return violation(v, at, "where there is no memory");
	run = range_map_run_at(
		v->vm->attr, at >> PAGE_SHIFT, ((at + *ret_len - 1) >> PAGE_SHIFT) + 1);
	if (run.value == ATTR_RELEASED)
		return violation(v, at, "which it had released");
	if ((run.end << PAGE_SHIFT) - at < *ret_len)
		*ret_len = (run.end << PAGE_SHIFT) - at;
	return p;
}

static void release(void *ctx)
{
	struct uv_vcpu *v = ctx;

	pthread_rwlock_unlock(&v->vm->memory);
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
	ret = guest_call(v, nr, arg, size);
	if (ret == 0 && nr == GUEST_CALL_BOOTINFO)
		memcpy((void *)(uintptr_t)a0, v->buffer, sizeof(struct guest_bootinfo));
	return ret;
}

static int vcpu_init(struct uv_vcpu *v)
{
	return 0;
}

static void vcpu_fini(struct uv_vcpu *v)
{
}

static void run(struct uv_vcpu *v)
{
	const struct guest_env env = {
		.ctx = v, .translate = translate, .release = release, .call = call};

	guest_interp_run(&env);
}

/* The checkpoint in translate() sees vm->attention by itself. */
static void kick(struct uv_vcpu *v)
{
}

const struct executor executor_sw = {
	.name = "sw",
	.id = ABI_EXEC_SW,
	.vcpu_init = vcpu_init,
	.vcpu_fini = vcpu_fini,
	.run = run,
	.kick = kick,
};
