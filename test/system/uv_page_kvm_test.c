/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sealed pages under a guest of KVM, which waits for them in the kernel.  Tiny guests: the
 * KVM at hand may interpret.
 */
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "guest/kvm_image.h"
#include "os/kvm.h"
#include "os/userfault.h"
#include "test/system/uv_store.h"

/* The end of the memory is no whole 2M block, so its pages are small and some untouched. */
#define TAIL  (8 * MIB)
#define BYTES (TAIL + 256 * KIB)

static uint32_t bring(struct uvc *c, struct store *s, uint64_t gpa)
{
	uint64_t pages = 0;
	uint32_t status = store_in(c, s, gpa, PAGE, &pages);

	if (status == ABI_ST_OK)
		assert_int_equal(pages, 1);
	return status;
}

/* ---- guests ---- */

static void load_image(struct uvc *c, unsigned int vcpus)
{
	size_t bytes;

	memcpy(c->slot[0].base + GUEST_KVM_IMAGE_GPA, guest_kvm_image, guest_kvm_image_size);
	assert_int_equal(
		guest_kvm_tables(32 * MIB, c->slot[0].base + GUEST_KVM_TABLES_GPA, &bytes), 0);
	for (unsigned int i = 0; i < vcpus; i++) {
		struct abi_vcpu_state state;

		guest_kvm_state(i, &state);
		assert_int_equal(
			uvc_call(c, ABI_CALL_VCPU_STATE, &state, sizeof(state), NULL, 0, NULL, 0),
			ABI_ST_OK);
	}
}

/* A protected guest of KVM that runs @text; vCPU 0 waits in its first print. */
static void begin(struct uvc *c, unsigned int vcpus, const char *text)
{
	const struct abi_vm_create args = {.vcpus = vcpus, .executor = ABI_EXEC_KVM};
	struct abi_vcpu_page page;
	int fds[4];

	uvc_spawn(c);
	assert_int_equal(uvc_hello(c), ABI_ST_OK);
	uvc_make_shared(c, vcpus, fds);
	assert_int_equal(
		uvc_call(c, ABI_CALL_VM_CREATE, &args, sizeof(args), fds, 4, NULL, 0), ABI_ST_OK);
	assert_int_equal(uvc_slot_add(c, 0, 0, BYTES), ABI_ST_OK);
	uvc_load(c, text);
	load_image(c, vcpus);
	uvc_protect(c, LOW);
	uvc_start(c);
	uvc_run_until(c, ABI_EXIT_PRINT, &page);
}

/* Brings every page that is wanted until vCPU 0 exits with @type; says yes to all else. */
static void serve_until(
	struct uvc *c, struct store *s, uint32_t type, struct abi_vcpu_page *ret, uint64_t *events)
{
	struct pollfd p = {.fd = c->socket, .events = POLLIN};

	for (;;) {
		if (uvc_has_exit(c, 0)) {
			uvc_exit(c, 0, ret);
			if (ret->type == ABI_EXIT_STOPPED && type != ABI_EXIT_STOPPED)
				fail_msg("the guest was stopped: %.*s", (int)ret->data_size,
					(const char *)ret->data);
			if (ret->type == type)
				return;
			uvc_reply(c, 0, ABI_ST_OK);
		} else if (c->event_count > 0 || poll(&p, 1, 1) > 0) {
			struct abi_event e = uvc_event(c);

			for (uint64_t o = 0; o < e.bytes; o += PAGE)
				assert_int_equal(bring(c, s, e.gpa + o), ABI_ST_OK);
			++*events;
		}
	}
}

static void go_on(struct uvc *c)
{
	uvc_reply(c, 0, ABI_ST_OK);
}

/* ---- tests ---- */

