/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The pager between a store (test/system/paging.h) and a stand-in for lethe-uv (fake_uv.c, which
 * is argv[1]): whatever either of them says, no page is lost, brought twice or mixed up.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "hv/pager_impl.h"
#include "test/system/paging.h"
#include "test/unit/hv/leftovers.h"

#define BATCH (256 * PAGE)

static const char *fake_uv;
static struct lethe_vm *vm;
static struct test_store *store;
static struct lethe_exit exit_of_0;

static int setup(void **unused)
{
	fake_uv_setup();
	vm = NULL;
	store = NULL;
	memset(&exit_of_0, 0, sizeof(exit_of_0));
	return 0;
}

static void end_vm(void)
{
	if (vm != NULL)
		lethe_vm_close(vm, true);
	if (store != NULL)
		test_store_free(store);
	vm = NULL;
	store = NULL;
}

static int teardown(void **unused)
{
	end_vm();
	fake_uv_teardown();
	return 0;
}

/* How often the stand-in was asked @what. */
static unsigned int asked(const char *what)
{
	unsigned int n = 0;
	char line[256];
	FILE *f = fopen(fake_uv_log(), "re");

	assert_non_null(f);
	while (fgets(line, sizeof(line), f) != NULL)
		n += strncmp(line, what, strlen(what)) == 0;
	fclose(f);
	return n;
}

static void await_asked(const char *what, unsigned int count)
{
	while (asked(what) < count)
		usleep(1000);
}

/* A VM of one slot at 0, protected, with a store; @exits begin with lethe_vm_start(). */
static void make(const char *exits)
{
	const struct lethe_vm_config config = {
		.name = "test", .vcpus = 1, .executor = LETHE_EXECUTOR_SW, .uv_path = fake_uv};

	if (exits != NULL)
		setenv("FAKE_UV_EXITS", exits, 1);
	assert_int_equal(lethe_vm_new(&config, &vm), 0);
	assert_int_equal(lethe_slot_add(vm, 0, 0, MEMORY), 0);
	assert_int_equal(lethe_vm_protect(vm, NULL, 0, NULL), 0);
	store = test_store_new();
	assert_int_equal(lethe_vm_set_page_store(vm, &store->ops), 0);
}

static void start(void)
{
	assert_int_equal(lethe_vm_start(vm, NULL), 0);
}

static void run(enum lethe_exit_type want)
{
	assert_int_equal(lethe_vcpu_run(vm, 0, &exit_of_0), 0);
	assert_int_equal(exit_of_0.type, want);
}

static int out(uint64_t at, uint64_t bytes)
{
	uint64_t pages = 0;
	int ret = lethe_page_out(vm, at, bytes, &pages);

	return ret < 0 ? ret : (int)pages;
}

static void assert_states(uint64_t at, uint64_t bytes, enum lethe_gfn_state want)
{
	for (uint64_t end = at + bytes; at < end; at += PAGE) {
		enum lethe_gfn_state state;

		assert_int_equal(lethe_gfn_state(vm, at, &state), 0);
		assert_int_equal(state, want);
	}
}

static void await_kept(unsigned int pages)
{
	while (test_store_seen(store).kept != pages)
		usleep(1000);
}

/* ---- what the ultravisor says to a page-out ---- */

static void test_out_is_refused(void **unused)
{
	static const struct {
		const char *fail;
		int err;
	} refusals[] = {{"20:11", -EOPNOTSUPP}, {"20:3", -ENOMEM}, {"20:16", -EIO},
		{"20:7", -ENOENT}, {"20:8", -EPROTO}, {"20:18", -EAGAIN}};

	for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
		setenv("FAKE_UV_FAIL", refusals[i].fail, 1);
		make(NULL);
		assert_int_equal(out(0, 2 * BATCH), refusals[i].err);
		assert_states(0, 2 * BATCH, LETHE_GFN_SECURE);
		assert_int_equal(test_store_seen(store).puts, 0);
		end_vm();
	}
}

/* A conversion that is soon over. */
static void test_out_is_tried_again(void **unused)
{
	setenv("FAKE_UV_FAIL", "20:18:3", 1);
	make(NULL);
	assert_int_equal(out(0, BATCH), 256);
	assert_int_equal(asked("PAGE_OUT"), 4);
	assert_states(0, BATCH, LETHE_GFN_PAGED_OUT);
}

