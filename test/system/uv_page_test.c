/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What lethe-uv does with pages that go to the hypervisor, sealed, and come back. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "guest/workload.h"
#include "test/system/uv_client.h"

#define KIB    ((uint64_t)1 << 10)
#define MIB    ((uint64_t)1 << 20)
#define TOP    ((uint64_t)1 << 48)
#define PAGE   4096u
#define MEMORY (8 * MIB)
#define LOW    MIB
#define PAGES  (ABI_BULK_SIZE / PAGE)

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* ---- calls ---- */

static uint32_t page_out(struct uvc *c, uint64_t gpa, uint64_t bytes, struct abi_page_out_ret *ret)
{
	const struct abi_page_out args = {.gpa = gpa, .bytes = bytes};

	return uvc_call(
		c, ABI_CALL_PAGE_OUT, &args, sizeof(args), NULL, 0, ret, ret ? sizeof(*ret) : 0);
}

static uint32_t page_in(struct uvc *c, uint64_t gpa, uint64_t bytes,
	const uint64_t present[PAGES / 64], uint64_t *ret_pages)
{
	struct abi_page_in_sealed args = {.gpa = gpa, .bytes = bytes};
	struct abi_page_in_ret ret = {0};
	uint32_t status;

	memcpy(args.present, present, sizeof(args.present));
	status = uvc_call(
		c, ABI_CALL_PAGE_IN_SEALED, &args, sizeof(args), NULL, 0, &ret, sizeof(ret));
	if (ret_pages != NULL)
		*ret_pages = ret.pages;
	return status;
}

static uint32_t page_lost(struct uvc *c, uint64_t gpa)
{
	const struct abi_page_lost args = {.gpa = gpa};

	return uvc_call(c, ABI_CALL_PAGE_LOST, &args, sizeof(args), NULL, 0, NULL, 0);
}

/* ---- a page store ---- */

/* What the hypervisor keeps: the ciphertext of each page of the VM's memory. */
struct store {
	uint8_t page[MEMORY / PAGE][PAGE];
	bool has[MEMORY / PAGE];
};

static struct store *store_new(void)
{
	struct store *s = calloc(1, sizeof(*s));

	assert_non_null(s);
	return s;
}

/* Pages @gpa out into @s.  Returns how many. */
static uint64_t store_out(struct uvc *c, struct store *s, uint64_t gpa, uint64_t bytes)
{
	struct abi_page_out_ret ret;
	uint64_t pages = 0;

	assert_int_equal(page_out(c, gpa, bytes, &ret), ABI_ST_OK);
	for (uint64_t i = 0; i < PAGES; i++) {
		if ((ret.sealed[i / 64] >> i % 64 & 1) == 0)
			continue;
		assert_true(i < bytes / PAGE);
		memcpy(s->page[gpa / PAGE + i], c->bulk + i * PAGE, PAGE);
		s->has[gpa / PAGE + i] = true;
		pages++;
	}
	assert_int_equal(pages, ret.pages);
	return pages;
}

/* Brings back what @s has of a range. */
static uint32_t store_in(
	struct uvc *c, struct store *s, uint64_t gpa, uint64_t bytes, uint64_t *ret_pages)
{
	uint64_t present[PAGES / 64] = {0};

	for (uint64_t i = 0; i < bytes / PAGE; i++) {
		if (!s->has[gpa / PAGE + i])
			continue;
		memcpy(c->bulk + i * PAGE, s->page[gpa / PAGE + i], PAGE);
		present[i / 64] |= (uint64_t)1 << i % 64;
	}
	return page_in(c, gpa, bytes, present, ret_pages);
}

/* ---- guests ---- */

/* A protected guest that runs @text; it waits in its first print. */
static void begin(struct uvc *c, unsigned int vcpus, uint32_t flags, const char *text)
{
	struct abi_vcpu_page page;

	uvc_begin(c, vcpus, flags, MEMORY);
	uvc_load(c, text);
	uvc_protect(c, LOW);
	assert_int_equal(uvc_call0(c, ABI_CALL_VM_START, NULL, 0), ABI_ST_OK);
	uvc_run_until(c, ABI_EXIT_PRINT, &page);
}

static void expect_stop(struct uvc *c, unsigned int vcpu, uint64_t gpa)
{
	struct abi_vcpu_page page;

	do {
		uvc_exit(c, vcpu, &page);
	} while (page.type != ABI_EXIT_STOPPED);
	assert_int_equal(page.arg[0], ABI_STOP_LOST_PAGE);
	assert_int_equal(page.arg[1], gpa);
	assert_true(page.data_size > 0);
	assert_int_equal(uvc_info(c).phase, ABI_PHASE_STOPPED);
}

/* ---- tests ---- */

static void test_round_trip(void **state)
{
	struct store *s = store_new();
	struct abi_vcpu_page page;
	struct abi_event e;
	uint64_t pages;
	struct uvc c;

	begin(&c, 1, 0, "write 2M 1M\nprint out\ncheck 2M 1M\nzero 3M 64K\nprint in\npoweroff\n");
	uvc_reply(&c, 0, ABI_ST_OK);
	uvc_end(&c);

	begin(&c, 1, 0, "write 2M 1M 7\nprint out\ncheck 2M 1M 7\nzero 3M 64K\npoweroff\n");
	assert_int_equal(store_out(&c, s, 2 * MIB, MIB), 256);
	assert_int_equal(store_out(&c, s, 2 * MIB, MIB), 0);
	assert_int_equal(uvc_info(&c).sealed_pages, 256);
	uvc_reply(&c, 0, ABI_ST_OK);
	for (uint64_t i = 0; i < 256; i += 16) {
		e = uvc_event(&c);
		assert_int_equal(e.gpa, 2 * MIB + i * PAGE);
		assert_int_equal(e.bytes, PAGE);
		assert_int_equal(store_in(&c, s, e.gpa, 16 * PAGE, &pages), ABI_ST_OK);
		assert_int_equal(pages, 16);
	}
	uvc_run_until(&c, ABI_EXIT_POWEROFF, &page);
	assert_int_equal(uvc_info(&c).sealed_pages, 0);
	assert_int_equal(page_lost(&c, 2 * MIB), ABI_ST_NOTHING);
	(void)expect_stop;
	uvc_end(&c);
	free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
