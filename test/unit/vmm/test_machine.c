/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The machine on a fake liblethe: every exit, every way to end, every failing step. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/log.h"
#include "test/unit/vmm/fake_lethe.h"
#include "vmm/machine.h"
#include "vmm/machine_state.h"

static struct program program;
static struct machine_config config;
static struct timeline *timeline;
static char timeline_path[] = "/tmp/lethe-test-XXXXXX";
static int no_signals[2]; /* a pipe in place of a signalfd */
static unsigned int lines_logged;
static char last_line[1024];

static void count_line(enum log_level level, const char *line)
{
	lines_logged++;
	snprintf(last_line, sizeof(last_line), "%s", line);
}

static int setup(void **state)
{
	static char image[64];
	int fd;

	fake_reset();
	lines_logged = 0;
	log_setup("test", LOG_WARN, count_line);
	program = (struct program){
		.image = image, .image_bytes = sizeof(image), .memory_bytes = 64 << 20, .vcpus = 1};
	config = (struct machine_config){.program = &program};
	strcpy(timeline_path, "/tmp/lethe-test-XXXXXX");
	fd = mkstemp(timeline_path);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(timeline_open(timeline_path, &timeline), 0);
	return pipe2(no_signals, O_NONBLOCK | O_CLOEXEC);
}

static int teardown(void **state)
{
	timeline_free(timeline);
	unlink(timeline_path);
	close(no_signals[0]);
	close(no_signals[1]);
	return 0;
}

static int run_machine(void)
{
	struct machine *machine;
	int status;

	assert_int_equal(machine_new(&config, timeline, &machine), 0);
	status = machine_run(machine, no_signals[0]);
	assert_int_equal(fake.open, 0);
	machine_free(machine);
	return status;
}

/* How many events of this name the timeline holds; *ret_last (may be NULL) is borrowed. */
static size_t count_events(json_t *document, const char *name, json_t **ret_last)
{
	size_t index, count = 0;
	json_t *event;

	json_array_foreach(json_object_get(document, "events"), index, event)
	{
		if (strcmp(json_string_value(json_object_get(event, "event")), name) != 0)
			continue;
		count++;
		if (ret_last)
			*ret_last = event;
	}
	return count;
}

static json_t *read_timeline(void)
{
	json_t *document;

	assert_int_equal(timeline_write(timeline), 0);
	document = json_load_file(timeline_path, 0, NULL);
	assert_non_null(document);
	return document;
}

static void assert_events(const char *name, size_t expected)
{
	json_t *document = read_timeline();

	assert_int_equal(count_events(document, name, NULL), expected);
	json_decref(document);
}

static void test_poweroff(void **state)
{
	fake_exit(0, LETHE_EXIT_POWEROFF);
	assert_int_equal(run_machine(), MACHINE_POWEROFF);
	assert_int_equal(fake.added, 1);
	assert_int_equal(fake.loaded, 1);
	assert_events("create", 1);
	assert_events("memslot-add", 1);
	assert_events("poweroff", 1);
	assert_int_equal(lines_logged, 0);
}

static void test_halted_machine_powers_off(void **state)
{
	program.vcpus = 2;
	fake_exit(0, LETHE_EXIT_HALTED);
	fake_exit(1, LETHE_EXIT_HALTED);
	assert_int_equal(run_machine(), MACHINE_POWEROFF);
	assert_events("poweroff", 1);
}

static void test_old_halt_does_not_count(void **state)
{
	fake_exit(0, LETHE_EXIT_REBOOT);
	fake_exit(0, LETHE_EXIT_HALTED)->time_ns = 1;
	fake_exit(0, LETHE_EXIT_STOPPED)->stop = LETHE_STOP_CHECK;
	assert_int_equal(run_machine(), MACHINE_STOPPED);
}

static void test_stopped(void **state)
{
	struct lethe_exit *exit = fake_exit(0, LETHE_EXIT_STOPPED);
	json_t *document, *event;

	exit->stop = LETHE_STOP_VIOLATION;
	exit->gpa = 0x1000;
	strcpy(exit->text, "bad \xff\n text");
	assert_int_equal(run_machine(), MACHINE_STOPPED);
	assert_int_equal(lines_logged, 1);
	document = read_timeline();
	assert_int_equal(count_events(document, "violation", &event), 1);
	assert_int_equal(json_integer_value(json_object_get(event, "gpa")), 0x1000);
	assert_string_equal(json_string_value(json_object_get(event, "reason")), "bad ?? text");
	json_decref(document);
}