static void test_round_trip(void **state)
{
	struct store *s = store_new();
	struct abi_vcpu_page page;
	uint64_t events = 0;
	struct uvc c;

	begin(&c, 1,
		"write 2M 16K 7\nwrite 8M 16K 8\nprint out\n"
		"check 2M 16K 7\ncheck 8M 16K 8\nzero 8208K 8K\nwrite 8M 8K 9\ncheck 8M 8K 9\n"
		"poweroff\n");
	assert_in_range(store_out(&c, s, 2 * MIB, MIB), 4, 256);
	assert_int_equal(store_out(&c, s, TAIL, 256 * KIB), 4);
	assert_int_equal(store_out(&c, s, TAIL, 256 * KIB), 0);
	go_on(&c);
	serve_until(&c, s, ABI_EXIT_POWEROFF, &page, &events);
	assert_int_equal(events, 8);
	store_end(&c, s);
}

/* Code, stack, page tables and the workload's text: all that a guest stands on. */
static void test_everything_out(void **state)
{
	struct store *s = store_new();
	struct abi_vcpu_page page;
	uint64_t events = 0;
	struct uvc c;

	begin(&c, 1, "write 2M 8K\nprint out\ncheck 2M 8K\nprint in\npoweroff\n");
	for (uint64_t at = 0; at < TAIL; at += MIB)
		(void)store_out(&c, s, at, MIB);
	go_on(&c);
	serve_until(&c, s, ABI_EXIT_POWEROFF, &page, &events);
	assert_true(events > 4);
	store_end(&c, s);
}

/* Out and in again and again, with the content changing in between. */
static void test_again_and_again(void **state)
{
	struct store *s = store_new();
	struct abi_vcpu_page page;
	uint64_t events = 0;
	struct uvc c;

	begin(&c, 1,
		"write 8M 4K 1\nprint a\n"
		"loop 5\ncheck 8M 4K 1\nwrite 8M 4K 1\nprint b\nend\npoweroff\n");
	for (unsigned int i = 0; i < 5; i++) {
		assert_int_equal(store_out(&c, s, TAIL, 256 * KIB), 1);
		go_on(&c);
		serve_until(&c, s, ABI_EXIT_PRINT, &page, &events);
		assert_int_equal(events, i + 1);
		assert_int_equal(uvc_info(&c).sealed_pages, 0);
	}
	go_on(&c);
	serve_until(&c, s, ABI_EXIT_POWEROFF, &page, &events);
	store_end(&c, s);
}

/* While a vCPU waits inside, what needs it outside is refused, and all else works. */
static void test_busy_while_waiting(void **state)
{
	struct store *s = store_new();
	struct abi_page_out_ret ret;
	struct abi_vcpu_page page;
	struct abi_event e;
	uint64_t events = 0;
	struct uvc c;

	begin(&c, 1, "write 8M 8K\nprint out\ncheck 8M 8K\nprint in\nzero 16M 4K\npoweroff\n");
	assert_int_equal(store_out(&c, s, TAIL, 256 * KIB), 2);
	go_on(&c);
	e = uvc_event(&c);
	assert_int_equal(e.gpa, TAIL);
	assert_int_equal(uvc_page_out(&c, 2 * MIB, MIB, &ret), ABI_ST_AGAIN);
	assert_int_equal(uvc_slot_add(&c, 1, 16 * MIB, MIB), ABI_ST_AGAIN);
	assert_int_equal(uvc_info(&c).sealed_pages, 2);
	assert_int_equal(uvc_mem(&c, ABI_CALL_MEM_READ, TAIL, PAGE), ABI_ST_DENIED);
	assert_int_equal(bring(&c, s, TAIL), ABI_ST_OK);
	e = uvc_event(&c);
	assert_int_equal(e.gpa, TAIL + PAGE);
	assert_int_equal(bring(&c, s, TAIL + PAGE), ABI_ST_OK);
	/* Nothing is sealed now: memory can be added beside the running guest. */
	assert_int_equal(uvc_slot_add(&c, 1, 16 * MIB, MIB), ABI_ST_OK);
	serve_until(&c, s, ABI_EXIT_POWEROFF, &page, &events);
	store_end(&c, s);
}

/* Long enough for a vCPU that runs to want its next page. */
#define NEXT_MS 20

/*
 * PAGE_OUT while vCPUs want one page after the other, tried again when the first ones have come
 * and the next are wanted, if the vCPUs go on.  Returns whether pages were sealed still when it
 * got through.
 */
