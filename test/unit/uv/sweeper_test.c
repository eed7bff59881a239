/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The sweeper and those who wait for it, while a thread that wipes is held.
 *
 * The test stands in window_wipe(): the idle wiper, which is the first to come there, stays in
 * it for as long as the test wants, as if it had no processor; helpers may be held as well.
 * What the sweeper knows of the machine's memory is a file of the test.
 */
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/types.h"
#include "uv/sweeper.h"
#include "uv/wiper.h"

/* More than fits into the queue of chunks. */
#define BYTES ((WIPER_QUEUE + 8) * WIPER_CHUNK)

/* While less than an eighth of the memory is left: at least. */
#define HELPERS 2u

static struct uv_vm vm;
static struct abi_status_page status;

/* ---- the gate ---- */

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t moved = PTHREAD_COND_INITIALIZER;
static struct {
	bool hold_idle, hold_helpers;
	bool idle_known;
	pthread_t idle, owner;
	unsigned int idle_inside, helpers_inside;
	const uint8_t *held; /* where the idle wiper is to wipe */
} at_gate;

static struct {
	unsigned int count;
	int result;
	struct abi_perform_ret figures;
} done;

void __wrap_window_wipe(uint8_t *start, uint64_t bytes);
void __real_window_wipe(uint8_t *start, uint64_t bytes);
int __wrap_window_residency(
	const struct window *w, uint64_t offset, uint64_t bytes, unsigned char *ret_page);
int __real_window_residency(
	const struct window *w, uint64_t offset, uint64_t bytes, unsigned char *ret_page);

static void stay_while(const bool *held, unsigned int *inside)
{
	++*inside;
	pthread_cond_broadcast(&moved);
	while (*held)
		pthread_cond_wait(&moved, &gate);
	--*inside;
	pthread_cond_broadcast(&moved);
}

void __wrap_window_wipe(uint8_t *start, uint64_t bytes)
{
	pthread_t self = pthread_self();

	pthread_mutex_lock(&gate);
	if (!at_gate.idle_known) {
		at_gate.idle_known = true;
		at_gate.idle = self;
	}
	if (pthread_equal(self, at_gate.idle)) {
		at_gate.held = start;
		stay_while(&at_gate.hold_idle, &at_gate.idle_inside);
	} else if (pthread_equal(self, at_gate.owner)) {
		/* Leaves work for those that are to come. */
		while (at_gate.hold_helpers && at_gate.helpers_inside < HELPERS)
			pthread_cond_wait(&moved, &gate);
	} else {
		stay_while(&at_gate.hold_helpers, &at_gate.helpers_inside);
	}
	pthread_mutex_unlock(&gate);
	__real_window_wipe(start, bytes);
}

/* Who looks what is resident is the sweeper's own thread. */
int __wrap_window_residency(
	const struct window *w, uint64_t offset, uint64_t bytes, unsigned char *ret_page)
{
	pthread_mutex_lock(&gate);
	at_gate.owner = pthread_self();
	pthread_mutex_unlock(&gate);
	return __real_window_residency(w, offset, bytes, ret_page);
}

static void wait_for(const unsigned int *count, unsigned int wanted)
{
	pthread_mutex_lock(&gate);
	while (*count < wanted)
		pthread_cond_wait(&moved, &gate);
	pthread_mutex_unlock(&gate);
}

static void hold(bool *what, bool on)
{
	pthread_mutex_lock(&gate);
	*what = on;
	pthread_cond_broadcast(&moved);
	pthread_mutex_unlock(&gate);
}

static void on_done(
	struct uv_vm *unused, uint32_t seq, int result, const struct abi_perform_ret *figures)
{
	pthread_mutex_lock(&gate);
	done.count++;
	done.result = result;
	done.figures = *figures;
	pthread_cond_broadcast(&moved);
	pthread_mutex_unlock(&gate);
}

static bool is_done(void)
{
	bool yes;

	pthread_mutex_lock(&gate);
	yes = done.count > 0;
	pthread_mutex_unlock(&gate);
	return yes;
}

static void wait_until_done(int result)
{
	wait_for(&done.count, 1);
	assert_int_equal(done.result, result);
	done.count = 0;
}

/* ---- the VM ---- */

/* Of 1000 kB of memory, so many are available. */
static void have_available(unsigned int kilobytes)
{
	char text[64];
	int n = snprintf(
		text, sizeof(text), "MemTotal: 1000 kB\nMemAvailable: %3u kB\n", kilobytes);

	assert_int_equal(pwrite(vm.meminfo.machine, text, (size_t)n, 0), n);
}

