/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Whole VMs against a stand-in for lethe-uv (fake_uv.c), which is argv[1]. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "abi/uvcall.h"
#include "lethe/lethe.h"
#include "test/unit/hv/leftovers.h"

#define PAGE 4096u
#define MB   (1u << 20)

static const char *fake_uv;
static struct lethe_vm *vm;

static int setup(void **unused)
{
	fake_uv_setup();
	vm = NULL;
	return 0;
}

static int teardown(void **unused)
{
	if (vm != NULL)
		lethe_vm_close(vm, true);
	fake_uv_teardown();
	return 0;
}

/* What the stand-in was asked, HELLO and VM_CREATE left out.  Freed by the next call. */
static const char *asked(void)
{
	static char text[8192];
	FILE *f = fopen(fake_uv_log(), "re");
	char line[256], name[32];
	unsigned long long a, b;

	text[0] = '\0';
	assert_non_null(f);
	while (fgets(line, sizeof(line), f) != NULL) {
		if (sscanf(line, "%31s %llu %llu", name, &a, &b) == 3 &&
			(strcmp(name, "HELLO") == 0 || strcmp(name, "VM_CREATE") == 0))
			continue;
		strncat(text, line, sizeof(text) - strlen(text) - 1);
	}
	fclose(f);
	return text;
}

static void forget_asked(void)
{
	assert_int_equal(truncate(fake_uv_log(), 0), 0);
}

static int new_vm(const char *name)
{
	const struct lethe_vm_config config = {
		.name = name, .vcpus = 1, .executor = LETHE_EXECUTOR_SW, .uv_path = fake_uv};

	return lethe_vm_new(&config, &vm);
}

static void make_vm(void)
{
	assert_int_equal(new_vm("test"), 0);
}

static void expect_failure(const char *mode, int err, const char *text)
{
	setenv("FAKE_UV_MODE", mode, 1);
	assert_int_equal(new_vm("test"), err);
	if (strstr(lethe_error(), text) == NULL)
		fail_msg("'%s' does not say '%s'", lethe_error(), text);
	assert_null(vm);
	leftovers_check();
}

/* ---- making and ending ---- */

static void test_new_and_close(void **unused)
{
	struct lethe_ps_entry *entries;
	size_t count;
	int status;

	make_vm();
	assert_string_equal(lethe_vm_name(vm), "test");
	assert_int_equal(lethe_vm_executor(vm), LETHE_EXECUTOR_SW);
	assert_int_equal(lethe_vm_uv_status(vm, &status), -EAGAIN);
	assert_int_equal(kill(lethe_vm_uv_pid(vm), 0), 0);
	/* The stand-in does not say that it is there. */
	assert_int_equal(lethe_ps(&entries, &count), 0);
	assert_int_equal(count, 0);
	free(entries);
}

static void test_close_without_waiting(void **unused)
{
	make_vm();
	lethe_vm_close(vm, false);
	vm = NULL;
	/* The stand-in leaves its entry behind; whoever looks next removes it. */
	for (int i = 0; i < 20000; i++) {
		struct lethe_ps_entry *entries;
		size_t count;

		assert_int_equal(lethe_ps(&entries, &count), 0);
		free(entries);
		if (new_vm("test") == 0)
			break;
		usleep(1000);
	}
	assert_non_null(vm);
}

static void test_names(void **unused)
{
	static const char *const bad[] = {"", ".a", "a/b", "a b", "\xc3\xa4",
		"0123456789012345678901234567890123456789012345678901234567890123"};
	struct lethe_vm *first;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(new_vm(bad[i]), -EINVAL);
	make_vm();
	first = vm;
	assert_int_equal(new_vm("test"), -EEXIST);
	assert_non_null(strstr(lethe_error(), "test"));
	assert_int_equal(new_vm(NULL), 0);
	assert_string_not_equal(lethe_vm_name(vm), lethe_vm_name(first));
	lethe_vm_close(vm, true);
	vm = first;
}

