/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What lethe-uv does with shared memory: the hypervisor's policy, copies by the vCPU that
 * waits, and conversions across slots, in every way of sharing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/futex.h"
#include "test/system/uv_client.h"

#define MEMORY (8 * MIB)

static const uint32_t ways[] = {
	0, ABI_VM_SHARE_MAPPED, ABI_VM_SHARE_AUTO, ABI_VM_SHARE_MAPPED | ABI_VM_DISCARD_EAGER};

static const struct abi_share_page *shown(const struct uvc *c)
{
	return (const void *)((uint8_t *)c->pages + ABI_SHARE_OFFSET(c->vcpus));
}

/* ---- the policy ---- */

static uint32_t set_policy(struct uvc *c, const struct abi_policy *p)
{
	return uvc_call(c, ABI_CALL_POLICY, p, sizeof(*p), NULL, 0, NULL, 0);
}

/* The next exit is a CONVERT of this range, which is allowed. */
static void expect_asked(struct uvc *c, uint64_t gpa, uint64_t bytes, bool to_shared)
{
	struct abi_vcpu_page page;

	uvc_exit(c, 0, &page);
	assert_int_equal(page.type, ABI_EXIT_CONVERT);
	assert_int_equal(page.arg[0], gpa);
	assert_int_equal(page.arg[1], bytes);
	assert_int_equal(page.arg[2], to_shared);
	uvc_reply(c, 0, ABI_ST_OK);
}

static void expect_print(struct uvc *c, const char *text)
{
	struct abi_vcpu_page page;

	uvc_exit(c, 0, &page);
	assert_int_equal(page.type, ABI_EXIT_PRINT);
	assert_int_equal(page.data_size, strlen(text));
	assert_memory_equal(page.data, text, strlen(text));
}

static void next(struct uvc *c)
{
	uvc_reply(c, 0, ABI_ST_OK);
}

static void test_policy(void **state)
{
	const struct abi_policy policy = {.max_shared_bytes = 64 * KIB,
		.count = 2,
		.range = {{2 * MIB, MIB}, {4 * MIB, 64 * KIB}}};
	struct abi_info_ret info;
	struct uvc c;

	uvc_begin(&c, 1, 0, MEMORY);
	assert_int_equal(set_policy(&c, &policy), ABI_ST_OK);
	uvc_start_protected(&c, "write 2M 128K 1\n"
				"share 2M 60K\n"
				"share 4M 4K\n"
				"print full\n"
				"share 2112K 4K\n" /* too much */
				"unshare 2112K 4K\n"
				"unshare 2M 4K\n"
				"share 2M 60K\n"   /* one page of it is new */
				"share 3068K 8K\n" /* half of it outside */
				"unshare 3068K 8K\n"
				"share 6M 4K\n" /* outside */
				"unshare 2M 60K\n"
				"check 2M 128K 1\n"
				"print end\n"
				"poweroff\n");
	expect_print(&c, "full");
	info = uvc_info(&c);
	assert_int_equal(info.shared_pages, 16);
	assert_int_equal(info.policy_shares, 2);
	assert_int_equal(info.policy_shared_bytes, 64 * KIB);
	next(&c);
	expect_asked(&c, 2112 * KIB, 4 * KIB, true);
	expect_asked(&c, 3068 * KIB, 8 * KIB, true);
	expect_asked(&c, 3068 * KIB, 8 * KIB, false);
	expect_asked(&c, 6 * MIB, 4 * KIB, true);
	expect_print(&c, "end");
	info = uvc_info(&c);
	assert_int_equal(info.policy_shares, 3);
	assert_int_equal(info.policy_unshares, 3);
	assert_int_equal(info.shared_pages, 2);
	uvc_end(&c);
}

