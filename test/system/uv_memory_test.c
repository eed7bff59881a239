/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What lethe-uv does with memory: slots, the switch to secure, copies, and its end. */
#include <fcntl.h>
#include <openssl/evp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/memfd.h"
#include "test/system/uv_client.h"

#define MEMORY (8 * MIB)

/* ---- slots ---- */

static uint32_t add_fd(struct uvc *c, uint32_t id, uint64_t gpa, uint64_t bytes, int fd)
{
	const struct abi_slot args = {.id = id, .gpa = gpa, .bytes = bytes};

	return uvc_call(c, ABI_CALL_SLOT_REGISTER, &args, sizeof(args), &fd, 1, NULL, 0);
}

static void test_bad_slot_ranges(void **state)
{
	static const struct {
		uint64_t gpa, bytes;
		uint32_t status;
	} bad[] = {
		{64 * MIB, 0, ABI_ST_INVALID},
		{64 * MIB, 1, ABI_ST_INVALID},
		{64 * MIB, PAGE - 1, ABI_ST_INVALID},
		{64 * MIB, PAGE + 1, ABI_ST_INVALID},
		{64 * MIB + 1, PAGE, ABI_ST_INVALID},
		{64 * MIB + 2048, PAGE, ABI_ST_INVALID},
		{UINT64_MAX, 1, ABI_ST_INVALID},
		{TOP, PAGE, ABI_ST_RANGE},
		{TOP - PAGE, 2 * PAGE, ABI_ST_RANGE},
		{PAGE, TOP, ABI_ST_RANGE},
		{-(uint64_t)PAGE, PAGE, ABI_ST_RANGE},
		{-(uint64_t)PAGE, 2 * PAGE, ABI_ST_RANGE},
		{MIB, -(uint64_t)MIB, ABI_ST_RANGE},
		{64 * MIB, -(uint64_t)PAGE, ABI_ST_RANGE},
		/* More than the memfd holds. */
		{64 * MIB, MIB + PAGE, ABI_ST_INVALID},
		{0, TOP, ABI_ST_INVALID},
		/* Parts of slot 0, which is [0, 8M). */
		{0, PAGE, ABI_ST_EXISTS},
		{MEMORY - PAGE, PAGE, ABI_ST_EXISTS},
		{MEMORY - PAGE, 2 * PAGE, ABI_ST_EXISTS},
	};
	int fd = memfd_new("test", MIB), big = memfd_new("test", TOP);
	struct uvc c;

	uvc_begin(&c, 1, 0, MEMORY);
	for (size_t i = 0; i < COUNT(bad); i++)
		assert_int_equal(add_fd(&c, 1, bad[i].gpa, bad[i].bytes, fd), bad[i].status);
	assert_int_equal(add_fd(&c, 0, 64 * MIB, MIB, fd), ABI_ST_EXISTS);
	assert_int_equal(add_fd(&c, ABI_MAX_SLOTS, 64 * MIB, MIB, fd), ABI_ST_INVALID);
	assert_int_equal(add_fd(&c, UINT32_MAX, 64 * MIB, MIB, fd), ABI_ST_INVALID);
	assert_int_equal(add_fd(&c, 1, MEMORY, TOP - MEMORY, big), ABI_ST_NO_MEMORY);
	/* None of these took anything. */
	assert_int_equal(uvc_slot_remove(&c, 1), ABI_ST_NOT_FOUND);
	assert_int_equal(add_fd(&c, 1, MEMORY, MIB, fd), ABI_ST_OK);
	assert_int_equal(add_fd(&c, 2, TOP - PAGE, PAGE, fd), ABI_ST_OK);
	assert_int_equal(uvc_slot_remove(&c, ABI_MAX_SLOTS), ABI_ST_INVALID);
	uvc_end(&c);
	close(fd);
	close(big);
}

