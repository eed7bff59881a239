/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Taking memory into secure mode: what is copied, what is measured, by any number of threads. */
#include <openssl/evp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/crew.h"
#include "os/memfd.h"
#include "uv/measure.h"
#include "uv/page_in.h"

#define MIB   ((uint64_t)1 << 20)
#define BYTES (12 * MIB)
#define FIRST 7 /* the slot's first page: chunks are counted from the range, not from 0 */

/* As much of a VM as a switch needs, with one slot. */
struct fixture {
	struct uv_vm vm;
	uint8_t *source; /* the hypervisor's mapping of the memfd */
};

static void begin(struct fixture *f, unsigned int threads)
{
	struct uv_vm *vm = &f->vm;
	struct slot_memory *m = &vm->memory_of[0];
	void *p;

	memset(f, 0, sizeof(*f));
	vm->slots.slot[0].used = true;
	vm->slots.slot[0].range = (struct gfn_range){gfn(FIRST), BYTES >> PAGE_SHIFT};
	m->memfd = memfd_new("test", BYTES);
	assert_true(m->memfd >= 0);
	assert_int_equal(memfd_map(m->memfd, BYTES, &p), 0);
	f->source = p;
	assert_int_equal(window_private(BYTES, &m->filling), 0);
	assert_int_equal(measure_new(&vm->measure), 0);
	assert_int_equal(crew_new(threads, &vm->crew), 0);
	vm->paged_in = range_map_new();
	assert_non_null(vm->paged_in);
}

static void end(struct fixture *f)
{
	struct slot_memory *m = &f->vm.memory_of[0];

	crew_free(f->vm.crew);
	range_map_free(f->vm.paged_in);
	measure_free(f->vm.measure);
	assert_int_equal(window_unmap(&m->filling), 0);
	munmap(f->source, BYTES);
	close(m->memfd);
}

static void fill(struct fixture *f, uint64_t offset, uint64_t bytes, uint64_t seed)
{
	for (uint64_t o = offset; o < offset + bytes; o += 8) {
		uint64_t word = (o + 1) * (seed | 1);

		memcpy(f->source + o, &word, 8);
	}
}

/* Part of the second chunk of the range below, all of the fourth, some of the last. */
static void fill_some(struct fixture *f)
{
	fill(f, 4 * MIB, MIB / 2, 3);
	fill(f, 7 * MIB, 2 * MIB, 5);
	fill(f, 10 * MIB, PAGE_SIZE, 7);
}

/* From 1M on: five chunks and a page. */
static const uint64_t range_offset = MIB, range_size = 10 * MIB + PAGE_SIZE;

static int take(struct fixture *f, uint64_t offset, uint64_t bytes)
{
	return page_in(&f->vm, 0,
		(struct gfn_range){gfn(FIRST + (offset >> PAGE_SHIFT)), bytes >> PAGE_SHIFT});
}

static void finish(struct fixture *f, uint8_t digest[ABI_MEASUREMENT_SIZE])
{
	assert_int_equal(measure_finish(f->vm.measure, digest), 0);
}

/* As docs/measurement.md says, with no code of the ultravisor's. */
static void expect(
	const struct fixture *f, uint64_t offset, uint64_t bytes, uint8_t ret[ABI_MEASUREMENT_SIZE])
{
	const uint64_t head[3] = {5, (FIRST << PAGE_SHIFT) + offset, bytes};
	uint8_t *chunk = malloc(2 * MIB), digest[ABI_MEASUREMENT_SIZE];
	EVP_MD_CTX *md = EVP_MD_CTX_new();

	assert_int_equal(EVP_DigestInit_ex(md, EVP_sha384(), NULL), 1);
	assert_int_equal(EVP_DigestUpdate(md, head, sizeof(head)), 1);
	for (uint64_t at = 0; at < bytes; at += 2 * MIB) {
		uint64_t n = bytes - at < 2 * MIB ? bytes - at : 2 * MIB;

		assert_int_equal(memfd_read(f->vm.memory_of[0].memfd, offset + at, chunk, n), 0);
		assert_int_equal(EVP_Digest(chunk, n, digest, NULL, EVP_sha384(), NULL), 1);
		assert_int_equal(EVP_DigestUpdate(md, digest, sizeof(digest)), 1);
	}
	assert_int_equal(EVP_DigestFinal_ex(md, ret, NULL), 1);
	EVP_MD_CTX_free(md);
	free(chunk);
}