static void test_protect(void **state)
{
	json_t *document, *event;

	fake_exit(0, LETHE_EXIT_PROTECT)->count = 1;
	fake_exit(0, LETHE_EXIT_POWEROFF);
	assert_int_equal(run_machine(), MACHINE_POWEROFF);
	assert_int_equal(fake.reply[0][0], 0);
	document = read_timeline();
	assert_int_equal(count_events(document, "protect", &event), 1);
	assert_int_equal(json_integer_value(json_object_get(event, "pages_copied")), 2);
	assert_int_equal(strlen(json_string_value(json_object_get(event, "measurement"))), 96);
	json_decref(document);
}

static void test_protect_off_refuses(void **state)
{
	config.protect = MACHINE_PROTECT_OFF;
	fake_exit(0, LETHE_EXIT_PROTECT)->count = 1;
	fake_exit(0, LETHE_EXIT_POWEROFF);
	assert_int_equal(run_machine(), MACHINE_POWEROFF);
	assert_int_equal(fake.reply[0][0], -EPERM);
	assert_int_equal(fake.protected, 0);
}

static void test_protect_boot_in_every_incarnation(void **state)
{
	config.protect = MACHINE_PROTECT_BOOT;
	fake_exit(0, LETHE_EXIT_REBOOT);
	fake_exit(0, LETHE_EXIT_POWEROFF);
	assert_int_equal(run_machine(), MACHINE_POWEROFF);
	assert_int_equal(fake.protected, 2);
}

static void test_conversions_and_dma(void **state)
{
	struct lethe_exit *exit;
	json_t *document, *counters;

	exit = fake_exit(0, LETHE_EXIT_CONVERT);
	exit->gpa = 0;
	exit->bytes = 8192;
	exit->to_shared = true;
	exit = fake_exit(0, LETHE_EXIT_DMA);
	exit->bytes = 8192;
	exit = fake_exit(0, LETHE_EXIT_DMA);
	exit->gpa = FAKE_PRIVATE;
	exit->bytes = 4096;
	fake_exit(0, LETHE_EXIT_POWEROFF);
	memset(fake.memory, 0x5a, 4096);
	assert_int_equal(run_machine(), MACHINE_POWEROFF);
	assert_int_equal(fake.reply[0][0], 0);
	assert_int_equal(fake.reply[0][1], 0);
	assert_int_equal(fake.memory[0], 0xa5);
	assert_int_equal(fake.memory[8191], 0xff);
	assert_int_equal(fake.memory[8192], 0);
	assert_int_equal(fake.reply[0][2], -EPERM);
	document = read_timeline();
	counters = json_object_get(document, "counters");
	assert_int_equal(json_integer_value(json_object_get(counters, "shares")), 1);
	assert_int_equal(json_integer_value(json_object_get(counters, "shared_bytes")), 8192);
	assert_int_equal(json_integer_value(json_object_get(counters, "dma_transfers")), 1);
	assert_int_equal(json_integer_value(json_object_get(counters, "dma_refused")), 1);
	json_decref(document);
}

static void test_no_device_reads_ones(void **state)
{
	fake_exit(0, LETHE_EXIT_PIO);
	fake_exit(0, LETHE_EXIT_POWEROFF);
	assert_int_equal(run_machine(), MACHINE_POWEROFF);
	assert_true(fake.reply_value[0][0] == UINT64_MAX);
}

static void test_workload_outside_memory_is_stopped(void **state)
{
	fake_exit(0, LETHE_EXIT_MMIO)->gpa = 0x4000000;
	assert_int_equal(run_machine(), MACHINE_STOPPED);
	assert_int_equal(lines_logged, 1);
	assert_non_null(strstr(last_line, "0x4000000"));
	assert_events("violation", 1);
}

/* ---- the control socket ---- */

static struct machine *served_machine;

/* What the machine, which nobody runs, answers to a request as JSON. */
static json_t *ask(const char *text)
{
	json_t *request = json_loads(text, 0, NULL);
	json_t *answer;

	assert_non_null(request);
	answer = commands_perform(served_machine, request);
	assert_non_null(answer);
	json_decref(request);
	return answer;
}

/* The errno that it is refused with; 0: it is done. */
static int errno_of(const char *text)
{
	json_t *answer = ask(text);
	int err =
		(int)json_integer_value(json_object_get(json_object_get(answer, "error"), "errno"));

	assert_true((err == 0) == json_is_object(json_object_get(answer, "result")));
	json_decref(answer);
	return err;
}