static void test_ultravisor_dies(void **unused)
{
	setenv("FAKE_UV_FAIL", "20:1000", 1);
	make(NULL);
	assert_int_equal(out(0, BATCH), -EPIPE);
	assert_int_equal(out(0, BATCH), -EPIPE);
}

static void test_batches(void **unused)
{
	make(NULL);
	assert_int_equal(out(PAGE, 2 * BATCH + PAGE), 513);
	assert_int_equal(asked("PAGE_OUT"), 3);
	/* What is known to be out costs no call, what is not is a run of its own. */
	assert_int_equal(out(PAGE, BATCH), 0);
	assert_int_equal(asked("PAGE_OUT"), 3);
	assert_int_equal(out(0, BATCH), 1);
	assert_int_equal(test_store_seen(store).kept, 514);
	/* The next slot adjoins; a batch is of one. */
	assert_int_equal(lethe_slot_add(vm, 1, MEMORY, BATCH), 0);
	assert_int_equal(
		lethe_page_out(vm, MEMORY + BATCH - PAGE, 2 * PAGE, &(uint64_t){0}), -ENOENT);
}

/* ---- wants ---- */

/* A guest that jumps about gets less and less read ahead, in the end nothing. */
static void test_wants_that_jump(void **unused)
{
	struct lethe_info info;

	make("203,0,524288,8,0,0;201,3670016,4096,0,0,0;2,0,0,0,0,1;203,4194304,524288,20,0,0;"
	     "201,14155776,4096,0,0,0;2,0,0,0,0,1");
	assert_int_equal(out(0, MEMORY), MEMORY / PAGE);
	start();
	run(LETHE_EXIT_PRINT);
	run(LETHE_EXIT_PRINT);
	/* Up to 8 at first; then half as many for each that led nowhere. */
	await_kept(MEMORY / PAGE - 8 * PAGER_FIRST_WINDOW - 4 - 2 - 18);
	assert_int_equal(lethe_vm_info(vm, &info), 0);
	assert_int_equal(info.pages_in, 8 * PAGER_FIRST_WINDOW + 4 + 2 + 18);
}

/* One that goes through its memory gets more and more. */
static void test_wants_in_a_row(void **unused)
{
	make("200,0,4096,1,0,0;201,0,32768,0,0,0;200,32768,4096,1,0,0;201,32768,65536,0,0,0;"
	     "200,98304,4096,1,0,0;201,98304,131072,0,0,0;200,229376,4096,1,0,0;"
	     "201,229376,262144,0,0,0;200,491520,4096,1,0,0;201,491520,524288,0,0,0;2,0,0,0,0,1");
	assert_int_equal(out(0, BATCH), 256);
	start();
	run(LETHE_EXIT_PRINT);
	assert_int_equal(test_store_seen(store).gets, 5);
	await_kept(256 - 8 - 16 - 32 - 64 - 128);
}

/* All pages of a range that crosses what is read at a time; and again, which is one call. */
static void test_wants(void **unused)
{
	make("200,4096,1048576,1,0,0;201,4096,1048576,0,0,0;2,0,0,0,0,1;"
	     "200,4096,4096,1,0,0;2,0,0,0,0,1;8,0,0,0,0,0");
	assert_int_equal(out(0, 2 * BATCH), 512);
	start();
	run(LETHE_EXIT_PRINT);
	assert_states(PAGE, BATCH, LETHE_GFN_SECURE);
	assert_states(0, PAGE, LETHE_GFN_PAGED_OUT);
	assert_states(PAGE + BATCH, BATCH - PAGE, LETHE_GFN_PAGED_OUT);
	await_kept(256);
	run(LETHE_EXIT_PRINT);
	assert_int_equal(test_store_seen(store).gets, 1);
}

/* It says how far it came, and is asked until it has come to the end. */
static void test_taken_one_by_one(void **unused)
{
	setenv("FAKE_UV_MODE", "one-by-one", 1);
	make("200,0,65536,1,0,0;201,0,65536,0,0,0;2,0,0,0,0,1");
	assert_int_equal(out(0, 16 * PAGE), 16);
	start();
	run(LETHE_EXIT_PRINT);
	await_kept(0);
	assert_states(0, 16 * PAGE, LETHE_GFN_SECURE);
}

static void test_page_in_is_tried_again(void **unused)
{
	setenv("FAKE_UV_FAIL", "21:3:3", 1);
	make("200,0,4096,1,0,0;201,0,4096,0,0,0;2,0,0,0,0,1");
	assert_int_equal(out(0, PAGE), 1);
	start();
	run(LETHE_EXIT_PRINT);
	assert_int_equal(asked("PAGE_LOST"), 0);
	assert_states(0, PAGE, LETHE_GFN_SECURE);
}

