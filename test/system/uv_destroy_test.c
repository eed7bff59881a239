/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The end of an incarnation: setting aside, destroying, cancelling, the old way; and that
 * the next one finds zeros everywhere.
 */
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "test/system/uv_client.h"

#define MEMORY (8 * MIB)

/* A protected VM of @bytes that has written to all of it and stopped. */
static void fill_and_stop(struct uvc *c, uint64_t bytes)
{
	struct abi_vcpu_page page;

	assert_int_equal(uvc_slot_add(c, 0, 0, bytes), ABI_ST_OK);
	uvc_start_protected(
		c, bytes > MEMORY ? "touch 1M 95M\npoweroff\n" : "touch 1M 7M\npoweroff\n");
	uvc_run_until(c, ABI_EXIT_POWEROFF, &page);
}

static void begin_filled(struct uvc *c, uint32_t flags, uint64_t bytes)
{
	uvc_spawn(c);
	assert_int_equal(uvc_hello(c), ABI_ST_OK);
	assert_int_equal(uvc_create(c, 1, flags), ABI_ST_OK);
	fill_and_stop(c, bytes);
}

static uint32_t prepare(struct uvc *c, struct abi_prepare_ret *ret)
{
	uint32_t status = uvc_call0(c, ABI_CALL_PREPARE, ret, sizeof(*ret));

	if (status == ABI_ST_OK)
		uvc_slots_drop(c);
	return status;
}

static uint32_t send0(struct uvc *c, uint32_t nr)
{
	const struct abi_none none = {0};

	return uvc_send(c, nr, &none, sizeof(none), NULL, 0);
}

static uint32_t perform_answer(struct uvc *c, uint32_t seq, struct abi_perform_ret *ret)
{
	struct uvc_answer a;
	uint32_t status = uvc_answer(c, seq, &a);

	if (a.head.size == sizeof(*ret))
		memcpy(ret, a.result, sizeof(*ret));
	return status;
}

static void test_kill_switch(void **state)
{
	struct abi_perform_ret ret = {0};
	struct abi_prepare_ret prepared;
	struct uvc c;

	begin_filled(&c, ABI_VM_LAZY_OFF, MEMORY);
	assert_int_equal(prepare(&c, &prepared), ABI_ST_NOT_SUPPORTED);
	assert_int_equal(uvc_info(&c).security, ABI_SEC_SECURE);
	assert_int_equal(uvc_call0(&c, ABI_CALL_RESET, &ret, sizeof(ret)), ABI_ST_OK);
	/* All of it, before the answer. */
	assert_true(ret.bytes >= 7 * MIB);
	assert_int_equal(ret.left, 0);
	assert_int_equal(ret.quarantined, 0);
	assert_int_equal(uvc_info(&c).set_aside_bytes, 0);
	assert_true(c.status->forgotten_bytes >= 7 * MIB);
	assert_int_equal(uvc_call0(&c, ABI_CALL_PERFORM, NULL, 0), ABI_ST_NOTHING);
	uvc_end(&c);
}

static void test_prepare_and_perform(void **state)
{
	struct abi_perform_ret ret = {0};
	struct abi_prepare_ret prepared;
	struct uvc c;

	begin_filled(&c, 0, MEMORY);
	for (uint64_t i = 0; i < 3; i++) {
		assert_int_equal(uvc_info(&c).incarnation, i);
		assert_int_equal(prepare(&c, &prepared), ABI_ST_OK);
		assert_int_equal(prepared.incarnation, i);
		assert_true(prepared.resident >= 7 * MIB);
		assert_int_equal(prepare(&c, &prepared), ABI_ST_NOTHING);
		assert_true(uvc_info(&c).set_aside_bytes >= 7 * MIB);
		assert_int_equal(uvc_call0(&c, ABI_CALL_PERFORM, &ret, sizeof(ret)), ABI_ST_OK);
		assert_int_equal(ret.incarnation, i);
		assert_true(ret.bytes >= 7 * MIB);
		assert_int_equal(ret.left, 0);
		assert_int_equal(uvc_info(&c).set_aside_bytes, 0);
		assert_int_equal(uvc_call0(&c, ABI_CALL_PERFORM, NULL, 0), ABI_ST_NOTHING);
		fill_and_stop(&c, MEMORY);
	}
	uvc_end(&c);
}

