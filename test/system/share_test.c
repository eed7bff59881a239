/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Shared memory as a VMM sees it: states under a policy, copies of many pieces, conversions
 * across slots, and a device that reads and writes what the guest shares and takes back.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "abi/guestcall.h"
#include "guest/workload.h"
#include "lethe/lethe.h"

#define KIB    ((uint64_t)1 << 10)
#define MIB    ((uint64_t)1 << 20)
#define PAGE   ((uint64_t)4096)
#define MEMORY (8 * MIB)
#define LOW    MIB

static const enum lethe_share ways[] = {LETHE_SHARE_COPIED, LETHE_SHARE_MAPPED, LETHE_SHARE_AUTO};
#define WAYS (sizeof(ways) / sizeof(ways[0]))

static const struct lethe_range everything = {0, (uint64_t)1 << 48};

struct guest {
	struct lethe_vm *vm;
	struct lethe_exit exit;
};

/* A secure VM of two slots that adjoin; the guest is at its first instruction. */
static void begin(struct guest *g, enum lethe_share share, bool policy, const char *text)
{
	const struct lethe_vm_config config = {.vcpus = 1,
		.executor = LETHE_EXECUTOR_SW,
		.share = share,
		.uv_path = getenv("LETHE_UV")};
	const struct lethe_range low = {0, LOW};
	struct guest_text head = {.magic = GUEST_TEXT_MAGIC, .bytes = (uint32_t)strlen(text)};

	memset(g, 0, sizeof(*g));
	assert_int_equal(lethe_vm_new(&config, &g->vm), 0);
	assert_int_equal(lethe_slot_add(g->vm, 0, 0, MEMORY), 0);
	assert_int_equal(lethe_slot_add(g->vm, 1, MEMORY, MEMORY), 0);
	assert_int_equal(lethe_vm_load(g->vm, GUEST_TEXT_GPA, &head, sizeof(head)), 0);
	assert_int_equal(lethe_vm_load(g->vm, GUEST_TEXT_GPA + sizeof(head), text, head.bytes), 0);
	assert_int_equal(lethe_vm_protect(g->vm, &low, 1, NULL), 0);
	if (policy)
		assert_int_equal(lethe_vm_set_policy(g->vm, &everything, 1, UINT64_MAX), 0);
	assert_int_equal(lethe_vm_start(g->vm, NULL), 0);
}

static void end(struct guest *g)
{
	assert_int_equal(lethe_vm_stop(g->vm), 0);
	lethe_vm_close(g->vm, true);
}

/* Answers the last exit and takes the next. */
static void next(struct guest *g, enum lethe_exit_type type, int reply)
{
	g->exit.reply = reply;
	assert_int_equal(lethe_vcpu_run(g->vm, 0, &g->exit), 0);
	if (g->exit.type == LETHE_EXIT_STOPPED)
		print_message("the guest was stopped: %s\n", g->exit.text);
	assert_int_equal(g->exit.type, type);
}

static void assert_pattern(const uint8_t *at, uint64_t gpa, uint64_t bytes, uint64_t seed)
{
	for (uint64_t o = 0; o < bytes; o += 8) {
		uint64_t word;

		memcpy(&word, at + o, 8);
		assert_int_equal(word, workload_pattern(gpa + o, seed, 0));
	}
}

static void fill(uint8_t *to, uint64_t gpa, uint64_t bytes, uint64_t seed)
{
	for (uint64_t o = 0; o < bytes; o += 8) {
		uint64_t word = workload_pattern(gpa + o, seed, 0);

		memcpy(to + o, &word, 8);
	}
}

static enum lethe_gfn_state state_of(struct guest *g, uint64_t gpa)
{
	enum lethe_gfn_state state = LETHE_GFN_NORMAL;

	assert_int_equal(lethe_gfn_state(g->vm, gpa, &state), 0);
	return state;
}

/* ---- states ---- */

