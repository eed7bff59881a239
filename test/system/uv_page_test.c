/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What lethe-uv does with pages that go to the hypervisor, sealed, and come back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "test/system/uv_store.h"
#include "test/xorshift.h"

static void expect_stop(struct uvc *c, uint64_t gpa)
{
	struct abi_vcpu_page page;

	do {
		uvc_exit(c, 0, &page);
	} while (page.type != ABI_EXIT_STOPPED);
	assert_int_equal(page.arg[0], ABI_STOP_LOST_PAGE);
	assert_int_equal(page.arg[1], gpa);
	assert_true(page.data_size > 0);
	assert_int_equal(uvc_info(c).phase, ABI_PHASE_STOPPED);
}

/* No event has come that was not served. */
static void expect_no_event(struct uvc *c)
{
	(void)uvc_info(c);
	assert_int_equal(c->event_count, 0);
}

/* ---- every state of a page, every call ---- */

enum page_state { UNTOUCHED, RESIDENT, COPIED, MAPPED, RELEASED, SEALED, OUTSIDE, STATES };

static const char *const state_name[] = {
	"untouched", "resident", "copied", "mapped", "released", "sealed", "outside"};

/* Where a page in this state is, in the guest of begin_states(): one may fault 2M at once. */
static const uint64_t state_gpa[] = {
	8 * MIB, 2 * MIB, 4 * MIB, 4 * MIB, 5 * MIB, 6 * MIB, 11 * MIB};

/* A guest that has a page in each state and checks them all when its print is answered. */
static void begin_states(struct uvc *c, struct store *s, enum page_state of)
{
	uvc_begin_protected(c, 1, of == MAPPED ? ABI_VM_SHARE_MAPPED : 0,
		"write 2M 4K 1\nwrite 4M 4K 1\nshare 4M 4K\nwrite 5M 4K 1\nrelease 5M 4K\n"
		"write 6M 4K 1\nprint ready\n"
		"check 2M 4K 1\nzero 8M 4K\ncheck 4M 4K 1\ncheck 6M 4K 1\npoweroff\n");
	assert_int_equal(store_out(c, s, 6 * MIB, PAGE), 1);
}

static void test_out_of_every_state(void **state)
{
	for (enum page_state of = 0; of < STATES; of++) {
		struct store *s = store_new();
		uint64_t at = state_gpa[of];
		struct uvc c;

		print_message("%s\n", state_name[of]);
		begin_states(&c, s, of);
		if (of == OUTSIDE)
			assert_int_equal(uvc_page_out(&c, at, PAGE, NULL), ABI_ST_NOT_FOUND);
		else
			assert_int_equal(store_out(&c, s, at, PAGE), of == RESIDENT);
		if (of != OUTSIDE)
			assert_int_equal(store_out(&c, s, at, PAGE), 0);
		assert_int_equal(uvc_info(&c).sealed_pages, of == RESIDENT ? 2 : 1);
		store_finish(&c, s);
	}
}

static void test_in_at_every_state(void **state)
{
	const uint64_t present[PAGES / 64] = {1};

	for (enum page_state of = 0; of < STATES; of++) {
		struct store *s = store_new();
		uint64_t at = state_gpa[of], pages;
		struct uvc c;

		print_message("%s\n", state_name[of]);
		begin_states(&c, s, of);
		/* The ciphertext of the one page that is sealed. */
		memcpy(c.bulk, s->page[6 * MIB / PAGE], PAGE);
		if (of == OUTSIDE) {
			assert_int_equal(
				uvc_page_in_sealed(&c, at, PAGE, present, NULL), ABI_ST_NOT_FOUND);
		} else {
			assert_int_equal(
				uvc_page_in_sealed(&c, at, PAGE, present, &pages), ABI_ST_OK);
			assert_int_equal(pages, of == SEALED);
			assert_int_equal(
				uvc_page_in_sealed(&c, at, PAGE, present, &pages), ABI_ST_OK);
			assert_int_equal(pages, 0);
		}
		assert_int_equal(uvc_info(&c).sealed_pages, of == SEALED ? 0 : 1);
		store_finish(&c, s);
	}
}

