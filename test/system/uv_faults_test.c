/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Steps that fail inside lethe-uv: the call says so, nothing has changed, and the same
 * call succeeds afterwards.  Memory that cannot be destroyed is quarantined.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "os/memfd.h"
#include "test/system/uv_client.h"

#define MEMORY (8 * MIB)

static void begin(struct uvc *c, const char *failpoint, uint32_t flags, const char *text)
{
	uvc_begin_failing(c, failpoint, 1, flags, MEMORY);
	uvc_load(c, text);
}

static uint32_t create(struct uvc *c, const int fds[4])
{
	const struct abi_vm_create args = {
		.vcpus = 3, .executor = ABI_EXEC_SW, .flags = ABI_VM_SHARE_AUTO};

	return uvc_call(c, ABI_CALL_VM_CREATE, &args, sizeof(args), fds, 4, NULL, 0);
}

static void test_create(void **state)
{
	static const char *const failpoints[] = {"uv-map-shared", "crew-new", "uv-sweeper",
		"uv-share-auto", "uv-vcpu-create", "uv-vcpu-create:2", "uv-vcpu-create:3"};

	for (size_t i = 0; i < COUNT(failpoints); i++) {
		struct uvc c;
		int fds[4];

		print_message("%s\n", failpoints[i]);
		uvc_spawn_failing(&c, failpoints[i]);
		uvc_make_shared(&c, 3, fds);
		assert_int_equal(create(&c, fds), ABI_ST_NO_MEMORY);
		assert_int_equal(c.status->magic, 0);
		assert_int_equal(create(&c, fds), ABI_ST_OK);
		assert_int_equal(uvc_slot_add(&c, 0, 0, MEMORY), ABI_ST_OK);
		uvc_end(&c);
	}
}

/* And when nobody tries again. */
static void test_create_and_hang_up(void **state)
{
	struct uvc c;
	int fds[4];

	uvc_spawn_failing(&c, "uv-vcpu-create:2");
	uvc_make_shared(&c, 3, fds);
	assert_int_equal(create(&c, fds), ABI_ST_NO_MEMORY);
	uvc_end(&c);
}

static void test_slot_register(void **state)
{
	struct uvc c;

	uvc_spawn_failing(&c, "window-shared");
	assert_int_equal(uvc_create(&c, 1, 0), ABI_ST_OK);
	assert_int_equal(uvc_slot_add(&c, 0, 0, MEMORY), ABI_ST_NO_MEMORY);
	assert_int_equal(uvc_mem(&c, ABI_CALL_MEM_READ, LOW, 8), ABI_ST_NOT_FOUND);
	assert_int_equal(uvc_slot_add(&c, 0, 0, MEMORY), ABI_ST_OK);
	uvc_end(&c);
}

/* INIT_START or INIT_DONE fails, and the memory is what it was. */
static void test_switch(void **state)
{
	static const struct {
		const char *failpoint;
		uint32_t start;
	} faults[] = {{"uv-measure", ABI_ST_NO_MEMORY}, {"uv-switch", ABI_ST_NO_MEMORY},
		{"window-private", ABI_ST_NO_MEMORY}, {"window-private:2", ABI_ST_NO_MEMORY},
		{"uv-dying", ABI_ST_OK}};

	for (size_t i = 0; i < COUNT(faults); i++) {
		struct abi_vcpu_page page;
		struct uvc c;

		print_message("%s\n", faults[i].failpoint);
		begin(&c, faults[i].failpoint, 0, "check 2M 4K\nzero 3M 4M\npoweroff\n");
		assert_int_equal(uvc_slot_add(&c, 1, 16 * MIB, MIB), ABI_ST_OK);
		uvc_fill(c.slot[0].base + 2 * MIB, 2 * MIB, 4 * KIB, 0);
		assert_int_equal(uvc_call0(&c, ABI_CALL_INIT_START, NULL, 0), faults[i].start);
		if (faults[i].start != ABI_ST_OK) {
			assert_int_equal(uvc_info(&c).security, ABI_SEC_NORMAL);
			assert_int_equal(uvc_call0(&c, ABI_CALL_INIT_START, NULL, 0), ABI_ST_OK);
		}
		assert_int_equal(uvc_page_in(&c, 0, LOW), ABI_ST_OK);
		assert_int_equal(uvc_page_in(&c, 2 * MIB, 4 * KIB), ABI_ST_OK);
		if (faults[i].start == ABI_ST_OK) {
			assert_int_equal(
				uvc_call0(&c, ABI_CALL_INIT_DONE, NULL, 0), ABI_ST_NO_MEMORY);
			assert_int_equal(uvc_info(&c).security, ABI_SEC_TRANSIENT);
		}
		assert_int_equal(uvc_call0(&c, ABI_CALL_INIT_DONE, NULL, 0), ABI_ST_OK);
		uvc_start(&c);
		uvc_run_until(&c, ABI_EXIT_POWEROFF, &page);
		uvc_end(&c);
	}
}