/* A bad one leaves the one before; none asks again; an incarnation's ends with it. */
static void test_policies_that_go(void **state)
{
	const struct abi_policy good = {
		.max_shared_bytes = UINT64_MAX, .count = 1, .range = {{0, TOP}}};
	const struct abi_policy bad[] = {
		{.count = ABI_POLICY_RANGES + 1},
		{.count = 1, .range = {{0, 0}}},
		{.count = 1, .range = {{1, PAGE}}},
		{.count = 1, .range = {{0, PAGE - 1}}},
		{.count = 2, .range = {{0, PAGE}, {PAGE, 1}}},
	};
	const struct abi_policy wraps[] = {
		{.count = 1, .range = {{TOP, PAGE}}},
		{.count = 1, .range = {{-(uint64_t)PAGE, 2 * PAGE}}},
	};
	struct abi_policy reserved = good;
	struct abi_vcpu_page page;
	struct uvc c;

	reserved.reserved = 1;
	uvc_begin(&c, 1, 0, MEMORY);
	assert_int_equal(set_policy(&c, &good), ABI_ST_OK);
	for (size_t i = 0; i < COUNT(bad); i++)
		assert_int_equal(set_policy(&c, &bad[i]), ABI_ST_INVALID);
	for (size_t i = 0; i < COUNT(wraps); i++)
		assert_int_equal(set_policy(&c, &wraps[i]), ABI_ST_RANGE);
	assert_int_equal(set_policy(&c, &reserved), ABI_ST_INVALID);
	uvc_start_protected(&c,
		"share 2M 4K\nprint one\nunshare 2M 4K\nreboot\nprotect\nshare 2M 4K\npoweroff\n");
	expect_print(&c, "one");
	assert_int_equal(set_policy(&c, &(struct abi_policy){0}), ABI_ST_OK);
	next(&c);
	expect_asked(&c, 2 * MIB, PAGE, false);
	uvc_exit(&c, 0, &page);
	assert_int_equal(page.type, ABI_EXIT_REBOOT);
	assert_int_equal(set_policy(&c, &good), ABI_ST_OK);
	assert_int_equal(uvc_call0(&c, ABI_CALL_PREPARE, NULL, 0), ABI_ST_OK);
	uvc_slots_drop(&c);
	assert_int_equal(uvc_slot_add(&c, 0, 0, MEMORY), ABI_ST_OK);
	uvc_start_protected(&c, "share 2M 4K\npoweroff\n");
	uvc_exit(&c, 0, &page);
	assert_int_not_equal(page.type, ABI_EXIT_POWEROFF);
	uvc_end(&c);
}

/* ---- copies by the vCPU that waits ---- */

static uint8_t *copy_area(const struct uvc *c)
{
	return (uint8_t *)c->pages + ABI_COPY_OFFSET(c->vcpus);
}

/* Makes a request to vCPU 0 and waits for its end. */
static uint32_t copy(struct uvc *c, const struct abi_copy *segment, uint32_t count)
{
	struct abi_vcpu_page *page = c->pages;
	uint32_t seq = page->copy_seq + 1;

	for (uint32_t i = 0; i < count && i < ABI_COPY_SEGMENTS; i++)
		page->copy[i] = segment[i];
	page->copy_count = count;
	__atomic_store_n(&page->copy_seq, seq, __ATOMIC_RELEASE);
	futex_ring(&page->reply_bell, &page->sleeps);
	for (;;) {
		uint32_t bell = __atomic_load_n(&page->bell, __ATOMIC_SEQ_CST);

		if (__atomic_load_n(&page->copy_done, __ATOMIC_ACQUIRE) == seq)
			return page->copy_status;
		futex_sleep(&page->bell, bell, &page->reply_sleeps);
	}
}

static void assert_copy_refused(struct uvc *c, struct abi_copy s, uint32_t status)
{
	/* Behind one that could be done, both ways: nothing of it is. */
	const struct abi_copy both[2][3] = {
		{{2 * MIB, 64, 0}, {2 * MIB + 64, 64, 1}, s},
		{s, {2 * MIB, 64, 0}, {2 * MIB + 64, 64, 1}},
	};

	for (size_t i = 0; i < COUNT(both); i++) {
		memset(copy_area(c), 0x5a, ABI_COPY_DATA);
		assert_int_equal(copy(c, both[i], 3), status);
		for (uint32_t o = 0; o < ABI_COPY_DATA; o++)
			assert_int_equal(copy_area(c)[o], 0x5a);
	}
}

