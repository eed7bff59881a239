/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "uv/vcpu.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#include "base/failpoint.h"
#include "os/clock.h"
#include "os/futex.h"
#include "uv/copy.h"
#include "uv/executor.h"

/* How long to wait for a kicked vCPU before it is kicked again. */
#define KICK_AGAIN_NS NS_PER_MS

/*
 * How long vCPUs are held outside for a pause that could not be had, and how long they run
 * after that was in vain: a page that does not come for long must not hold up those that need
 * others.
 */
#define HOLD_NS (100 * NS_PER_MS)
#define REST_NS (10 * HOLD_NS)

/* Caller holds run_lock. */
static void update_attention(struct uv_vm *vm)
{
	atomic_store(&vm->attention, vm->paused > 0 || vm->held || vm->stopping || vm->quitting);
	pthread_cond_broadcast(&vm->run_changed);
}

/* After a pause could not be had: it stays in force for a while.  Caller holds run_lock. */
static void hold(struct uv_vm *vm)
{
	uint64_t now = clock_ns();

	if (vm->held || (vm->hold_end_ns != 0 && now < vm->hold_end_ns + REST_NS))
		return;
	vm->held = true;
	vm->hold_end_ns = now + HOLD_NS;
}

/* Waits for the end of a hold, or for whatever changes.  Caller holds run_lock. */
static void wait_held(struct uv_vm *vm)
{
	uint64_t now = clock_ns();
	struct timespec deadline;

	if (now < vm->hold_end_ns) {
		deadline = clock_deadline(vm->hold_end_ns - now);
		pthread_cond_timedwait(&vm->run_changed, &vm->run_lock, &deadline);
		return;
	}
	vm->held = false;
	update_attention(vm);
}

static void kick(struct uv_vcpu *v)
{
	v->vm->executor->kick(v);
	pthread_kill(v->thread, SIGUSR1);
}

enum wanted { OUTSIDE, ENDED };

static bool is(const struct uv_vcpu *v, enum wanted wanted)
{
	return wanted == ENDED ? v->ended : !v->inside;
}

/* Ends waits for pages of vCPUs that are stopping: none runs guest code after its kick. */
static void give_up_pages(struct uv_vm *vm, const struct uv_vcpu *self)
{
	for (unsigned int i = 0; i < vm->vcpu_count; i++) {
		if (&vm->vcpu[i] != self && !vm->vcpu[i].ended)
			kick(&vm->vcpu[i]);
	}
	vm->executor->give_up(vm);
}

/* Also those that sleep for a page: they come out when they have it, and not at the next. */
static void kick_inside(struct uv_vm *vm)
{
	for (unsigned int i = 0; i < vm->vcpu_count; i++) {
		if (vm->vcpu[i].inside)
			kick(&vm->vcpu[i]);
	}
}

/*
 * Waits until all vCPUs but @self are as @wanted.  Caller holds run_lock.  False if one waits
 * for a sealed page and so may never be OUTSIDE.
 */
static bool wait_for_all(struct uv_vm *vm, const struct uv_vcpu *self, enum wanted wanted)
{
	const struct executor *x = vm->executor;

	if (wanted == ENDED && x->give_up != NULL)
		give_up_pages(vm, self);
	if (wanted == OUTSIDE && x->waits != NULL)
		kick_inside(vm);
	for (unsigned int i = 0; i < vm->vcpu_count; i++) {
		struct uv_vcpu *v = &vm->vcpu[i];

		while (v != self && !is(v, wanted)) {
			struct timespec deadline = clock_deadline(KICK_AGAIN_NS);

			if (wanted == OUTSIDE && x->waits != NULL && x->waits(vm))
				return false;
			kick(v);
			pthread_cond_timedwait(&vm->run_changed, &vm->run_lock, &deadline);
		}
	}
	return true;
}

bool vcpu_enter(struct uv_vcpu *v)
{
	struct uv_vm *vm = v->vm;
	bool go;

	pthread_mutex_lock(&vm->run_lock);
	while ((vm->paused > 0 || vm->held) && !vm->stopping && !vm->quitting) {
		if (vm->paused > 0)
			pthread_cond_wait(&vm->run_changed, &vm->run_lock);
		else
			wait_held(vm);
	}
	go = !vm->stopping && !vm->quitting;
	v->inside = go;
	pthread_mutex_unlock(&vm->run_lock);
	return go;
}

void vcpu_leave(struct uv_vcpu *v)
{
	struct uv_vm *vm = v->vm;

	pthread_mutex_lock(&vm->run_lock);
	v->inside = false;
	pthread_cond_broadcast(&vm->run_changed);
	pthread_mutex_unlock(&vm->run_lock);
}

bool vcpu_checkpoint(struct uv_vcpu *v)
{
	if (!atomic_load(&v->vm->attention))
		return true;
	vcpu_leave(v);
	return vcpu_enter(v);
}