static json_int_t gpa_of(const char *text)
{
	json_t *answer = ask(text);
	json_int_t gpa =
		json_integer_value(json_object_get(json_object_get(answer, "result"), "gpa"));

	json_decref(answer);
	return gpa;
}

static void test_commands(void **state)
{
	assert_int_equal(machine_new(&config, timeline, &served_machine), 0);
	assert_int_equal(gpa_of("{\"command\":\"memory-add\",\"bytes\":4096}"), 64 << 20);
	assert_int_equal(gpa_of("{\"command\":\"memory-add\",\"bytes\":4096}"), 66 << 20);
	assert_int_equal(fake.added, 3);
	assert_int_equal(errno_of("{\"command\":\"memory-add\",\"bytes\":0}"), EINVAL);
	assert_int_equal(errno_of("{\"command\":\"memory-add\",\"bytes\":4096,\"gpa\":0}"), EEXIST);
	assert_int_equal(errno_of("{\"command\":\"memory-remove\",\"slot\":0}"), EPERM);
	assert_int_equal(errno_of("{\"command\":\"memory-remove\",\"slot\":3}"), ENOENT);
	assert_int_equal(fake.removed, 0);
	assert_int_equal(errno_of("{\"command\":\"memory-remove\",\"slot\":1}"), 0);
	assert_int_equal(errno_of("{\"command\":\"memory-remove\",\"slot\":1}"), ENOENT);
	assert_int_equal(fake.removed, 1);
	assert_int_equal(errno_of("{\"command\":\"memory-list\",\"gpa\":1}"), EINVAL);
	assert_int_equal(errno_of("{\"command\":\"memory-audit\",\"slot\":2}"), 0);
	assert_int_equal(errno_of("{\"command\":\"memory-audit\",\"slot\":32}"), ENOENT);
	assert_int_equal(errno_of("{\"command\":\"memory-audit\"}"), EINVAL);
	assert_int_equal(errno_of("{\"command\":\"nonsense\"}"), ENOTTY);
	machine_free(served_machine);
	assert_events("memslot-add", 3);
	assert_events("memslot-delete", 1);
}

/* A failing library changes nothing here either. */
static void test_commands_that_fail(void **state)
{
	assert_int_equal(machine_new(&config, timeline, &served_machine), 0);
	fake.fail_function = "slot_add";
	fake.fail_error = ENOMEM;
	assert_int_equal(errno_of("{\"command\":\"memory-add\",\"bytes\":4096}"), ENOMEM);
	fake.fail_function = "vm_audit";
	assert_int_equal(errno_of("{\"command\":\"memory-audit\",\"slot\":0}"), ENOMEM);
	fake.fail_function = NULL;
	assert_int_equal(gpa_of("{\"command\":\"memory-add\",\"bytes\":4096}"), 64 << 20);
	fake.fail_function = "slot_remove";
	fake.fail_error = EBUSY;
	assert_int_equal(errno_of("{\"command\":\"memory-remove\",\"slot\":1}"), EBUSY);
	fake.not_protected = true;
	assert_int_equal(errno_of("{\"command\":\"memory-remove\",\"slot\":1}"), EBUSY);
	fake.fail_error = EPIPE;
	assert_int_equal(errno_of("{\"command\":\"memory-remove\",\"slot\":1}"), EPIPE);
	fake.fail_function = NULL;
	assert_int_equal(errno_of("{\"command\":\"memory-remove\",\"slot\":1}"), 0);
	machine_free(served_machine);
}

static unsigned int stores_closed;

static int store_put(struct lethe_page_store *store, uint64_t gpa, const void *pages, size_t count)
{
	return gpa == 0 ? -ENOSPC : 0;
}

static int store_get(struct lethe_page_store *store, uint64_t gpa, void *pages, size_t count)
{
	return gpa == 0 ? -EIO : 0;
}

static void store_close(struct lethe_page_store *store)
{
	stores_closed++;
}