static void test_config(void **unused)
{
	struct lethe_vm_config config = {.executor = LETHE_EXECUTOR_SW, .uv_path = fake_uv};

	for (config.vcpus = 0; config.vcpus <= 65; config.vcpus += 65) {
		assert_int_equal(lethe_vm_new(&config, &vm), -EINVAL);
		assert_null(vm);
	}
	config.vcpus = 64;
	assert_int_equal(lethe_vm_new(&config, &vm), 0);
}

static void test_programs_that_are_no_ultravisor(void **unused)
{
	struct lethe_vm_config config = {.vcpus = 1, .executor = LETHE_EXECUTOR_SW};

	config.uv_path = "/nonexistent/lethe-uv";
	assert_int_equal(lethe_vm_new(&config, &vm), -ENOENT);
	config.uv_path = "/bin/true";
	assert_int_equal(lethe_vm_new(&config, &vm), -EPIPE);
	config.uv_path = "/etc/passwd";
	assert_int_equal(lethe_vm_new(&config, &vm), -EACCES);
	assert_null(vm);
}

static void test_ultravisors_that_fail(void **unused)
{
	expect_failure("version", -EPROTONOSUPPORT, "of the interface");
	expect_failure("dies-first", -EPIPE, "before it answered");
	expect_failure("dies-second", -EPIPE, "before it answered");
	expect_failure("liar", -EPROTO, "not the lethe-uv");
}

static void test_vm_create_fails(void **unused)
{
	setenv("FAKE_UV_FAIL", "2:3", 1);
	expect_failure("", -ENOMEM, "could not make the VM");
	setenv("FAKE_UV_FAIL", "2:1000", 1);
	expect_failure("", -EPIPE, "could not make the VM");
}

static void wait_for_death(void)
{
	struct pollfd p = {.fd = lethe_vm_death_fd(vm), .events = POLLIN};

	assert_int_equal(poll(&p, 1, 20000), 1);
}

static void test_killed_ultravisor(void **unused)
{
	struct lethe_info info;
	int status = 0;

	make_vm();
	assert_int_equal(lethe_slot_add(vm, 0, 0, MB), 0);
	assert_int_equal(kill(lethe_vm_uv_pid(vm), SIGKILL), 0);
	wait_for_death();
	assert_int_equal(lethe_vm_uv_status(vm, &status), 0);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	assert_int_equal(lethe_vm_uv_status(vm, &status), 0);
	assert_int_equal(lethe_vm_info(vm, &info), -EPIPE);
	assert_int_equal(lethe_slot_add(vm, 1, MB, MB), -EPIPE);
	assert_int_equal(lethe_vm_stop(vm), -EPIPE);
	lethe_vm_close(vm, false);
	vm = NULL;
}

/* ---- memory ---- */

static void test_slots(void **unused)
{
	enum lethe_gfn_state state;
	uint64_t bytes;
	void *hva;

	make_vm();
	assert_int_equal(lethe_slot_add(vm, 0, 0, MB), 0);
	assert_int_equal(lethe_slot_add(vm, 0, MB, MB), -EEXIST);
	assert_int_equal(lethe_slot_add(vm, 32, MB, MB), -EINVAL);
	assert_int_equal(lethe_slot_add(vm, 1, 1, MB), -EINVAL);
	assert_int_equal(lethe_slot_add(vm, 1, MB, 0), -EINVAL);
	assert_int_equal(lethe_slot_add(vm, 1, (uint64_t)1 << 48, PAGE), -ERANGE);
	assert_int_equal(lethe_slot_add(vm, 1, UINT64_MAX - PAGE + 1, PAGE), -ERANGE);
	assert_int_equal(lethe_slot_mapping(vm, 0, &hva, &bytes), 0);
	assert_int_equal(bytes, MB);
	assert_int_equal(lethe_slot_mapping(vm, 1, &hva, &bytes), -ENOENT);
	assert_int_equal(lethe_gfn_state(vm, 0, &state), 0);
	assert_int_equal(state, LETHE_GFN_NORMAL);
	assert_int_equal(lethe_gfn_state(vm, MB, &state), -ENOENT);
	assert_int_equal(lethe_slot_remove(vm, 0), 0);
	assert_int_equal(lethe_slot_remove(vm, 0), -ENOENT);
	assert_string_equal(asked(), "SLOT_REGISTER 0 0\nSLOT_UNREGISTER 0 0\n");
}

