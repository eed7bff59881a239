/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * When stale memory is discarded, in what batches, and who waits for one.
 *
 * The clock and the punch are the test's: it says what time it is, and can hold or fail a
 * batch.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/clock.h"
#include "os/memfd.h"
#include "uv/stale.h"
#include "uv/sweeper.h"

#define SLOT_BYTES ((uint64_t)256 << 20)
#define MIB        ((uint64_t)1 << 20)
#define SECOND     NS_PER_SEC

static uint64_t now_ns;
static unsigned int pokes;

static struct {
	int result;
	uint64_t bytes, count, most;
	_Atomic bool inside, held, ended;
} punches;

int __wrap_clock_gettime(clockid_t clock, struct timespec *ret);
void __wrap_sweeper_poke(struct sweeper *s);
int __wrap_memfd_discard(int fd, uint64_t offset, uint64_t bytes);
int __real_memfd_discard(int fd, uint64_t offset, uint64_t bytes);

int __wrap_clock_gettime(clockid_t clock, struct timespec *ret)
{
	*ret = (struct timespec){
		.tv_sec = (time_t)(now_ns / SECOND), .tv_nsec = (long)(now_ns % SECOND)};
	return 0;
}

void __wrap_sweeper_poke(struct sweeper *s)
{
	pokes++;
}

int __wrap_memfd_discard(int fd, uint64_t offset, uint64_t bytes)
{
	int ret = punches.result;

	punches.count++;
	punches.bytes += bytes;
	punches.most = bytes > punches.most ? bytes : punches.most;
	atomic_store(&punches.inside, true);
	while (atomic_load(&punches.held))
		usleep(100);
	if (ret == 0)
		ret = __real_memfd_discard(fd, offset, bytes);
	atomic_store(&punches.ended, true);
	return ret;
}

static struct abi_status_page status;

static int setup(void **state)
{
	static struct uv_vm vm;

	memset(&vm, 0, sizeof(vm));
	memset(&status, 0, sizeof(status));
	memset(&punches, 0, sizeof(punches));
	pthread_mutex_init(&vm.stale_lock, NULL);
	pthread_cond_init(&vm.discard.ended, NULL);
	for (unsigned int i = 0; i < SLOTS_MAX; i++)
		vm.memory_of[i].memfd = -1;
	vm.memory_of[3].memfd = memfd_new("slot", SLOT_BYTES);
	vm.memory_of[3].stale = range_map_new();
	vm.status = &status;
	now_ns = 100 * SECOND;
	pokes = 0;
	/* As the sweeper does before it waits. */
	assert_int_equal(stale_due(&vm), UINT64_MAX);
	*state = &vm;
	return 0;
}

static int teardown(void **state)
{
	struct uv_vm *vm = *state;

	stale_forget(vm, &vm->memory_of[3]);
	close(vm->memory_of[3].memfd);
	return 0;
}

static struct slot_memory *slot_of(struct uv_vm *vm)
{
	return &vm->memory_of[3];
}

static void write_to(struct uv_vm *vm, uint64_t offset, uint64_t bytes)
{
	for (uint64_t o = offset; o < offset + bytes; o += PAGE_SIZE)
		assert_int_equal(pwrite(slot_of(vm)->memfd, "x", 1, (off_t)o), 1);
}

static void add(struct uv_vm *vm, uint64_t offset, uint64_t bytes)
{
	assert_int_equal(stale_add(vm, slot_of(vm), offset, bytes), 0);
}

static uint64_t resident(struct uv_vm *vm)
{
	uint64_t bytes;

	assert_int_equal(memfd_resident(slot_of(vm)->memfd, &bytes), 0);
	return bytes;
}

static void discard_all(struct uv_vm *vm)
{
	while (stale_discard_some(vm))
		;
}

/* ---- when ---- */