static void test_bad_memfds(void **state)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int huge = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB);
	FILE *file = tmpfile();
	char path[64];
	struct uvc c;
	int ro;

	uvc_begin(&c, 1, 0, MEMORY);
	assert_int_equal(ftruncate(fd, (off_t)MIB), 0);
	assert_int_equal(add_fd(&c, 1, MEMORY, MIB, fd), ABI_ST_INVALID);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW), 0);
	assert_int_equal(add_fd(&c, 1, MEMORY, MIB, fd), ABI_ST_INVALID);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ro = open(path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(add_fd(&c, 1, MEMORY, MIB, ro), ABI_ST_INVALID);
	assert_int_equal(ftruncate(fileno(file), (off_t)MIB), 0);
	assert_int_equal(add_fd(&c, 1, MEMORY, MIB, fileno(file)), ABI_ST_INVALID);
	assert_int_equal(add_fd(&c, 1, MEMORY, MIB, c.folder_fd), ABI_ST_INVALID);
	assert_int_equal(add_fd(&c, 1, MEMORY, MIB, c.socket), ABI_ST_INVALID);
	if (huge >= 0) {
		/* A window of one page that would be 2M long. */
		assert_int_equal(ftruncate(huge, (off_t)(2 * MIB)), 0);
		assert_int_equal(fcntl(huge, F_ADD_SEALS, F_SEAL_SHRINK), 0);
		assert_int_equal(add_fd(&c, 1, MEMORY, PAGE, huge), ABI_ST_INVALID);
		close(huge);
	}
	assert_int_equal(add_fd(&c, 1, MEMORY, MIB, fd), ABI_ST_OK);
	uvc_end(&c);
	close(ro);
	close(fd);
	fclose(file);
}

static void test_all_slots(void **state)
{
	struct uvc c;

	uvc_begin(&c, 1, 0, MEMORY);
	for (uint32_t id = 1; id < ABI_MAX_SLOTS; id++)
		assert_int_equal(uvc_slot_add(&c, id, MEMORY + id * MIB, MIB), ABI_ST_OK);
	for (uint32_t id = 1; id < ABI_MAX_SLOTS; id++)
		assert_int_equal(uvc_mem(&c, ABI_CALL_MEM_READ, MEMORY + id * MIB, PAGE), 0);
	for (uint32_t id = 0; id < ABI_MAX_SLOTS; id++)
		assert_int_equal(uvc_slot_remove(&c, id), ABI_ST_OK);
	assert_int_equal(uvc_mem(&c, ABI_CALL_MEM_READ, LOW, PAGE), ABI_ST_NOT_FOUND);
	uvc_end(&c);
}

/* ---- the switch ---- */

static void test_page_in_before_start(void **state)
{
	struct abi_init_done_ret done = {0};
	struct uvc c;

	uvc_begin(&c, 1, 0, MEMORY);
	assert_int_equal(uvc_slot_add(&c, 1, MEMORY, MIB), ABI_ST_OK);
	assert_int_equal(uvc_call0(&c, ABI_CALL_INIT_START, NULL, 0), ABI_ST_OK);
	assert_int_equal(uvc_page_in(&c, 0, 0), ABI_ST_INVALID);
	assert_int_equal(uvc_page_in(&c, 1, PAGE), ABI_ST_INVALID);
	assert_int_equal(uvc_page_in(&c, 0, 100), ABI_ST_INVALID);
	assert_int_equal(uvc_page_in(&c, TOP, PAGE), ABI_ST_RANGE);
	assert_int_equal(uvc_page_in(&c, -(uint64_t)PAGE, PAGE), ABI_ST_RANGE);
	assert_int_equal(uvc_page_in(&c, MEMORY + MIB, PAGE), ABI_ST_NOT_FOUND);
	assert_int_equal(uvc_page_in(&c, MEMORY + MIB - PAGE, 2 * PAGE), ABI_ST_NOT_FOUND);
	/* Memory all over, but of two slots. */
	assert_int_equal(uvc_page_in(&c, MEMORY - PAGE, 2 * PAGE), ABI_ST_NOT_FOUND);
	assert_int_equal(uvc_page_in(&c, MIB, 4 * PAGE), ABI_ST_OK);
	assert_int_equal(uvc_page_in(&c, MIB, 4 * PAGE), ABI_ST_EXISTS);
	assert_int_equal(uvc_page_in(&c, MIB + 3 * PAGE, 2 * PAGE), ABI_ST_EXISTS);
	assert_int_equal(uvc_page_in(&c, MIB - PAGE, 2 * PAGE), ABI_ST_EXISTS);
	assert_int_equal(uvc_page_in(&c, MIB - PAGE, PAGE), ABI_ST_OK);
	assert_int_equal(uvc_page_in(&c, MEMORY, MIB), ABI_ST_OK);
	assert_int_equal(uvc_call0(&c, ABI_CALL_INIT_DONE, &done, sizeof(done)), ABI_ST_OK);
	assert_int_equal(done.pages_copied, 5 + MIB / PAGE);
	assert_int_equal(done.pages_secured, (MEMORY + MIB) / PAGE - done.pages_copied);
	assert_int_equal(uvc_call0(&c, ABI_CALL_INIT_DONE, NULL, 0), ABI_ST_WRONG_STATE);
	assert_int_equal(uvc_call0(&c, ABI_CALL_INIT_START, NULL, 0), ABI_ST_WRONG_STATE);
	uvc_end(&c);
}