static void test_any_number_of_threads(void **state)
{
	static const unsigned int threads[] = {1, 2, 3, CREW_MAX};

	for (size_t i = 0; i < sizeof(threads) / sizeof(threads[0]); i++) {
		uint8_t digest[ABI_MEASUREMENT_SIZE], expected[ABI_MEASUREMENT_SIZE];
		const struct window *w;
		struct fixture f;

		begin(&f, threads[i]);
		fill_some(&f);
		assert_int_equal(take(&f, range_offset, range_size), 0);
		w = &f.vm.memory_of[0].filling;
		assert_memory_equal(w->base, f.source, BYTES);
		assert_int_equal(f.vm.pages_copied, range_size >> PAGE_SHIFT);
		finish(&f, digest);
		expect(&f, range_offset, range_size, expected);
		assert_memory_equal(digest, expected, sizeof(expected));
		end(&f);
	}
}

/* What is not there costs nothing on either side, and counts as zeros all the same. */
static void test_holes_are_not_touched(void **state)
{
	uint8_t digest[ABI_MEASUREMENT_SIZE], expected[ABI_MEASUREMENT_SIZE];
	uint64_t resident, offset, bytes;
	struct fixture f;

	begin(&f, 2);
	fill(&f, 6 * MIB, PAGE_SIZE, 9);
	assert_int_equal(take(&f, 0, BYTES), 0);
	assert_int_equal(memfd_resident(f.vm.memory_of[0].memfd, &resident), 0);
	assert_int_equal(resident, PAGE_SIZE);
	assert_int_equal(
		window_next_resident(&f.vm.memory_of[0].filling, 0, BYTES, &offset, &bytes), 0);
	assert_int_equal(offset & ~(SIZE_2M - 1), 6 * MIB);
	/* That one page, or the large page that it lies in. */
	assert_int_not_equal(window_next_resident(&f.vm.memory_of[0].filling, offset + bytes, BYTES,
				     &offset, &bytes),
		0);
	finish(&f, digest);
	expect(&f, 0, BYTES, expected);
	assert_memory_equal(digest, expected, sizeof(expected));
	end(&f);
}

/* Whole chunks of zeros that are there, holes, and the known digest of such a chunk. */
static void test_zeros_are_zeros(void **state)
{
	uint8_t digest[2][ABI_MEASUREMENT_SIZE], expected[ABI_MEASUREMENT_SIZE];
	struct fixture f;

	for (int present = 0; present < 2; present++) {
		begin(&f, 2);
		if (present)
			memset(f.source, 0, 3 * MIB);
		assert_int_equal(take(&f, 0, 5 * MIB), 0);
		finish(&f, digest[present]);
		expect(&f, 0, 5 * MIB, expected);
		end(&f);
	}
	assert_memory_equal(digest[0], expected, sizeof(expected));
	assert_memory_equal(digest[1], expected, sizeof(expected));
}

/* More than the digests that are kept at a time. */
static void test_many_chunks(void **state)
{
	const uint64_t bytes = 520 * MIB;
	uint8_t digest[ABI_MEASUREMENT_SIZE], expected[ABI_MEASUREMENT_SIZE];
	struct slot_memory *m;
	struct fixture f;
	void *source;

	begin(&f, 2);
	m = &f.vm.memory_of[0];
	close(m->memfd);
	assert_int_equal(window_unmap(&m->filling), 0);
	f.vm.slots.slot[0].range.count = bytes >> PAGE_SHIFT;
	m->memfd = memfd_new("test", bytes);
	assert_int_equal(memfd_map(m->memfd, bytes, &source), 0);
	assert_int_equal(window_private(bytes, &m->filling), 0);
	memset((uint8_t *)source + 511 * MIB, 1, 2 * MIB);
	memset((uint8_t *)source + 517 * MIB, 2, PAGE_SIZE);
	assert_int_equal(take(&f, 0, bytes), 0);
	assert_memory_equal(m->filling.base + 511 * MIB, (uint8_t *)source + 511 * MIB, 2 * MIB);
	finish(&f, digest);
	expect(&f, 0, bytes, expected);
	assert_memory_equal(digest, expected, sizeof(expected));
	munmap(source, bytes);
	end(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_any_number_of_threads),
		cmocka_unit_test(test_holes_are_not_touched),
		cmocka_unit_test(test_zeros_are_zeros),
		cmocka_unit_test(test_many_chunks),
	};

	if (measure_setup() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
