/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test/system/uv_store.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

uint32_t uvc_page_out(struct uvc *c, uint64_t gpa, uint64_t bytes, struct abi_page_out_ret *ret)
{
	const struct abi_page_out args = {.gpa = gpa, .bytes = bytes};

	return uvc_call(
		c, ABI_CALL_PAGE_OUT, &args, sizeof(args), NULL, 0, ret, ret ? sizeof(*ret) : 0);
}

uint32_t uvc_page_in_sealed(struct uvc *c, uint64_t gpa, uint64_t bytes,
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

uint32_t uvc_page_lost(struct uvc *c, uint64_t gpa)
{
	const struct abi_page_lost args = {.gpa = gpa};

	return uvc_call(c, ABI_CALL_PAGE_LOST, &args, sizeof(args), NULL, 0, NULL, 0);
}

uint32_t uvc_coldest(struct uvc *c, uint64_t bytes, struct abi_coldest_ret *ret)
{
	const struct abi_coldest args = {.bytes = bytes};

	return uvc_call(c, ABI_CALL_COLDEST, &args, sizeof(args), NULL, 0, ret, sizeof(*ret));
}

struct store *store_new(void)
{
	struct store *s = calloc(1, sizeof(*s));

	assert_non_null(s);
	return s;
}

uint32_t store_try_out(
	struct uvc *c, struct store *s, uint64_t gpa, uint64_t bytes, uint64_t *ret_pages)
{
	struct abi_page_out_ret ret;
	uint64_t pages = 0;
	uint32_t status = uvc_page_out(c, gpa, bytes, &ret);

	for (uint64_t i = 0; i < PAGES && status == ABI_ST_OK; i++) {
		if ((ret.sealed[i / 64] >> i % 64 & 1) == 0)
			continue;
		assert_true(i < bytes / PAGE);
		memcpy(s->page[gpa / PAGE + i], c->bulk + i * PAGE, PAGE);
		s->has[gpa / PAGE + i] = true;
		pages++;
	}
	if (status == ABI_ST_OK)
		assert_int_equal(pages, ret.pages);
	if (ret_pages != NULL)
		*ret_pages = pages;
	return status;
}

uint64_t store_out(struct uvc *c, struct store *s, uint64_t gpa, uint64_t bytes)
{
	uint64_t pages;

	assert_int_equal(store_try_out(c, s, gpa, bytes, &pages), ABI_ST_OK);
	return pages;
}

uint32_t store_in(struct uvc *c, struct store *s, uint64_t gpa, uint64_t bytes, uint64_t *ret_pages)
{
	uint64_t present[PAGES / 64] = {0};

	for (uint64_t i = 0; i < bytes / PAGE; i++) {
		if (!s->has[gpa / PAGE + i])
			continue;
		memcpy(c->bulk + i * PAGE, s->page[gpa / PAGE + i], PAGE);
		present[i / 64] |= (uint64_t)1 << i % 64;
	}
	return uvc_page_in_sealed(c, gpa, bytes, present, ret_pages);
}

void uvc_begin_protected(struct uvc *c, unsigned int vcpus, uint32_t flags, const char *text)
{
	struct abi_vcpu_page page;

	uvc_begin(c, vcpus, flags, MEMORY);
	uvc_start_protected(c, text);
	uvc_run_until(c, ABI_EXIT_PRINT, &page);
}

bool uvc_has_exit(const struct uvc *c, unsigned int vcpu)
{
	const struct abi_vcpu_page *page =
		(const void *)((const uint8_t *)c->pages + (size_t)vcpu * ABI_EXIT_PAGE);

	return __atomic_load_n(&page->exit_seq, __ATOMIC_ACQUIRE) != c->exit_seen[vcpu];
}

void store_serve_event(struct uvc *c, struct store *s)
{
	struct pollfd p = {.fd = c->socket, .events = POLLIN};
	struct abi_event e;

	if (c->event_count == 0 && poll(&p, 1, 1) == 0)
		return;
	e = uvc_event(c);
	assert_int_equal(store_in(c, s, e.gpa, e.bytes, NULL), ABI_ST_OK);
}

void store_serve(
	struct uvc *c, struct store *s, unsigned int vcpu, uint32_t type, struct abi_vcpu_page *ret)
{
	while (true) {
		while (!uvc_has_exit(c, vcpu))
			store_serve_event(c, s);
		uvc_exit(c, vcpu, ret);
		if (ret->type == type)
			return;
		if (ret->type == ABI_EXIT_STOPPED)
			fail_msg("the guest was stopped: %.*s", (int)ret->data_size,
				(const char *)ret->data);
		uvc_reply(c, vcpu, ABI_ST_OK);
	}
}

void store_end(struct uvc *c, struct store *s)
{
	uvc_end(c);
	free(s);
}

void store_finish(struct uvc *c, struct store *s)
{
	struct abi_vcpu_page page;

	uvc_reply(c, 0, ABI_ST_OK);
	store_serve(c, s, 0, ABI_EXIT_POWEROFF, &page);
	store_end(c, s);
}