/* While it runs, the guest says what is necessary: that, all of that, and nothing else. */
static void test_page_in_what_the_guest_named(void **state)
{
	struct abi_vcpu_page page;
	struct abi_range range[3];
	struct uvc c;

	uvc_begin(&c, 1, 0, MEMORY);
	uvc_load(&c, "write 2M 8K 7\n"
		     "write 3M 8K 7\n"
		     "protect 2M 8K 3M 4K\n"
		     "check 2M 8K 7\n"
		     "check 3M 4K 7\n"
		     "zero 3076K 1020K\n"
		     "poweroff\n");
	uvc_start(&c);
	uvc_run_until(&c, ABI_EXIT_PROTECT, &page);
	assert_int_equal(page.data_size, sizeof(range));
	memcpy(range, page.data, sizeof(range));
	assert_int_equal(range[1].gpa, 2 * MIB);
	assert_int_equal(range[2].gpa, 3 * MIB);
	assert_int_equal(uvc_call0(&c, ABI_CALL_INIT_START, NULL, 0), ABI_ST_OK);
	assert_int_equal(uvc_page_in(&c, 5 * MIB, PAGE), ABI_ST_DENIED);
	assert_int_equal(uvc_page_in(&c, 3 * MIB, 2 * PAGE), ABI_ST_DENIED);
	assert_int_equal(uvc_page_in(&c, 2 * MIB - PAGE, 2 * PAGE), ABI_ST_DENIED);
	assert_int_equal(uvc_page_in(&c, range[0].gpa, range[0].bytes), ABI_ST_OK);
	assert_int_equal(uvc_page_in(&c, 3 * MIB, PAGE), ABI_ST_OK);
	assert_int_equal(uvc_page_in(&c, 2 * MIB, PAGE), ABI_ST_OK);
	assert_int_equal(uvc_call0(&c, ABI_CALL_INIT_DONE, NULL, 0), ABI_ST_NOT_FOUND);
	assert_int_equal(uvc_page_in(&c, 2 * MIB + PAGE, PAGE), ABI_ST_OK);
	assert_int_equal(uvc_call0(&c, ABI_CALL_INIT_DONE, NULL, 0), ABI_ST_OK);
	uvc_reply(&c, 0, ABI_ST_OK);
	uvc_run_until(&c, ABI_EXIT_POWEROFF, &page);
	uvc_end(&c);
}