/* What a policy lets happen unseen is seen when it is looked for, also after it is gone. */
static void test_states_under_a_policy(void **unused)
{
	const struct lethe_range bad[] = {{0, 0}, {1, PAGE}, {0, PAGE + 1}};
	struct lethe_range many[33];
	struct lethe_info info;
	struct guest g;
	uint8_t byte;

	for (size_t i = 0; i < 33; i++)
		many[i] = (struct lethe_range){i * PAGE, PAGE};
	begin(&g, LETHE_SHARE_COPIED, true,
		"share 2M 8K\nprint shared\nunshare 2M 4K\nprint again\nunshare 2M 8K\npoweroff\n");
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(lethe_vm_set_policy(g.vm, &bad[i], 1, 0), -EINVAL);
	assert_int_equal(lethe_vm_set_policy(g.vm, many, 33, 0), -EINVAL);
	next(&g, LETHE_EXIT_PRINT, 0);
	assert_int_equal(state_of(&g, 2 * MIB), LETHE_GFN_SHARED);
	assert_int_equal(state_of(&g, 3 * MIB), LETHE_GFN_SECURE);
	assert_int_equal(lethe_mem_read(g.vm, 2 * MIB, &byte, 1), 0);
	assert_int_equal(lethe_mem_read(g.vm, 3 * MIB, &byte, 1), -EPERM);
	next(&g, LETHE_EXIT_PRINT, 0);
	assert_int_equal(state_of(&g, 2 * MIB), LETHE_GFN_SECURE);
	assert_int_equal(lethe_mem_read(g.vm, 2 * MIB, &byte, 1), -EPERM);
	assert_int_equal(lethe_vm_set_policy(g.vm, NULL, 0, 0), 0);
	assert_int_equal(state_of(&g, 2 * MIB + PAGE), LETHE_GFN_SHARED);
	assert_int_equal(lethe_mem_write(g.vm, 2 * MIB + PAGE, "x", 1), 0);
	assert_int_equal(lethe_vm_info(g.vm, &info), 0);
	assert_int_equal(info.policy_shares, 1);
	assert_int_equal(info.policy_unshares, 1);
	assert_int_equal(info.shared_bytes, PAGE);
	next(&g, LETHE_EXIT_CONVERT, 0);
	end(&g);
}

/* Accepted, and refused, over two slots: the states of both follow. */
static void test_states_across_slots(void **unused)
{
	struct guest g;

	begin(&g, LETHE_SHARE_COPIED, false,
		"share 8188K 8K\nprint shared\nunshare 4M 8M\nprint private\nshare 8M 8M\n");
	next(&g, LETHE_EXIT_CONVERT, 0);
	assert_int_equal(g.exit.bytes, 8 * KIB);
	next(&g, LETHE_EXIT_PRINT, 0);
	assert_int_equal(state_of(&g, MEMORY - PAGE), LETHE_GFN_SHARED);
	assert_int_equal(state_of(&g, MEMORY), LETHE_GFN_SHARED);
	assert_int_equal(state_of(&g, MEMORY + PAGE), LETHE_GFN_SECURE);
	next(&g, LETHE_EXIT_CONVERT, 0);
	next(&g, LETHE_EXIT_PRINT, 0);
	assert_int_equal(state_of(&g, MEMORY - PAGE), LETHE_GFN_SECURE);
	assert_int_equal(state_of(&g, MEMORY), LETHE_GFN_SECURE);
	next(&g, LETHE_EXIT_CONVERT, 0);
	next(&g, LETHE_EXIT_STOPPED, -EPERM);
	assert_int_equal(state_of(&g, MEMORY), LETHE_GFN_SECURE);
	end(&g);
}

/* ---- pieces ---- */

static void *read_elsewhere(void *arg)
{
	struct guest *g = arg;
	uint8_t data[2 * 4096];

	/* Nobody waits for this thread: it takes the long way, with the same result. */
	assert_int_equal(lethe_mem_read(g->vm, MEMORY - PAGE, data, sizeof(data)), 0);
	assert_pattern(data, MEMORY - PAGE, sizeof(data), 1);
	assert_int_equal(lethe_mem_read(g->vm, 3 * MIB - 4, data, 8), -EPERM);
	return NULL;
}