static int new_file(const char *name)
{
	int fd = memfd_create(name, MFD_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static int begin(void **state)
{
	memset(&vm, 0, sizeof(vm));
	memset(&status, 0, sizeof(status));
	memset(&at_gate, 0, sizeof(at_gate));
	memset(&done, 0, sizeof(done));
	pthread_mutex_init(&vm.lock, NULL);
	pthread_mutex_init(&vm.stale_lock, NULL);
	pthread_mutex_init(&vm.status_lock, NULL);
	for (unsigned int i = 0; i < SLOTS_MAX; i++)
		vm.memory_of[i].memfd = -1;
	vm.statm = -1;
	vm.status = &status;
	vm.status_fd = new_file("status");
	vm.meminfo = (struct meminfo){.machine = new_file("meminfo"), .pressure = {-1, -1}};
	have_available(900);
	at_gate.hold_idle = true;
	return sweeper_new(&vm, &vm.sweeper);
}

static int end(void **state)
{
	close(vm.status_fd);
	meminfo_close(&vm.meminfo);
	return 0;
}

/* An incarnation with @bytes of content, set aside.  Its memory. */
static uint8_t *set_aside(uint64_t number, uint64_t bytes)
{
	struct dying *d = calloc(1, sizeof(*d));

	assert_non_null(d);
	for (unsigned int i = 0; i < SLOTS_MAX; i++)
		d->memfd[i] = -1;
	assert_int_equal(window_private(bytes, &d->window[0]), 0);
	memset(d->window[0].base, 'x', bytes);
	d->secret[0] = true;
	d->left = bytes;
	d->inc = (struct incarnation){.number = number, .state = INC_SET_ASIDE};
	pthread_mutex_lock(&vm.lock);
	assert_int_equal(incarnation_push(&vm.dying, &d->inc), 0);
	pthread_mutex_unlock(&vm.lock);
	return d->window[0].base;
}

static void perform(void)
{
	pthread_mutex_lock(&vm.lock);
	assert_int_equal(sweeper_perform(vm.sweeper, 1, on_done), 0);
	pthread_mutex_unlock(&vm.lock);
}

/* A sweep of @bytes whose first chunk the idle wiper is in. */
static uint8_t *begin_held(uint64_t bytes)
{
	uint8_t *base = set_aside(0, bytes);

	perform();
	wait_for(&at_gate.idle_inside, 1);
	assert_ptr_equal(at_gate.held, base);
	return base;
}

static void assert_zero(const uint8_t *memory, uint64_t bytes)
{
	for (uint64_t i = 0; i < bytes; i++)
		assert_int_equal(memory[i], 0);
}

static bool is_mapped(uint8_t *at)
{
	unsigned char resident;

	return mincore(at, PAGE_SIZE, &resident) == 0;
}

static unsigned int threads(void)
{
	DIR *folder = opendir("/proc/self/task");
	unsigned int count = 0;

	assert_non_null(folder);
	while (readdir(folder) != NULL)
		count++;
	closedir(folder);
	return count;
}

/* What nobody tells of is looked at until it holds. */
#define WAIT_UNTIL(condition)                                                    \
	do {                                                                     \
		while (!(condition))                                             \
			nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL); \
	} while (0)

static uint64_t published(const uint64_t *field)
{
	return __atomic_load_n(field, __ATOMIC_RELAXED);
}

static bool has_pressure(void)
{
	return __atomic_load_n(&status.pressure, __ATOMIC_RELAXED) != 0;
}

/* ---- tests ---- */

/* Who cancels does not wait for the idle wiper, nor does what comes then if memory is short. */
static void test_cancel_does_not_wait(void **state)
{
	uint8_t *base = begin_held(BYTES);

	assert_int_equal(sweeper_cancel(vm.sweeper), 0);
	wait_until_done(-ECANCELED);
	/* What it has begun is wiped all the same, and it may still write there. */
	assert_int_equal(done.figures.bytes, WIPER_CHUNK);
	assert_int_equal(done.figures.left, BYTES - WIPER_CHUNK);
	assert_zero(base, WIPER_CHUNK);
	assert_int_equal(base[WIPER_CHUNK], 'x');

	have_available(100);
	perform();
	wait_until_done(0);
	assert_int_equal(done.figures.bytes, BYTES - WIPER_CHUNK);
	assert_int_equal(done.figures.left, 0);
	assert_false(is_mapped(base + WIPER_CHUNK));
	assert_true(is_mapped(base));

	/* As soon as it is out of it, that is unmapped. */
	hold(&at_gate.hold_idle, false);
	WAIT_UNTIL(!is_mapped(base));
	sweeper_stop(vm.sweeper);
	sweeper_free(vm.sweeper);
}

/* Nor does the end of the VM: all memory is destroyed before the idle wiper is waited for. */
static void test_end_does_not_wait(void **state)
{
	uint8_t *base = begin_held(BYTES);
	uint8_t *next = set_aside(1, WIPER_CHUNK);
	struct sweeper *s = vm.sweeper;
	struct abi_perform_ret figures = {0};

	/* It is in the queue behind the other when the end comes. */
	perform();
	sweeper_stop(s);
	wait_until_done(-ECANCELED);
	vm.sweeper = NULL;
	vm.vcpu_count = 1;
	assert_int_equal(destroy_all_waiting(&vm, &figures), 0);
	assert_int_equal(figures.bytes, BYTES);
	assert_false(is_mapped(base + WIPER_CHUNK));
	assert_false(is_mapped(next));
	assert_zero(base, WIPER_CHUNK);
	hold(&at_gate.hold_idle, false);
	sweeper_free(s);
	assert_false(is_mapped(base));
}

/* With --wipe off nobody writes to what is given back. */
static void test_nothing_lingers_without_wiping(void **state)
{
	uint8_t *base;

	vm.flags = ABI_VM_WIPE_OFF;
	base = set_aside(0, BYTES);
	perform();
	wait_until_done(0);
	assert_false(is_mapped(base));
	sweeper_stop(vm.sweeper);
	sweeper_free(vm.sweeper);
}

/* Helpers come while memory is short, and go again though there is still work. */
static void test_helpers_come_and_go(void **state)
{
	unsigned int before = threads();

	at_gate.hold_helpers = true;
	begin_held(BYTES);
	have_available(100);
	wait_for(&at_gate.helpers_inside, HELPERS);
	assert_true(threads() >= before + HELPERS);
	assert_true(has_pressure());

	have_available(900);
	WAIT_UNTIL(!has_pressure());
	hold(&at_gate.hold_helpers, false);
	WAIT_UNTIL(threads() == before);
	assert_false(is_done());

	hold(&at_gate.hold_idle, false);
	wait_until_done(0);
	assert_int_equal(done.figures.bytes, BYTES);
	sweeper_stop(vm.sweeper);
	sweeper_free(vm.sweeper);
}

/* What is published is the sum of what is being destroyed and what waits for that. */
static void test_figures_are_of_all(void **state)
{
	const uint64_t waiting = 3 * WIPER_CHUNK;
	uint64_t seen;

	begin_held(BYTES);
	set_aside(1, waiting);
	for (int i = 0; i < 2; i++) {
		seen = published(&status.updated_ns);
		WAIT_UNTIL(published(&status.updated_ns) != seen);
	}
	assert_int_equal(published(&status.forget_bytes), BYTES + waiting);

	/* The same for one that is destroyed by who asks for it, beside the sweeper. */
	pthread_mutex_lock(&vm.lock);
	vm.dying_now = &(struct dying){.left = PAGE_SIZE};
	pthread_mutex_unlock(&vm.lock);
	seen = published(&status.forget_bytes);
	WAIT_UNTIL(published(&status.forget_bytes) != seen);
	assert_int_equal(published(&status.forget_bytes), BYTES + waiting + PAGE_SIZE);
	pthread_mutex_lock(&vm.lock);
	vm.dying_now = NULL;
	pthread_mutex_unlock(&vm.lock);

	hold(&at_gate.hold_idle, false);
	wait_until_done(0);
	assert_int_equal(done.figures.left, waiting);
	perform();
	wait_until_done(0);
	assert_int_equal(published(&status.forgotten_bytes), BYTES + waiting);
	sweeper_stop(vm.sweeper);
	sweeper_free(vm.sweeper);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_cancel_does_not_wait, begin, end),
		cmocka_unit_test_setup_teardown(test_end_does_not_wait, begin, end),
		cmocka_unit_test_setup_teardown(test_nothing_lingers_without_wiping, begin, end),
		cmocka_unit_test_setup_teardown(test_helpers_come_and_go, begin, end),
		cmocka_unit_test_setup_teardown(test_figures_are_of_all, begin, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
