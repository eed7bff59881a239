/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What guest code asks for.  Each handler runs outside (uv/vcpu.h), so it may wait for
 * the hypervisor; guest_call() brackets it.
 */
#include "uv/guestcall.h"

#include <errno.h>
#include <string.h>

#include "abi/exit.h"
#include "base/checked.h"
#include "os/clock.h"
#include "uv/convert.h"
#include "uv/copy.h"
#include "uv/status.h"
#include "uv/vcpu.h"

typedef int64_t (*handler_fn)(struct uv_vcpu *v, const uint64_t arg[4], uint32_t size);

static int64_t failed(int err)
{
	return -(int64_t)status_of(err);
}

static int64_t call_bootinfo(struct uv_vcpu *v, const uint64_t arg[4], uint32_t size)
{
	struct uv_vm *vm = v->vm;
	struct guest_bootinfo info = {.vcpu = v->id,
		.vcpus = vm->vcpu_count,
		.caller = vm->resume_size > 0 && vm->resume_caller == v->id,
		.resume_size = vm->resume_size};

	memcpy(info.resume, vm->resume, sizeof(info.resume));
	pthread_mutex_lock(&vm->lock);
	info.incarnation = vm->incarnation;
	info.memory_end = slots_end(&vm->slots) << PAGE_SHIFT;
	pthread_mutex_unlock(&vm->lock);
	memcpy(v->buffer, &info, sizeof(info));
	return 0;
}

/* Every page of a necessary range must be memory.  Caller holds vm->lock. */
static int check_necessary(const struct uv_vm *vm, const struct abi_range *asked)
{
	struct gfn_range r;
	int ret = checked_gfn_range(asked->gpa, asked->bytes, &r);

	if (ret == 0)
		ret = slots_find_range(&vm->slots, r);
	return ret < 0 ? ret : 0;
}

/* Notes what the guest asks for, which INIT_START and PAGE_IN are checked against. */
static int note_protect(struct uv_vcpu *v, uint32_t count)
{
	struct uv_vm *vm = v->vm;
	int ret = 0;

	pthread_mutex_lock(&vm->lock);
	if (vm->state.security != SECURITY_NORMAL || vm->switch_asked)
		ret = -EPROTO;
	for (uint32_t i = 0; i < count && ret == 0; i++)
		ret = check_necessary(vm, (const struct abi_range *)v->buffer + i);
	if (ret == 0) {
		vm->switch_asked = true;
		vm->asked_count = count;
		memcpy(vm->asked, v->buffer, count * sizeof(vm->asked[0]));
	}
	pthread_mutex_unlock(&vm->lock);
	return ret;
}

static int64_t call_protect(struct uv_vcpu *v, const uint64_t arg[4], uint32_t size)
{
	struct uv_vm *vm = v->vm;
	uint32_t count = size / sizeof(struct abi_range);
	struct exit_reply reply;
	bool answered, secure;
	int ret;

	if (count > ABI_MAX_RANGES)
		return failed(-EINVAL);
	ret = note_protect(v, count);
	if (ret < 0)
		return failed(ret);
	vcpu_exit_post(v, ABI_EXIT_PROTECT, (uint64_t[6]){0}, size);
	answered = vcpu_exit_wait(v, &reply);

	pthread_mutex_lock(&vm->lock);
	vm->switch_asked = false;
	secure = vm->state.security == SECURITY_SECURE;
	pthread_mutex_unlock(&vm->lock);
	if (!answered)
		return GUEST_CALL_ENDED;
	if (secure)
		return 0;
	return status_refused(reply.status);
}

static int64_t call_share(struct uv_vcpu *v, const uint64_t arg[4], uint32_t size)
{
	return convert_by_guest(v, arg[0], arg[1], true);
}

static int64_t call_unshare(struct uv_vcpu *v, const uint64_t arg[4], uint32_t size)
{
	return convert_by_guest(v, arg[0], arg[1], false);
}

static int64_t call_release(struct uv_vcpu *v, const uint64_t arg[4], uint32_t size)
{
	struct exit_reply reply;
	int ret = convert_release(v->vm, arg[0], arg[1]);

	if (ret == -ENOTRECOVERABLE) {
		guest_stop(v, ABI_STOP_HOST, arg[0], "a release failed half way");
		return GUEST_CALL_ENDED;
	}
	if (ret < 0)
		return failed(ret);
	vcpu_exit_post(v, ABI_EXIT_RELEASE, (uint64_t[6]){arg[0], arg[1]}, 0);
	return vcpu_exit_wait(v, &reply) ? 0 : GUEST_CALL_ENDED;
}

static int64_t call_dma(struct uv_vcpu *v, const uint64_t arg[4], uint32_t size)
{
	struct exit_reply reply;

	copy_along(v, arg[0], arg[1]);
	vcpu_exit_post(v, ABI_EXIT_DMA, (uint64_t[6]){arg[0], arg[1]}, 0);
	if (!vcpu_exit_wait(v, &reply))
		return GUEST_CALL_ENDED;
	return reply.status == ABI_ST_OK ? 0 : status_refused(reply.status);
}

