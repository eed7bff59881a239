/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Random guests against a model of one state and one content a page.
 *
 * A sequence is drawn up beforehand: what the guest does (write, share, unshare, release,
 * reboot), what the device writes into shared pages and what is paged out in between, and what
 * every page must hold.  The guest itself checks its memory, page by page.  Once as drawn up;
 * once more with a thread that pages out all the time, whatever the guest is about.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "guest/workload.h"
#include "test/system/paging.h"

#define BASE  (2 * MIB)
#define PAGES 192u
#define STEPS 120u

enum kind { KIND_PRIVATE, KIND_SHARED, KIND_RELEASED };

struct page {
	enum kind kind;
	unsigned int seed; /* of its content; 0: zeros */
};

static unsigned int steps = STEPS;

/* What the hypervisor does when the guest has printed. */
struct act {
	enum { ACT_NOTHING, ACT_OUT, ACT_COLD, ACT_DEVICE, ACT_REBOOT } what;
	unsigned int first, count; /* pages */
	unsigned int seed;
	unsigned int life;
	struct page page[PAGES]; /* what there is then */
};

struct plan {
	char text[256 << 10];
	size_t used;
	uint32_t random;
	unsigned int life, seed;
	struct page page[PAGES];
	struct act act[STEPS + 2];
	unsigned int acts;
};

static struct plan plan;
static struct test_store *store;
static struct guest guest;

static uint32_t draw(uint32_t below)
{
	plan.random = plan.random * 1664525 + 1013904223;
	return (plan.random >> 8) % below;
}

__attribute__((format(printf, 1, 2))) static void add(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	plan.used += (size_t)vsnprintf(
		plan.text + plan.used, sizeof(plan.text) - plan.used, format, args);
	va_end(args);
	NEED(plan.used < sizeof(plan.text));
}

static uint64_t address(unsigned int page)
{
	return BASE + page * PAGE;
}

static void draw_run(unsigned int *first, unsigned int *count)
{
	*first = draw(PAGES);
	*count = 1 + draw(draw(4) == 0 ? 64 : 8);
	if (*count > PAGES - *first)
		*count = PAGES - *first;
}

static bool has(unsigned int first, unsigned int count, enum kind kind)
{
	for (unsigned int i = first; i < first + count; i++) {
		if (plan.page[i].kind == kind)
			return true;
	}
	return false;
}

static void set_seed(unsigned int first, unsigned int count, unsigned int seed)
{
	for (unsigned int i = first; i < first + count; i++)
		plan.page[i].seed = seed;
}

static void set_kind(unsigned int first, unsigned int count, enum kind kind)
{
	for (unsigned int i = first; i < first + count; i++)
		plan.page[i].kind = kind;
}

static void check(unsigned int i)
{
	unsigned long long at = address(i);

	if (plan.page[i].kind == KIND_RELEASED)
		return;
	if (plan.page[i].seed == 0)
		add("zero %llu 4K\n", at);
	else
		add("check %llu 4K %u\n", at, plan.page[i].seed);
}

static struct act *new_act(void)
{
	struct act *a = &plan.act[plan.acts++];

	memcpy(a->page, plan.page, sizeof(a->page));
	a->life = plan.life;
	return a;
}

/* What the hypervisor does next; it may change what there is. */
static void plan_act(void)
{
	struct act *a;
	uint32_t what = draw(10);
	unsigned int first, count;

	add("print step\n");
	a = new_act();
	draw_run(&first, &count);
	a->first = first;
	a->count = count;
	if (what < 5) {
		a->what = ACT_OUT;
	} else if (what < 6) {
		a->what = ACT_OUT;
		a->first = 0;
		a->count = PAGES;
	} else if (what < 7) {
		a->what = ACT_COLD;
	} else if (what < 9 && !has(first, count, KIND_PRIVATE) &&
		   !has(first, count, KIND_RELEASED)) {
		a->what = ACT_DEVICE;
		a->seed = ++plan.seed;
		set_seed(first, count, a->seed);
	}
}

static void plan_reboot(void)
{
	add("reboot\nprotect\n");
	new_act()->what = ACT_REBOOT;
	plan.life++;
	memset(plan.page, 0, sizeof(plan.page));
}