static void test_abort_keeps_content(void **state)
{
	struct abi_vcpu_page page;
	struct uvc c;

	uvc_begin(&c, 2, 0, MEMORY);
	uvc_load(&c, "vcpu 0\n"
		     "write 2M 1M 9\n"
		     "barrier written\n"
		     "protect 2M 1M\n"
		     "vcpu 1\n"
		     "barrier written\n"
		     "print waiting\n"
		     "check 2M 1M 9\n"
		     "print checked\n");
	memset(c.slot[0].base + 5 * MIB, 'x', PAGE);
	for (int round = 0; round < 2; round++) {
		assert_int_equal(uvc_call0(&c, ABI_CALL_INIT_START, NULL, 0), ABI_ST_OK);
		assert_int_equal(uvc_page_in(&c, 5 * MIB, PAGE), ABI_ST_OK);
		assert_int_equal(uvc_call0(&c, ABI_CALL_INIT_ABORT, NULL, 0), ABI_ST_OK);
		assert_int_equal(uvc_mem(&c, ABI_CALL_MEM_READ, 5 * MIB, PAGE), ABI_ST_OK);
		assert_memory_equal(c.bulk, c.slot[0].base + 5 * MIB, PAGE);
		assert_int_equal(c.bulk[0], 'x');
	}
	uvc_start(&c);
	uvc_run_until(&c, ABI_EXIT_PROTECT, &page);
	uvc_exit(&c, 1, &page);
	assert_int_equal(page.type, ABI_EXIT_PRINT);
	assert_int_equal(uvc_call0(&c, ABI_CALL_INIT_START, NULL, 0), ABI_ST_OK);
	assert_int_equal(uvc_page_in(&c, 2 * MIB, MIB), ABI_ST_OK);
	/* Paused: vCPU 1 gets its answer and cannot go on. */
	uvc_reply(&c, 1, ABI_ST_OK);
	assert_int_equal(uvc_call0(&c, ABI_CALL_INIT_ABORT, NULL, 0), ABI_ST_OK);
	uvc_exit(&c, 1, &page);
	assert_int_equal(page.type, ABI_EXIT_PRINT);
	assert_memory_equal(page.data, "checked", 7);
	uvc_end(&c);
}

/* Whatever the hypervisor had in its memory before, or writes to it during the switch. */
static void test_other_pages_are_zero(void **state)
{
	struct abi_vcpu_page page;
	struct uvc c;

	uvc_begin(&c, 1, 0, MEMORY);
	memset(c.slot[0].base + LOW, 0xee, MEMORY - LOW);
	uvc_load(&c, "zero 1M 7M\npoweroff\n");
	assert_int_equal(uvc_call0(&c, ABI_CALL_INIT_START, NULL, 0), ABI_ST_OK);
	assert_int_equal(uvc_page_in(&c, 0, LOW), ABI_ST_OK);
	memset(c.slot[0].base, 0xee, MEMORY);
	assert_int_equal(uvc_call0(&c, ABI_CALL_INIT_DONE, NULL, 0), ABI_ST_OK);
	memset(c.slot[0].base, 0xee, MEMORY);
	uvc_start(&c);
	uvc_run_until(&c, ABI_EXIT_POWEROFF, &page);
	uvc_end(&c);
}

/* ---- measurement ---- */

static void hash_record(EVP_MD_CTX *md, uint64_t type, uint64_t a, uint64_t b)
{
	const uint64_t head[3] = {type, a, b}; /* little-endian: see guest/pattern.h */

	assert_int_equal(EVP_DigestUpdate(md, head, sizeof(head)), 1);
}

static void hash_pages(EVP_MD_CTX *md, const struct uvc *c, uint64_t gpa, uint64_t bytes)
{
	uint8_t digest[ABI_MEASUREMENT_SIZE];

	hash_record(md, 5, gpa, bytes);
	for (uint64_t at = 0; at < bytes; at += 2 * MIB) {
		uint64_t n = bytes - at < 2 * MIB ? bytes - at : 2 * MIB;

		assert_int_equal(
			EVP_Digest(c->slot[0].base + gpa + at, n, digest, NULL, EVP_sha384(), NULL),
			1);
		assert_int_equal(EVP_DigestUpdate(md, digest, sizeof(digest)), 1);
	}
}

/* What test_measurement() takes in: within a chunk, several, a page; content and holes. */
static const struct {
	uint64_t gpa, bytes;
} measured[] = {{0, LOW}, {LOW + PAGE, 5 * MIB}, {7 * MIB, PAGE}};