static bool gets_through(struct uvc *c, struct store *s)
{
	struct pollfd p = {.fd = c->socket, .events = POLLIN};
	struct abi_page_out_ret ret;
	uint32_t status;

	do {
		struct abi_event e = uvc_event(c);

		/* Sleeps for it until it is brought. */
		assert_int_equal(uvc_page_out(c, 4 * MIB, MIB, &ret), ABI_ST_AGAIN);
		do
			assert_int_equal(bring(c, s, e.gpa), ABI_ST_OK);
		while (c->event_count > 0 && (e = uvc_event(c)).gpa != 0);
		(void)poll(&p, 1, NEXT_MS);
		status = uvc_page_out(c, 4 * MIB, MIB, &ret);
	} while (status == ABI_ST_AGAIN);
	assert_int_equal(status, ABI_ST_OK);
	return uvc_info(c).sealed_pages > 0;
}

/* Three vCPUs, each with 20 pages of its own, of which it uses a word each. */
static void touch_pages(char *text, size_t size)
{
	int n = snprintf(text, size, "vcpu 0\nwrite 8M 240K\nprint out\n");

	for (unsigned int i = 0; i < 60; i++) {
		if (i % 20 == 0)
			n += snprintf(text + n, size - (size_t)n, "vcpu %u\nbarrier go\n", i / 20);
		n += snprintf(text + n, size - (size_t)n, "check %uK 8\n", 8192 + i * 4);
		if (i % 20 == 19)
			n += snprintf(text + n, size - (size_t)n, "barrier done\n");
	}
	snprintf(text + n, size - (size_t)n, "vcpu 0\npoweroff\n");
}

/* Who is to go outside does not go for the next page first. */
static void test_page_out_among_faults(void **state)
{
	struct store *s = store_new();
	struct abi_vcpu_page page;
	uint64_t events = 0;
	bool through = false;
	char text[4096];
	struct uvc c;

	touch_pages(text, sizeof(text));
	/* On a machine that stalls a hold may be over before the second try. */
	for (unsigned int i = 0; i < 5 && !through; i++) {
		begin(&c, 3, text);
		assert_int_equal(store_out(&c, s, TAIL, 256 * KIB), 60);
		go_on(&c);
		through = gets_through(&c, s);
		serve_until(&c, s, ABI_EXIT_POWEROFF, &page, &events);
		uvc_end(&c);
	}
	assert_true(through);
	free(s);
}

/* A stop finds vCPUs asleep in the kernel, and so does the end. */
static void test_stop_while_waiting(void **state)
{
	struct store *s = store_new();
	struct uvc c;

	for (int stop = 0; stop < 2; stop++) {
		begin(&c, 2,
			"vcpu 0\nwrite 8M 4K\nprint out\ncheck 8M 4K\nprint never\npoweroff\n"
			"vcpu 1\nloop 1000000\nzero 2M 8\nend\n");
		assert_int_equal(store_out(&c, s, TAIL, 256 * KIB), 1);
		go_on(&c);
		(void)uvc_event(&c);
		if (stop != 0) {
			struct abi_vcpu_page page;

			assert_int_equal(uvc_call0(&c, ABI_CALL_VM_STOP, NULL, 0), ABI_ST_OK);
			uvc_exit(&c, 0, &page);
			assert_int_equal(page.type, ABI_EXIT_CLOSED);
			assert_int_equal(uvc_call0(&c, ABI_CALL_PREPARE, NULL, 0), ABI_ST_OK);
			uvc_slots_drop(&c);
			assert_int_equal(uvc_call0(&c, ABI_CALL_PERFORM, NULL, 0), ABI_ST_OK);
		}
		uvc_end(&c);
	}
	free(s);
}