static void test_slot_that_is_refused(void **unused)
{
	uint64_t bytes;
	void *hva;

	setenv("FAKE_UV_FAIL", "3:6", 1);
	make_vm();
	assert_int_equal(lethe_slot_add(vm, 0, 0, MB), -EEXIST);
	assert_int_equal(lethe_slot_mapping(vm, 0, &hva, &bytes), -ENOENT);
}

/* ThreadSanitizer leaves programs about a terabyte of addresses, not always in one piece. */
#ifdef __SANITIZE_THREAD__
#define HUGE_BYTES ((uint64_t)1 << 36)
#else
#define HUGE_BYTES ((uint64_t)1 << 40)
#endif

static void test_terabyte(void **unused)
{
	const uint64_t far = HUGE_BYTES - 3;
	char c[3] = {0};

	make_vm();
	assert_int_equal(lethe_slot_add(vm, 0, 0, HUGE_BYTES), 0);
	assert_int_equal(lethe_vm_load(vm, far, "end", 3), 0);
	assert_int_equal(lethe_mem_read(vm, far, c, 3), 0);
	assert_memory_equal(c, "end", 3);
	assert_int_equal(lethe_mem_read(vm, far + 1, c, 3), -ENOENT);
}

/* Adjoining slots are one memory; a hole is none. */
static void test_access_of_a_normal_vm(void **unused)
{
	uint8_t out[2 * PAGE], in[2 * PAGE];

	make_vm();
	assert_int_equal(lethe_slot_add(vm, 0, 0, MB), 0);
	assert_int_equal(lethe_slot_add(vm, 1, MB, MB), 0);
	for (size_t i = 0; i < sizeof(out); i++)
		out[i] = (uint8_t)(i * 7);
	assert_int_equal(lethe_mem_write(vm, MB - 100, out, sizeof(out)), 0);
	assert_int_equal(lethe_mem_read(vm, MB - 100, in, sizeof(in)), 0);
	assert_memory_equal(in, out, sizeof(in));
	assert_int_equal(lethe_mem_read(vm, 2 * MB - 1, in, 2), -ENOENT);
	assert_int_equal(lethe_mem_read(vm, UINT64_MAX, in, 2), -ERANGE);
	assert_int_equal(lethe_vm_load(vm, 2 * MB - 1, in, 2), -ENOENT);
	assert_int_equal(lethe_mem_write(vm, 5, out, 0), 0);
}

/* ---- protection ---- */

static void check_states(uint64_t from, uint64_t to, enum lethe_gfn_state want)
{
	for (uint64_t at = from; at < to; at += PAGE) {
		enum lethe_gfn_state state;

		assert_int_equal(lethe_gfn_state(vm, at, &state), 0);
		assert_int_equal(state, want);
	}
}

static void test_protect(void **unused)
{
	const struct lethe_range ranges[] = {{0, 2 * PAGE}, {MB, PAGE}};
	struct lethe_protect_result result;
	char c;

	make_vm();
	assert_int_equal(lethe_slot_add(vm, 0, 0, MB), 0);
	assert_int_equal(lethe_slot_add(vm, 1, MB, MB), 0);
	forget_asked();
	assert_int_equal(lethe_vm_protect(vm, ranges, 2, &result), 0);
	assert_true(lethe_vm_is_protected(vm));
	assert_string_equal(asked(), "INIT_START 0 0\nPAGE_IN 0 8192\nPAGE_IN 1048576 4096\n"
				     "INIT_DONE 0 0\n");
	check_states(0, 2 * MB, LETHE_GFN_SECURE);
	forget_asked();
	/* What is known to be private costs no call. */
	assert_int_equal(lethe_mem_read(vm, 0, &c, 1), -EPERM);
	assert_int_equal(lethe_mem_write(vm, MB, "x", 1), -EPERM);
	assert_int_equal(lethe_vm_load(vm, 0, "x", 1), -EPERM);
	assert_int_equal(lethe_vm_protect(vm, ranges, 2, &result), -EPROTO);
	assert_string_equal(asked(), "");
	/* Hotplug: secure at once. */
	assert_int_equal(lethe_slot_add(vm, 2, 2 * MB, MB), 0);
	check_states(2 * MB, 3 * MB, LETHE_GFN_SECURE);
}