/* As docs/measurement.md says, of the memory in @c. */
static void expected_measurement(const struct uvc *c, uint8_t ret[ABI_MEASUREMENT_SIZE])
{
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	unsigned int size = ABI_MEASUREMENT_SIZE;

	assert_int_equal(EVP_DigestInit_ex(md, EVP_sha384(), NULL), 1);
	hash_record(md, 1, c->vcpus, ABI_EXEC_SW);
	hash_record(md, 2, 0, MEMORY);
	hash_record(md, 2, 16 * MIB, MIB);
	for (size_t i = 0; i < COUNT(measured); i++)
		hash_pages(md, c, measured[i].gpa, measured[i].bytes);
	assert_int_equal(EVP_DigestFinal_ex(md, ret, &size), 1);
	EVP_MD_CTX_free(md);
}

static void test_measurement(void **state)
{
	uint8_t expected[ABI_MEASUREMENT_SIZE];
	struct abi_init_done_ret done;
	struct uvc c;

	uvc_begin(&c, 3, 0, MEMORY);
	assert_int_equal(uvc_slot_add(&c, 1, 16 * MIB, MIB), ABI_ST_OK);
	uvc_load(&c, "poweroff\n");
	memset(c.slot[0].base + LOW, 'm', MIB);
	memset(c.slot[0].base + 6 * MIB, 'n', MIB + PAGE);
	expected_measurement(&c, expected);
	assert_int_equal(uvc_call0(&c, ABI_CALL_INIT_START, NULL, 0), ABI_ST_OK);
	for (size_t i = 0; i < COUNT(measured); i++)
		assert_int_equal(uvc_page_in(&c, measured[i].gpa, measured[i].bytes), ABI_ST_OK);
	assert_int_equal(uvc_call0(&c, ABI_CALL_INIT_DONE, &done, sizeof(done)), ABI_ST_OK);
	assert_memory_equal(done.measurement, expected, sizeof(expected));
	uvc_end(&c);
}

/* ---- the hypervisor's copies ---- */

static uint32_t read_mem(struct uvc *c, uint64_t gpa, uint32_t bytes)
{
	return uvc_mem(c, ABI_CALL_MEM_READ, gpa, bytes);
}

static uint32_t write_mem(struct uvc *c, uint64_t gpa, uint32_t bytes)
{
	return uvc_mem(c, ABI_CALL_MEM_WRITE, gpa, bytes);
}

/* A refused copy leaves the bulk buffer as it was. */
static void assert_refused(struct uvc *c, uint64_t gpa, uint32_t bytes, uint32_t status)
{
	memset(c->bulk, 0x5a, ABI_BULK_SIZE);
	assert_int_equal(read_mem(c, gpa, bytes), status);
	for (uint32_t i = 0; i < ABI_BULK_SIZE; i++)
		assert_int_equal(c->bulk[i], 0x5a);
	assert_int_equal(write_mem(c, gpa, bytes), status);
}