/* What passes is counted, what fails is not, and the store is closed once. */
static void test_page_store(void **state)
{
	static struct lethe_page_store store = {
		.name = "store", .put = store_put, .get = store_get, .close = store_close};
	struct lethe_page_store *owned = &store;
	json_t *document, *event = NULL;

	config.page_store = &owned;
	stores_closed = 0;
	fake_exit(0, LETHE_EXIT_POWEROFF);
	assert_int_equal(machine_new(&config, timeline, &served_machine), 0);
	assert_null(owned);
	assert_int_equal(fake.store->put(fake.store, 0, NULL, 9), -ENOSPC);
	assert_int_equal(fake.store->put(fake.store, 4096, NULL, 2), 0);
	assert_int_equal(fake.store->put(fake.store, 8192, NULL, 1), 0);
	assert_int_equal(fake.store->get(fake.store, 0, NULL, 9), -EIO);
	assert_int_equal(fake.store->get(fake.store, 4096, NULL, 1), 0);
	assert_int_equal(errno_of("{\"command\":\"page-out\",\"bytes\":4096}"), 0);
	assert_int_equal(machine_run(served_machine, no_signals[0]), MACHINE_POWEROFF);
	machine_free(served_machine);
	assert_int_equal(stores_closed, 1);
	document = read_timeline();
	assert_true(count_events(document, "page-out", &event) >= 1);
	assert_int_equal(json_integer_value(json_object_get(
				 json_object_get(document, "counters"), "paged_out_bytes")),
		3 * 4096);
	assert_int_equal(count_events(document, "page-in", &event), 1);
	assert_int_equal(json_integer_value(json_object_get(event, "bytes")), 4096);
	json_decref(document);
}

static void test_page_store_that_is_refused(void **state)
{
	static struct lethe_page_store store = {.name = "store", .close = store_close};
	struct lethe_page_store *owned = &store;

	config.page_store = &owned;
	stores_closed = 0;
	fake.fail_function = "vm_new";
	fake.fail_error = EIO;
	assert_int_equal(machine_new(&config, timeline, &served_machine), -EIO);
	assert_ptr_equal(owned, &store);
	assert_int_equal(stores_closed, 0);
	fake.fail_function = "set_page_store";
	assert_int_equal(machine_new(&config, timeline, &served_machine), -EIO);
	assert_null(owned);
	assert_int_equal(stores_closed, 1);
	assert_int_equal(lines_logged, 2);
}

/* What was added is there again after a reboot; the fake counts. */
static void test_added_memory_stays_over_a_reboot(void **state)
{
	fake_exit(0, LETHE_EXIT_REBOOT);
	fake_exit(0, LETHE_EXIT_POWEROFF);
	assert_int_equal(machine_new(&config, timeline, &served_machine), 0);
	assert_int_equal(errno_of("{\"command\":\"memory-add\",\"bytes\":4096}"), 0);
	assert_int_equal(machine_run(served_machine, no_signals[0]), MACHINE_POWEROFF);
	machine_free(served_machine);
	assert_int_equal(fake.added, 4);
	assert_events("memslot-add", 4);
	assert_events("memslot-delete", 2);
}

static void test_print(void **state)
{
	char *text = NULL;
	size_t size;

	config.console = open_memstream(&text, &size);
	strcpy(fake_exit(0, LETHE_EXIT_PRINT)->text, "hello");
	fake_exit(0, LETHE_EXIT_POWEROFF);
	assert_int_equal(run_machine(), MACHINE_POWEROFF);
	fclose(config.console);
	assert_string_equal(text, "hello\n");
	free(text);
}

static void test_reboot_sets_aside(void **state)
{
	json_t *document, *event;

	config.see_it_out = false;
	fake_exit(0, LETHE_EXIT_REBOOT);
	fake_exit(0, LETHE_EXIT_REBOOT);
	fake_exit(0, LETHE_EXIT_POWEROFF);
	assert_int_equal(run_machine(), MACHINE_POWEROFF);
	assert_int_equal(fake.prepared, 2);
	assert_int_equal(fake.performed, 2);
	assert_int_equal(fake.resets, 0);
	assert_int_equal(fake.added, 3);
	assert_int_equal(fake.loaded, 3);
	assert_int_equal(fake.started, 3);
	document = read_timeline();
	assert_int_equal(count_events(document, "set-aside", NULL), 2);
	assert_int_equal(count_events(document, "destroy-start", NULL), 2);
	assert_int_equal(count_events(document, "destroy-end", NULL), 2);
	assert_int_equal(count_events(document, "memslot-delete", NULL), 2);
	assert_int_equal(count_events(document, "reboot", &event), 2);
	assert_true(json_is_integer(json_object_get(event, "duration_ns")));
	json_decref(document);
}