static void check_copies(uint32_t flags)
{
	static const struct {
		struct abi_copy segment;
		uint32_t status;
	} bad[] = {
		{{2 * MIB, 0, 0}, ABI_ST_INVALID},
		{{2 * MIB, 8, 2}, ABI_ST_INVALID},
		{{2 * MIB, UINT32_MAX, 0}, ABI_ST_INVALID},
		{{2 * MIB, ABI_COPY_DATA - 127, 0}, ABI_ST_INVALID},
		{{TOP - 4, 8, 0}, ABI_ST_RANGE},
		{{UINT64_MAX - 3, 8, 1}, ABI_ST_RANGE},
		{{64 * MIB, 8, 0}, ABI_ST_NOT_FOUND},
		{{MEMORY + MIB - 4, 8, 0}, ABI_ST_NOT_FOUND},
		{{3 * MIB, 1, 0}, ABI_ST_DENIED},
		{{2 * MIB - 1, 2, 1}, ABI_ST_DENIED},
		{{2 * MIB + 32 * KIB - 1, 2, 0}, ABI_ST_DENIED},
	};
	const struct abi_policy all = {
		.max_shared_bytes = UINT64_MAX, .count = 1, .range = {{0, TOP}}};
	struct abi_copy many[ABI_COPY_SEGMENTS];
	struct uvc c;

	for (uint32_t i = 0; i < ABI_COPY_SEGMENTS; i++)
		many[i] = (struct abi_copy){2 * MIB + i, 1, 0};
	uvc_begin(&c, 1, flags, MEMORY);
	assert_int_equal(uvc_slot_add(&c, 1, MEMORY, MIB), ABI_ST_OK);
	assert_int_equal(set_policy(&c, &all), ABI_ST_OK);
	uvc_start_protected(&c,
		"write 2M 64K 3\n"
		"write 8188K 8K 3\n"
		"share 2M 32K\n"
		"share 8188K 8K\n" /* the end of a slot and the beginning of the next */
		"print shared\n"
		"check 2M 4K 4\n"
		"check 2052K 60K 3\n"
		"check 8188K 8K 5\n"
		"unshare 8188K 8K\n"
		"check 8188K 8K 5\n"
		"print private\n"
		"poweroff\n");
	expect_print(&c, "shared");
	uvc_fill(copy_area(&c), 2 * MIB, PAGE, 4);
	assert_int_equal(
		copy(&c, (struct abi_copy[]){{2 * MIB, PAGE, 1}, {MEMORY - PAGE, 2 * PAGE, 0}}, 2),
		ABI_ST_OK);
	uvc_assert_filled(copy_area(&c) + PAGE, MEMORY - PAGE, 2 * PAGE, 3);
	for (size_t i = 0; i < COUNT(bad); i++)
		assert_copy_refused(&c, bad[i].segment, bad[i].status);
	assert_int_equal(copy(&c, NULL, 0), ABI_ST_INVALID);
	assert_int_equal(copy(&c, many, ABI_COPY_SEGMENTS), ABI_ST_OK);
	assert_int_equal(copy(&c, many, ABI_COPY_SEGMENTS + 1), ABI_ST_INVALID);
	assert_int_equal(copy(&c, many, UINT32_MAX), ABI_ST_INVALID);
	uvc_fill(copy_area(&c), MEMORY - PAGE, 2 * PAGE, 5);
	assert_int_equal(copy(&c, &(struct abi_copy){MEMORY - PAGE, 2 * PAGE, 1}, 1), ABI_ST_OK);
	next(&c);
	expect_print(&c, "private");
	assert_int_equal(copy(&c, &(struct abi_copy){MEMORY, 1, 0}, 1), ABI_ST_DENIED);
	assert_int_equal(copy(&c, &(struct abi_copy){MEMORY - 1, 1, 1}, 1), ABI_ST_DENIED);
	next(&c);
	uvc_end(&c);
}

static void test_copies(void **state)
{
	for (size_t i = 0; i < COUNT(ways); i++)
		check_copies(ways[i]);
}

/* An exit brings along what the device is to read, and its answer what it has written. */
static void check_transfer(uint32_t flags)
{
	const struct abi_policy all = {
		.max_shared_bytes = UINT64_MAX, .count = 1, .range = {{0, TOP}}};
	struct abi_vcpu_page page;
	struct uvc c;

	uvc_begin(&c, 1, flags, MEMORY);
	assert_int_equal(set_policy(&c, &all), ABI_ST_OK);
	uvc_start_protected(&c, "dma 2M 64K 1\n"
				"print done\n"
				"dma 2M 68K 1\n"
				"print not reached\n");
	uvc_exit(&c, 0, &page);
	assert_int_equal(page.type, ABI_EXIT_DMA);
	if ((flags & ABI_VM_SHARE_MAPPED) != 0) {
		/* There is no need to. */
		assert_int_equal(page.copied, 0);
		uvc_fill(copy_area(&c), 2 * MIB, 64 * KIB, 0);
	}
	uvc_assert_filled(copy_area(&c), 2 * MIB, 64 * KIB, 0);
	for (uint32_t i = 0; i < 64 * KIB; i++)
		copy_area(&c)[i] ^= 0xff;
	c.pages->copy[0] = (struct abi_copy){2 * MIB, 60 * KIB, 1};
	c.pages->copy[1] = (struct abi_copy){2 * MIB + 60 * KIB, 4 * KIB, 1};
	c.pages->reply_copies = 2;
	next(&c);
	uvc_exit(&c, 0, &page);
	assert_int_equal(page.type, ABI_EXIT_PRINT);
	assert_int_equal(page.copied, 0);
	c.pages->reply_copies = 0;
	next(&c);

	/* More than the area holds stays where it is; copies that fail are the answer. */
	uvc_exit(&c, 0, &page);
	assert_int_equal(page.type, ABI_EXIT_DMA);
	assert_int_equal(page.copied, 0);
	memset(copy_area(&c), 0x5a, ABI_COPY_DATA);
	c.pages->copy[0] = (struct abi_copy){2 * MIB, 4 * KIB, 1};
	c.pages->copy[1] = (struct abi_copy){3 * MIB, 8, 1};
	c.pages->reply_copies = 2;
	next(&c);
	uvc_exit(&c, 0, &page);
	assert_int_equal(page.type, ABI_EXIT_STOPPED);
	assert_int_equal(page.arg[0], ABI_STOP_GUEST);
	assert_int_equal(uvc_mem(&c, ABI_CALL_MEM_READ, 2 * MIB, PAGE), ABI_ST_OK);
	uvc_assert_filled(c.bulk, 2 * MIB, PAGE, 0);
	uvc_end(&c);
}