static void plan_step(void)
{
	uint32_t what = draw(100);
	unsigned int first, count;

	draw_run(&first, &count);
	if (has(first, count, KIND_RELEASED))
		return;
	if (what < 40) {
		plan.seed++;
		add("write %llu %u %u\n", (unsigned long long)address(first),
			count * (unsigned int)PAGE, plan.seed);
		set_seed(first, count, plan.seed);
	} else if (what < 60) {
		for (unsigned int i = first; i < first + count; i++)
			check(i);
	} else if (what < 78) {
		add("share %llu %u\n", (unsigned long long)address(first),
			count * (unsigned int)PAGE);
		set_kind(first, count, KIND_SHARED);
	} else if (what < 94) {
		add("unshare %llu %u\n", (unsigned long long)address(first),
			count * (unsigned int)PAGE);
		set_kind(first, count, KIND_PRIVATE);
	} else if (what < 97 && !has(first, count, KIND_SHARED)) {
		add("release %llu %u\n", (unsigned long long)address(first),
			count * (unsigned int)PAGE);
		set_kind(first, count, KIND_RELEASED);
	} else if (what == 99) {
		plan_reboot();
	}
}

static void draw_up(uint32_t seed)
{
	memset(&plan, 0, sizeof(plan));
	plan.random = seed;
	add("protect\n");
	for (unsigned int i = 0; plan.acts < steps; i++) {
		plan_step();
		plan_act();
	}
	for (unsigned int i = 0; i < PAGES; i++)
		check(i);
	add("print end\n");
}

/* ---- as drawn up ---- */

static void check_states(const struct act *a)
{
	for (unsigned int i = 0; i < PAGES; i++) {
		enum lethe_gfn_state state = guest_state(&guest, address(i));

		switch (a->page[i].kind) {
		case KIND_PRIVATE:
			NEED(state == LETHE_GFN_SECURE || state == LETHE_GFN_PAGED_OUT);
			break;
		case KIND_SHARED:
			NEED(state == LETHE_GFN_SHARED);
			break;
		case KIND_RELEASED:
			NEED(state == LETHE_GFN_NORMAL);
			break;
		}
	}
}

static void write_as_device(const struct act *a)
{
	uint64_t word[PAGE / 8];

	for (unsigned int i = a->first; i < a->first + a->count; i++) {
		for (unsigned int k = 0; k < PAGE / 8; k++)
			word[k] = workload_pattern(address(i) + k * 8, a->seed, a->life);
		NEED(lethe_mem_write(guest.vm, address(i), word, PAGE) == 0);
	}
}

/* A page goes out if it is private and holds something, and only then. */
static void out(const struct act *a)
{
	for (unsigned int i = a->first; i < a->first + a->count; i++) {
		bool was_out = guest_state(&guest, address(i)) == LETHE_GFN_PAGED_OUT;
		uint64_t pages = guest_out(&guest, address(i), PAGE);

		if (a->page[i].kind != KIND_PRIVATE || was_out)
			NEED(pages == 0);
		else if (a->page[i].seed != 0)
			NEED(pages == 1);
		if (pages > 0)
			NEED(guest_state(&guest, address(i)) == LETHE_GFN_PAGED_OUT);
	}
}

static void act(const struct act *a, bool alone)
{
	uint64_t bytes;

	check_states(a);
	switch (a->what) {
	case ACT_OUT:
		if (alone && a->count < 8)
			out(a);
		else if (alone)
			guest_out(&guest, address(a->first), a->count * PAGE);
		break;
	case ACT_COLD:
		if (alone)
			NEED(lethe_page_out_cold(guest.vm, a->count * PAGE, &bytes) == 0);
		break;
	case ACT_DEVICE:
		write_as_device(a);
		break;
	default:
		break;
	}
}

static void run_plan(bool alone)
{
	for (unsigned int i = 0; i < plan.acts; i++) {
		enum lethe_exit_type type = guest_run(&guest, 0);

		if (type == LETHE_EXIT_STOPPED)
			fprintf(stderr, "step %u: %s\n", i, guest.exit[0].text);
		NEED(type ==
			(plan.act[i].what == ACT_REBOOT ? LETHE_EXIT_REBOOT : LETHE_EXIT_PRINT));
		if (plan.act[i].what == ACT_REBOOT)
			guest_reboot(&guest);
		else
			act(&plan.act[i], alone);
	}
	guest_run_to(&guest, 0, "end");
}

/* What the guests since the last look have paged. */
static struct {
	uint64_t out, in;
	size_t gets;
} paged;