/* A page that is not brought, though named by the range, stays where it is. */
static void test_in_of_absent_pages(void **state)
{
	const uint64_t none[PAGES / 64] = {0};
	struct store *s = store_new();
	uint64_t pages = 1;
	struct uvc c;

	begin_states(&c, s, RESIDENT);
	assert_int_equal(uvc_page_in_sealed(&c, 6 * MIB, PAGE, none, &pages), ABI_ST_OK);
	assert_int_equal(pages, 0);
	assert_int_equal(uvc_info(&c).sealed_pages, 1);
	store_finish(&c, s);
}

static void test_lost_in_every_state(void **state)
{
	for (enum page_state of = 0; of < STATES; of++) {
		struct store *s = store_new();
		uint64_t at = state_gpa[of];
		struct uvc c;

		print_message("%s\n", state_name[of]);
		begin_states(&c, s, of);
		assert_int_equal(uvc_page_lost(&c, at + 8), ABI_ST_INVALID);
		if (of == SEALED) {
			assert_int_equal(uvc_page_lost(&c, at), ABI_ST_OK);
			expect_stop(&c, at);
			/* It is as lost as before, and there is nothing more to stop. */
			assert_int_equal(uvc_page_lost(&c, at), ABI_ST_OK);
			store_end(&c, s);
			continue;
		}
		assert_int_equal(
			uvc_page_lost(&c, at), of == OUTSIDE ? ABI_ST_NOT_FOUND : ABI_ST_NOTHING);
		store_finish(&c, s);
	}
}

/* What else names pages: copies, removal and moving of the slot. */
static void test_other_calls_in_every_state(void **state)
{
	for (enum page_state of = 0; of < STATES; of++) {
		bool shared = of == COPIED || of == MAPPED;
		struct store *s = store_new();
		uint64_t at = state_gpa[of];
		uint32_t expected = shared          ? ABI_ST_OK
				    : of == OUTSIDE ? ABI_ST_NOT_FOUND
						    : ABI_ST_DENIED;
		struct uvc c;

		begin_states(&c, s, of);
		assert_int_equal(uvc_mem(&c, ABI_CALL_MEM_READ, at, PAGE), expected);
		/* What was read is written, so the guest sees no difference. */
		assert_int_equal(uvc_mem(&c, ABI_CALL_MEM_WRITE, at, PAGE), expected);
		assert_int_equal(uvc_slot_remove(&c, 0), ABI_ST_BUSY);
		assert_int_equal(uvc_slot_move(&c, 0, 64 * MIB), ABI_ST_BUSY);
		store_finish(&c, s);
	}
}

/* ---- bad arguments ---- */

static void test_bad_ranges(void **state)
{
	static const struct {
		uint64_t gpa, bytes;
		uint32_t status;
	} bad[] = {
		{2 * MIB, 0, ABI_ST_INVALID},
		{2 * MIB, 1, ABI_ST_INVALID},
		{2 * MIB, PAGE + 8, ABI_ST_INVALID},
		{2 * MIB + 8, PAGE, ABI_ST_INVALID},
		{2 * MIB, MIB + PAGE, ABI_ST_INVALID},
		{2 * MIB, 1ull << 40, ABI_ST_INVALID},
		{TOP, PAGE, ABI_ST_RANGE},
		{TOP - PAGE, 2 * PAGE, ABI_ST_RANGE},
		{-(uint64_t)PAGE, PAGE, ABI_ST_RANGE},
		{-(uint64_t)PAGE, 2 * PAGE, ABI_ST_RANGE},
		{11 * MIB, PAGE, ABI_ST_NOT_FOUND},
		{MEMORY, PAGE, ABI_ST_NOT_FOUND},
		{TOP - PAGE, PAGE, ABI_ST_NOT_FOUND},
		/* From one slot into the next, and past the last. */
		{16 * MIB - PAGE, 2 * PAGE, ABI_ST_NOT_FOUND},
		{17 * MIB - PAGE, 2 * PAGE, ABI_ST_NOT_FOUND},
	};
	const uint64_t beyond[PAGES / 64] = {2}, far[PAGES / 64] = {[3] = 1ull << 63};
	const uint64_t none[PAGES / 64] = {0};
	struct abi_coldest_ret cold;
	struct uvc c;

	uvc_begin(&c, 1, 0, MEMORY);
	assert_int_equal(uvc_slot_add(&c, 1, 15 * MIB, MIB), ABI_ST_OK);
	assert_int_equal(uvc_slot_add(&c, 2, 16 * MIB, MIB), ABI_ST_OK);
	uvc_protect(&c, LOW);
	for (size_t i = 0; i < COUNT(bad); i++) {
		assert_int_equal(uvc_page_out(&c, bad[i].gpa, bad[i].bytes, NULL), bad[i].status);
		assert_int_equal(uvc_page_in_sealed(&c, bad[i].gpa, bad[i].bytes, none, NULL),
			bad[i].status);
	}
	assert_int_equal(uvc_page_in_sealed(&c, 2 * MIB, PAGE, beyond, NULL), ABI_ST_INVALID);
	assert_int_equal(uvc_page_in_sealed(&c, 2 * MIB, PAGE, far, NULL), ABI_ST_INVALID);
	assert_int_equal(uvc_page_in_sealed(&c, 2 * MIB, MIB - PAGE, far, NULL), ABI_ST_INVALID);
	assert_int_equal(uvc_page_in_sealed(&c, 2 * MIB, MIB, far, NULL), ABI_ST_OK);
	assert_int_equal(uvc_page_lost(&c, TOP), ABI_ST_RANGE);
	for (uint64_t bytes = 0; bytes < 3; bytes++)
		assert_int_equal(uvc_coldest(&c, bytes, &cold), ABI_ST_INVALID);
	uvc_end(&c);
}