static void test_transfers(void **state)
{
	for (size_t i = 0; i < COUNT(ways); i++)
		check_transfer(ways[i]);
}

/* A VM that is not protected has no shared page: devices have its memory anyway. */
static void test_copies_of_normal_memory(void **state)
{
	struct uvc c;

	uvc_begin(&c, 1, 0, MEMORY);
	uvc_load(&c, "print normal\npoweroff\n");
	uvc_start(&c);
	expect_print(&c, "normal");
	assert_int_equal(copy(&c, &(struct abi_copy){2 * MIB, 8, 0}, 1), ABI_ST_DENIED);
	uvc_end(&c);
}

/* ---- across slots ---- */

/* Three slots that adjoin, a hole after them; one conversion over all of them. */
static void check_adjoining(uint32_t flags)
{
	struct abi_vcpu_page page;
	struct uvc c;

	uvc_begin(&c, 1, flags, MEMORY);
	assert_int_equal(uvc_slot_add(&c, 5, MEMORY, 8 * KIB), ABI_ST_OK);
	assert_int_equal(uvc_slot_add(&c, 1, MEMORY + 8 * KIB, 4 * MIB), ABI_ST_OK);
	uvc_start_protected(&c, "write 7M 4M 3\n"
				"share 7M 16K\n"
				"share 9M 4K\n"
				"share 7M 4M\n"
				"print shared\n"
				"check 7M 4M 3\n"
				"unshare 9M 8K\n"
				"unshare 7M 4M\n"
				"check 7M 4M 3\n"
				"print private\n"
				"share 11M 2M\n" /* beyond the last slot */
				"print not reached\n");
	expect_asked(&c, 7 * MIB, 16 * KIB, true);
	expect_asked(&c, 9 * MIB, 4 * KIB, true);
	expect_asked(&c, 7 * MIB, 4 * MIB, true);
	expect_print(&c, "shared");
	assert_int_equal(uvc_info(&c).shared_pages, 1024);
	for (uint64_t at = 7 * MIB; at < 11 * MIB; at += MIB) {
		assert_int_equal(uvc_mem(&c, ABI_CALL_MEM_READ, at, (uint32_t)MIB), ABI_ST_OK);
		uvc_assert_filled(c.bulk, at, MIB, 3);
	}
	next(&c);
	expect_asked(&c, 9 * MIB, 8 * KIB, false);
	expect_asked(&c, 7 * MIB, 4 * MIB, false);
	expect_print(&c, "private");
	assert_int_equal(uvc_info(&c).shared_pages, 0);
	next(&c);
	uvc_exit(&c, 0, &page);
	assert_int_equal(page.type, ABI_EXIT_STOPPED);
	assert_int_equal(uvc_info(&c).shared_pages, 0);
	uvc_end(&c);
}

static void test_adjoining_slots(void **state)
{
	for (size_t i = 0; i < COUNT(ways); i++)
		check_adjoining(ways[i]);
}

/* ---- auto ---- */