static void test_page_in_fails(void **unused)
{
	setenv("FAKE_UV_FAIL", "21:3", 1);
	make("200,8192,4096,1,0,0;2,0,0,0,0,1");
	assert_int_equal(out(0, BATCH), 256);
	start();
	run(LETHE_EXIT_PRINT);
	await_asked("PAGE_LOST 8192", 1);
	assert_int_equal(asked("PAGE_IN_SEALED"), 4);
	assert_states(0, BATCH, LETHE_GFN_PAGED_OUT);
}

/* Read-ahead that cannot be read is not missed; what is wanted is. */
static void test_unreadable_neighbour(void **unused)
{
	make("200,0,4096,1,0,0;201,0,4096,0,0,0;2,0,0,0,0,1;200,20480,4096,1,0,0;2,0,0,0,0,1");
	assert_int_equal(out(0, BATCH), 256);
	test_store_fault(store, FAULT_GET, 5 * PAGE, 0);
	start();
	run(LETHE_EXIT_PRINT);
	assert_states(0, PAGE, LETHE_GFN_SECURE);
	assert_states(PAGE, BATCH - PAGE, LETHE_GFN_PAGED_OUT);
	assert_int_equal(asked("PAGE_LOST"), 0);
	run(LETHE_EXIT_PRINT);
	await_asked("PAGE_LOST", 1);
}

/* Somebody wants what was meant as read-ahead while that is being read, in vain. */
static void test_wanted_while_read_ahead(void **unused)
{
	make("200,0,4096,1,0,0;2,0,0,0,0,1;200,8192,4096,1,0,0;2,0,0,0,0,1;"
	     "201,0,4096,0,0,0;201,8192,4096,0,0,0;2,0,0,0,0,1");
	assert_int_equal(out(0, BATCH), 256);
	test_store_gates(store, 0, true, false);
	start();
	run(LETHE_EXIT_PRINT);
	test_store_await(store, 1);
	run(LETHE_EXIT_PRINT);
	test_store_fault(store, FAULT_GET, 0, 1);
	test_store_gates(store, 0, false, false);
	run(LETHE_EXIT_PRINT);
	assert_states(0, PAGE, LETHE_GFN_SECURE);
	assert_states(2 * PAGE, PAGE, LETHE_GFN_SECURE);
}

static bool is_dead(int timeout_ms)
{
	struct pollfd p = {.fd = lethe_vm_death_fd(vm), .events = POLLIN};

	return poll(&p, 1, timeout_ms) == 1;
}

static void test_events_that_are_none(void **unused)
{
	static const char *const scripts[] = {"200,0,4096,7,0,0", "200,0,4096,0,0,0",
		"200,1,4096,1,0,0", "200,0,0,1,0,0", "200,0,100,1,0,0",
		"200,18446744073709547520,4096,1,0,0"};

	for (size_t i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++) {
		make(scripts[i]);
		/* The event may come before the answer. */
		(void)lethe_vm_start(vm, NULL);
		assert_true(is_dead(20000));
		end_vm();
	}
}

/* As many wants as there are places for, and one more. */
static void test_flood(void **unused)
{
	make("200,0,4096,1,0,0;200,1048576,4096,1,0,0;200,2097152,4096,1,0,0;"
	     "200,3145728,4096,1,0,0;2,0,0,0,0,1;203,4194304,4096,256,0,0;"
	     "203,4194304,4096,256,0,0;2,0,0,0,0,1;203,6291456,4096,1,0,0");
	assert_int_equal(out(0, 8 * MIB), 2048);
	test_store_gates(store, TEST_STORE_ANY, true, false);
	start();
	run(LETHE_EXIT_PRINT);
	test_store_await(store, 4);
	run(LETHE_EXIT_PRINT);
	assert_false(is_dead(0));
	exit_of_0.reply = 0;
	assert_int_equal(lethe_vcpu_run(vm, 0, &exit_of_0), 0);
	assert_int_equal(exit_of_0.type, LETHE_EXIT_CLOSED);
	assert_true(is_dead(20000));
	test_store_gates(store, 0, false, false);
}

/* ---- kept: neither the store nor the ultravisor takes them ---- */

