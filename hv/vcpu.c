/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vCPUs: starting, stopping, and the exits that the ultravisor posts (abi/exit.h). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "hv/error.h"
#include "hv/pager.h"
#include "hv/vm.h"
#include "os/futex.h"

/* X(name, whether the guest waits for an answer) */
#define EXITS(X)           \
	X(CLOSED, false)   \
	X(PRINT, true)     \
	X(PROTECT, true)   \
	X(CONVERT, true)   \
	X(RELEASE, true)   \
	X(DMA, true)       \
	X(REBOOT, false)   \
	X(POWEROFF, false) \
	X(STOPPED, false)  \
	X(HALTED, false)   \
	X(PIO, true)       \
	X(MMIO, true)

static enum lethe_exit_type type_of(uint32_t abi_type)
{
	switch (abi_type) {
#define X(name, waits)        \
	case ABI_EXIT_##name: \
		return LETHE_EXIT_##name;
		EXITS(X)
#undef X
	default:
		return LETHE_EXIT_CLOSED;
	}
}

static bool waits_for_answer(enum lethe_exit_type type)
{
	switch (type) {
#define X(name, waits)          \
	case LETHE_EXIT_##name: \
		return waits;
		EXITS(X)
#undef X
	default:
		return false;
	}
}

static uint32_t status_of(int err)
{
	switch (-err) {
#define X(name, number, error, text) \
	case error:                  \
		return ABI_ST_##name;
		ABI_STATUS_TABLE(X)
#undef X
	default:
		return ABI_ST_IO;
	}
}

/* Notes what the answer means for GFN states.  A negative errno: it cannot be given. */
static int note_answer(struct lethe_vm *vm, struct vcpu_local *l, const struct lethe_exit *exit)
{
	int ret;

	if (exit->type != LETHE_EXIT_CONVERT || exit->reply != 0)
		return exit->reply;
	ret = checked_gfn_range(exit->gpa, exit->bytes, &l->range);
	return ret == 0 ? hv_note_converted(vm, l, exit->to_shared) : ret;
}

/*
 * The pages are gone already: noted before anybody hears of it, who might remove their slot and
 * add another in its place.
 */
static void note_released(struct lethe_vm *vm, const struct lethe_exit *exit)
{
	struct gfn_range r;

	if (checked_gfn_range(exit->gpa, exit->bytes, &r) == 0)
		hv_note_released(vm, r);
}

/* The ultravisor's word on the conversion that was accepted last. */
static void settle(struct lethe_vm *vm, struct vcpu_local *l, int64_t result)
{
	if (l->saved > 0 && result != 0)
		hv_take_back(vm, l);
	hv_forget_saved(l);
}

static void answer(struct abi_vcpu_page *page, uint32_t seq, int reply, uint64_t value)
{
	page->reply_status = status_of(reply);
	page->reply_value = value;
	__atomic_store_n(&page->reply_seq, seq, __ATOMIC_RELEASE);
	futex_ring(&page->reply_bell, &page->sleeps);
}

/* Waits for news.  The reader thread bumps exit_seq when the ultravisor dies. */
static void wait_for_exit(struct abi_vcpu_page *page, uint32_t seen)
{
	unsigned int steps = 0;

	for (;;) {
		uint32_t bell = __atomic_load_n(&page->bell, __ATOMIC_ACQUIRE);

		if (__atomic_load_n(&page->exit_seq, __ATOMIC_ACQUIRE) != seen)
			return;
		futex_await(&page->bell, bell, &page->reply_sleeps, &steps);
	}
}

static void copy_data(const struct abi_vcpu_page *page, struct lethe_exit *exit)
{
	uint32_t size = page->data_size;

	if (exit->type == LETHE_EXIT_PROTECT) {
		const struct abi_range *from = (const struct abi_range *)page->data;

		exit->count = size / sizeof(*from);
		if (exit->count > sizeof(exit->ranges) / sizeof(exit->ranges[0]))
			exit->count = sizeof(exit->ranges) / sizeof(exit->ranges[0]);
		for (size_t i = 0; i < exit->count; i++)
			exit->ranges[i] = (struct lethe_range){from[i].gpa, from[i].bytes};
		return;
	}
	if (size >= sizeof(exit->text))
		size = sizeof(exit->text) - 1;
	memcpy(exit->text, page->data, size);
	exit->text[size] = '\0';
	exit->count = size;
}