/* Copies all of [gpa, gpa + bytes) for the hypervisor once, and checks it. */
static void use(struct uvc *c, uint64_t gpa, uint64_t bytes, uint64_t seed)
{
	for (uint64_t at = gpa; at < gpa + bytes; at += MIB) {
		assert_int_equal(uvc_mem(c, ABI_CALL_MEM_READ, at, (uint32_t)MIB), ABI_ST_OK);
		uvc_assert_filled(c->bulk, at, MIB, seed);
	}
}

/* Uses the range until the ultravisor has mapped it @maps times in all. */
static void use_until_mapped(struct uvc *c, uint64_t gpa, uint64_t bytes, uint64_t maps)
{
	const uint64_t pages = bytes / PAGE;

	while (uvc_info(c).auto_maps < maps || uvc_info(c).mapped_pages < pages)
		use(c, gpa, bytes, 3);
	assert_int_equal(uvc_info(c).mapped_pages, pages);
	/* The list that the hypervisor is shown says so. */
	assert_int_equal(shown(c)->count, 1);
	assert_int_equal(shown(c)->range[0].gpa, gpa);
	assert_int_equal(shown(c)->range[0].bytes, bytes);
	uvc_assert_filled(c->slot[0].base + gpa, gpa, bytes, 3);
}

/*
 * What is used much is mapped, with its content; what flips then is copied again, and needs
 * to be used the more before it is mapped the next time.
 */
static void test_auto(void **state)
{
	const struct abi_policy all = {
		.max_shared_bytes = UINT64_MAX, .count = 1, .range = {{0, TOP}}};
	uint32_t generation;
	struct uvc c;

	uvc_begin(&c, 1, ABI_VM_SHARE_AUTO, MEMORY);
	assert_int_equal(set_policy(&c, &all), ABI_ST_OK);
	uvc_start_protected(&c,
		"write 2M 2M 3\n"
		"write 5M 128K 3\n"
		"share 2M 2M\n"
		"share 5M 128K\n" /* too small for it */
		"print shared\n"
		"check 2M 2M 3\n"
		"unshare 2M 2M\n"
		"check 2M 2M 3\n"
		"print private\n"
		"share 2M 2M\n"
		"print again\n"
		"unshare 3M 4K\n"
		"share 3M 4K\n"
		"unshare 3M 4K\n" /* copied, though in a mapped range: counts all the same */
		"share 3M 4K\n"
		"unshare 3080K 4K\n"
		"unshare 3080K 4K\n" /* was so: counts not */
		"unshare 3096K 4K\n"
		"check 2M 2M 3\n"
		"print flipped\n"
		"unshare 2M 2M\n"
		"check 2M 2M 3\n"
		"print end\n"
		"poweroff\n");
	expect_print(&c, "shared");
	for (int i = 0; i < 64; i++)
		assert_int_equal(uvc_mem(&c, ABI_CALL_MEM_READ, 5 * MIB, 128 * KIB), ABI_ST_OK);
	assert_int_equal(shown(&c)->count, 0);
	use_until_mapped(&c, 2 * MIB, 2 * MIB, 1);
	generation = shown(&c)->generation;
	assert_int_equal(generation % 2, 0);
	next(&c);
	expect_print(&c, "private");
	assert_true(shown(&c)->generation > generation);
	assert_int_equal(shown(&c)->count, 0);
	assert_int_equal(uvc_info(&c).mapped_pages, 0);
	assert_int_equal(uvc_mem(&c, ABI_CALL_MEM_READ, 2 * MIB, 8), ABI_ST_DENIED);
	next(&c);
	expect_print(&c, "again");
	assert_int_equal(uvc_info(&c).mapped_pages, 0);
	use_until_mapped(&c, 2 * MIB, 2 * MIB, 2);
	next(&c);
	expect_print(&c, "flipped");
	while (uvc_info(&c).auto_unmaps == 0 || uvc_info(&c).mapped_pages > 0)
		usleep(1000);
	assert_int_equal(shown(&c)->count, 0);
	assert_int_equal(uvc_mem(&c, ABI_CALL_MEM_READ, 2 * MIB, (uint32_t)MIB), ABI_ST_OK);
	uvc_assert_filled(c.bulk, 2 * MIB, MIB, 3);
	next(&c);
	expect_print(&c, "end");
	assert_int_equal(uvc_info(&c).auto_maps, 2);
	assert_int_equal(uvc_info(&c).auto_unmaps, 1);
	uvc_end(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_policy),
		cmocka_unit_test(test_policies_that_go),
		cmocka_unit_test(test_copies),
		cmocka_unit_test(test_transfers),
		cmocka_unit_test(test_copies_of_normal_memory),
		cmocka_unit_test(test_adjoining_slots),
		cmocka_unit_test(test_auto),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