static void make_kept(const char *exits)
{
	setenv("FAKE_UV_FAIL", "21:3:1", 1);
	make(exits);
	test_store_fault(store, FAULT_PUT, TEST_STORE_ANY, 1);
	assert_int_equal(out(0, BATCH), -ENOSPC);
	assert_states(0, BATCH, LETHE_GFN_PAGED_OUT);
	assert_int_equal(test_store_seen(store).kept, 0);
}

static void test_kept_is_served(void **unused)
{
	make_kept("200,0,1048576,1,0,0;201,0,1048576,0,0,0;2,0,0,0,0,1");
	start();
	run(LETHE_EXIT_PRINT);
	assert_int_equal(test_store_seen(store).gets, 0);
	/* And can go out again. */
	assert_int_equal(out(0, BATCH), 256);
	assert_int_equal(test_store_seen(store).kept, 256);
}

static void test_kept_comes_back_first(void **unused)
{
	make_kept(NULL);
	assert_int_equal(out(0, BATCH), 256);
	assert_int_equal(asked("PAGE_IN_SEALED"), 2);
	assert_int_equal(test_store_seen(store).kept, 256);
}

static void test_kept_at_reset(void **unused)
{
	struct lethe_destroy_result result;

	make_kept(NULL);
	assert_int_equal(lethe_vm_reset(vm, &result), 0);
	assert_int_equal(lethe_slot_add(vm, 0, 0, MEMORY), 0);
	assert_int_equal(lethe_vm_protect(vm, NULL, 0, NULL), 0);
	assert_int_equal(out(0, BATCH), 256);
	assert_int_equal(asked("PAGE_IN_SEALED"), 1);
	assert_int_equal(test_store_seen(store).drop_alls, 1);
}

static void test_kept_at_the_end(void **unused)
{
	make_kept(NULL);
}

/* ---- ends of pages ---- */

static void test_release(void **unused)
{
	make("5,65536,131072,0,0,0;8,0,0,0,0,0");
	assert_int_equal(out(0, BATCH), 256);
	start();
	run(LETHE_EXIT_RELEASE);
	/* Before anybody has answered. */
	assert_states(65536, 131072, LETHE_GFN_NORMAL);
	await_kept(256 - 32);
	assert_states(0, 65536, LETHE_GFN_PAGED_OUT);
	run(LETHE_EXIT_POWEROFF);
}

static void test_slots(void **unused)
{
	make(NULL);
	assert_int_equal(out(0, 2 * BATCH), 512);
	assert_int_equal(lethe_slot_move(vm, 0, MEMORY), 0);
	assert_states(MEMORY, MEMORY, LETHE_GFN_SECURE);
	assert_int_equal(lethe_gfn_state(vm, 0, &(enum lethe_gfn_state){0}), -ENOENT);
	await_kept(0);
	assert_int_equal(lethe_slot_move(vm, 0, 0), 0);
	assert_int_equal(lethe_slot_remove(vm, 0), 0);
	assert_int_equal(lethe_slot_add(vm, 0, 0, MEMORY), 0);
	assert_states(0, BATCH, LETHE_GFN_SECURE);
}

static void test_move_is_refused(void **unused)
{
	setenv("FAKE_UV_FAIL", "23:4", 1);
	make(NULL);
	assert_int_equal(out(0, BATCH), 256);
	assert_int_equal(lethe_slot_move(vm, 0, MEMORY), -EBUSY);
	assert_states(0, BATCH, LETHE_GFN_PAGED_OUT);
	assert_states(BATCH, BATCH, LETHE_GFN_SECURE);
	assert_int_equal(test_store_seen(store).kept, 256);
}

struct later {
	pthread_t thread;
	int pages;
};

static void *out_after_the_reply(void *arg)
{
	struct later *l = arg;

	await_asked("reply", 1);
	l->pages = out(0, BATCH);
	return NULL;
}

/* It was accepted, went out, and then the ultravisor says that it came to nothing. */
static void test_conversion_that_failed(void **unused)
{
	struct later later;

	make("4,0,65536,1,0,0;202,0,1048576,0,0,0;2,0,0,0,-3,1;8,0,0,0,0,0");
	start();
	run(LETHE_EXIT_CONVERT);
	assert_int_equal(pthread_create(&later.thread, NULL, out_after_the_reply, &later), 0);
	run(LETHE_EXIT_PRINT);
	pthread_join(later.thread, NULL);
	assert_int_equal(later.pages, 256);
	assert_states(0, BATCH, LETHE_GFN_PAGED_OUT);
}