/* ---- what the guest sees ---- */

static void test_round_trip(void **state)
{
	struct store *s = store_new();
	struct abi_vcpu_page page;
	struct abi_event e;
	uint64_t pages;
	struct uvc c;

	uvc_begin_protected(
		&c, 1, 0, "write 2M 1M 7\nprint out\ncheck 2M 1M 7\nzero 3M 64K\npoweroff\n");
	assert_int_equal(store_out(&c, s, 2 * MIB, MIB), 256);
	assert_int_equal(uvc_info(&c).sealed_pages, 256);
	for (uint64_t i = 0; i < MIB / PAGE; i++)
		assert_memory_not_equal(s->page[2 * MIB / PAGE], s->page[2 * MIB / PAGE + 1], PAGE);
	uvc_reply(&c, 0, ABI_ST_OK);
	/* A page is asked for alone; its neighbours may come along. */
	for (uint64_t i = 0; i < 256; i += 16) {
		e = uvc_event(&c);
		assert_int_equal(e.gpa, 2 * MIB + i * PAGE);
		assert_int_equal(e.bytes, PAGE);
		assert_int_equal(store_in(&c, s, e.gpa, 16 * PAGE, &pages), ABI_ST_OK);
		assert_int_equal(pages, 16);
	}
	uvc_run_until(&c, ABI_EXIT_POWEROFF, &page);
	assert_int_equal(uvc_info(&c).sealed_pages, 0);
	store_end(&c, s);
}

/* Only what was written last, however often a page goes out and comes back. */
static void test_again_and_again(void **state)
{
	struct store *s = store_new();
	struct abi_vcpu_page page;
	struct uvc c;

	uvc_begin_protected(&c, 1, 0,
		"loop 20\nwrite 2M 64K 1\nprint a\ncheck 2M 64K 1\nwrite 2M 64K 2\nprint b\n"
		"check 2M 64K 2\nend\npoweroff\n");
	for (unsigned int i = 0; i < 39; i++) {
		assert_int_equal(store_out(&c, s, 2 * MIB, 64 * KIB), 16);
		uvc_reply(&c, 0, ABI_ST_OK);
		store_serve(&c, s, 0, ABI_EXIT_PRINT, &page);
	}
	store_finish(&c, s);
}

