/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sealing: a page opens as itself, where and as last sealed, and in no other way; what fails
 * leaves nothing behind; no nonce comes twice.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "uv/seal.h"

#define PAGES 40 /* enough for several threads */

static const uint8_t vm_id[VM_ID_SIZE] = "sixteen bytes...";

static uint8_t plain[PAGES][PAGE_SIZE], cipher[PAGES][PAGE_SIZE], opened[PAGES][PAGE_SIZE];
static struct seal_table *table;
static struct crew *crew;
static struct seal *key;

/* Pages @first .. of slot and VM, as sealing or (@back) opening wants them. */
static void list(struct seal_page *ret, unsigned int first, unsigned int count, bool back)
{
	for (unsigned int i = 0; i < count; i++)
		ret[i] = (struct seal_page){.record = &table->record[first + i],
			.gfn = gfn(0x1000 + first + i),
			.plain = back ? opened[first + i] : plain[first + i],
			.cipher = cipher[first + i]};
}

static void seal_all(void)
{
	struct seal_page page[PAGES];

	list(page, 0, PAGES, false);
	assert_int_equal(seal_pages(key, crew, page, PAGES), 0);
}

static int open_one(struct seal *k, unsigned int i, uint64_t frame)
{
	struct seal_page page;
	unsigned int bad = 99;
	int ret;

	list(&page, i, 1, true);
	page.gfn = gfn(frame);
	memset(opened[i], 0xee, PAGE_SIZE);
	ret = seal_open_pages(k, crew, &page, 1, &bad);
	assert_int_equal(bad, ret == 0 ? 99 : 0);
	return ret;
}

static bool is_zero(const uint8_t *page)
{
	for (unsigned int i = 0; i < PAGE_SIZE; i++) {
		if (page[i] != 0)
			return false;
	}
	return true;
}

static void assert_refused(unsigned int i)
{
	assert_int_equal(open_one(key, i, 0x1000 + i), -EBADMSG);
	assert_true(is_zero(opened[i]));
}

static void test_round_trip(void **state)
{
	struct seal_page page[PAGES];
	unsigned int bad;

	seal_all();
	for (unsigned int i = 0; i < PAGES; i++)
		assert_memory_not_equal(cipher[i], plain[i], PAGE_SIZE);
	/* A hypervisor that was told that the page is wanted changes nothing. */
	table->record[3].version |= SEAL_WANTED;
	list(page, 0, PAGES, true);
	assert_int_equal(seal_open_pages(key, crew, page, PAGES, &bad), 0);
	assert_memory_equal(opened, plain, sizeof(plain));
	/* Nothing was used up. */
	assert_int_equal(seal_open_pages(key, crew, page, PAGES, &bad), 0);
}

static void test_versions_never_repeat(void **state)
{
	uint64_t last = 0;

	for (unsigned int round = 0; round < 3; round++) {
		seal_all();
		for (unsigned int i = 0; i < PAGES; i++) {
			assert_true(table->record[i].version > last);
			last = table->record[i].version;
		}
	}
}

static void test_modified(void **state)
{
	seal_all();
	for (unsigned int bit = 0; bit < PAGE_SIZE * 8; bit += 511) {
		cipher[1][bit / 8] ^= (uint8_t)(1 << bit % 8);
		assert_refused(1);
		cipher[1][bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	assert_int_equal(open_one(key, 1, 0x1001), 0);
	assert_memory_equal(opened[1], plain[1], PAGE_SIZE);
	/* Zeros, and a page cut short. */
	memset(cipher[1] + PAGE_SIZE / 2, 0, PAGE_SIZE / 2);
	assert_refused(1);
	memset(cipher[1], 0, PAGE_SIZE);
	assert_refused(1);
	table->record[2].tag[15] ^= 0x80;
	assert_refused(2);
}

static void test_another_place(void **state)
{
	struct seal_record swapped;

	seal_all();
	assert_int_equal(open_one(key, 1, 0x1002), -EBADMSG);
	memcpy(cipher[1], cipher[2], PAGE_SIZE);
	assert_refused(1);
	/* Even with the other page's record. */
	swapped = table->record[1];
	table->record[1] = table->record[2];
	assert_refused(1);
	table->record[1] = swapped;
}

static void test_replayed(void **state)
{
	static uint8_t old[PAGE_SIZE];

	seal_all();
	memcpy(old, cipher[5], PAGE_SIZE);
	seal_all();
	/* The same content, another version. */
	assert_memory_not_equal(old, cipher[5], PAGE_SIZE);
	memcpy(cipher[5], old, PAGE_SIZE);
	assert_refused(5);
}

static void test_another_key(void **state)
{
	struct seal *next, *same_number;

	seal_all();
	assert_int_equal(seal_new(vm_id, 8, &next), 0);
	assert_int_equal(seal_new(vm_id, 7, &same_number), 0);
	assert_int_equal(open_one(next, 0, 0x1000), -EBADMSG);
	assert_int_equal(open_one(same_number, 0, 0x1000), -EBADMSG);
	assert_int_equal(open_one(key, 0, 0x1000), 0);
	seal_free(next);
	seal_free(same_number);
	seal_free(NULL);
}

/* One bad page among many: its number, and nothing of the others either. */
static void test_one_bad_page(void **state)
{
	struct seal_page page[PAGES];

	seal_all();
	list(page, 0, PAGES, true);
	for (unsigned int i = 0; i < PAGES; i++) {
		unsigned int bad = 99;

		cipher[i][i * 100] ^= 1;
		memset(opened, 0xee, sizeof(opened));
		assert_int_equal(seal_open_pages(key, crew, page, PAGES, &bad), -EBADMSG);
		assert_int_equal(bad, i);
		for (unsigned int k = 0; k < PAGES; k++)
			assert_true(is_zero(opened[k]));
		cipher[i][i * 100] ^= 1;
	}
}

static void test_table_goes_in_steps(void **state)
{
	const uint64_t pages = 5 * SIZE_2M / sizeof(struct seal_record) + 1;
	struct seal_table *t;
	unsigned int steps = 1;

	assert_int_equal(seal_table_new(pages, &t), 0);
	t->record[pages - 1].version = 1;
	while (seal_table_free_some(t))
		steps++;
	assert_int_equal(steps, 6);
}

static int setup(void **state)
{
	assert_int_equal(seal_setup(), 0);
	assert_int_equal(crew_new(3, &crew), 0);
	assert_int_equal(seal_new(vm_id, 7, &key), 0);
	assert_int_equal(seal_table_new(PAGES, &table), 0);
	for (unsigned int i = 0; i < PAGES; i++)
		memset(plain[i], (int)i, PAGE_SIZE);
	return 0;
}

static int teardown(void **state)
{
	seal_free(key);
	crew_free(crew);
	while (seal_table_free_some(table))
		;
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_versions_never_repeat),
		cmocka_unit_test(test_modified),
		cmocka_unit_test(test_another_place),
		cmocka_unit_test(test_replayed),
		cmocka_unit_test(test_another_key),
		cmocka_unit_test(test_one_bad_page),
		cmocka_unit_test(test_table_goes_in_steps),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
