/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A memslot as a VMM sees it: filled in place before the start and handed over measured,
 * which is refused later; and audited, whatever the hypervisor allocated where nobody looks.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "abi/guestcall.h"
#include "guest/workload.h"
#include "lethe/lethe.h"
#include "os/memfd.h"

#define KIB    ((uint64_t)1 << 10)
#define MIB    ((uint64_t)1 << 20)
#define PAGE   ((uint64_t)4096)
#define MEMORY (8 * MIB)
#define LOW    MIB

#define FAR_GPA   (16 * MIB)
#define FAR_BYTES (200 * MIB)

struct guest {
	struct lethe_vm *vm;
	struct lethe_exit exit;
	uint8_t *memory; /* slot 0's shared backing */
};

static void load_text(struct guest *g, const char *text)
{
	struct guest_text head = {.magic = GUEST_TEXT_MAGIC, .bytes = (uint32_t)strlen(text)};

	assert_int_equal(lethe_vm_load(g->vm, GUEST_TEXT_GPA, &head, sizeof(head)), 0);
	assert_int_equal(lethe_vm_load(g->vm, GUEST_TEXT_GPA + sizeof(head), text, head.bytes), 0);
}

static void begin(struct guest *g, enum lethe_share share, const char *text)
{
	const struct lethe_vm_config config = {.vcpus = 1,
		.executor = LETHE_EXECUTOR_SW,
		.share = share,
		.uv_path = getenv("LETHE_UV")};
	uint64_t bytes;
	void *hva;

	memset(g, 0, sizeof(*g));
	assert_int_equal(lethe_vm_new(&config, &g->vm), 0);
	assert_int_equal(lethe_slot_add(g->vm, 0, 0, MEMORY), 0);
	assert_int_equal(lethe_slot_mapping(g->vm, 0, &hva, &bytes), 0);
	assert_int_equal(bytes, MEMORY);
	g->memory = hva;
	load_text(g, text);
}

static void end(struct guest *g)
{
	assert_int_equal(lethe_vm_stop(g->vm), 0);
	lethe_vm_close(g->vm, true);
}

static struct lethe_protect_result protect(struct guest *g)
{
	const struct lethe_range low = {0, LOW};
	struct lethe_protect_result result;

	assert_int_equal(lethe_vm_protect(g->vm, &low, 1, &result), 0);
	return result;
}

/* Runs the guest to its next exit of @type, accepting conversions. */
static void run_to(struct guest *g, enum lethe_exit_type type)
{
	do {
		g->exit.reply = 0;
		assert_int_equal(lethe_vcpu_run(g->vm, 0, &g->exit), 0);
		if (g->exit.type == LETHE_EXIT_STOPPED)
			print_message("the guest was stopped: %s\n", g->exit.text);
	} while (g->exit.type == LETHE_EXIT_CONVERT);
	assert_int_equal(g->exit.type, type);
}

static void fill(uint8_t *p, uint64_t gpa, uint64_t bytes, uint64_t seed)
{
	for (uint64_t o = 0; o < bytes; o += 8) {
		uint64_t word = workload_pattern(gpa + o, seed, 0);

		memcpy(p + o, &word, 8);
	}
}

/* ---- population ---- */

/* Fills memory in place, hands two ranges over, and says how that was measured. */
static void populate(struct guest *g, uint64_t seed, uint8_t ret[LETHE_MEASUREMENT_SIZE])
{
	const struct lethe_range ranges[] = {{0, LOW}, {2 * MIB, 64 * KIB}};
	struct lethe_protect_result result;

	begin(g, LETHE_SHARE_COPIED, "check 2M 64K 7\nzero 2112K 64K\npoweroff\n");
	fill(g->memory + 2 * MIB, 2 * MIB, 128 * KIB, seed);
	assert_int_equal(lethe_vm_protect(g->vm, ranges, 2, &result), 0);
	assert_int_equal(result.pages_copied, (LOW + 64 * KIB) / PAGE);
	memcpy(ret, result.measurement, sizeof(result.measurement));
}

static void test_populated_in_place(void **state)
{
	uint8_t measured[3][LETHE_MEASUREMENT_SIZE];
	struct guest g;

	populate(&g, 7, measured[0]);
	/* Too late: what was handed over is out of reach. */
	memset(g.memory + 2 * MIB, 0xee, 64 * KIB);
	assert_int_equal(lethe_vm_load(g.vm, 2 * MIB, "late", 4), -EPERM);
	assert_int_equal(lethe_vm_start(g.vm, NULL), 0);
	run_to(&g, LETHE_EXIT_POWEROFF);
	end(&g);
	populate(&g, 7, measured[1]);
	end(&g);
	populate(&g, 8, measured[2]);
	end(&g);
	assert_memory_equal(measured[0], measured[1], LETHE_MEASUREMENT_SIZE);
	assert_memory_not_equal(measured[0], measured[2], LETHE_MEASUREMENT_SIZE);
}

