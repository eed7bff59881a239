/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Shared backing that is left behind: it is given back in the end, what takes its place is
 * not, and nobody finds in it what came later.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "guest/workload.h"
#include "os/memfd.h"
#include "test/system/uv_client.h"

#define MEMORY (8 * MIB)

/* More than a few batches; and a neighbour that stays shared. */
#define FLIP_GPA   (2 * MIB)
#define FLIP_BYTES MIB
#define KEPT_GPA   (3 * MIB)
#define KEPT_BYTES (64 * KIB)

#define FLIP " 2M 1M "
#define KEPT " 3M 64K "

static void start(struct uvc *c, const char *failpoint, uint32_t flags, const char *text)
{
	if (failpoint != NULL)
		setenv("LETHE_FAILPOINT", failpoint, 1);
	uvc_begin(c, 1, flags, MEMORY);
	unsetenv("LETHE_FAILPOINT");
	uvc_start_protected(c, text);
}

/* Accepts what the guest asks for, until it prints @text. */
static void run_to(struct uvc *c, const char *text)
{
	struct abi_vcpu_page page;

	uvc_run_until(c, ABI_EXIT_PRINT, &page);
	assert_int_equal(page.data_size, strlen(text));
	assert_memory_equal(page.data, text, strlen(text));
}

static void go_on(struct uvc *c)
{
	uvc_reply(c, 0, ABI_ST_OK);
}

static uint64_t word_at(const uint8_t *p, uint64_t offset)
{
	uint64_t word;

	memcpy(&word, p + offset, sizeof(word));
	return word;
}

/* Without a fault through the mapping, which would allocate. */
static void read_backing(const struct uvc *c, uint8_t *ret)
{
	assert_int_equal(memfd_read(c->slot[0].memfd, FLIP_GPA, ret, FLIP_BYTES), 0);
}

static uint64_t resident(const struct uvc *c)
{
	uint64_t bytes;

	assert_int_equal(memfd_resident(c->slot[0].memfd, &bytes), 0);
	return bytes;
}

static void wait_until_discarded(struct uvc *c)
{
	while (uvc_info(c).stale_bytes > 0)
		usleep(1000);
}

/*
 * The guest unshares and writes: the backing shows what was shared (@first) or nothing. The
 * hypervisor writes there, which reaches nobody.
 */
static void look_at_private(struct uvc *c, uint64_t first, bool wait)
{
	uint8_t *backing = malloc(FLIP_BYTES);

	if (wait) {
		wait_until_discarded(c);
		assert_int_equal(resident(c), KEPT_BYTES);
	}
	read_backing(c, backing);
	for (uint64_t o = 0; o < FLIP_BYTES; o += 8) {
		if (word_at(backing, o) != 0)
			assert_int_equal(
				word_at(backing, o), workload_pattern(FLIP_GPA + o, first, 0));
	}
	memset(c->slot[0].base + FLIP_GPA, 0xbb, FLIP_BYTES / 2);
	free(backing);
}

static void check_share_again(bool wait)
{
	const uint8_t *flip, *kept;
	struct abi_vcpu_page page;
	struct uvc c;

	start(&c, NULL, ABI_VM_SHARE_MAPPED,
		"write" KEPT "9\nshare" KEPT "\n"
		"loop 20\n"
		"write" FLIP "1\nshare" FLIP "\nprint shared\n"
		"unshare" FLIP "\nwrite" FLIP "2\nprint private\n"
		"share" FLIP "\nprint again\n"
		"unshare" FLIP "\ncheck" FLIP "2\ncheck" KEPT "7\n"
		"end\npoweroff\n");
	/* What the switch left behind. */
	wait_until_discarded(&c);
	flip = c.slot[0].base + FLIP_GPA;
	kept = c.slot[0].base + KEPT_GPA;
	for (int round = 0; round < (wait ? 2 : 20); round++) {
		run_to(&c, "shared");
		uvc_assert_filled(flip, FLIP_GPA, FLIP_BYTES, 1);
		uvc_fill(c.slot[0].base + KEPT_GPA, KEPT_GPA, KEPT_BYTES, 7);
		go_on(&c);
		run_to(&c, "private");
		look_at_private(&c, 1, wait);
		go_on(&c);
		run_to(&c, "again");
		uvc_assert_filled(flip, FLIP_GPA, FLIP_BYTES, 2);
		uvc_assert_filled(kept, KEPT_GPA, KEPT_BYTES, 7);
		/* What is shared is off the queue: nothing is left to discard. */
		assert_int_equal(uvc_info(&c).stale_bytes, 0);
		assert_int_equal(resident(&c), FLIP_BYTES + KEPT_BYTES);
		go_on(&c);
	}
	if (!wait)
		uvc_run_until(&c, ABI_EXIT_POWEROFF, &page);
	uvc_end(&c);
}

