/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Each vCPU has a box: the test fills it and counts `asked` up, the vCPU does it and makes
 * `answered` the same.  A vCPU is outside (uv/vcpu.h) while its box is empty.
 */
#include "test/model/destroy_guest.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "mmu/mmu.h"
#include "os/futex.h"
#include "test/model/destroy_watch.h"
#include "uv/executor.h"
#include "uv/guestcall.h"
#include "uv/vcpu.h"

#define SPINS 300

enum work { WORK_WRITE, WORK_CHECK, WORK_WATCH, WORK_CALL };

static struct box {
	uint32_t asked, answered; /* atomic, futexes */
	_Atomic bool enough;
	enum work work;
	uint32_t first, count;
	uint64_t token;
	const uint64_t *content;
	size_t stride;
	uint64_t watched[GUEST_WATCH];
	uint64_t nr, arg[4];
	uint32_t bytes;
	uint8_t data[512];
	int64_t result;
} boxes[GUEST_VCPUS];

static struct executor executor;

/* ---- on the vCPU's thread ---- */

/* False if the vCPU must stop. */
static bool wait_outside(struct uv_vcpu *v)
{
	mmu_vcpu_leave(v->exec);
	vcpu_leave(v);
	pthread_rwlock_rdlock(&v->vm->memory);
	pthread_rwlock_unlock(&v->vm->memory);
	if (!vcpu_enter(v))
		return false;
	mmu_vcpu_enter(v->exec);
	return true;
}

/* NULL: the vCPU must stop, and is out of guest mode. */
static uint64_t *reach(struct uv_vcpu *v, uint64_t at, bool write)
{
	uint64_t unused;
	uint8_t *p;

	mmu_vcpu_checkpoint(v->exec);
	if (atomic_load(&v->vm->attention) && !wait_outside(v))
		return NULL;
	while ((p = mmu_vcpu_translate(v->exec, gpa(at), write, &unused)) == NULL) {
		if (mmu_vcpu_error(v->exec) != -EAGAIN) {
			mmu_vcpu_leave(v->exec);
			guest_stop(v, ABI_STOP_VIOLATION, at, "no access");
			return NULL;
		}
		mmu_vcpu_wait(v->exec);
		if (!wait_outside(v))
			return NULL;
	}
	return (uint64_t *)(void *)p;
}

static int64_t write_pages(struct uv_vcpu *v, const struct box *box)
{
	for (uint32_t i = 0; i < box->count; i++) {
		uint64_t *word = reach(v, (uint64_t)(box->first + i) * PAGE_SIZE, true);

		if (word == NULL)
			return GUEST_ENDED;
		for (uint32_t n = 0; n < PAGE_SIZE / 8; n++)
			word[n] = guest_word(box->token + i, n);
	}
	return 0;
}

static int64_t check_pages(struct uv_vcpu *v, const struct box *box)
{
	for (uint32_t i = 0; i < box->count; i++) {
		const uint64_t *word = reach(v, (uint64_t)(box->first + i) * PAGE_SIZE, false);
		uint64_t token =
			*(const uint64_t *)((const uint8_t *)box->content + i * box->stride);
		uint64_t differs = 0;

		if (word == NULL)
			return GUEST_ENDED;
		for (uint32_t n = 0; n < PAGE_SIZE / 8; n++)
			differs |= word[n] ^ guest_word(token, n);
		if (differs != 0)
			return i + 1;
	}
	return 0;
}

static int64_t watch_pages(struct uv_vcpu *v, struct box *box)
{
	int64_t ret = 0;

	while (ret == 0 && !atomic_load(&box->enough))
		ret = check_pages(v, box);
	return ret;
}

static int64_t work(struct uv_vcpu *v, struct box *box)
{
	int64_t ret;

	if (box->work == WORK_CALL) {
		memcpy(v->buffer, box->data, box->bytes);
		return guest_call(v, box->nr, box->arg, box->bytes);
	}
	mmu_vcpu_enter(v->exec);
	if (box->work == WORK_WRITE)
		ret = write_pages(v, box);
	else
		ret = box->work == WORK_CHECK ? check_pages(v, box) : watch_pages(v, box);
	if (ret != GUEST_ENDED)
		mmu_vcpu_leave(v->exec);
	return ret;
}