/* Nothing is handed over to a guest that runs, protected or not, and did not ask. */
static void test_refused_after_start(void **state)
{
	const struct lethe_range range = {2 * MIB, PAGE};

	for (int is_protected = 0; is_protected < 2; is_protected++) {
		struct lethe_audit audit;
		struct guest g;

		begin(&g, LETHE_SHARE_COPIED, "print started\ncheck 2M 4K 3\npoweroff\n");
		fill(g.memory + 2 * MIB, 2 * MIB, PAGE, 3);
		if (is_protected) {
			const struct lethe_range all = {0, 3 * MIB};

			assert_int_equal(lethe_vm_protect(g.vm, &all, 1, NULL), 0);
		}
		assert_int_equal(lethe_vm_start(g.vm, NULL), 0);
		run_to(&g, LETHE_EXIT_PRINT);
		assert_int_equal(lethe_vm_protect(g.vm, &range, 1, NULL), -EPROTO);
		assert_int_equal(lethe_vm_is_protected(g.vm), is_protected);
		assert_int_equal(lethe_vm_audit(g.vm, 0, &audit), 0);
		if (is_protected)
			assert_int_equal(lethe_vm_load(g.vm, 2 * MIB, "late", 4), -EPERM);
		run_to(&g, LETHE_EXIT_POWEROFF);
		end(&g);
	}
}

/* ---- the audit ---- */

static struct lethe_audit audit(struct guest *g, unsigned int id)
{
	struct lethe_audit a;

	assert_int_equal(lethe_vm_audit(g->vm, id, &a), 0);
	return a;
}

static void wait_until_discarded(struct guest *g)
{
	struct lethe_info info;

	do {
		usleep(1000);
		assert_int_equal(lethe_vm_info(g->vm, &info), 0);
	} while (info.stale_bytes > 0);
}

/* A descriptor of the only slot that this process has; the library does not give it. */
static int slot_memfd(void)
{
	char path[64], name[64];

	for (int fd = 0; fd < 1024; fd++) {
		ssize_t n;

		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		n = readlink(path, name, sizeof(name) - 1);
		if (n <= 0)
			continue;
		name[n] = '\0';
		if (strstr(name, "lethe-slot") != NULL)
			return fd;
	}
	return -1;
}

/* Bytes that were allocated and not written, which old kernels do not show. */
static uint64_t allocate(uint64_t offset, uint64_t bytes)
{
	int fd = slot_memfd();
	uint64_t held;

	assert_true(fd >= 0);
	if (memfd_held(fd, 0, PAGE, &held) == -ENOSYS)
		return 0;
	assert_int_equal(fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)bytes), 0);
	return bytes;
}

static void test_bad_slots(void **state)
{
	struct lethe_audit a = {.private_bytes = 77};
	struct guest g;

	begin(&g, LETHE_SHARE_COPIED, "poweroff\n");
	assert_int_equal(lethe_vm_audit(g.vm, 1, &a), -ENOENT);
	assert_int_equal(lethe_vm_audit(g.vm, 32, &a), -EINVAL);
	assert_int_equal(a.private_bytes, 77);
	end(&g);
}

/* Allocated before the VM was protected: left behind like all that it had. */
static void test_allocated_before(void **state)
{
	struct lethe_audit a;
	uint64_t extra, low;
	struct guest g;

	begin(&g, LETHE_SHARE_MAPPED, "zero 4M 4M\npoweroff\n");
	low = audit(&g, 0).shared_bytes;
	extra = allocate(4 * MIB, MIB);
	memset(g.memory + 5 * MIB, 0xaa, 3 * PAGE);
	a = audit(&g, 0);
	assert_int_equal(a.shared_bytes, low + extra + 3 * PAGE);
	assert_int_equal(a.private_bytes + a.stale_bytes + a.doubly_held_bytes, 0);
	protect(&g);
	wait_until_discarded(&g);
	a = audit(&g, 0);
	assert_true(a.private_bytes >= LOW);
	assert_int_equal(a.shared_bytes + a.stale_bytes + a.doubly_held_bytes, 0);
	assert_int_equal(lethe_vm_start(g.vm, NULL), 0);
	run_to(&g, LETHE_EXIT_POWEROFF);
	end(&g);
}