/*
 * A PAGE_IN fails after having copied: what it copied is gone, what it measured does not
 * count, and the same PAGE_IN succeeds.
 */
static void test_page_in(void **state)
{
	/* The second and third measurement are those of the call itself and of its first chunk. */
	static const char *const faults[] = {
		"", "uv-measure:2", "uv-measure:3", "uv-page-in", "uv-page-in:3"};
	struct abi_init_done_ret done[COUNT(faults)];

	for (size_t i = 0; i < COUNT(faults); i++) {
		struct abi_vcpu_page page;
		struct uvc c;

		print_message("%s\n", faults[i]);
		begin(&c, i == 0 ? "none" : faults[i], 0, "zero 1M 7M\npoweroff\n");
		assert_int_equal(uvc_call0(&c, ABI_CALL_INIT_START, NULL, 0), ABI_ST_OK);
		if (i > 0) {
			memset(c.slot[0].base + LOW, 'x', 7 * MIB);
			assert_int_equal(uvc_page_in(&c, 0, MEMORY), ABI_ST_NO_MEMORY);
			memset(c.slot[0].base + LOW, 0, 7 * MIB);
		}
		assert_int_equal(uvc_page_in(&c, 0, LOW), ABI_ST_OK);
		assert_int_equal(
			uvc_call0(&c, ABI_CALL_INIT_DONE, &done[i], sizeof(done[i])), ABI_ST_OK);
		assert_int_equal(done[i].pages_copied, LOW / 4096);
		assert_memory_equal(done[i].measurement, done[0].measurement, ABI_MEASUREMENT_SIZE);
		uvc_start(&c);
		uvc_run_until(&c, ABI_EXIT_POWEROFF, &page);
		uvc_end(&c);
	}
}

/* The second struct dying is that of PREPARE or RESET; the third that of the end. */
static void test_setting_aside(void **state)
{
	static const uint32_t calls[] = {ABI_CALL_PREPARE, ABI_CALL_RESET};

	for (size_t i = 0; i < COUNT(calls); i++) {
		struct uvc c;

		begin(&c, "uv-dying:2", 0, "poweroff\n");
		uvc_protect(&c, LOW);
		assert_int_equal(uvc_call0(&c, calls[i], NULL, 0), ABI_ST_NO_MEMORY);
		assert_int_equal(uvc_info(&c).security, ABI_SEC_SECURE);
		assert_int_equal(uvc_info(&c).incarnation, 0);
		assert_int_equal(uvc_call0(&c, calls[i], NULL, 0), ABI_ST_OK);
		assert_int_equal(uvc_info(&c).incarnation, 1);
		uvc_end(&c);
	}
}

/* A call of the end of an incarnation that fails has changed nothing, and succeeds later. */
static void test_steps_of_forgetting(void **state)
{
	static const struct {
		const char *failpoint;
		uint32_t call;
	} faults[] = {{"uv-prepare", ABI_CALL_PREPARE}, {"uv-reset", ABI_CALL_RESET},
		{"uv-perform", ABI_CALL_PERFORM}, {"uv-cancel", ABI_CALL_CANCEL}};

	for (size_t i = 0; i < COUNT(faults); i++) {
		bool later =
			faults[i].call == ABI_CALL_PERFORM || faults[i].call == ABI_CALL_CANCEL;
		struct abi_info_ret before, after;
		struct uvc c;

		print_message("%s\n", faults[i].failpoint);
		begin(&c, faults[i].failpoint, 0, "poweroff\n");
		uvc_protect(&c, LOW);
		if (later)
			assert_int_equal(uvc_call0(&c, ABI_CALL_PREPARE, NULL, 0), ABI_ST_OK);
		before = uvc_info(&c);
		assert_int_equal(uvc_call0(&c, faults[i].call, NULL, 0), ABI_ST_NO_MEMORY);
		after = uvc_info(&c);
		assert_int_equal(after.incarnation, before.incarnation);
		assert_int_equal(after.security, before.security);
		assert_int_equal(after.set_aside_bytes, before.set_aside_bytes);
		assert_int_equal(uvc_call0(&c, later ? ABI_CALL_PERFORM : faults[i].call, NULL, 0),
			ABI_ST_OK);
		assert_int_equal(uvc_call0(&c, ABI_CALL_CANCEL, NULL, 0), ABI_ST_NOTHING);
		uvc_end(&c);
	}
}

static void test_no_memory_at_the_end(void **state)
{
	struct uvc c;

	begin(&c, "uv-dying:2", 0, "poweroff\n");
	uvc_protect(&c, LOW);
	uvc_end(&c);
}