static void check_copies(uint32_t flags)
{
	struct abi_vcpu_page page;
	struct uvc c;

	uvc_begin(&c, 1, flags, MEMORY);
	assert_int_equal(uvc_slot_add(&c, 1, MEMORY, MIB), ABI_ST_OK);
	uvc_load(&c, "write 2M 64K 3\n"
		     "write 8188K 8K 3\n"
		     "share 2M 32K\n"
		     "share 8188K 4K\n"
		     "share 8M 4K\n"
		     "print shared\n"
		     "check 2M 64K 4\n"
		     "poweroff\n");
	uvc_protect(&c, LOW);
	uvc_start(&c);
	do {
		uvc_exit(&c, 0, &page);
		if (page.type == ABI_EXIT_CONVERT)
			uvc_reply(&c, 0, ABI_ST_OK);
	} while (page.type == ABI_EXIT_CONVERT);
	assert_int_equal(page.type, ABI_EXIT_PRINT);
	assert_int_equal(uvc_info(&c).shared_pages, 10);

	assert_int_equal(read_mem(&c, 2 * MIB, 32 * KIB), ABI_ST_OK);
	uvc_assert_filled(c.bulk, 2 * MIB, 32 * KIB, 3);
	assert_int_equal(read_mem(&c, 2 * MIB + 4091, 10), ABI_ST_OK);
	/* Across two slots. */
	assert_int_equal(read_mem(&c, MEMORY - PAGE, 2 * PAGE), ABI_ST_OK);
	uvc_assert_filled(c.bulk, MEMORY - PAGE, 2 * PAGE, 3);

	assert_refused(&c, 3 * MIB, 1, ABI_ST_DENIED);
	assert_refused(&c, 2 * MIB + 32 * KIB, PAGE, ABI_ST_DENIED);
	/* Half private, by a page and by a byte, at either end; more than half of it shared. */
	assert_refused(&c, 2 * MIB, 64 * KIB, ABI_ST_DENIED);
	assert_refused(&c, 2 * MIB, 32 * KIB + 1, ABI_ST_DENIED);
	assert_refused(&c, 2 * MIB - 1, 32 * KIB, ABI_ST_DENIED);
	assert_refused(&c, MEMORY - PAGE - 1, 8, ABI_ST_DENIED);
	assert_refused(&c, MEMORY, PAGE + 1, ABI_ST_DENIED);
	assert_refused(&c, 2 * MIB, 0, ABI_ST_INVALID);
	assert_refused(&c, 2 * MIB, ABI_BULK_SIZE + 1, ABI_ST_INVALID);
	assert_refused(&c, 2 * MIB, UINT32_MAX, ABI_ST_INVALID);
	assert_refused(&c, MEMORY + MIB - 4, 8, ABI_ST_NOT_FOUND);
	assert_refused(&c, 64 * MIB, 8, ABI_ST_NOT_FOUND);
	assert_refused(&c, TOP - 4, 8, ABI_ST_RANGE);
	assert_refused(&c, UINT64_MAX - 3, 8, ABI_ST_RANGE);

	/* What was refused has not changed the part that is shared, either. */
	assert_int_equal(read_mem(&c, 2 * MIB, 32 * KIB), ABI_ST_OK);
	uvc_assert_filled(c.bulk, 2 * MIB, 32 * KIB, 3);
	uvc_fill(c.bulk, 2 * MIB, 32 * KIB, 4);
	assert_int_equal(write_mem(&c, 2 * MIB, 32 * KIB), ABI_ST_OK);
	if ((flags & ABI_VM_SHARE_MAPPED) != 0)
		uvc_assert_filled(c.slot[0].base + 2 * MIB, 2 * MIB, 32 * KIB, 4);
	else
		assert_memory_equal(c.slot[0].base + 2 * MIB, (uint8_t[64]){0}, 64);
	/* The guest finds seed 4 in the first half, which was written to, and 3 in the rest. */
	uvc_reply(&c, 0, ABI_ST_OK);
	uvc_expect_stopped(&c, ABI_STOP_CHECK, 2 * MIB + 32 * KIB);
	uvc_end(&c);
}

static void test_copies_of_copied_pages(void **state)
{
	check_copies(0);
}

static void test_copies_of_mapped_pages(void **state)
{
	check_copies(ABI_VM_SHARE_MAPPED);
}

/* ---- conversions ---- */

/* Runs @text until the guest waits for @type, in a VM that is secure from the start. */
static void start_secure(struct uvc *c, uint32_t flags, const char *text)
{
	uvc_begin(c, 1, flags, MEMORY);
	uvc_start_protected(c, text);
}

/*
 * No made-up status of a refusal looks like success to the guest, which would go on and
 * write what it wants to keep into a page that is not private.
 */