static int64_t call_reboot(struct uv_vcpu *v, const uint64_t arg[4], uint32_t size)
{
	struct uv_vm *vm = v->vm;

	if (size > sizeof(vm->resume))
		return failed(-EINVAL);
	if (!guest_stop_others(v))
		return GUEST_CALL_ENDED;
	vm->resume_caller = v->id;
	vm->resume_size = size / sizeof(vm->resume[0]);
	memcpy(vm->resume, v->buffer, size);
	vcpu_exit_post(v, ABI_EXIT_REBOOT, (uint64_t[6]){0}, 0);
	return GUEST_CALL_ENDED;
}

static int64_t call_poweroff(struct uv_vcpu *v, const uint64_t arg[4], uint32_t size)
{
	guest_end(v, ABI_EXIT_POWEROFF, (uint64_t[6]){0}, 0);
	return GUEST_CALL_ENDED;
}

static int64_t call_print(struct uv_vcpu *v, const uint64_t arg[4], uint32_t size)
{
	struct exit_reply reply;

	vcpu_exit_post(v, ABI_EXIT_PRINT, (uint64_t[6]){0}, size);
	return vcpu_exit_wait(v, &reply) ? 0 : GUEST_CALL_ENDED;
}

static int64_t call_stop(struct uv_vcpu *v, const uint64_t arg[4], uint32_t size)
{
	/* A guest may blame itself, not the host or the hypervisor. */
	uint64_t reason = arg[0] == ABI_STOP_CHECK ? ABI_STOP_CHECK : ABI_STOP_GUEST;

	guest_end(v, ABI_EXIT_STOPPED, (uint64_t[6]){reason, arg[1]}, size);
	return GUEST_CALL_ENDED;
}

static int64_t call_halt(struct uv_vcpu *v, const uint64_t arg[4], uint32_t size)
{
	vcpu_exit_post(v, ABI_EXIT_HALTED, (uint64_t[6]){0}, 0);
	return GUEST_CALL_ENDED;
}

static int64_t call_sleep(struct uv_vcpu *v, const uint64_t arg[4], uint32_t size)
{
	if (arg[0] > UINT32_MAX)
		return failed(-EINVAL);
	return vcpu_sleep(v, arg[0] * NS_PER_MS) ? 0 : GUEST_CALL_ENDED;
}

static int64_t call_barrier(struct uv_vcpu *v, const uint64_t arg[4], uint32_t size)
{
	if (arg[1] < 1 || arg[1] > v->vm->vcpu_count)
		return failed(-EINVAL);
	return vcpu_barrier(v, arg[0], (unsigned int)arg[1]) ? 0 : GUEST_CALL_ENDED;
}

/* Memory that the guest released is not there for it before it was unplugged and added again. */
static int64_t call_await(struct uv_vcpu *v, const uint64_t arg[4], uint32_t size)
{
	struct uv_vm *vm = v->vm;
	struct gfn_range r;
	int ret = checked_gfn_range(arg[0], arg[1], &r);

	if (ret < 0)
		return failed(ret);
	pthread_mutex_lock(&vm->lock);
	if (slots_find_range(&vm->slots, r) < 0 || !attr_none(vm->attr, r, ATTR_RELEASED))
		ret = -EAGAIN;
	pthread_mutex_unlock(&vm->lock);
	return ret < 0 ? failed(ret) : 0;
}

static const handler_fn handlers[] = {
#define CALL(nr, handler) [GUEST_CALL_##nr] = handler
	CALL(BOOTINFO, call_bootinfo),
	CALL(PROTECT, call_protect),
	CALL(SHARE, call_share),
	CALL(UNSHARE, call_unshare),
	CALL(RELEASE, call_release),
	CALL(DMA, call_dma),
	CALL(REBOOT, call_reboot),
	CALL(POWEROFF, call_poweroff),
	CALL(PRINT, call_print),
	CALL(STOP, call_stop),
	CALL(HALT, call_halt),
	CALL(SLEEP, call_sleep),
	CALL(BARRIER, call_barrier),
	CALL(AWAIT, call_await),
#undef CALL
};

static const struct guest_call_info infos[] = {
#define X(name, number, buffer, size, element, text) [number] = {#name, buffer, size, element},
	GUEST_CALL_TABLE(X)
#undef X
};

const struct guest_call_info *guest_call_info(uint64_t nr)
{
	static const struct guest_call_info none = {.buffer = -1, .count = -1};

	return nr < sizeof(infos) / sizeof(infos[0]) ? &infos[nr] : &none;
}

int64_t guest_call(struct uv_vcpu *v, uint64_t nr, const uint64_t arg[4], uint32_t size)
{
	int64_t ret;

	if (guest_call_info(nr)->name == NULL)
		return -(int64_t)ABI_ST_UNKNOWN_CALL;
	vcpu_leave(v);
	ret = handlers[nr](v, arg, size);
	if (ret != GUEST_CALL_ENDED && !vcpu_enter(v))
		ret = GUEST_CALL_ENDED;
	return ret;
}