static void test_waits_for_its_age(void **state)
{
	struct uv_vm *vm = *state;

	write_to(vm, 0, 3 * PAGE_SIZE);
	add(vm, 0, PAGE_SIZE);
	assert_int_equal(pokes, 1);
	now_ns += SECOND / 2;
	add(vm, PAGE_SIZE, PAGE_SIZE);
	assert_int_equal(pokes, 1);
	assert_int_equal(stale_bytes(vm), 2 * PAGE_SIZE);
	assert_int_equal(stale_due(vm), 101 * SECOND);
	assert_false(stale_discard_some(vm));
	assert_int_equal(punches.count, 0);
	now_ns += SECOND / 2;
	assert_int_equal(stale_due(vm), 0);
	discard_all(vm);
	assert_int_equal(punches.count, 1);
	assert_int_equal(resident(vm), PAGE_SIZE);
	assert_int_equal(stale_bytes(vm), 0);
	assert_int_equal(stale_due(vm), UINT64_MAX);
}

static void test_size_does_not_wait(void **state)
{
	struct uv_vm *vm = *state;

	write_to(vm, 0, MIB);
	add(vm, 0, 64 * MIB - PAGE_SIZE);
	assert_int_not_equal(stale_due(vm), 0);
	add(vm, 64 * MIB - PAGE_SIZE, PAGE_SIZE);
	assert_int_equal(pokes, 2);
	assert_int_equal(stale_due(vm), 0);
	add(vm, 64 * MIB, MIB);
	assert_int_equal(pokes, 2);
	discard_all(vm);
	assert_int_equal(resident(vm), 0);
}

static void test_pressure_does_not_wait(void **state)
{
	struct uv_vm *vm = *state;

	write_to(vm, 0, PAGE_SIZE);
	status.pressure = 1;
	add(vm, 0, PAGE_SIZE);
	assert_int_equal(stale_due(vm), 0);
	discard_all(vm);
	assert_int_equal(resident(vm), 0);
}

/* A guest that flips a page costs no punch, and the sweeper is woken once. */
static void test_flipping(void **state)
{
	struct uv_vm *vm = *state;

	write_to(vm, 0, PAGE_SIZE);
	for (unsigned int i = 0; i < 1000; i++) {
		add(vm, 0, PAGE_SIZE);
		now_ns += SECOND / 100;
		assert_false(stale_discard_some(vm));
		assert_int_equal(stale_take_back(vm, slot_of(vm), 0, PAGE_SIZE), 0);
	}
	assert_int_equal(pokes, 1);
	assert_int_equal(stale_due(vm), UINT64_MAX);
	now_ns += 10 * SECOND;
	assert_false(stale_discard_some(vm));
	assert_int_equal(punches.count, 0);
	assert_int_equal(resident(vm), PAGE_SIZE);
}

/* ---- batches ---- */

/* No more than 64 pages of memory each, of what is queued and nothing else. */
static void test_batches(void **state)
{
	struct uv_vm *vm = *state;
	uint64_t held;

	write_to(vm, 10 * MIB, 3 * MIB);
	write_to(vm, 100 * MIB, PAGE_SIZE);
	add(vm, 10 * MIB, MIB);
	add(vm, 12 * MIB, 200 * MIB);
	now_ns += SECOND;
	discard_all(vm);
	assert_int_equal(resident(vm), MIB);
	assert_int_equal(punches.most, 64 * PAGE_SIZE);
	/* Before Linux 6.5 holes are punched too: they might be allocated. */
	if (memfd_held(slot_of(vm)->memfd, 0, PAGE_SIZE, &held) < 0)
		return;
	assert_true(punches.count <= 9);
	assert_true(punches.bytes <= 2 * MIB + 64 * PAGE_SIZE);
}

/* Tried again a second later, and not before; what was taken back meanwhile is left alone. */
static void test_failure(void **state)
{
	struct uv_vm *vm = *state;

	write_to(vm, 0, 2 * PAGE_SIZE);
	add(vm, 0, 2 * PAGE_SIZE);
	now_ns += SECOND;
	punches.result = -EIO;
	assert_true(stale_discard_some(vm));
	assert_false(stale_discard_some(vm));
	assert_int_equal(stale_bytes(vm), 2 * PAGE_SIZE);
	assert_int_equal(stale_due(vm), now_ns + SECOND);
	assert_int_equal(stale_take_back(vm, slot_of(vm), 0, PAGE_SIZE), 0);
	punches.result = 0;
	now_ns += SECOND - 1;
	assert_false(stale_discard_some(vm));
	now_ns++;
	discard_all(vm);
	assert_int_equal(punches.count, 2);
	assert_int_equal(resident(vm), PAGE_SIZE);
}