static void test_refusals_reach_the_guest(void **state)
{
	static const uint32_t statuses[] = {
		ABI_ST_DENIED, 0xff, 0x100, 0x10000, 0x80000000, 0xffffff00, UINT32_MAX};

	for (size_t i = 0; i < COUNT(statuses); i++) {
		struct abi_vcpu_page page;
		struct uvc c;

		start_secure(&c, 0, "share 2M 4K\nunshare 2M 4K\nprint not reached\n");
		uvc_exit(&c, 0, &page);
		uvc_reply(&c, 0, ABI_ST_OK);
		uvc_exit(&c, 0, &page);
		assert_int_equal(page.type, ABI_EXIT_CONVERT);
		assert_int_equal(page.arg[2], 0);
		uvc_reply(&c, 0, statuses[i]);
		uvc_exit(&c, 0, &page);
		assert_int_equal(page.type, ABI_EXIT_STOPPED);
		assert_int_equal(uvc_info(&c).shared_pages, 1);
		uvc_end(&c);

		start_secure(&c, 0, "share 2M 4K\nprint not reached\n");
		uvc_exit(&c, 0, &page);
		uvc_reply(&c, 0, statuses[i]);
		uvc_exit(&c, 0, &page);
		assert_int_equal(page.type, ABI_EXIT_STOPPED);
		assert_int_equal(uvc_info(&c).shared_pages, 0);
		uvc_end(&c);
	}
}

/* Nor does the answer to PROTECT, if the VM is not secure then. */
static void test_protect_is_not_believed(void **state)
{
	static const uint32_t statuses[] = {ABI_ST_OK, 0x100, UINT32_MAX};

	for (size_t i = 0; i < COUNT(statuses); i++) {
		struct abi_vcpu_page page;
		struct uvc c;

		uvc_begin(&c, 1, 0, MEMORY);
		uvc_load(&c, "protect\nprint not reached\n");
		uvc_start(&c);
		uvc_run_until(&c, ABI_EXIT_PROTECT, &page);
		uvc_reply(&c, 0, statuses[i]);
		uvc_exit(&c, 0, &page);
		assert_int_equal(page.type, ABI_EXIT_STOPPED);
		assert_int_equal(uvc_info(&c).security, ABI_SEC_NORMAL);
		uvc_end(&c);
	}
}

/* An unshared page is out of reach at once; what the memfd held of it goes. */
static void check_unshare(uint32_t flags)
{
	struct abi_vcpu_page page;
	uint64_t resident;
	struct uvc c;

	start_secure(&c, flags,
		"write 2M 64K 5\n"
		"share 2M 64K\n"
		"print shared\n"
		"unshare 2M 32K\n"
		"check 2M 64K 5\n"
		"write 2M 32K 6\n"
		"print unshared\n"
		"check 2M 32K 6\n"
		"poweroff\n");
	uvc_run_until(&c, ABI_EXIT_CONVERT, &page);
	uvc_reply(&c, 0, ABI_ST_OK);
	uvc_exit(&c, 0, &page);
	assert_int_equal(page.type, ABI_EXIT_PRINT);
	assert_int_equal(read_mem(&c, 2 * MIB, 64 * KIB), ABI_ST_OK);
	uvc_assert_filled(c.bulk, 2 * MIB, 64 * KIB, 5);
	uvc_reply(&c, 0, ABI_ST_OK);
	uvc_run_until(&c, ABI_EXIT_CONVERT, &page);
	uvc_reply(&c, 0, ABI_ST_OK);
	uvc_exit(&c, 0, &page);
	assert_int_equal(page.type, ABI_EXIT_PRINT);
	assert_refused(&c, 2 * MIB, 32 * KIB, ABI_ST_DENIED);
	assert_int_equal(read_mem(&c, 2 * MIB + 32 * KIB, 32 * KIB), ABI_ST_OK);
	/* The discard is the sweeper's; it was told, so it comes. */
	while (uvc_info(&c).stale_bytes > 0)
		usleep(1000);
	assert_int_equal(memfd_resident(c.slot[0].memfd, &resident), 0);
	assert_int_equal(resident, (flags & ABI_VM_SHARE_MAPPED) != 0 ? 32 * KIB : 0);
	/* Writing there through the old mapping reaches nobody. */
	memset(c.slot[0].base + 2 * MIB, 0xbb, 32 * KIB);
	uvc_reply(&c, 0, ABI_ST_OK);
	uvc_run_until(&c, ABI_EXIT_POWEROFF, &page);
	uvc_end(&c);
}