/* One vCPU's release needs the other outside, which waits for a page: it comes, both go on. */
static void test_release_while_waiting(void **state)
{
	struct store *s = store_new();
	struct abi_vcpu_page page;
	struct abi_event e;
	struct uvc c;

	begin(&c, 2,
		"vcpu 0\nwrite 8M 4K\nprint out\nbarrier go\nsleep 5\nrelease 2M 2M\n"
		"barrier done\npoweroff\n"
		"vcpu 1\nbarrier go\ncheck 8M 4K\nbarrier done\n");
	assert_int_equal(store_out(&c, s, TAIL, 256 * KIB), 1);
	go_on(&c);
	e = uvc_event(&c);
	assert_int_equal(bring(&c, s, e.gpa), ABI_ST_OK);
	uvc_exit(&c, 0, &page);
	assert_int_equal(page.type, ABI_EXIT_RELEASE);
	uvc_reply(&c, 0, ABI_ST_OK);
	uvc_exit(&c, 0, &page);
	assert_int_equal(page.type, ABI_EXIT_POWEROFF);
	store_end(&c, s);
}

/* What was not sealed there stops the VM, and the guest never goes on. */
static void test_bad_page(void **state)
{
	struct store *s = store_new();
	struct uvc c;

	begin(&c, 1, "write 8M 4K\nprint out\ncheck 8M 4K\nprint never\npoweroff\n");
	assert_int_equal(store_out(&c, s, TAIL, 256 * KIB), 1);
	s->page[TAIL / PAGE][100] ^= 1;
	go_on(&c);
	(void)uvc_event(&c);
	assert_int_equal(bring(&c, s, TAIL), ABI_ST_BAD_PAGE);
	uvc_expect_stopped(&c, ABI_STOP_LOST_PAGE, TAIL);
	store_end(&c, s);
}

/* Conversions fetch what is sealed; copies fill what was never touched. */
static void test_shared_among_sealed(void **state)
{
	static const uint8_t zeros[PAGE];
	struct store *s = store_new();
	struct abi_vcpu_page page;
	uint64_t events = 0;
	struct uvc c;

	begin(&c, 1,
		"write 8M 8K\nshare 8224K 8K\nprint out\nshare 8M 4K\nprint shared\n"
		"check 8M 8K\nrelease 8196K 4K\npoweroff\n");
	/* Of the two shared pages none was ever touched; the two others go. */
	assert_int_equal(store_out(&c, s, TAIL, 256 * KIB), 2);
	assert_int_equal(uvc_mem(&c, ABI_CALL_MEM_READ, TAIL + 32 * KIB, 8 * KIB), ABI_ST_OK);
	assert_memory_equal(c.bulk, zeros, PAGE);
	go_on(&c);
	serve_until(&c, s, ABI_EXIT_PRINT, &page, &events);
	assert_int_equal(events, 1);
	assert_int_equal(uvc_mem(&c, ABI_CALL_MEM_READ, TAIL, PAGE), ABI_ST_OK);
	uvc_assert_filled(c.bulk, TAIL, PAGE, 0);
	go_on(&c);
	serve_until(&c, s, ABI_EXIT_POWEROFF, &page, &events);
	store_end(&c, s);
}

/* Without the thread that serves faults there is no VM, and nothing is left of the attempt. */
static void test_creation_fails(void **state)
{
	const struct abi_vm_create args = {.vcpus = 1, .executor = ABI_EXEC_KVM};
	struct uvc c;
	int fds[4];

#ifndef LETHE_FAILPOINTS
	skip();
#endif
	uvc_spawn_failing(&c, "uv-kvm-faults");
	uvc_make_shared(&c, 1, fds);
	assert_int_equal(uvc_call(&c, ABI_CALL_VM_CREATE, &args, sizeof(args), fds, 4, NULL, 0),
		ABI_ST_NO_MEMORY);
	assert_int_equal(
		uvc_call(&c, ABI_CALL_VM_CREATE, &args, sizeof(args), fds, 4, NULL, 0), ABI_ST_OK);
	uvc_end(&c);
}