static void check_pieces(enum lethe_share share)
{
	static uint8_t data[256 * 1024];
	struct lethe_copy piece[50];
	pthread_t thread;
	struct guest g;

	begin(&g, share, true,
		"write 2M 1M 1\nwrite 8188K 8K 1\nshare 2M 1M\nshare 8188K 8K\nprint shared\n"
		"check 2M 200K 2\ncheck 2248K 824K 1\nprint checked\npoweroff\n");
	next(&g, LETHE_EXIT_PRINT, 0);
	/* More pieces, and more of them, than one request takes. */
	for (size_t i = 0; i < 50; i++)
		piece[i] = (struct lethe_copy){2 * MIB + i * PAGE, data + i * PAGE, PAGE, false};
	assert_int_equal(lethe_mem_copy(g.vm, piece, 50), 0);
	assert_pattern(data, 2 * MIB, 50 * PAGE, 1);
	fill(data, 2 * MIB, 50 * PAGE, 2);
	for (size_t i = 0; i < 50; i++)
		piece[i].to_guest = true;
	assert_int_equal(lethe_mem_copy(g.vm, piece, 50), 0);
	assert_int_equal(lethe_mem_read(g.vm, 2 * MIB, data, sizeof(data)), 0);
	assert_pattern(data, 2 * MIB, 200 * KIB, 2);
	assert_pattern(data + 200 * KIB, 2 * MIB + 200 * KIB, 56 * KIB, 1);
	assert_int_equal(lethe_mem_read(g.vm, MEMORY - PAGE, data, 2 * PAGE), 0);
	assert_pattern(data, MEMORY - PAGE, 2 * PAGE, 1);
	assert_int_equal(lethe_mem_copy(g.vm, NULL, 0), 0);
	assert_int_equal(lethe_mem_read(g.vm, 3 * MIB - 4, data, 8), -EPERM);
	assert_int_equal(lethe_mem_read(g.vm, 2 * MEMORY - 4, data, 8), -ENOENT);
	assert_int_equal(lethe_mem_write(g.vm, UINT64_MAX, data, 8), -ERANGE);
	piece[0].to_guest = false;
	piece[1].gpa = 4 * MIB;
	assert_int_equal(lethe_mem_copy(g.vm, piece, 2), -EPERM);
	assert_int_equal(pthread_create(&thread, NULL, read_elsewhere, &g), 0);
	pthread_join(thread, NULL);
	next(&g, LETHE_EXIT_PRINT, 0);
	end(&g);
}

static void test_pieces(void **unused)
{
	for (size_t i = 0; i < WAYS; i++)
		check_pieces(ways[i]);
}

/* ---- a device beside a guest that converts ---- */

#define TRANSFERS 3000

struct device {
	struct lethe_vm *vm;
	unsigned int read, written, refused;
	bool is_mapped, wrong;
};

/*
 * Nobody but this device writes to the page, so each read that succeeds finds what the last
 * write that succeeded has left, whether the page was private in between or not.  A mapped
 * page may also hold parts of writes that came too late, and were refused, since then.
 */
static void *device_main(void *arg)
{
	struct device *d = arg;
	uint64_t page[512], last = 0, tried = 0;

	while (!d->wrong && (d->read < TRANSFERS || d->written < TRANSFERS)) {
		uint64_t value = ++tried;
		int err;

		for (size_t i = 0; i < 512; i++)
			page[i] = value;
		err = lethe_mem_write(d->vm, 3 * MIB, page, sizeof(page));
		last = err == 0 ? value : last;
		d->written += err == 0;
		d->refused += err == -EPERM;
		d->wrong = err != 0 && err != -EPERM;
		err = lethe_mem_read(d->vm, 3 * MIB, page, sizeof(page));
		for (size_t i = 0; i < 512 && err == 0; i++)
			d->wrong = d->wrong || page[i] < last ||
				   page[i] > (d->is_mapped ? tried : last);
		d->read += err == 0;
		d->refused += err == -EPERM;
	}
	lethe_vm_stop(d->vm);
	return NULL;
}

static void check_device(enum lethe_share share)
{
	struct device d = {0};
	pthread_t thread;
	struct guest g;

	begin(&g, share, true,
		"print begin\nloop 1000000000\nshare 3M 4K\nunshare 3M 4K\nend\npoweroff\n");
	next(&g, LETHE_EXIT_PRINT, 0);
	d.vm = g.vm;
	d.is_mapped = share == LETHE_SHARE_MAPPED;
	assert_int_equal(pthread_create(&thread, NULL, device_main, &d), 0);
	next(&g, LETHE_EXIT_CLOSED, 0);
	pthread_join(thread, NULL);
	assert_false(d.wrong);
	end(&g);
}

static void test_device(void **unused)
{
	for (size_t i = 0; i < WAYS; i++)
		check_device(ways[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_states_under_a_policy),
		cmocka_unit_test(test_states_across_slots),
		cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_device),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