static void test_coldest(void **unused)
{
	uint64_t bytes = 0;

	make(NULL);
	assert_int_equal(lethe_page_out_cold(vm, BATCH + 1, &bytes), 0);
	assert_int_equal(bytes, BATCH + PAGE);
	/* It names the same again, which is out. */
	assert_int_equal(lethe_page_out_cold(vm, BATCH, &bytes), 0);
	assert_int_equal(bytes, 0);
	end_vm();
	/* There is always more to be found, but all memory has had its turn. */
	setenv("FAKE_UV_MODE", "turns", 1);
	make(NULL);
	assert_int_equal(lethe_page_out_cold(vm, MEMORY, &bytes), 0);
	assert_int_equal(bytes, 4 * PAGE);
	assert_int_equal(lethe_page_out_cold(vm, 3 * PAGE, &bytes), 0);
	assert_int_equal(bytes, 3 * PAGE);
	end_vm();
	unsetenv("FAKE_UV_MODE");
	setenv("FAKE_UV_FAIL", "24:11", 1);
	make(NULL);
	assert_int_equal(lethe_page_out_cold(vm, BATCH, &bytes), -EOPNOTSUPP);
}

/* ---- by itself ---- */

static void test_policy(void **unused)
{
	struct pager_policy s = {.pause_ms = 50};

	assert_int_equal(pager_policy_look(&s, PRESSURE_NONE, 0), 0);
	assert_int_equal(pager_policy_look(&s, PRESSURE_RAISED, 0), 16 * MIB);
	pager_policy_done(&s, 1000, 0);
	assert_int_equal(s.pause_ms, 50);
	assert_int_equal(pager_policy_look(&s, PRESSURE_NONE, 0), 0);
	assert_int_equal(pager_policy_look(&s, PRESSURE_HIGH, 0), 32 * MIB);
	pager_policy_done(&s, 1000, 0);
	assert_int_equal(s.pause_ms, 5);
	assert_int_equal(pager_policy_look(&s, PRESSURE_RAISED, 0), 16 * MIB);
	pager_policy_done(&s, 1000, 0);
	assert_int_equal(s.pause_ms, 50);

	/* What comes back slows it down, and quiet speeds it up again. */
	for (uint64_t in = 600, pause = 100; in < 7800; in += 600) {
		assert_int_equal(pager_policy_look(&s, PRESSURE_RAISED, in), 16 * MIB);
		assert_int_equal(s.pause_ms, pause);
		pager_policy_done(&s, 1000, 0);
		pause = pause < 3200 ? 2 * pause : 3200;
	}
	assert_int_equal(pager_policy_look(&s, PRESSURE_HIGH, 8400), 32 * MIB);
	assert_int_equal(s.pause_ms, 400);
	assert_int_equal(pager_policy_look(&s, PRESSURE_RAISED, 8400), 16 * MIB);
	assert_int_equal(s.pause_ms, 50);

	/* In vain. */
	pager_policy_done(&s, 0, -EAGAIN);
	assert_int_equal(s.pause_ms, 50);
	pager_policy_done(&s, 0, -ENOSPC);
	assert_int_equal(s.pause_ms, 3200);
	s.pause_ms = 50;
	pager_policy_done(&s, 0, 0);
	assert_int_equal(s.pause_ms, 3200);
}

/* ---- setting the store ---- */

static void test_one_store(void **unused)
{
	struct test_store *second = test_store_new();

	make(NULL);
	assert_int_equal(lethe_vm_set_page_store(vm, &second->ops), -EEXIST);
	assert_false(second->closed);
	second->closed = true;
	test_store_free(second);
}

/* ---- failpoints ---- */

#ifdef LETHE_FAILPOINTS
/* No thread is left, and the store is still the caller's. */
static int set_and_fail(void)
{
	const struct lethe_vm_config config = {
		.vcpus = 1, .executor = LETHE_EXECUTOR_SW, .uv_path = fake_uv};

	setup(NULL);
	store = test_store_new();
	if (lethe_vm_new(&config, &vm) != 0)
		return 1;
	if (lethe_vm_set_page_store(vm, &store->ops) != -ENOMEM || store->closed)
		return 2;
	if (lethe_page_out(vm, 0, PAGE, &(uint64_t){0}) != -ENODEV)
		return 3;
	if (lethe_vm_set_page_store(vm, &store->ops) != 0)
		return 4;
	return teardown(NULL);
}