/* One waits; a second is refused until the first one's destruction has begun. */
static void test_one_at_a_time(void **state)
{
	struct abi_perform_ret first = {0}, second = {0};
	struct abi_prepare_ret prepared;
	uint32_t seq[2];
	struct uvc c;

	begin_filled(&c, 0, 96 * MIB);
	assert_int_equal(prepare(&c, &prepared), ABI_ST_OK);
	fill_and_stop(&c, MEMORY);
	assert_int_equal(prepare(&c, &prepared), ABI_ST_PENDING);
	assert_int_equal(uvc_info(&c).security, ABI_SEC_SECURE);
	seq[0] = send0(&c, ABI_CALL_PERFORM);
	assert_int_equal(prepare(&c, &prepared), ABI_ST_OK);
	assert_int_equal(prepared.incarnation, 1);
	seq[1] = send0(&c, ABI_CALL_PERFORM);
	/* Calls are answered meanwhile. */
	assert_int_equal(uvc_info(&c).incarnation, 2);
	assert_int_equal(perform_answer(&c, seq[1], &second), ABI_ST_OK);
	assert_int_equal(perform_answer(&c, seq[0], &first), ABI_ST_OK);
	assert_int_equal(first.incarnation, 0);
	assert_true(first.bytes >= 95 * MIB);
	assert_int_equal(second.incarnation, 1);
	assert_true(second.bytes >= 7 * MIB);
	assert_int_equal(second.left, 0);
	uvc_end(&c);
}

/*
 * A cancelled destroy leaves what it did not do, and the next one does it.  The cancel
 * may come too late, after the last page.
 */
static void test_cancel(void **state)
{
	struct abi_perform_ret part = {0}, rest = {0};
	struct abi_prepare_ret prepared;
	uint32_t perform, cancel, status;
	struct uvc c;

	begin_filled(&c, 0, 96 * MIB);
	assert_int_equal(uvc_call0(&c, ABI_CALL_CANCEL, NULL, 0), ABI_ST_NOTHING);
	assert_int_equal(prepare(&c, &prepared), ABI_ST_OK);
	assert_int_equal(uvc_call0(&c, ABI_CALL_CANCEL, NULL, 0), ABI_ST_NOTHING);
	perform = send0(&c, ABI_CALL_PERFORM);
	cancel = uvc_call0(&c, ABI_CALL_CANCEL, NULL, 0);
	assert_true(cancel == ABI_ST_OK || cancel == ABI_ST_NOTHING);
	status = perform_answer(&c, perform, &part);
	if (status == ABI_ST_CANCELLED) {
		assert_int_equal(cancel, ABI_ST_OK);
		/* Not set aside any more, so the next one may be, and both are destroyed. */
		fill_and_stop(&c, MEMORY);
		assert_int_equal(prepare(&c, &prepared), ABI_ST_OK);
		assert_int_equal(uvc_call0(&c, ABI_CALL_PERFORM, &rest, sizeof(rest)), ABI_ST_OK);
		assert_true(part.bytes + rest.bytes >= (95 + 7) * MIB);
	} else {
		assert_int_equal(status, ABI_ST_OK);
		assert_true(part.bytes >= 95 * MIB);
	}
	assert_int_equal(uvc_info(&c).set_aside_bytes, 0);
	assert_int_equal(uvc_call0(&c, ABI_CALL_CANCEL, NULL, 0), ABI_ST_NOTHING);
	uvc_end(&c);
}

/* RESET of a protected VM takes what was set aside along; that of a normal one does not. */
static void test_reset_and_what_is_set_aside(void **state)
{
	struct abi_perform_ret ret = {0};
	struct abi_prepare_ret prepared;
	struct uvc c;

	begin_filled(&c, 0, MEMORY);
	assert_int_equal(prepare(&c, &prepared), ABI_ST_OK);
	fill_and_stop(&c, MEMORY);
	assert_int_equal(uvc_call0(&c, ABI_CALL_RESET, &ret, sizeof(ret)), ABI_ST_OK);
	uvc_slots_drop(&c);
	assert_true(ret.bytes >= 14 * MIB);
	assert_int_equal(uvc_call0(&c, ABI_CALL_PERFORM, NULL, 0), ABI_ST_NOTHING);

	fill_and_stop(&c, MEMORY);
	assert_int_equal(prepare(&c, &prepared), ABI_ST_OK);
	assert_int_equal(uvc_slot_add(&c, 0, 0, MEMORY), ABI_ST_OK);
	assert_int_equal(uvc_call0(&c, ABI_CALL_RESET, NULL, 0), ABI_ST_OK);
	uvc_slots_drop(&c);
	assert_int_equal(uvc_call0(&c, ABI_CALL_PERFORM, &ret, sizeof(ret)), ABI_ST_OK);
	assert_true(ret.bytes >= 7 * MIB);
	uvc_end(&c);
}