/* Two vCPUs use memory that is paged out under them all the time. */
static void test_out_under_running_guest(void **state)
{
	struct store *s = store_new();
	uint64_t seed = 88172645463325252ull;
	struct abi_vcpu_page page;
	struct uvc c;

	uvc_begin_protected(&c, 2, 0,
		"vcpu 0\nwrite 4M 1M\nprint go\nbarrier a\nloop 40\nwrite 2M 1M 1\ncheck 2M 1M 1\n"
		"write 2M 1M 2\ncheck 2M 1M 2\nend\nbarrier b\ncheck 4M 1M 9\npoweroff\n"
		"vcpu 1\nbarrier a\nloop 40\nwrite 3M 512K 3\nwrite 4M 1M 9\ncheck 3M 512K 3\n"
		"zero 7M 64K\nend\nbarrier b\n");
	assert_int_equal(store_out(&c, s, 4 * MIB, MIB), MIB / PAGE);
	uvc_reply(&c, 0, ABI_ST_OK);
	while (!uvc_has_exit(&c, 0)) {
		uint64_t at = 2 * MIB + xorshift(&seed) % (6 * MIB / PAGE) * PAGE;
		uint64_t bytes = (1 + xorshift(&seed) % 64) * PAGE;

		if (at + bytes <= MEMORY)
			(void)store_out(&c, s, at, bytes);
		store_serve_event(&c, s);
	}
	store_serve(&c, s, 0, ABI_EXIT_POWEROFF, &page);
	store_end(&c, s);
}

/* ---- conversions ---- */

/* Sharing fetches what is sealed before it asks, in copied and mapped mode. */
static void test_share_sealed(void **state)
{
	for (uint32_t flags = 0; flags <= ABI_VM_SHARE_MAPPED; flags += ABI_VM_SHARE_MAPPED) {
		struct store *s = store_new();
		struct abi_vcpu_page page;
		struct uvc c;

		uvc_begin_protected(&c, 1, flags,
			"write 2M 64K 5\nprint out\nshare 2M 64K\nprint shared\nunshare 2M 64K\n"
			"check 2M 64K 5\npoweroff\n");
		for (uint64_t o = 0; o < 64 * KIB; o += 2 * PAGE)
			assert_int_equal(store_out(&c, s, 2 * MIB + o, PAGE), 1);
		uvc_reply(&c, 0, ABI_ST_OK);
		for (uint64_t o = 0; o < 64 * KIB; o += 2 * PAGE) {
			struct abi_event e = uvc_event(&c);

			assert_int_equal(e.gpa, 2 * MIB + o);
			assert_int_equal(e.bytes, PAGE);
			assert_false(uvc_has_exit(&c, 0));
			assert_int_equal(store_in(&c, s, e.gpa, PAGE, NULL), ABI_ST_OK);
		}
		uvc_run_until(&c, ABI_EXIT_PRINT, &page);
		assert_int_equal(uvc_mem(&c, ABI_CALL_MEM_READ, 2 * MIB, 64 * KIB), ABI_ST_OK);
		uvc_assert_filled(c.bulk, 2 * MIB, 64 * KIB, 5);
		store_finish(&c, s);
	}
}

/* A private page may be unshared whether it is here or not. */
static void test_unshare_sealed(void **state)
{
	struct store *s = store_new();
	struct uvc c;

	uvc_begin_protected(
		&c, 1, 0, "write 2M 4K\nprint out\nunshare 2M 8K\ncheck 2M 4K\npoweroff\n");
	assert_int_equal(store_out(&c, s, 2 * MIB, PAGE), 1);
	store_finish(&c, s);
}

/* While a page is being converted, it does not go out. */
static void test_out_while_converting(void **state)
{
	struct store *s = store_new();
	struct abi_vcpu_page page;
	struct uvc c;

	uvc_begin_protected(&c, 1, 0,
		"write 2M 8K 3\nprint out\nshare 2M 4K\nunshare 2M 4K\ncheck 2M 8K 3\npoweroff\n");
	uvc_reply(&c, 0, ABI_ST_OK);
	for (unsigned int i = 0; i < 2; i++) {
		uvc_exit(&c, 0, &page);
		assert_int_equal(page.type, ABI_EXIT_CONVERT);
		assert_int_equal(uvc_page_out(&c, 2 * MIB, PAGE, NULL), ABI_ST_AGAIN);
		assert_int_equal(uvc_page_out(&c, LOW, MIB + PAGE, NULL), ABI_ST_INVALID);
		assert_int_equal(uvc_page_out(&c, LOW + PAGE, MIB, NULL), ABI_ST_AGAIN);
		/* Its neighbour does, and comes back. */
		assert_int_equal(store_out(&c, s, 2 * MIB + PAGE, PAGE), 1);
		assert_int_equal(store_in(&c, s, 2 * MIB, 2 * PAGE, NULL), ABI_ST_OK);
		uvc_reply(&c, 0, ABI_ST_OK);
	}
	store_serve(&c, s, 0, ABI_EXIT_POWEROFF, &page);
	store_end(&c, s);
}