static void test_setting_fails(void **unused)
{
	static const char *const points[] = {
		"pager-new", "pager-thread", "pager-cleaner", "pager-policy"};

	for (size_t i = 0; i < sizeof(points) / sizeof(points[0]); i++)
		rerun_failing(points[i], fake_uv, "set");
}

/* Nothing has changed, and the next time it works. */
static int out_and_fail(void)
{
	setup(NULL);
	make("200,0,1048576,1,0,0;201,0,1048576,0,0,0;2,0,0,0,0,1");
	assert_int_equal(out(0, BATCH), -ENOMEM);
	assert_states(0, BATCH, LETHE_GFN_SECURE);
	assert_int_equal(test_store_seen(store).puts, 0);
	assert_int_equal(out(0, BATCH), 256);
	start();
	run(LETHE_EXIT_PRINT);
	return teardown(NULL);
}

static void test_out_fails(void **unused)
{
	static const char *const points[] = {"pager-out", "pager-stored", "pager-note"};

	for (size_t i = 0; i < sizeof(points) / sizeof(points[0]); i++)
		rerun_failing(points[i], fake_uv, "out");
}

/* The way back fails, once: kept, and brought back by the next attempt. */
static int put_back_and_fail(void)
{
	setup(NULL);
	make(NULL);
	test_store_fault(store, FAULT_PUT, TEST_STORE_ANY, 1);
	assert_int_equal(out(0, BATCH), -ENOSPC);
	assert_states(0, BATCH, LETHE_GFN_PAGED_OUT);
	assert_int_equal(out(0, BATCH), 256);
	return teardown(NULL);
}

/* Tried again, a little later. */
static int install_and_fail(void)
{
	setup(NULL);
	make("200,0,4096,1,0,0;201,0,4096,0,0,0;2,0,0,0,0,1");
	assert_int_equal(out(0, PAGE), 1);
	start();
	run(LETHE_EXIT_PRINT);
	return teardown(NULL);
}

/* A slot that could not be moved is where it was. */
static int move_and_fail(void)
{
	setup(NULL);
	make(NULL);
	assert_int_equal(lethe_slot_move(vm, 0, MEMORY), -ENOMEM);
	assert_states(0, BATCH, LETHE_GFN_SECURE);
	assert_int_equal(asked("SLOT_MOVE"), 0);
	assert_int_equal(lethe_slot_move(vm, 0, MEMORY), 0);
	return teardown(NULL);
}

static void test_the_way_back_fails(void **unused)
{
	rerun_failing("pager-put-back", fake_uv, "back");
	rerun_failing("pager-install", fake_uv, "install");
	rerun_failing("hv-slot-move", fake_uv, "move");
}

static int (*const scenes[])(void) = {
	set_and_fail, out_and_fail, put_back_and_fail, install_and_fail, move_and_fail};
static const char *const scene_names[] = {"set", "out", "back", "install", "move"};
#endif

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_out_is_refused),
		TEST(test_out_is_tried_again),
		TEST(test_ultravisor_dies),
		TEST(test_batches),
		TEST(test_wants),
		TEST(test_wants_that_jump),
		TEST(test_wants_in_a_row),
		TEST(test_taken_one_by_one),
		TEST(test_page_in_is_tried_again),
		TEST(test_page_in_fails),
		TEST(test_unreadable_neighbour),
		TEST(test_wanted_while_read_ahead),
		TEST(test_events_that_are_none),
		TEST(test_flood),
		TEST(test_kept_is_served),
		TEST(test_kept_comes_back_first),
		TEST(test_kept_at_reset),
		TEST(test_kept_at_the_end),
		TEST(test_release),
		TEST(test_slots),
		TEST(test_move_is_refused),
		TEST(test_conversion_that_failed),
		TEST(test_coldest),
		cmocka_unit_test(test_policy),
		TEST(test_one_store),
#ifdef LETHE_FAILPOINTS
		cmocka_unit_test(test_setting_fails),
		cmocka_unit_test(test_out_fails),
		cmocka_unit_test(test_the_way_back_fails),
#endif
	};

	if (argc < 2) {
		fprintf(stderr, "usage: %s FAKE-UV\n", argv[0]);
		return 2;
	}
	fake_uv = argv[1];
#ifdef LETHE_FAILPOINTS
	for (size_t i = 0; argc > 2 && i < sizeof(scenes) / sizeof(scenes[0]); i++) {
		if (strcmp(argv[2], scene_names[i]) == 0)
			return scenes[i]();
	}
#endif
	return cmocka_run_group_tests(tests, NULL, NULL);
}