bool vcpu_sleep(struct uv_vcpu *v, uint64_t ns)
{
	struct uv_vm *vm = v->vm;
	struct timespec deadline = clock_deadline(ns);
	bool go;

	pthread_mutex_lock(&vm->run_lock);
	while (!vm->stopping && !vm->quitting) {
		if (pthread_cond_timedwait(&vm->run_changed, &vm->run_lock, &deadline) == ETIMEDOUT)
			break;
	}
	go = !vm->stopping && !vm->quitting;
	pthread_mutex_unlock(&vm->run_lock);
	return go;
}

/* The rendezvous with @key, or a free one; -1 when all are in use.  Holds run_lock. */
static int find_barrier(struct uv_vm *vm, uint64_t key)
{
	const int n = sizeof(vm->barrier) / sizeof(vm->barrier[0]);
	int idle = -1;

	for (int i = 0; i < n; i++) {
		if (vm->barrier[i].waiting == 0)
			idle = i;
		else if (vm->barrier[i].key == key)
			return i;
	}
	if (idle >= 0)
		vm->barrier[idle].key = key;
	return idle;
}

bool vcpu_barrier(struct uv_vcpu *v, uint64_t key, unsigned int count)
{
	struct uv_vm *vm = v->vm;
	bool go;
	int b;

	pthread_mutex_lock(&vm->run_lock);
	while ((b = find_barrier(vm, key)) < 0 && !vm->stopping && !vm->quitting)
		pthread_cond_wait(&vm->run_changed, &vm->run_lock);
	if (b >= 0 && vm->barrier[b].waiting + 1 >= count) {
		vm->barrier[b].waiting = 0;
		vm->barrier[b].round++;
		pthread_cond_broadcast(&vm->run_changed);
	} else if (b >= 0) {
		uint64_t round = vm->barrier[b].round;

		vm->barrier[b].waiting++;
		while (vm->barrier[b].round == round && !vm->stopping && !vm->quitting)
			pthread_cond_wait(&vm->run_changed, &vm->run_lock);
	}
	go = !vm->stopping && !vm->quitting;
	pthread_mutex_unlock(&vm->run_lock);
	return go;
}

static bool wait_for_start(struct uv_vcpu *v)
{
	struct uv_vm *vm = v->vm;
	bool go;

	pthread_mutex_lock(&vm->run_lock);
	while (v->run_number == vm->run_number && !vm->quitting)
		pthread_cond_wait(&vm->run_changed, &vm->run_lock);
	go = !vm->quitting;
	v->run_number = vm->run_number;
	pthread_mutex_unlock(&vm->run_lock);
	return go;
}

static void note_first_instruction(struct uv_vcpu *v)
{
	struct uv_vm *vm = v->vm;

	if (v->id != 0)
		return;
	pthread_mutex_lock(&vm->run_lock);
	vm->first_instruction_ns = clock_ns();
	pthread_cond_broadcast(&vm->run_changed);
	pthread_mutex_unlock(&vm->run_lock);
}

static void mark_ended(struct uv_vcpu *v)
{
	struct uv_vm *vm = v->vm;

	pthread_mutex_lock(&vm->run_lock);
	v->inside = false;
	v->ended = true;
	pthread_cond_broadcast(&vm->run_changed);
	pthread_mutex_unlock(&vm->run_lock);
}

static void *vcpu_main(void *arg)
{
	struct uv_vcpu *v = arg;

	while (wait_for_start(v)) {
		if (vcpu_enter(v)) {
			note_first_instruction(v);
			v->vm->executor->run(v);
		}
		mark_ended(v);
	}
	mark_ended(v);
	return NULL;
}

static int create_one(struct uv_vm *vm, unsigned int i)
{
	struct uv_vcpu *v = &vm->vcpu[i];
	int ret = failpoint("uv-vcpu-create");

	if (ret < 0)
		return ret;
	v->vm = vm;
	v->id = i;
	v->ended = true;
	v->page = (struct abi_vcpu_page *)((uint8_t *)vm->pages + (size_t)i * ABI_EXIT_PAGE);
	v->copy_data =
		(uint8_t *)vm->pages + ABI_COPY_OFFSET(vm->vcpu_count) + (size_t)i * ABI_COPY_DATA;
	ret = vm->executor->vcpu_init(v);
	if (ret < 0)
		return ret;
	ret = -pthread_create(&v->thread, NULL, vcpu_main, v);
	if (ret < 0)
		vm->executor->vcpu_fini(v);
	return ret;
}

static void destroy_first(struct uv_vm *vm, unsigned int count)
{
	pthread_mutex_lock(&vm->run_lock);
	vm->quitting = true;
	update_attention(vm);
	pthread_mutex_unlock(&vm->run_lock);
	for (unsigned int i = 0; i < count; i++) {
		pthread_mutex_lock(&vm->run_lock);
		(void)wait_for_all(vm, NULL, ENDED);
		pthread_mutex_unlock(&vm->run_lock);
		pthread_join(vm->vcpu[i].thread, NULL);
		vm->executor->vcpu_fini(&vm->vcpu[i]);
	}
}