/* Tries to page out a piece of [2M, 2M + 128K) and serves the guest, until vCPU 0 exits. */
static void page_out_until_exit(struct uvc *c, struct store *s, uint64_t *seed)
{
	while (!uvc_has_exit(c, 0)) {
		uint64_t at = 2 * MIB + xorshift(seed) % 28 * PAGE,
			 bytes = (1 + xorshift(seed) % 4) * PAGE;
		uint32_t status = store_try_out(c, s, at, bytes, NULL);

		assert_true(status == ABI_ST_OK || status == ABI_ST_AGAIN);
		store_serve_event(c, s);
	}
}

/* Memory that flips between private and shared is paged out whenever that is possible. */
static void test_out_while_flipping(void **state)
{
	for (uint32_t flags = 0; flags <= ABI_VM_SHARE_MAPPED; flags += ABI_VM_SHARE_MAPPED) {
		struct store *s = store_new();
		uint64_t seed = 88172645463325252ull;
		struct abi_vcpu_page page;
		struct uvc c;

		uvc_begin_protected(&c, 1, flags,
			"print go\nloop 30\nwrite 2M 128K 1\nshare 2M 64K\ncheck 2M 128K 1\n"
			"unshare 2M 64K\ncheck 2M 128K 1\nshare 2080K 4K\nunshare 2080K 4K\n"
			"check 2M 128K 1\nend\npoweroff\n");
		page.type = ABI_EXIT_PRINT;
		while (page.type != ABI_EXIT_POWEROFF) {
			uvc_reply(&c, 0, ABI_ST_OK);
			page_out_until_exit(&c, s, &seed);
			uvc_exit(&c, 0, &page);
			assert_int_not_equal(page.type, ABI_EXIT_STOPPED);
			/* Between the guest's question and the answer. */
			for (unsigned int i = 0; i < 4; i++)
				(void)store_try_out(&c, s, 2 * MIB + i * 8 * PAGE, 4 * PAGE, NULL);
		}
		store_end(&c, s);
	}
}

/* What the guest gives up is gone, wherever it was. */
static void test_release_sealed(void **state)
{
	struct store *s = store_new();
	struct abi_vcpu_page page;
	uint64_t pages = 1;
	struct uvc c;

	uvc_begin_protected(&c, 1, 0,
		"write 2M 64K\nprint out\nrelease 2M 32K\nprint gone\n"
		"check 2080K 32K\npoweroff\n");
	assert_int_equal(store_out(&c, s, 2 * MIB, 64 * KIB), 16);
	uvc_reply(&c, 0, ABI_ST_OK);
	uvc_run_until(&c, ABI_EXIT_PRINT, &page);
	assert_int_equal(uvc_info(&c).sealed_pages, 8);
	assert_int_equal(store_in(&c, s, 2 * MIB, 32 * KIB, &pages), ABI_ST_OK);
	assert_int_equal(pages, 0);
	assert_int_equal(uvc_page_lost(&c, 2 * MIB), ABI_ST_NOTHING);
	store_finish(&c, s);
}

/* ---- waiting ---- */

/* vCPU 0 waits for a page that does not come; vCPU 1 does @other then. */
static void begin_waiting(struct uvc *c, struct store *s, const char *other)
{
	struct abi_vcpu_page page;
	struct abi_event e;
	char text[256];

	snprintf(text, sizeof(text),
		"vcpu 0\nwrite 2M 4K\nprint out\nbarrier a\ncheck 2M 4K\nprint never\npoweroff\n"
		"vcpu 1\nbarrier a\nprint sync\n%s",
		other);
	uvc_begin_protected(c, 2, 0, text);
	assert_int_equal(store_out(c, s, 2 * MIB, PAGE), 1);
	uvc_reply(c, 0, ABI_ST_OK);
	e = uvc_event(c);
	assert_int_equal(e.gpa, 2 * MIB);
	uvc_exit(c, 1, &page);
	assert_int_equal(page.type, ABI_EXIT_PRINT);
	uvc_reply(c, 1, ABI_ST_OK);
}