static void test_unshare(void **state)
{
	static const uint32_t flags[] = {0, ABI_VM_SHARE_MAPPED,
		ABI_VM_SHARE_MAPPED | ABI_VM_DISCARD_EAGER, ABI_VM_DISCARD_EAGER};

	for (size_t i = 0; i < COUNT(flags); i++)
		check_unshare(flags[i]);
}

/* ---- hotplug ---- */

/*
 * Slots come and go while another vCPU is at work, which makes a race of the two visible
 * to TSan.  A slot that the guest did not give up stays.
 */
static void test_hotplug(void **state)
{
	struct abi_vcpu_page page;
	struct uvc c;

	uvc_begin(&c, 2, 0, MEMORY);
	assert_int_equal(uvc_slot_add(&c, 1, 16 * MIB, MIB), ABI_ST_OK);
	uvc_load(&c, "vcpu 0\n"
		     "loop 20\n"
		     "write 16M 1M 3\n"
		     "print written\n"
		     "release 16M 1M\n"
		     "print released\n"
		     "zero 16M 1M\n"
		     "end\n"
		     "poweroff\n"
		     "vcpu 1\n"
		     "share 3M 4K\n"
		     "loop 1000000000\n"
		     "random 2M 1M 100\n"
		     "end\n");
	uvc_protect(&c, LOW);
	uvc_start(&c);
	uvc_exit(&c, 1, &page);
	uvc_reply(&c, 1, ABI_ST_OK);
	for (int round = 0; round < 20; round++) {
		uvc_run_until(&c, ABI_EXIT_PRINT, &page);
		assert_memory_equal(page.data, "written", 7);
		assert_int_equal(uvc_slot_remove(&c, 1), ABI_ST_BUSY);
		assert_refused(&c, 16 * MIB, PAGE, ABI_ST_DENIED);
		uvc_reply(&c, 0, ABI_ST_OK);
		uvc_run_until(&c, ABI_EXIT_RELEASE, &page);
		uvc_reply(&c, 0, ABI_ST_OK);
		uvc_run_until(&c, ABI_EXIT_PRINT, &page);
		assert_int_equal(uvc_slot_remove(&c, 0), ABI_ST_BUSY);
		assert_int_equal(uvc_slot_remove(&c, 1), ABI_ST_OK);
		munmap(c.slot[1].base, MIB);
		close(c.slot[1].memfd);
		c.slot[1].memfd = -1;
		assert_int_equal(uvc_slot_add(&c, 1, 16 * MIB, MIB), ABI_ST_OK);
		memset(c.slot[1].base, 0xcc, MIB);
		uvc_reply(&c, 0, ABI_ST_OK);
	}
	uvc_run_until(&c, ABI_EXIT_POWEROFF, &page);
	uvc_end(&c);
}

static void test_released_pages_are_nobodys(void **state)
{
	struct abi_vcpu_page page;
	struct uvc c;

	start_secure(&c, 0, "write 2M 8K\nrelease 2M 4K\ntouch 2M 4K\n");
	uvc_run_until(&c, ABI_EXIT_RELEASE, &page);
	assert_refused(&c, 2 * MIB, PAGE, ABI_ST_DENIED);
	uvc_reply(&c, 0, ABI_ST_OK);
	uvc_expect_stopped(&c, ABI_STOP_VIOLATION, 2 * MIB);
	uvc_end(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bad_slot_ranges),
		cmocka_unit_test(test_bad_memfds),
		cmocka_unit_test(test_all_slots),
		cmocka_unit_test(test_page_in_before_start),
		cmocka_unit_test(test_page_in_what_the_guest_named),
		cmocka_unit_test(test_abort_keeps_content),
		cmocka_unit_test(test_other_pages_are_zero),
		cmocka_unit_test(test_measurement),
		cmocka_unit_test(test_copies_of_copied_pages),
		cmocka_unit_test(test_copies_of_mapped_pages),
		cmocka_unit_test(test_refusals_reach_the_guest),
		cmocka_unit_test(test_protect_is_not_believed),
		cmocka_unit_test(test_unshare),
		cmocka_unit_test(test_hotplug),
		cmocka_unit_test(test_released_pages_are_nobodys),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