/*
 * Allocated again behind private pages: found to the byte, then stale, then gone, while the
 * guest's memory is what it was.
 */
static void check_allocated_again(enum lethe_share share, uint64_t in_memfd)
{
	struct lethe_audit a;
	uint64_t extra, resident;
	struct guest g;

	begin(&g, share,
		"write 2M 1M 5\nwrite 3M 64K 6\nshare 3M 64K\nprint ready\n"
		"check 2M 1M 5\ncheck 3M 64K 6\nzero 4M 2M\nprint checked\n"
		"unshare 3M 64K\ncheck 3M 64K 6\npoweroff\n");
	protect(&g);
	wait_until_discarded(&g);
	assert_int_equal(lethe_vm_start(g.vm, NULL), 0);
	run_to(&g, LETHE_EXIT_PRINT);
	memset(g.memory + 2 * MIB, 0xbb, 10 * PAGE);
	memset(g.memory + 4 * MIB + PAGE, 0xcc, 100 * PAGE);
	extra = allocate(5 * MIB, 50 * PAGE);
	a = audit(&g, 0);
	assert_int_equal(a.doubly_held_bytes, 110 * PAGE + extra);
	assert_int_equal(a.stale_bytes, 0);
	assert_int_equal(a.shared_bytes, 64 * KIB);
	assert_true(a.private_bytes >= LOW + MIB);
	a = audit(&g, 0);
	assert_int_equal(a.doubly_held_bytes, 0);
	wait_until_discarded(&g);
	a = audit(&g, 0);
	assert_int_equal(a.stale_bytes + a.doubly_held_bytes, 0);
	assert_int_equal(memfd_resident(slot_memfd(), &resident), 0);
	assert_int_equal(resident, in_memfd);
	run_to(&g, LETHE_EXIT_PRINT);
	run_to(&g, LETHE_EXIT_POWEROFF);
	end(&g);
}

static void test_allocated_again(void **state)
{
	check_allocated_again(LETHE_SHARE_COPIED, 0);
	check_allocated_again(LETHE_SHARE_MAPPED, 64 * KIB);
}

/* More parts, and more memory, than one call looks at. */
static void test_many_parts(void **state)
{
	const uint64_t at[] = {0, 64 * MIB - PAGE, 64 * MIB, 129 * MIB, FAR_BYTES - PAGE};
	const struct lethe_range all = {0, MEMORY};
	char *text = malloc(64 * KIB), *p = text;
	uint64_t bytes;
	struct guest g;
	void *far;

	for (unsigned int i = 0; i < 600; i++)
		p += sprintf(p, "share 0x%llx 4K\n", (unsigned long long)(2 * MIB + i * 2 * PAGE));
	strcpy(p, "print shared\npoweroff\n");
	begin(&g, LETHE_SHARE_COPIED, text);
	assert_int_equal(lethe_slot_add(g.vm, 1, FAR_GPA, FAR_BYTES), 0);
	assert_int_equal(lethe_slot_mapping(g.vm, 1, &far, &bytes), 0);
	assert_int_equal(lethe_vm_set_policy(g.vm, &all, 1, UINT64_MAX), 0);
	protect(&g);
	wait_until_discarded(&g);
	assert_int_equal(lethe_vm_start(g.vm, NULL), 0);
	run_to(&g, LETHE_EXIT_PRINT);
	memset(g.memory + 2 * MIB, 1, 6 * MIB);
	assert_int_equal(audit(&g, 0).doubly_held_bytes, 6 * MIB);
	for (size_t i = 0; i < sizeof(at) / sizeof(at[0]); i++)
		memset((uint8_t *)far + at[i], 1, PAGE);
	assert_int_equal(audit(&g, 1).doubly_held_bytes, sizeof(at) / sizeof(at[0]) * PAGE);
	wait_until_discarded(&g);
	assert_int_equal(audit(&g, 0).stale_bytes + audit(&g, 1).stale_bytes, 0);
	run_to(&g, LETHE_EXIT_POWEROFF);
	end(&g);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_populated_in_place),
		cmocka_unit_test(test_refused_after_start),
		cmocka_unit_test(test_bad_slots),
		cmocka_unit_test(test_allocated_before),
		cmocka_unit_test(test_allocated_again),
		cmocka_unit_test(test_many_parts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