static void test_others_go_on(void **state)
{
	struct store *s = store_new();
	struct abi_vcpu_page page;
	struct uvc c;

	begin_waiting(&c, s, "write 3M 64K\ncheck 3M 64K\nprint busy\nshare 3M 4K\nprint on\n");
	uvc_exit(&c, 1, &page);
	assert_int_equal(page.type, ABI_EXIT_PRINT);
	/* Calls go on too, and what is paged out now is another matter. */
	assert_int_equal(store_out(&c, s, 3 * MIB, 64 * KIB), 16);
	uvc_reply(&c, 1, ABI_ST_OK);
	store_serve(&c, s, 1, ABI_EXIT_HALTED, &page);
	assert_false(uvc_has_exit(&c, 0));
	assert_int_equal(store_in(&c, s, 2 * MIB, PAGE, NULL), ABI_ST_OK);
	uvc_exit(&c, 0, &page);
	assert_int_equal(page.type, ABI_EXIT_PRINT);
	store_finish(&c, s);
}

static void test_stop_wakes(void **state)
{
	struct store *s = store_new();
	struct uvc c;

	begin_waiting(&c, s, "print on\n");
	assert_int_equal(uvc_call0(&c, ABI_CALL_VM_STOP, NULL, 0), ABI_ST_OK);
	assert_int_equal(uvc_info(&c).phase, ABI_PHASE_STOPPED);
	store_end(&c, s);
}

static void test_reboot_wakes(void **state)
{
	struct store *s = store_new();
	struct abi_vcpu_page page;
	struct uvc c;

	begin_waiting(&c, s, "reboot\n");
	uvc_exit(&c, 1, &page);
	assert_int_equal(page.type, ABI_EXIT_REBOOT);
	assert_int_equal(uvc_call0(&c, ABI_CALL_PREPARE, NULL, 0), ABI_ST_OK);
	assert_int_equal(uvc_info(&c).sealed_pages, 0);
	uvc_slots_drop(&c);
	assert_int_equal(uvc_call0(&c, ABI_CALL_PERFORM, NULL, 0), ABI_ST_OK);
	store_end(&c, s);
}

static void test_hang_up_wakes(void **state)
{
	struct store *s = store_new();
	struct uvc c;

	begin_waiting(&c, s, "print on\n");
	store_end(&c, s);
}

/* The page goes while one waits for it: another vCPU gives it up. */
static void test_release_wakes(void **state)
{
	struct store *s = store_new();
	struct abi_vcpu_page page;
	struct uvc c;

	begin_waiting(&c, s, "release 2M 4K\n");
	uvc_exit(&c, 1, &page);
	assert_int_equal(page.type, ABI_EXIT_RELEASE);
	uvc_exit(&c, 0, &page);
	assert_int_equal(page.type, ABI_EXIT_STOPPED);
	assert_int_equal(page.arg[0], ABI_STOP_VIOLATION);
	store_end(&c, s);
}

static void test_lost_while_waiting(void **state)
{
	struct store *s = store_new();
	struct uvc c;

	begin_waiting(&c, s, "print on\n");
	assert_int_equal(uvc_page_lost(&c, 2 * MIB), ABI_ST_OK);
	expect_stop(&c, 2 * MIB);
	store_end(&c, s);
}