static void test_protect_bad_ranges(void **unused)
{
	static const struct {
		struct lethe_range range[2];
		int err;
	} bad[] = {
		{{{0, PAGE}, {0, PAGE}}, -EEXIST},
		{{{0, 2 * PAGE}, {PAGE, PAGE}}, -EEXIST},
		{{{PAGE, PAGE}, {0, 4 * PAGE}}, -EEXIST},
		{{{0, PAGE}, {1, PAGE}}, -EINVAL},
		{{{0, PAGE}, {PAGE, 0}}, -EINVAL},
		{{{0, PAGE}, {PAGE, 100}}, -EINVAL},
		{{{0, PAGE}, {UINT64_MAX - PAGE + 1, PAGE}}, -ERANGE},
		{{{0, PAGE}, {MB - PAGE, 2 * PAGE}}, -ENOENT},
	};
	struct lethe_range many[129];
	struct lethe_protect_result result;

	make_vm();
	assert_int_equal(lethe_slot_add(vm, 0, 0, MB), 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(lethe_vm_protect(vm, bad[i].range, 2, &result), bad[i].err);
		assert_false(lethe_vm_is_protected(vm));
		check_states(0, MB, LETHE_GFN_NORMAL);
	}
	for (size_t i = 0; i < 129; i++)
		many[i] = (struct lethe_range){i * PAGE, PAGE};
	assert_int_equal(lethe_vm_protect(vm, many, 129, &result), -EINVAL);
	assert_int_equal(lethe_vm_protect(vm, many, 128, &result), 0);
}

/* Whatever step fails: aborted, normal, content intact, and it can be tried again. */
static void protect_fails_at(const char *call, const char *calls)
{
	const struct lethe_range ranges[] = {{0, PAGE}, {PAGE, PAGE}};
	struct lethe_protect_result result = {.pages_copied = 77};
	char text[5] = {0};

	setenv("FAKE_UV_FAIL", call, 1);
	make_vm();
	assert_int_equal(lethe_slot_add(vm, 0, 0, MB), 0);
	assert_int_equal(lethe_vm_load(vm, PAGE, "text", 4), 0);
	forget_asked();
	assert_int_equal(lethe_vm_protect(vm, ranges, 2, &result), -ENOMEM);
	assert_string_equal(asked(), calls);
	assert_int_equal(result.pages_copied, 77);
	assert_false(lethe_vm_is_protected(vm));
	check_states(0, MB, LETHE_GFN_NORMAL);
	assert_int_equal(lethe_mem_read(vm, PAGE, text, 4), 0);
	assert_string_equal(text, "text");
	lethe_vm_close(vm, true);
	vm = NULL;
}

static void test_protect_fails(void **unused)
{
	protect_fails_at("5:3", "INIT_START 0 0\n");
	protect_fails_at("6:3", "INIT_START 0 0\nPAGE_IN 0 4096\nINIT_ABORT 0 0\n");
	protect_fails_at("7:3", "INIT_START 0 0\nPAGE_IN 0 4096\nPAGE_IN 4096 4096\n"
				"INIT_DONE 0 0\nINIT_ABORT 0 0\n");
}

/* ---- vCPUs ---- */

static void run(struct lethe_exit *exit, enum lethe_exit_type want)
{
	assert_int_equal(lethe_vcpu_run(vm, 0, exit), 0);
	assert_int_equal(exit->type, want);
}