static void end_guest(void)
{
	struct lethe_info info;

	NEED(lethe_vm_info(guest.vm, &info) == 0);
	paged.out += info.pages_out;
	paged.in += info.pages_in;
	paged.gets += test_store_seen(store).gets;
	guest_end(&guest);
	test_store_free(store);
}

/* Pages have been out and in, or nothing was tested. */
static void check_paged(void)
{
	NEED(paged.out > 0 && paged.in > 0 && paged.gets > 0);
	memset(&paged, 0, sizeof(paged));
}

static void sequence(uint32_t seed, enum lethe_share share)
{
	draw_up(seed);
	store = test_store_new();
	guest_start(&guest, 1, plan.text, share, &store->ops);
	run_plan(true);
	end_guest();
	check_paged();
}

static void test_sequences_copied(void **unused)
{
	for (uint32_t seed = 1; seed <= 6; seed++)
		sequence(seed, LETHE_SHARE_COPIED);
}

static void test_sequences_mapped(void **unused)
{
	for (uint32_t seed = 101; seed <= 106; seed++)
		sequence(seed, LETHE_SHARE_MAPPED);
}

static void test_sequences_auto(void **unused)
{
	for (uint32_t seed = 201; seed <= 204; seed++)
		sequence(seed, LETHE_SHARE_AUTO);
}

/* ---- with somebody who pages out all the time ---- */

static atomic_bool enough;

static void *page_out(void *arg)
{
	uint32_t random = *(uint32_t *)arg;

	while (!atomic_load(&enough)) {
		uint64_t unused, first;
		int err;

		random = random * 1664525 + 1013904223;
		first = (random >> 8) % PAGES;
		err = (random >> 24) % 8 == 0
			      ? lethe_page_out_cold(guest.vm, 16 * PAGE, &unused)
			      : lethe_page_out(guest.vm, address((unsigned int)first),
					(1 + (random >> 16) % (PAGES - first)) * PAGE, &unused);
		/* A conversion, a reboot: these pass. */
		NEED(err == 0 || err == -EAGAIN || err == -EPROTO || err == -ENOENT);
	}
	return NULL;
}

static void race(uint32_t seed, enum lethe_share share)
{
	pthread_t thread;

	draw_up(seed);
	store = test_store_new();
	guest_start(&guest, 1, plan.text, share, &store->ops);
	atomic_store(&enough, false);
	assert_int_equal(pthread_create(&thread, NULL, page_out, &seed), 0);
	run_plan(false);
	atomic_store(&enough, true);
	pthread_join(thread, NULL);
	end_guest();
}

static void test_races_copied(void **unused)
{
	for (uint32_t seed = 301; seed <= 303; seed++)
		race(seed, LETHE_SHARE_COPIED);
	/* One alone may be over before the other thread has had a turn. */
	check_paged();
}

static void test_races_mapped(void **unused)
{
	for (uint32_t seed = 401; seed <= 403; seed++)
		race(seed, LETHE_SHARE_MAPPED);
	/* One alone may be over before the other thread has had a turn. */
	check_paged();
}

static void test_kvm(void **unused)
{
	sequence(501, LETHE_SHARE_COPIED);
	sequence(502, LETHE_SHARE_MAPPED);
	race(503, LETHE_SHARE_AUTO);
	memset(&paged, 0, sizeof(paged));
}

/*
 * On KVM, which may be one that interprets: little of everything.  Exit status 77 where it does
 * not work.
 */
static int run_on_kvm(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kvm),
	};
	uint64_t pages;
	int err = lethe_executor_probe(LETHE_EXECUTOR_KVM);

	if (err == 0) {
		guest_executor = LETHE_EXECUTOR_KVM;
		store = test_store_new();
		guest_start(&guest, 1, "protect\nwrite 2M 4K\nprint written\n", LETHE_SHARE_AUTO,
			&store->ops);
		guest_run_to(&guest, 0, "written");
		err = lethe_page_out(guest.vm, 2 * MIB, PAGE, &pages);
		guest_end(&guest);
		test_store_free(store);
	}
	if (err != 0) {
		fprintf(stderr, "%s\n", lethe_error());
		return 77;
	}
	steps = 24;
	return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sequences_copied),
		cmocka_unit_test(test_sequences_mapped),
		cmocka_unit_test(test_sequences_auto),
		cmocka_unit_test(test_races_copied),
		cmocka_unit_test(test_races_mapped),
	};

	if (argc > 1 && strcmp(argv[1], "kvm") == 0)
		return run_on_kvm();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