/* However many wait for a page, the hypervisor is told once. */
static void test_one_event_a_page(void **state)
{
	struct store *s = store_new();
	struct abi_vcpu_page page;
	struct uvc c;

	uvc_begin_protected(&c, 3, 0,
		"vcpu 0\nwrite 2M 4K\nprint out\nbarrier a\ncheck 2M 4K\nbarrier b\npoweroff\n"
		"vcpu 1\nbarrier a\ncheck 2M 4K\nbarrier b\n"
		"vcpu 2\nbarrier a\nshare 2M 4K\ncheck 2M 4K\nbarrier b\n");
	assert_int_equal(store_out(&c, s, 2 * MIB, PAGE), 1);
	uvc_reply(&c, 0, ABI_ST_OK);
	assert_int_equal(uvc_event(&c).gpa, 2 * MIB);
	assert_int_equal(store_in(&c, s, 2 * MIB, PAGE, NULL), ABI_ST_OK);
	uvc_exit(&c, 2, &page);
	assert_int_equal(page.type, ABI_EXIT_CONVERT);
	uvc_reply(&c, 2, ABI_ST_OK);
	uvc_exit(&c, 0, &page);
	assert_int_equal(page.type, ABI_EXIT_POWEROFF);
	expect_no_event(&c);
	store_end(&c, s);
}

/* ---- a hypervisor that attacks ---- */

struct attack {
	const char *name;
	/* Changes the ciphertexts of the two pages at 2M. */
	void (*change)(uint8_t a[PAGE], uint8_t b[PAGE], const uint8_t old[PAGE]);
};

static void flip(uint8_t *a, uint8_t *b, const uint8_t *old)
{
	a[1234] ^= 0x10;
}

static void flip_last(uint8_t *a, uint8_t *b, const uint8_t *old)
{
	a[PAGE - 1] ^= 1;
}

static void swap(uint8_t *a, uint8_t *b, const uint8_t *old)
{
	uint8_t both[PAGE];

	memcpy(both, a, PAGE);
	memcpy(a, b, PAGE);
	memcpy(b, both, PAGE);
}

static void replay(uint8_t *a, uint8_t *b, const uint8_t *old)
{
	memcpy(a, old, PAGE);
}

static void truncate_page(uint8_t *a, uint8_t *b, const uint8_t *old)
{
	memset(a + PAGE / 2, 0, PAGE / 2);
}

static void zero(uint8_t *a, uint8_t *b, const uint8_t *old)
{
	memset(a, 0, PAGE);
}

static const struct attack attacks[] = {{"one bit", flip}, {"the last bit", flip_last},
	{"two pages swapped", swap}, {"an older version", replay}, {"cut short", truncate_page},
	{"zeros", zero}};

/* The guest waits for the page, or not; it never sees what it did not write. */
static void attack(const struct attack *a, bool waiting)
{
	struct store *s = store_new();
	uint64_t first = 2 * MIB / PAGE;
	struct abi_vcpu_page page;
	uint8_t old[PAGE];
	struct uvc c;

	print_message("%s, %s\n", a->name, waiting ? "waited for" : "unasked");
	uvc_begin_protected(&c, 1, 0,
		"write 2M 8K 1\nprint old\ncheck 2M 8K 1\nwrite 2M 8K 2\nprint new\n"
		"check 2M 8K 2\npoweroff\n");
	assert_int_equal(store_out(&c, s, 2 * MIB, 2 * PAGE), 2);
	memcpy(old, s->page[first], PAGE);
	uvc_reply(&c, 0, ABI_ST_OK);
	store_serve(&c, s, 0, ABI_EXIT_PRINT, &page);
	assert_int_equal(store_out(&c, s, 2 * MIB, 2 * PAGE), 2);
	if (waiting) {
		uvc_reply(&c, 0, ABI_ST_OK);
		assert_int_equal(uvc_event(&c).gpa, 2 * MIB);
	}
	a->change(s->page[first], s->page[first + 1], old);
	assert_int_equal(store_in(&c, s, 2 * MIB, 2 * PAGE, NULL), ABI_ST_BAD_PAGE);
	expect_stop(&c, 2 * MIB);
	assert_int_equal(uvc_info(&c).sealed_pages, 2);
	store_end(&c, s);
}

static void test_attacks(void **state)
{
	for (size_t i = 0; i < COUNT(attacks); i++) {
		attack(&attacks[i], false);
		attack(&attacks[i], true);
	}
}

/* Before the first instruction as well: such a VM does not start. */
static void test_attack_before_start(void **state)
{
	struct store *s = store_new();
	struct uvc c;

	uvc_begin(&c, 1, 0, MEMORY);
	uvc_load(&c, "print never\n");
	uvc_protect(&c, LOW);
	assert_true(store_out(&c, s, 0x80000, PAGE) == 1);
	flip(s->page[0x80], NULL, NULL);
	assert_int_equal(store_in(&c, s, 0x80000, PAGE, NULL), ABI_ST_BAD_PAGE);
	expect_stop(&c, 0x80000);
	assert_int_equal(uvc_call0(&c, ABI_CALL_VM_START, NULL, 0), ABI_ST_WRONG_STATE);
	store_end(&c, s);
}