static void copy_exit(const struct abi_vcpu_page *page, struct lethe_exit *exit)
{
	const uint64_t *arg = page->arg;

	exit->type = type_of(__atomic_load_n(&page->type, __ATOMIC_RELAXED));
	exit->time_ns = page->time_ns;
	exit->gpa = arg[0];
	exit->bytes = arg[1];
	exit->value = arg[3];
	exit->is_write = arg[2] != 0;
	exit->to_shared = arg[2] != 0;
	exit->reply = 0;
	exit->reply_value = 0;
	exit->then = NULL;
	exit->then_count = 0;
	if (exit->type == LETHE_EXIT_STOPPED) {
		exit->stop = (enum lethe_stop)arg[0];
		exit->gpa = arg[1];
	}
	copy_data(page, exit);
}

/* The ultravisor knows that a page is lost; what the store said is known here. */
static void explain_loss(struct lethe_vm *vm, struct lethe_exit *exit)
{
	size_t used = strlen(exit->text);
	int err = 0;

	pthread_mutex_lock(&vm->lock);
	if (vm->pager != NULL)
		err = pager_lost_error(vm->pager, exit->gpa);
	pthread_mutex_unlock(&vm->lock);
	if (err == 0)
		return;
	snprintf(exit->text + used, sizeof(exit->text) - used, ": %s", strerror(-err));
	exit->count = strlen(exit->text);
}

int lethe_vcpu_run(struct lethe_vm *vm, unsigned int vcpu, struct lethe_exit *exit)
{
	struct abi_vcpu_page *page;
	struct vcpu_local *l;

	if (vcpu >= vm->vcpus)
		return fail(-EINVAL, "no vCPU %u", vcpu);
	page = hv_vcpu_page(vm, vcpu);
	l = &vm->local[vcpu];
	if (exit->type != 0 && waits_for_answer(exit->type)) {
		int reply = note_answer(vm, l, exit);

		page->reply_copies = 0;
		if (reply == 0 && exit->then_count > 0)
			reply = hv_copy_then(vm, exit->then, exit->then_count);
		answer(page, l->seen, reply, exit->reply_value);
	}
	hv_copy_close();
	if (conn_is_dead(vm->conn)) {
		exit->type = LETHE_EXIT_CLOSED;
		return 0;
	}
	wait_for_exit(page, l->seen);
	l->seen = __atomic_load_n(&page->exit_seq, __ATOMIC_ACQUIRE);
	settle(vm, l, page->last_result);
	copy_exit(page, exit);
	if (exit->type == LETHE_EXIT_RELEASE)
		note_released(vm, exit);
	if (exit->type == LETHE_EXIT_STOPPED && exit->stop == LETHE_STOP_LOST_PAGE)
		explain_loss(vm, exit);
	if (waits_for_answer(exit->type))
		hv_copy_open(vm, vcpu, exit->gpa, page->copied);
	return 0;
}

_Static_assert(
	sizeof(struct lethe_cpu_state) == sizeof(struct abi_vcpu_state) &&
		offsetof(struct lethe_cpu_state, rip) == offsetof(struct abi_vcpu_state, rip) &&
		offsetof(struct lethe_cpu_state, tr) == offsetof(struct abi_vcpu_state, tr),
	"the public state is the wire's, but for the vCPU's number");

int lethe_vcpu_set_state(
	struct lethe_vm *vm, unsigned int vcpu, const struct lethe_cpu_state *state)
{
	struct abi_vcpu_state args;
	int ret;

	memcpy(&args, state, sizeof(args));
	args.vcpu = vcpu;
	args.reserved = 0;
	ret = hv_call(vm, ABI_CALL_VCPU_STATE, &args, NULL);
	return ret < 0 ? fail(ret, "vCPU %u takes no registers: %s", vcpu, strerror(-ret)) : 0;
}

int lethe_irq_line(struct lethe_vm *vm, unsigned int irq, bool level)
{
	const struct abi_irq_line args = {.irq = irq, .level = level};
	int ret = hv_call(vm, ABI_CALL_IRQ_LINE, &args, NULL);

	return ret < 0 ? fail(ret, "interrupt line %u: %s", irq, strerror(-ret)) : 0;
}

int lethe_vm_start(struct lethe_vm *vm, uint64_t *ret_first_ns)
{
	struct abi_vm_start_ret result;
	int ret = hv_call(vm, ABI_CALL_VM_START, NULL, &result);

	if (ret < 0)
		return fail(ret, "the vCPUs could not be started: %s", strerror(-ret));
	if (ret_first_ns != NULL)
		*ret_first_ns = result.first_instruction_ns;
	return 0;
}

int lethe_vm_stop(struct lethe_vm *vm)
{
	int ret = hv_call(vm, ABI_CALL_VM_STOP, NULL, NULL);

	return ret < 0 ? fail(ret, "the vCPUs could not be stopped: %s", strerror(-ret)) : 0;
}