/* What could not be wiped or given back is counted, kept, and never holds up the rest. */
static void test_quarantine(void **state)
{
	static const char *const failpoints[] = {
		"uv-sweep-wipe", "uv-sweep-wipe:2", "uv-sweep-give-back"};

	for (size_t i = 0; i < COUNT(failpoints); i++) {
		struct abi_perform_ret ret = {0};
		struct abi_vcpu_page page;
		struct uvc c;

		print_message("%s\n", failpoints[i]);
		begin(&c, failpoints[i], 0, "touch 1M 7M\npoweroff\n");
		uvc_protect(&c, LOW);
		uvc_start(&c);
		uvc_run_until(&c, ABI_EXIT_POWEROFF, &page);
		assert_int_equal(uvc_call0(&c, ABI_CALL_PREPARE, NULL, 0), ABI_ST_OK);
		uvc_slots_drop(&c);
		assert_int_equal(
			uvc_call0(&c, ABI_CALL_PERFORM, &ret, sizeof(ret)), ABI_ST_QUARANTINED);
		assert_true(ret.quarantined > 0 && ret.quarantined <= (i < 2 ? 2 * MIB : MEMORY));
		assert_true(ret.bytes >= 7 * MIB);
		assert_int_equal(uvc_info(&c).quarantined_bytes, ret.quarantined);
		assert_int_equal(c.status->quarantined_bytes, ret.quarantined);
		/* The VM goes on, in other memory. */
		assert_int_equal(uvc_slot_add(&c, 0, 0, MEMORY), ABI_ST_OK);
		uvc_start_protected(&c, "zero 1M 7M\npoweroff\n");
		uvc_run_until(&c, ABI_EXIT_POWEROFF, &page);
		uvc_end(&c);
	}
}

/* Until the guest waits for the answer to its conversion, which is then accepted. */
static void convert(struct uvc *c)
{
	struct abi_vcpu_page page;

	uvc_exit(c, 0, &page);
	assert_int_equal(page.type, ABI_EXIT_CONVERT);
	uvc_reply(c, 0, ABI_ST_OK);
}

/*
 * Windows of the memfd are made for the slot and for copying to it; the overlay itself is
 * the third.  The guest is refused, and the page stays private with its content.
 */
static void test_share(void **state)
{
	static const char *const failpoints[] = {"window-shared:2", "window-overlay:3"};

	for (size_t i = 0; i < COUNT(failpoints); i++) {
		struct abi_vcpu_page page;
		uint64_t resident;
		struct uvc c;

		print_message("%s\n", failpoints[i]);
		begin(&c, failpoints[i], ABI_VM_SHARE_MAPPED, "write 2M 64K\nshare 2M 64K\n");
		uvc_protect(&c, LOW);
		uvc_start(&c);
		convert(&c);
		uvc_exit(&c, 0, &page);
		assert_int_equal(page.type, ABI_EXIT_STOPPED);
		assert_int_equal(uvc_info(&c).shared_pages, 0);
		assert_int_equal(uvc_mem(&c, ABI_CALL_MEM_READ, 2 * MIB, 64 * KIB), ABI_ST_DENIED);
		while (uvc_info(&c).stale_bytes > 0)
			;
		assert_int_equal(memfd_resident(c.slot[0].memfd, &resident), 0);
		assert_int_equal(resident, 0);
		uvc_end(&c);
	}
}

/* The replacement is the second private window.  The page stays shared. */
static void test_unshare(void **state)
{
	struct abi_vcpu_page page;
	struct uvc c;

	begin(&c, "window-private:2", ABI_VM_SHARE_MAPPED,
		"write 2M 64K\nshare 2M 64K\nunshare 2M 64K\n");
	uvc_protect(&c, LOW);
	uvc_start(&c);
	convert(&c);
	convert(&c);
	uvc_exit(&c, 0, &page);
	assert_int_equal(page.type, ABI_EXIT_STOPPED);
	assert_int_equal(uvc_info(&c).shared_pages, 16);
	assert_int_equal(uvc_mem(&c, ABI_CALL_MEM_READ, 2 * MIB, 64 * KIB), ABI_ST_OK);
	uvc_assert_filled(c.bulk, 2 * MIB, 64 * KIB, 0);
	uvc_end(&c);
}

int main(void)
{
#ifndef LETHE_FAILPOINTS
	fprintf(stderr, "skipped: built without -Dfailpoints=true\n");
	return 77;
#endif
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_create),
		cmocka_unit_test(test_create_and_hang_up),
		cmocka_unit_test(test_slot_register),
		cmocka_unit_test(test_switch),
		cmocka_unit_test(test_page_in),
		cmocka_unit_test(test_setting_aside),
		cmocka_unit_test(test_steps_of_forgetting),
		cmocka_unit_test(test_no_memory_at_the_end),
		cmocka_unit_test(test_quarantine),
		cmocka_unit_test(test_share),
		cmocka_unit_test(test_unshare),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