/* The hypervisor's exit in the middle: nobody waits, all of it is still destroyed. */
static void test_the_end_takes_all(void **state)
{
	struct pollfd p = {.events = POLLIN};
	struct abi_prepare_ret prepared;
	struct uvc c;

	begin_filled(&c, 0, 96 * MIB);
	p.fd = c.pidfd;
	assert_int_equal(prepare(&c, &prepared), ABI_ST_OK);
	send0(&c, ABI_CALL_PERFORM);
	fill_and_stop(&c, MEMORY);
	assert_int_equal(prepare(&c, &prepared), ABI_ST_OK);
	fill_and_stop(&c, MEMORY);
	uvc_hang_up(&c);
	assert_int_equal(poll(&p, 1, -1), 1);
	assert_true(c.status->forgotten_bytes >= (95 + 7 + 7) * MIB);
	uvc_reap(&c, 0);
}

/* ---- the next incarnation ---- */

static const char reboot_text[] = "write 1M 7M 1\n"
				  "write 16M 1M 1\n"
				  "share 2M 1M\n"
				  "share 4M 4K\n"
				  "share 16M 1M\n"
				  "write 2M 1M 2\n"
				  "unshare 2M 512K\n"
				  "release 6M 64K\n"
				  "loop 3\n"
				  "reboot\n"
				  "zero 1M 7M\n"
				  "zero 16M 1M\n"
				  "write 7M 64K\n"
				  "protect 7M 64K\n"
				  "check 7M 64K\n"
				  "zero 1M 6M\n"
				  "zero 16M 1M\n"
				  "share 2M 1M\n"
				  "zero 2M 1M\n"
				  "share 16M 64K\n"
				  "zero 16M 1M\n"
				  "write 2M 1M 3\n"
				  "write 16M 1M 3\n"
				  "unshare 2M 1M\n"
				  "check 2M 1M 3\n"
				  "end\n"
				  "poweroff\n";

/* New slots as after every reboot; what the guest finds in them is zero. */
static void populate(struct uvc *c)
{
	assert_int_equal(uvc_slot_add(c, 0, 0, MEMORY), ABI_ST_OK);
	assert_int_equal(uvc_slot_add(c, 1, 16 * MIB, MIB), ABI_ST_OK);
	uvc_load(c, reboot_text);
}

/* Runs the guest through its reboots; @lazy sets aside, else the old way. */
static void check_reboots(uint32_t flags, bool lazy)
{
	struct abi_perform_ret ret = {0};
	struct abi_prepare_ret prepared;
	struct abi_vcpu_page page;
	uint32_t perform = 0;
	struct uvc c;

	uvc_begin(&c, 1, flags, MEMORY);
	assert_int_equal(uvc_slot_add(&c, 1, 16 * MIB, MIB), ABI_ST_OK);
	uvc_load(&c, reboot_text);
	uvc_protect(&c, LOW);
	for (int boot = 0; boot < 4; boot++) {
		uvc_start(&c);
		if (boot > 0) {
			uvc_run_until(&c, ABI_EXIT_PROTECT, &page);
			uvc_protect_asked(&c, &page);
		}
		/* Destroying goes on behind the new incarnation. */
		if (perform > 0)
			assert_int_equal(perform_answer(&c, perform, &ret), ABI_ST_OK);
		uvc_run_until(&c, boot < 3 ? ABI_EXIT_REBOOT : ABI_EXIT_POWEROFF, &page);
		if (boot == 3)
			break;
		if (lazy)
			assert_int_equal(prepare(&c, &prepared), ABI_ST_OK);
		else
			assert_int_equal(uvc_call0(&c, ABI_CALL_RESET, NULL, 0), ABI_ST_OK);
		uvc_slots_drop(&c);
		perform = lazy ? send0(&c, ABI_CALL_PERFORM) : 0;
		populate(&c);
	}
	uvc_end(&c);
}

static void test_zero_after_reboot(void **state)
{
	static const uint32_t flags[] = {0, ABI_VM_SHARE_MAPPED,
		ABI_VM_SHARE_MAPPED | ABI_VM_DISCARD_EAGER, ABI_VM_WIPE_OFF,
		ABI_VM_SHARE_MAPPED | ABI_VM_WIPE_OFF};

	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		check_reboots(flags[i], true);
		check_reboots(flags[i], false);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kill_switch),
		cmocka_unit_test(test_prepare_and_perform),
		cmocka_unit_test(test_one_at_a_time),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_reset_and_what_is_set_aside),
		cmocka_unit_test(test_the_end_takes_all),
		cmocka_unit_test(test_zero_after_reboot),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