static void test_refused_set_aside_destroys_at_once(void **state)
{
	static const int refusals[] = {EALREADY, ENOMEM, EOPNOTSUPP, ENODATA};

	for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
		fake_reset();
		fake.fail_function = "destroy_prepare";
		fake.fail_error = refusals[i];
		fake_exit(0, LETHE_EXIT_REBOOT);
		fake_exit(0, LETHE_EXIT_POWEROFF);
		assert_int_equal(run_machine(), MACHINE_POWEROFF);
		assert_int_equal(fake.resets, 1);
		assert_int_equal(fake.performed, 0);
		assert_int_equal(fake.started, 2);
		assert_int_equal(lines_logged, 0);
	}
	assert_events("destroy-end", 4);
	assert_events("reboot", 4);
	assert_events("set-aside", 0);
}

static void test_failing_reboot_fails_the_run(void **state)
{
	static const struct {
		const char *function;
		unsigned int after; /* calls at creation */
	} steps[] = {{"destroy_prepare", 0}, {"slot_add", 1}, {"vm_load", 1}, {"vm_start", 1},
		{"vm_protect", 1}};

	config.protect = MACHINE_PROTECT_BOOT;
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		fake_reset();
		lines_logged = 0;
		fake.fail_function = steps[i].function;
		fake.fail_after = steps[i].after;
		fake.fail_error = EIO;
		fake_exit(0, LETHE_EXIT_REBOOT);
		assert_int_equal(run_machine(), MACHINE_FAILED);
		assert_int_equal(lines_logged, 1);
	}
}

static void test_poweroff_cancels_destruction(void **state)
{
	json_t *document, *event;

	fake.hold_perform = true;
	fake_exit(0, LETHE_EXIT_REBOOT);
	fake_exit(0, LETHE_EXIT_POWEROFF);
	assert_int_equal(run_machine(), MACHINE_POWEROFF);
	assert_true(fake.cancelled);
	document = read_timeline();
	assert_int_equal(count_events(document, "destroy-end", &event), 1);
	assert_true(json_is_true(json_object_get(event, "cancelled")));
	json_decref(document);
}

static void test_death_of_the_ultravisor(void **state)
{
	fake_death(0);
	assert_int_equal(run_machine(), MACHINE_DIED);
	assert_int_equal(lines_logged, 1);
	assert_non_null(strstr(last_line, "killed by signal 9"));
}

static void test_dead_ultravisor_during_a_reboot(void **state)
{
	fake.fail_function = "destroy_prepare";
	fake.fail_error = EPIPE;
	fake_exit(0, LETHE_EXIT_REBOOT);
	assert_int_equal(run_machine(), MACHINE_DIED);
	assert_int_equal(lines_logged, 1);
}

static void test_signal(void **state)
{
	struct signalfd_siginfo signal = {.ssi_signo = 15};

	assert_int_equal(write(no_signals[1], &signal, sizeof(signal)), sizeof(signal));
	assert_int_equal(run_machine(), 128 + 15);
	assert_int_equal(lines_logged, 0);
	assert_events("poweroff", 0);
}

static void test_failing_creation_leaves_nothing(void **state)
{
	static const char *const steps[] = {"vm_new", "slot_add", "vm_load", "vm_protect"};
	struct machine *machine = NULL;

	config.protect = MACHINE_PROTECT_BOOT;
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		fake_reset();
		lines_logged = 0;
		fake.fail_function = steps[i];
		fake.fail_error = ENOMEM;
		assert_int_equal(machine_new(&config, timeline, &machine), -ENOMEM);
		assert_null(machine);
		assert_int_equal(fake.open, 0);
		assert_int_equal(lines_logged, 1);
	}
}

static void test_failing_start(void **state)
{
	fake.fail_function = "vm_start";
	fake.fail_error = EIO;
	assert_int_equal(run_machine(), MACHINE_FAILED);
	assert_int_equal(lines_logged, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
		TEST(poweroff),
		TEST(halted_machine_powers_off),
		TEST(old_halt_does_not_count),
		TEST(stopped),
		TEST(protect),
		TEST(protect_off_refuses),
		TEST(protect_boot_in_every_incarnation),
		TEST(conversions_and_dma),
		TEST(no_device_reads_ones),
		TEST(workload_outside_memory_is_stopped),
		TEST(commands),
		TEST(commands_that_fail),
		TEST(page_store),
		TEST(page_store_that_is_refused),
		TEST(added_memory_stays_over_a_reboot),
		TEST(print),
		TEST(reboot_sets_aside),
		TEST(refused_set_aside_destroys_at_once),
		TEST(failing_reboot_fails_the_run),
		TEST(poweroff_cancels_destruction),
		TEST(death_of_the_ultravisor),
		TEST(dead_ultravisor_during_a_reboot),
		TEST(signal),
		TEST(failing_creation_leaves_nothing),
		TEST(failing_start),
#undef TEST
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