/* What fails once has changed nothing, and works the next time. */
static void test_failures(void **state)
{
	struct store *s = store_new();
	struct abi_page_out_ret ret;
	struct abi_vcpu_page page;
	uint64_t events = 0, pages = 0, in;
	struct uvc c;

#ifndef LETHE_FAILPOINTS
	skip();
#endif
	setenv("LETHE_FAILPOINT", "userfault-register", 1);
	begin(&c, 1, "write 8M 4K\nprint out\ncheck 8M 4K\npoweroff\n");
	assert_int_equal(uvc_page_out(&c, TAIL, PAGE, &ret), ABI_ST_NO_MEMORY);
	assert_int_equal(uvc_info(&c).sealed_pages, 0);
	assert_int_equal(store_out(&c, s, TAIL, PAGE), 1);
	go_on(&c);
	serve_until(&c, s, ABI_EXIT_POWEROFF, &page, &events);
	uvc_end(&c);

	setenv("LETHE_FAILPOINT", "userfault-copy", 1);
	begin(&c, 1, "write 8M 4K\nprint out\ncheck 8M 4K\npoweroff\n");
	assert_int_equal(store_out(&c, s, TAIL, PAGE), 1);
	go_on(&c);
	(void)uvc_event(&c);
	assert_int_equal(bring(&c, s, TAIL), ABI_ST_NO_MEMORY);
	assert_int_equal(uvc_info(&c).sealed_pages, 1);
	assert_int_equal(bring(&c, s, TAIL), ABI_ST_OK);
	serve_until(&c, s, ABI_EXIT_POWEROFF, &page, &events);
	uvc_end(&c);

	/* In the middle of a run: what is there stays, and the rest is sealed as before. */
	setenv("LETHE_FAILPOINT", "userfault-copy:2", 1);
	begin(&c, 1, "write 8M 80K\nprint out\ncheck 8M 80K\npoweroff\n");
	assert_int_equal(store_out(&c, s, TAIL, 80 * KIB), 20);
	assert_int_equal(store_in(&c, s, TAIL, 80 * KIB, &pages), ABI_ST_OK);
	assert_in_range(pages, 1, 19);
	assert_int_equal(uvc_info(&c).sealed_pages, 20 - pages);
	in = pages;
	assert_int_equal(store_in(&c, s, TAIL, 80 * KIB, &pages), ABI_ST_OK);
	assert_int_equal(in + pages, 20);
	go_on(&c);
	serve_until(&c, s, ABI_EXIT_POWEROFF, &page, &events);
	assert_int_equal(uvc_info(&c).sealed_pages, 0);
	uvc_end(&c);
	unsetenv("LETHE_FAILPOINT");
	free(s);
}

static bool is_possible(char *why, size_t size)
{
	struct userfault u;
	int kvm = kvm_open(why, size);

	if (kvm < 0 || userfault_open(&u, why, size) < 0)
		return false;
	userfault_close(&u);
	return true;
}

/* What was used, KVM does not say: all memory is offered in turn. */
static void test_coldest_takes_turns(void **state)
{
	const uint64_t blocks[] = {0, 1, 2, 3, 0, 1};
	struct abi_coldest_ret cold;
	uint64_t looked = 0;
	struct uvc c;

	begin(&c, 1, "write 2M 4K\nwrite 4M 4K\nwrite 6M 4K\nprint a\n");
	for (size_t i = 0; i < COUNT(blocks); i++) {
		assert_int_equal(uvc_coldest(&c, PAGE, &cold), ABI_ST_OK);
		assert_int_equal(cold.count, 1);
		assert_int_equal(cold.range[0].gpa / (2 * MIB), blocks[i]);
		looked += cold.looked;
		assert_int_equal(looked % BYTES, (blocks[i] + 1) * 2 * MIB);
	}
	uvc_end(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_everything_out),
		cmocka_unit_test(test_again_and_again),
		cmocka_unit_test(test_busy_while_waiting),
		cmocka_unit_test(test_page_out_among_faults),
		cmocka_unit_test(test_stop_while_waiting),
		cmocka_unit_test(test_release_while_waiting),
		cmocka_unit_test(test_bad_page),
		cmocka_unit_test(test_shared_among_sealed),
		cmocka_unit_test(test_creation_fails),
		cmocka_unit_test(test_failures),
		cmocka_unit_test(test_coldest_takes_turns),
	};
	char why[256];

	if (!is_possible(why, sizeof(why))) {
		fprintf(stderr, "skipped: %s\n", why);
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