static void answer(struct box *box, int64_t result)
{
	box->result = result;
	__atomic_store_n(&box->answered, box->asked, __ATOMIC_RELEASE);
	futex_wake(&box->answered, 1);
}

/* Outside, until there is work.  False if the vCPU must stop.  A stop comes with a signal. */
static bool wait_for_work(struct uv_vcpu *v, struct box *box)
{
	unsigned int spins = 0;
	uint32_t seen;

	vcpu_leave(v);
	while ((seen = __atomic_load_n(&box->asked, __ATOMIC_ACQUIRE)) == box->answered) {
		if (atomic_load(&v->vm->attention)) {
			if (!vcpu_enter(v))
				return false;
			vcpu_leave(v);
		}
		if (spins++ < SPINS)
			cpu_relax();
		else
			(void)futex_wait(&box->asked, seen, NULL);
	}
	return vcpu_enter(v);
}

static void run(struct uv_vcpu *v)
{
	struct box *box = &boxes[v->id];
	int64_t result = 0;

	mmu_vcpu_attach(v->exec);
	while (result != GUEST_ENDED && wait_for_work(v, box)) {
		result = work(v, box);
		answer(box, result);
	}
	if (__atomic_load_n(&box->asked, __ATOMIC_ACQUIRE) != box->answered)
		answer(box, GUEST_ENDED);
	mmu_vcpu_detach(v->exec);
}

void guest_install(struct uv_vm *vm)
{
	executor = *vm->executor;
	executor.run = run;
	vm->executor = &executor;
}

/* ---- on the test's thread ---- */

static void post(struct box *box)
{
	atomic_store(&box->enough, false);
	__atomic_store_n(&box->asked, box->asked + 1, __ATOMIC_RELEASE);
	futex_wake(&box->asked, 1);
}

int64_t guest_wait(unsigned int vcpu)
{
	const struct timespec patience = {.tv_sec = 60};
	struct box *box = &boxes[vcpu];
	unsigned int spins = 0;
	uint32_t seen;

	while ((seen = __atomic_load_n(&box->answered, __ATOMIC_ACQUIRE)) != box->asked) {
		if (spins++ < SPINS)
			cpu_relax();
		else if (futex_wait(&box->answered, seen, &patience) == -ETIMEDOUT)
			model_die("vCPU %u does not answer", vcpu);
	}
	return box->result;
}

int64_t guest_write(unsigned int vcpu, uint32_t first, uint32_t count, uint64_t token)
{
	struct box *box = &boxes[vcpu];

	box->work = WORK_WRITE;
	box->first = first;
	box->count = count;
	box->token = token;
	post(box);
	return guest_wait(vcpu);
}

int64_t guest_check(
	unsigned int vcpu, uint32_t first, uint32_t count, const uint64_t *content, size_t stride)
{
	struct box *box = &boxes[vcpu];

	box->work = WORK_CHECK;
	box->first = first;
	box->count = count;
	box->content = content;
	box->stride = stride;
	post(box);
	return guest_wait(vcpu);
}

void guest_watch(
	unsigned int vcpu, uint32_t first, uint32_t count, const uint64_t *content, size_t stride)
{
	struct box *box = &boxes[vcpu];

	for (uint32_t i = 0; i < count; i++)
		box->watched[i] = *(const uint64_t *)((const uint8_t *)content + i * stride);
	box->work = WORK_WATCH;
	box->first = first;
	box->count = count;
	box->content = box->watched;
	box->stride = sizeof(box->watched[0]);
	post(box);
}

int64_t guest_watch_end(unsigned int vcpu)
{
	atomic_store(&boxes[vcpu].enough, true);
	return guest_wait(vcpu);
}

int64_t guest_watch_stopped(unsigned int vcpu)
{
	struct box *box = &boxes[vcpu];

	if (__atomic_load_n(&box->answered, __ATOMIC_ACQUIRE) != box->asked)
		answer(box, GUEST_ENDED);
	return box->result;
}

void guest_call_begin(
	unsigned int vcpu, uint64_t nr, const uint64_t arg[2], const void *data, uint32_t bytes)
{
	struct box *box = &boxes[vcpu];

	box->work = WORK_CALL;
	box->nr = nr;
	box->arg[0] = arg[0];
	box->arg[1] = arg[1];
	box->bytes = bytes;
	if (bytes > 0)
		memcpy(box->data, data, bytes);
	post(box);
}