/* ---- beside a batch under way ---- */

static void *sweep(void *arg)
{
	assert_true(stale_discard_some(arg));
	return NULL;
}

/* A batch of the first pages is under way when this returns, and stays so. */
static pthread_t hold_batch(struct uv_vm *vm)
{
	pthread_t thread;

	write_to(vm, 0, 2 * PAGE_SIZE);
	add(vm, 0, 2 * PAGE_SIZE);
	add(vm, 128 * MIB, PAGE_SIZE);
	now_ns += SECOND;
	atomic_store(&punches.held, true);
	assert_int_equal(pthread_create(&thread, NULL, sweep, vm), 0);
	while (!atomic_load(&punches.inside))
		usleep(100);
	return thread;
}

static void release_batch(pthread_t thread)
{
	atomic_store(&punches.held, false);
	pthread_join(thread, NULL);
}

struct taker {
	struct uv_vm *vm;
	_Atomic pid_t tid;
	_Atomic bool done;
	bool had_ended;
};

static void *take_back(void *arg)
{
	struct taker *t = arg;

	atomic_store(&t->tid, gettid());
	(void)stale_take_back(t->vm, slot_of(t->vm), PAGE_SIZE, PAGE_SIZE);
	t->had_ended = atomic_load(&punches.ended);
	atomic_store(&t->done, true);
	return NULL;
}

static bool sleeps(pid_t tid)
{
	char path[64], state = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
	f = fopen(path, "re");
	if (f != NULL) {
		if (fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
			state = 0;
		fclose(f);
	}
	return state == 'S';
}

static void test_only_who_wants_the_batch_waits(void **state)
{
	struct uv_vm *vm = *state;
	struct taker taker = {.vm = vm};
	pthread_t sweeper = hold_batch(vm), thread;

	/* These return although the batch is held. */
	assert_int_equal(stale_take_back(vm, slot_of(vm), 128 * MIB, PAGE_SIZE), 0);
	add(vm, 130 * MIB, PAGE_SIZE);
	assert_true(stale_bytes(vm) > 0);
	assert_int_equal(pthread_create(&thread, NULL, take_back, &taker), 0);
	while (!atomic_load(&taker.done) &&
		(atomic_load(&taker.tid) == 0 || !sleeps(atomic_load(&taker.tid))))
		usleep(100);
	release_batch(sweeper);
	pthread_join(thread, NULL);
	assert_true(taker.had_ended);
	/* What it took back is not discarded again when it is written anew. */
	write_to(vm, PAGE_SIZE, PAGE_SIZE);
	now_ns += SECOND;
	discard_all(vm);
	assert_int_equal(resident(vm), PAGE_SIZE);
}

/* The slot goes without waiting; its successor's queue is its own. */
static void test_slot_goes_during_a_batch(void **state)
{
	struct uv_vm *vm = *state;
	pthread_t sweeper = hold_batch(vm);

	stale_forget(vm, slot_of(vm));
	slot_of(vm)->stale = range_map_new();
	add(vm, 0, PAGE_SIZE);
	release_batch(sweeper);
	assert_int_equal(slot_of(vm)->stale_pages, 1);
	assert_int_equal(stale_run_at(vm, slot_of(vm), 0, 10).value, 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_waits_for_its_age),
		TEST(test_size_does_not_wait),
		TEST(test_pressure_does_not_wait),
		TEST(test_flipping),
		TEST(test_batches),
		TEST(test_failure),
		TEST(test_only_who_wants_the_batch_waits),
		TEST(test_slot_goes_during_a_batch),
	};
#undef TEST

	return cmocka_run_group_tests(tests, NULL, NULL);
}