static void test_shared_again_before_the_discard(void **state)
{
	check_share_again(false);
}

static void test_shared_again_after_the_discard(void **state)
{
	check_share_again(true);
}

/* A batch that fails stays queued and is tried again. */
static void test_failing_discard(void **state)
{
#ifdef LETHE_FAILPOINTS
	static const char *const failpoints[] = {"uv-stale-punch:1:EIO", "uv-stale-punch:4:ENOMEM"};

	for (size_t i = 0; i < sizeof(failpoints) / sizeof(failpoints[0]); i++) {
		struct uvc c;

		start(&c, failpoints[i], ABI_VM_SHARE_MAPPED,
			"write" FLIP "1\nshare" FLIP "\nunshare" FLIP "\nprint private\n");
		run_to(&c, "private");
		wait_until_discarded(&c);
		assert_int_equal(resident(&c), 0);
		uvc_end(&c);
	}
#else
	skip();
#endif
}

/* Pages that the hypervisor allocated, and never wrote, where nothing is shared. */
static void test_allocated_pages(void **state)
{
	uint64_t unused;
	struct uvc c;

	uvc_begin(&c, 1, 0, MEMORY);
	uvc_load(&c, "check 2M 1M\n");
	if (memfd_held(c.slot[0].memfd, 0, PAGE, &unused) == -ENOSYS) {
		uvc_end(&c);
		skip();
	}
	assert_int_equal(fallocate(c.slot[0].memfd, FALLOC_FL_KEEP_SIZE, 2 * MIB, 5 * MIB), 0);
	uvc_protect(&c, LOW);
	wait_until_discarded(&c);
	assert_int_equal(resident(&c), 0);
	uvc_end(&c);
}

/* The slot goes with its queue, while the sweeper is at it or not. */
static void test_slot_goes(void **state)
{
	for (int round = 0; round < 3; round++) {
		struct uvc c;

		uvc_begin(&c, 1, ABI_VM_SHARE_MAPPED, MEMORY);
		memset(c.slot[0].base, 'x', MEMORY);
		uvc_protect(&c, LOW);
		assert_int_equal(uvc_call0(&c, ABI_CALL_RESET, NULL, 0), ABI_ST_OK);
		assert_int_equal(uvc_info(&c).stale_bytes, 0);
		uvc_slots_drop(&c);
		assert_int_equal(uvc_slot_add(&c, 0, 0, MEMORY), ABI_ST_OK);
		uvc_load(&c, "poweroff\n");
		uvc_protect(&c, LOW);
		wait_until_discarded(&c);
		uvc_end(&c);
	}
}

/*
 * A large range keeps the sweeper busy; a small one is shared again while the batch under
 * way may be its own.
 */
static void test_shared_again_during_a_discard(void **state)
{
	const struct abi_policy all = {
		.max_shared_bytes = UINT64_MAX, .count = 1, .range = {{0, 128 * MIB}}};
	struct abi_vcpu_page page;
	struct uvc c;

	uvc_begin(&c, 2, ABI_VM_SHARE_MAPPED, 128 * MIB);
	uvc_load(&c, "vcpu 0\n"
		     "write 16M 80M 1\n"
		     "loop 6\nshare 16M 80M\nunshare 16M 80M\nend\n"
		     "check 16M 80M 1\n"
		     "barrier done\npoweroff\n"
		     "vcpu 1\n"
		     "write 2M 1M 2\n"
		     "loop 300\nshare 2M 1M\nunshare 2M 1M\ncheck 2M 1M 2\nend\n"
		     "barrier done\n");
	uvc_protect(&c, LOW);
	assert_int_equal(
		uvc_call(&c, ABI_CALL_POLICY, &all, sizeof(all), NULL, 0, NULL, 0), ABI_ST_OK);
	uvc_start(&c);
	uvc_run_until(&c, ABI_EXIT_POWEROFF, &page);
	wait_until_discarded(&c);
	assert_int_equal(resident(&c), 0);
	uvc_end(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shared_again_before_the_discard),
		cmocka_unit_test(test_shared_again_after_the_discard),
		cmocka_unit_test(test_shared_again_during_a_discard),
		cmocka_unit_test(test_failing_discard),
		cmocka_unit_test(test_allocated_pages),
		cmocka_unit_test(test_slot_goes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