static void start_with(const char *exits)
{
	uint64_t first;

	setenv("FAKE_UV_EXITS", exits, 1);
	make_vm();
	assert_int_equal(lethe_slot_add(vm, 0, 0, MB), 0);
	if (exits[0] != '\0')
		assert_int_equal(
			lethe_vm_protect(vm, NULL, 0, &(struct lethe_protect_result){0}), 0);
	assert_int_equal(lethe_vm_start(vm, &first), 0);
	assert_int_equal(first, 123);
	forget_asked();
}

static void test_exits(void **unused)
{
	struct lethe_exit exit = {0};

	start_with("2,0,0,0,0,5;3,0,0,0,0,32;6,4096,8192,0,0,0;11,1016,1,1,0,0;12,4096,4,0,0,0;"
		   "8,0,0,0,0,0");
	assert_int_equal(lethe_vcpu_run(vm, 1, &exit), -EINVAL);
	run(&exit, LETHE_EXIT_PRINT);
	assert_string_equal(exit.text, "xxxxx");
	assert_int_equal(exit.count, 5);
	run(&exit, LETHE_EXIT_PROTECT);
	assert_int_equal(exit.count, 2);
	assert_int_equal(exit.ranges[1].bytes, 0x7878787878787878ull);
	exit.reply = -ENOMEM;
	run(&exit, LETHE_EXIT_DMA);
	assert_int_equal(exit.gpa, 4096);
	assert_int_equal(exit.bytes, 8192);
	exit.reply = -EPERM;
	run(&exit, LETHE_EXIT_PIO);
	assert_true(exit.is_write);
	run(&exit, LETHE_EXIT_MMIO);
	assert_false(exit.is_write);
	exit.reply_value = 99;
	run(&exit, LETHE_EXIT_POWEROFF);
	assert_string_equal(asked(), "reply 0 0\nreply 3 0\nreply 5 0\nreply 0 0\nreply 0 99\n");
}

/* A page of garbage is an odd exit or the end, never a crash. */
static void test_garbage_exits(void **unused)
{
	struct lethe_exit exit = {0};

	start_with("2,0,0,0,0,4294967295;3,0,0,0,0,4294967295;9,4294967295,5,0,0,100000;"
		   "4,1,1,1,0,0;5,18446744073709551615,1,0,0,0;4294967295,0,0,0,0,0");
	run(&exit, LETHE_EXIT_PRINT);
	assert_int_equal(strlen(exit.text), sizeof(exit.text) - 1);
	run(&exit, LETHE_EXIT_PROTECT);
	assert_int_equal(exit.count, 128);
	run(&exit, LETHE_EXIT_STOPPED);
	assert_int_equal(exit.gpa, 5);
	exit.type = LETHE_EXIT_PRINT; /* to be answered, so that the script goes on */
	run(&exit, LETHE_EXIT_CONVERT);
	run(&exit, LETHE_EXIT_RELEASE);
	run(&exit, LETHE_EXIT_CLOSED);
}

static void test_conversions_are_noted(void **unused)
{
	struct lethe_exit exit = {0};
	char text[5] = {0};

	/* Share 4 pages; share 8 over them, which fails; unshare 2; release 2 others. */
	start_with("4,65536,16384,1,0,0;4,65536,32768,1,0,0;4,65536,8192,0,-3,0;"
		   "5,81920,8192,0,0,0;8,0,0,0,0,0");
	run(&exit, LETHE_EXIT_CONVERT);
	assert_true(exit.to_shared);
	check_states(65536, 98304, LETHE_GFN_SECURE);
	run(&exit, LETHE_EXIT_CONVERT);
	check_states(65536, 81920, LETHE_GFN_SHARED);
	assert_int_equal(lethe_mem_write(vm, 81900, "text", 4), 0);
	assert_int_equal(lethe_mem_read(vm, 81900, text, 4), 0);
	assert_string_equal(text, "text");
	assert_int_equal(lethe_mem_write(vm, 81918, "text", 4), -EPERM);
	run(&exit, LETHE_EXIT_CONVERT);
	/* It failed: what was shared before still is, and no more. */
	check_states(65536, 81920, LETHE_GFN_SHARED);
	check_states(81920, 98304, LETHE_GFN_SECURE);
	run(&exit, LETHE_EXIT_RELEASE);
	check_states(65536, 73728, LETHE_GFN_SECURE);
	check_states(73728, 81920, LETHE_GFN_SHARED);
	run(&exit, LETHE_EXIT_POWEROFF);
	check_states(81920, 90112, LETHE_GFN_NORMAL);
}

