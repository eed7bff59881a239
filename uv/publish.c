/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "uv/publish.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "os/clock.h"
#include "os/pressure.h"
#include "uv/dying.h"
#include "uv/executor.h"
#include "uv/stale.h"
#include "uv/sweeper.h"

#define SET(vm, field, value) __atomic_store_n(&(vm)->status->field, value, __ATOMIC_RELAXED)

int publish_open(struct uv_vm *vm, int fd)
{
	struct abi_status_page *st = calloc(1, sizeof(*st));
	ssize_t n;

	if (st == NULL)
		return -ENOMEM;
	n = pread(fd, st, sizeof(*st), 0);
	if (n != (ssize_t)sizeof(*st)) {
		n = n < 0 ? -errno : -EINVAL;
		free(st);
		return (int)n;
	}
	st->magic = 0;
	vm->status = st;
	vm->status_fd = fd;
	return 0;
}

void publish_close(struct uv_vm *vm)
{
	free(vm->status);
	vm->status = NULL;
}

void publish_born(struct uv_vm *vm)
{
	SET(vm, version, ABI_VERSION);
	SET(vm, uv_pid, getpid());
	SET(vm, vcpus, vm->vcpu_count);
	SET(vm, executor, vm->executor->id);
	SET(vm, magic, ABI_STATUS_MAGIC);
}

static enum abi_vm_state visible_state(const struct uv_vm *vm)
{
	/* The end, which vm->state does not know. */
	if (vm->status->state >= ABI_VM_FORGETTING)
		return vm->status->state;
	switch (vm->state.phase) {
	case PHASE_RUNNING:
		return vm->state.security == SECURITY_SECURE ? ABI_VM_SECURE : ABI_VM_NORMAL;
	case PHASE_STOPPED:
		return ABI_VM_STOPPED;
	default:
		return ABI_VM_STARTING;
	}
}

static void note_change(struct uv_vm *vm)
{
	SET(vm, updated_ns, clock_ns());
	atomic_store(&vm->status_changed, true);
}

void publish_vm(struct uv_vm *vm)
{
	if (vm->status == NULL)
		return;
	SET(vm, state, visible_state(vm));
	SET(vm, memory_bytes, slots_pages(&vm->slots) << PAGE_SHIFT);
	SET(vm, incarnation, vm->incarnation);
	SET(vm, forget_bytes, dying_bytes(vm));
	SET(vm, resident_bytes, uv_vm_current(vm));
	SET(vm, stale_bytes, stale_bytes(vm));
	SET(vm, quarantined_bytes, vm->quarantined_bytes);
	note_change(vm);
}

/* Fields of two moments, perhaps, while others write them; no torn ones. */
static void take_copy(const struct abi_status_page *from, struct abi_status_page *to)
{
	const uint64_t *source = (const uint64_t *)from;
	uint64_t *copy = (uint64_t *)to;

	_Static_assert(sizeof(*from) % sizeof(*source) == 0, "whole words");
	for (size_t i = 0; i < sizeof(*from) / sizeof(*source); i++)
		copy[i] = __atomic_load_n(&source[i], __ATOMIC_RELAXED);
}

void publish_flush(struct uv_vm *vm)
{
	struct abi_status_page now;

	if (vm->status == NULL)
		return;
	/* One at a time, so that nobody overwrites with what is older. */
	pthread_mutex_lock(&vm->status_lock);
	if (atomic_exchange(&vm->status_changed, false)) {
		take_copy(vm->status, &now);
		/* Nobody is helped if this process minds that nobody can see it. */
		if (pwrite(vm->status_fd, &now, sizeof(now), 0) < 0)
			atomic_store(&vm->status_changed, true);
	}
	pthread_mutex_unlock(&vm->status_lock);
}

void publish_progress(struct uv_vm *vm, uint64_t bytes, uint64_t left, uint64_t rate)
{
	__atomic_fetch_add(&vm->status->forgotten_bytes, bytes, __ATOMIC_RELAXED);
	SET(vm, forget_bytes, left);
	/* What held nothing says nothing about how fast it goes. */
	if (rate > 0)
		SET(vm, forget_rate, rate);
	note_change(vm);
}

void publish_pressure(struct uv_vm *vm, uint32_t level)
{
	SET(vm, pressure, level);
	note_change(vm);
}

void publish_refresh(struct uv_vm *vm)
{
	uint32_t level;

	if (vm->status == NULL)
		return;
	level = pressure_level(&vm->meminfo);
	pthread_mutex_lock(&vm->lock);
	publish_vm(vm);
	pthread_mutex_unlock(&vm->lock);
	publish_pressure(vm, level);
	if (level != PRESSURE_NONE)
		sweeper_hurry(vm->sweeper);
}

void publish_end(struct uv_vm *vm, enum abi_vm_state state, uint64_t left)
{
	/* The sweeper publishes too, and must not put back what the state was before. */
	pthread_mutex_lock(&vm->lock);
	SET(vm, state, state);
	SET(vm, forget_bytes, left);
	note_change(vm);
	pthread_mutex_unlock(&vm->lock);
	publish_flush(vm);
}