/* Pages that were never sealed are not written to, whatever is claimed. */
static void test_claims(void **state)
{
	uint64_t all[PAGES / 64], pages;
	struct store *s = store_new();
	struct uvc c;

	uvc_begin_protected(&c, 1, 0,
		"write 2M 512K 1\nshare 2M 4K\nprint ready\ncheck 2M 512K 1\nzero 2560K 512K\n"
		"poweroff\n");
	memset(all, 0xff, sizeof(all));
	memset(c.bulk, 0x5a, ABI_BULK_SIZE);
	assert_int_equal(uvc_page_in_sealed(&c, 2 * MIB, MIB, all, &pages), ABI_ST_OK);
	assert_int_equal(pages, 0);
	/* And beside one that is. */
	assert_int_equal(store_out(&c, s, 2 * MIB + 4 * PAGE, PAGE), 1);
	memset(c.bulk, 0x5a, ABI_BULK_SIZE);
	memcpy(c.bulk + 4 * PAGE, s->page[2 * MIB / PAGE + 4], PAGE);
	assert_int_equal(uvc_page_in_sealed(&c, 2 * MIB, MIB, all, &pages), ABI_ST_OK);
	assert_int_equal(pages, 1);
	store_finish(&c, s);
}

/* Nothing of an incarnation opens in the next. */
static void test_across_incarnations(void **state)
{
	struct store *s = store_new();
	struct uvc c;

	uvc_begin_protected(&c, 1, 0, "write 2M 4K\nprint out\n");
	assert_int_equal(store_out(&c, s, 0x80000, PAGE), 1);
	assert_int_equal(uvc_call0(&c, ABI_CALL_VM_STOP, NULL, 0), ABI_ST_OK);
	assert_int_equal(uvc_call0(&c, ABI_CALL_PREPARE, NULL, 0), ABI_ST_OK);
	uvc_slots_drop(&c);
	assert_int_equal(store_in(&c, s, 0x80000, PAGE, NULL), ABI_ST_WRONG_STATE);
	assert_int_equal(uvc_slot_add(&c, 0, 0, MEMORY), ABI_ST_OK);
	uvc_load(&c, "print again\n");
	uvc_protect(&c, LOW);
	assert_int_equal(uvc_page_out(&c, 0x80000, PAGE, NULL), ABI_ST_OK);
	assert_int_equal(uvc_info(&c).sealed_pages, 1);
	/* The same GFN and the same version, of another life. */
	assert_int_equal(store_in(&c, s, 0x80000, PAGE, NULL), ABI_ST_BAD_PAGE);
	store_end(&c, s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_out_of_every_state),
		cmocka_unit_test(test_in_at_every_state),
		cmocka_unit_test(test_in_of_absent_pages),
		cmocka_unit_test(test_lost_in_every_state),
		cmocka_unit_test(test_other_calls_in_every_state),
		cmocka_unit_test(test_bad_ranges),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_again_and_again),
		cmocka_unit_test(test_out_under_running_guest),
		cmocka_unit_test(test_share_sealed),
		cmocka_unit_test(test_unshare_sealed),
		cmocka_unit_test(test_out_while_converting),
		cmocka_unit_test(test_out_while_flipping),
		cmocka_unit_test(test_release_sealed),
		cmocka_unit_test(test_others_go_on),
		cmocka_unit_test(test_stop_wakes),
		cmocka_unit_test(test_reboot_wakes),
		cmocka_unit_test(test_hang_up_wakes),
		cmocka_unit_test(test_release_wakes),
		cmocka_unit_test(test_lost_while_waiting),
		cmocka_unit_test(test_one_event_a_page),
		cmocka_unit_test(test_attacks),
		cmocka_unit_test(test_attack_before_start),
		cmocka_unit_test(test_claims),
		cmocka_unit_test(test_across_incarnations),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