static void test_refused_conversion(void **unused)
{
	struct lethe_exit exit = {0};

	start_with("4,65536,16384,1,0,0;8,0,0,0,0,0");
	run(&exit, LETHE_EXIT_CONVERT);
	exit.reply = -EPERM;
	run(&exit, LETHE_EXIT_POWEROFF);
	check_states(65536, 81920, LETHE_GFN_SECURE);
	assert_string_equal(asked(), "reply 5 0\n");
}

/* No exit is lost or seen twice, whichever side happens to sleep. */
static void test_ping_pong(void **unused)
{
	struct lethe_exit exit = {0};

	setenv("FAKE_UV_MODE", "ping-pong", 1);
	start_with("");
	for (uint64_t i = 0; i < 5000; i++) {
		run(&exit, LETHE_EXIT_PIO);
		assert_int_equal(exit.value, i);
		exit.reply_value = i + 1;
		if (i % 97 == 0)
			usleep(200);
	}
	run(&exit, LETHE_EXIT_POWEROFF);
}

static void *run_to_the_end(void *arg)
{
	struct lethe_exit exit = {0};

	do
		assert_int_equal(lethe_vcpu_run(vm, 0, &exit), 0);
	while (exit.type != LETHE_EXIT_CLOSED);
	/* And it stays so. */
	assert_int_equal(lethe_vcpu_run(vm, 0, &exit), 0);
	assert_int_equal(exit.type, LETHE_EXIT_CLOSED);
	return NULL;
}

static void test_death_closes_exits(void **unused)
{
	for (useconds_t delay = 0; delay < 3000; delay += 300) {
		pthread_t thread;

		start_with("");
		assert_int_equal(pthread_create(&thread, NULL, run_to_the_end, NULL), 0);
		usleep(delay);
		assert_int_equal(kill(lethe_vm_uv_pid(vm), SIGKILL), 0);
		pthread_join(thread, NULL);
		lethe_vm_close(vm, true);
		vm = NULL;
	}
}

/* ---- forgetting ---- */

static void test_prepare(void **unused)
{
	uint64_t incarnation, resident, bytes;
	struct lethe_protect_result result;
	void *hva;

	make_vm();
	assert_int_equal(lethe_slot_add(vm, 0, 0, MB), 0);
	assert_int_equal(lethe_vm_protect(vm, NULL, 0, &result), 0);
	assert_int_equal(lethe_destroy_prepare(vm, &incarnation, &resident), 0);
	assert_int_equal(incarnation, 7);
	assert_int_equal(resident, 4096);
	assert_false(lethe_vm_is_protected(vm));
	assert_int_equal(lethe_slot_mapping(vm, 0, &hva, &bytes), -ENOENT);
	/* The next life, at once. */
	assert_int_equal(lethe_slot_add(vm, 0, 0, MB), 0);
	assert_int_equal(lethe_vm_load(vm, 0, "x", 1), 0);
	check_states(0, MB, LETHE_GFN_NORMAL);
}

static void test_prepare_is_refused(void **unused)
{
	static const struct {
		const char *fail;
		int err;
	} refusals[] = {{"11:4", -EBUSY}, {"11:13", -ENODATA}, {"11:12", -EALREADY},
		{"11:11", -EOPNOTSUPP}, {"11:3", -ENOMEM}};
	uint64_t incarnation = 1, resident = 2, bytes;
	struct lethe_protect_result result;
	void *hva;

	for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
		setenv("FAKE_UV_FAIL", refusals[i].fail, 1);
		make_vm();
		assert_int_equal(lethe_slot_add(vm, 0, 0, MB), 0);
		assert_int_equal(lethe_vm_protect(vm, NULL, 0, &result), 0);
		assert_int_equal(
			lethe_destroy_prepare(vm, &incarnation, &resident), refusals[i].err);
		assert_int_equal(incarnation, 1);
		assert_true(lethe_vm_is_protected(vm));
		assert_int_equal(lethe_slot_mapping(vm, 0, &hva, &bytes), 0);
		lethe_vm_close(vm, true);
		vm = NULL;
	}
}