int vcpus_create(struct uv_vm *vm)
{
	for (unsigned int i = 0; i < vm->vcpu_count; i++) {
		int ret = create_one(vm, i);

		if (ret < 0) {
			unsigned int all = vm->vcpu_count;

			vm->vcpu_count = i;
			destroy_first(vm, i);
			vm->vcpu_count = all;
			vm->quitting = false;
			return ret;
		}
	}
	return 0;
}

void vcpus_destroy(struct uv_vm *vm)
{
	destroy_first(vm, vm->vcpu_count);
}

void vcpus_start(struct uv_vm *vm)
{
	pthread_mutex_lock(&vm->run_lock);
	vm->stopping = false;
	vm->held = false;
	vm->first_instruction_ns = 0;
	memset(vm->barrier, 0, sizeof(vm->barrier));
	for (unsigned int i = 0; i < vm->vcpu_count; i++)
		vm->vcpu[i].ended = false;
	vm->run_number++;
	update_attention(vm);
	while (vm->first_instruction_ns == 0 && !vm->vcpu[0].ended)
		pthread_cond_wait(&vm->run_changed, &vm->run_lock);
	pthread_mutex_unlock(&vm->run_lock);
}

bool vcpus_claim_stop(struct uv_vm *vm)
{
	bool first;

	pthread_mutex_lock(&vm->run_lock);
	first = !vm->stopping;
	vm->stopping = true;
	update_attention(vm);
	pthread_mutex_unlock(&vm->run_lock);
	return first;
}

void vcpus_stop(struct uv_vm *vm, struct uv_vcpu *self)
{
	pthread_mutex_lock(&vm->run_lock);
	vm->stopping = true;
	update_attention(vm);
	(void)wait_for_all(vm, self, ENDED);
	pthread_mutex_unlock(&vm->run_lock);
}

bool vcpus_pause(struct uv_vm *vm)
{
	bool done;

	pthread_mutex_lock(&vm->run_lock);
	vm->paused++;
	update_attention(vm);
	done = wait_for_all(vm, NULL, OUTSIDE);
	if (done) {
		vm->held = false;
		vm->hold_end_ns = 0;
	} else {
		vm->paused--;
		hold(vm);
		update_attention(vm);
	}
	pthread_mutex_unlock(&vm->run_lock);
	return done;
}

void vcpus_resume(struct uv_vm *vm)
{
	pthread_mutex_lock(&vm->run_lock);
	vm->paused--;
	update_attention(vm);
	pthread_mutex_unlock(&vm->run_lock);
}

void vcpu_exit_post(
	struct uv_vcpu *v, enum abi_exit_type type, const uint64_t arg[6], uint32_t data_size)
{
	struct abi_vcpu_page *page = v->page;

	page->type = type;
	page->time_ns = clock_ns();
	page->last_result = v->last_result;
	memcpy(page->arg, arg, sizeof(page->arg));
	page->data_size = data_size;
	page->copied = v->copied;
	v->copied = 0;
	memcpy(page->data, v->buffer, data_size);
	v->last_result = 0;
	v->exit_seq++;
	__atomic_store_n(&page->served_seq, v->exit_seq, __ATOMIC_RELAXED);
	__atomic_store_n(&page->exit_seq, v->exit_seq, __ATOMIC_RELEASE);
	futex_ring(&page->bell, &page->reply_sleeps);
}

static bool must_stop(struct uv_vcpu *v)
{
	struct uv_vm *vm = v->vm;
	bool stop;

	if (!atomic_load(&vm->attention))
		return false;
	pthread_mutex_lock(&vm->run_lock);
	stop = vm->stopping || vm->quitting;
	pthread_mutex_unlock(&vm->run_lock);
	return stop;
}

/* Nobody waits for a copy that will not come. */
static void stop_serving(struct uv_vcpu *v)
{
	__atomic_store_n(&v->page->served_seq, v->exit_seq - 1, __ATOMIC_RELEASE);
	futex_ring(&v->page->bell, &v->page->reply_sleeps);
}

/*
 * A stop that comes between the look and the sleep is not lost: the stopper kicks this
 * thread with a signal again and again until it has ended.
 */
bool vcpu_exit_wait(struct uv_vcpu *v, struct exit_reply *ret)
{
	struct abi_vcpu_page *page = v->page;
	unsigned int steps = 0;

	for (;;) {
		uint32_t bell = __atomic_load_n(&page->reply_bell, __ATOMIC_ACQUIRE);

		if (__atomic_load_n(&page->reply_seq, __ATOMIC_ACQUIRE) == v->exit_seq)
			break;
		if (must_stop(v)) {
			stop_serving(v);
			return false;
		}
		if (copy_serve(v))
			steps = 0;
		else
			futex_await(&page->reply_bell, bell, &page->sleeps, &steps);
	}
	ret->status = __atomic_load_n(&page->reply_status, __ATOMIC_RELAXED);
	ret->value = __atomic_load_n(&page->reply_value, __ATOMIC_RELAXED);
	if (ret->status == ABI_ST_OK)
		ret->status = copy_with_reply(v);
	return true;
}