static void *perform(void *arg)
{
	struct lethe_destroy_result result = {0};

	assert_int_equal(lethe_destroy_perform(vm, &result), -ECANCELED);
	assert_int_equal(result.bytes, 5);
	return NULL;
}

/* Other calls go on while PERFORM waits for its answer. */
static void test_perform_and_cancel(void **unused)
{
	struct lethe_info info;
	pthread_t thread;

	setenv("FAKE_UV_MODE", "park", 1);
	make_vm();
	assert_int_equal(pthread_create(&thread, NULL, perform, NULL), 0);
	while (strstr(asked(), "PERFORM") == NULL)
		usleep(1000);
	assert_int_equal(lethe_vm_info(vm, &info), 0);
	assert_int_equal(lethe_destroy_cancel(vm), 0);
	pthread_join(thread, NULL);
}

static void test_reset(void **unused)
{
	struct lethe_destroy_result result = {0};
	uint64_t bytes;
	void *hva;

	setenv("FAKE_UV_FAIL", "14:15", 1);
	make_vm();
	assert_int_equal(lethe_slot_add(vm, 0, 0, MB), 0);
	assert_int_equal(lethe_vm_reset(vm, &result), -EUCLEAN);
	assert_int_equal(lethe_slot_mapping(vm, 0, &hva, &bytes), -ENOENT);
}

/* ---- failpoints ---- */

#ifdef LETHE_FAILPOINTS
static const char *const making[] = {"hv-vm", "hv-pages", "hv-bulk", "rundir-claim",
	"rundir-status", "hv-socket", "hv-process", "hv-keeper", "spawn", "conn-new"};

/* In a process of its own, because the choice is read once. */
static int make_and_fail(void)
{
	setup(NULL);
	if (new_vm("test") != -ENOMEM || vm != NULL)
		return 1;
	leftovers_check();
	if (new_vm("test") != 0)
		return 2;
	return teardown(NULL);
}

static void test_making_fails(void **unused)
{
	for (size_t i = 0; i < sizeof(making) / sizeof(making[0]); i++)
		rerun_failing(making[i], fake_uv, "make-and-fail");
}
#endif

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_new_and_close),
		TEST(test_close_without_waiting),
		TEST(test_names),
		TEST(test_config),
		TEST(test_programs_that_are_no_ultravisor),
		TEST(test_ultravisors_that_fail),
		TEST(test_vm_create_fails),
		TEST(test_killed_ultravisor),
		TEST(test_slots),
		TEST(test_slot_that_is_refused),
		TEST(test_terabyte),
		TEST(test_access_of_a_normal_vm),
		TEST(test_protect),
		TEST(test_protect_bad_ranges),
		TEST(test_protect_fails),
		TEST(test_exits),
		TEST(test_garbage_exits),
		TEST(test_conversions_are_noted),
		TEST(test_refused_conversion),
		TEST(test_ping_pong),
		TEST(test_death_closes_exits),
		TEST(test_prepare),
		TEST(test_prepare_is_refused),
		TEST(test_perform_and_cancel),
		TEST(test_reset),
#ifdef LETHE_FAILPOINTS
		cmocka_unit_test(test_making_fails),
#endif
	};

	if (argc < 2) {
		fprintf(stderr, "usage: %s FAKE-UV\n", argv[0]);
		return 2;
	}
	fake_uv = argv[1];
#ifdef LETHE_FAILPOINTS
	if (argc > 2)
		return make_and_fail();
#endif
	return cmocka_run_group_tests(tests, NULL, NULL);
}
