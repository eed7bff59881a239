/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test/unit/hv/fake_pages.h"

#include <pthread.h>
#include <string.h>

#define PAGES 16384u
#define PAGE  4096u
#define WORDS (PAGE / sizeof(uint64_t))

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool is_sealed[PAGES];
static uint64_t times[PAGES]; /* that it was sealed */

static uint64_t word_of(uint64_t page)
{
	return page << 32 | times[page];
}

uint32_t fake_page_out(const struct abi_page_out *a, uint8_t *bulk, struct abi_page_out_ret *ret)
{
	pthread_mutex_lock(&lock);
	for (uint64_t i = 0; i < a->bytes / PAGE; i++) {
		uint64_t page = a->gpa / PAGE + i;
		uint64_t *words = (uint64_t *)(bulk + i * PAGE);

		if (is_sealed[page])
			continue;
		is_sealed[page] = true;
		times[page]++;
		for (unsigned int k = 0; k < WORDS; k++)
			words[k] = word_of(page);
		ret->sealed[i / 64] |= (uint64_t)1 << i % 64;
		ret->pages++;
	}
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
	return ABI_ST_OK;
}

static bool is_good(const uint8_t *from, uint64_t page)
{
	const uint64_t *words = (const uint64_t *)from;

	for (unsigned int k = 0; k < WORDS; k++) {
		if (words[k] != word_of(page))
			return false;
	}
	return true;
}

uint32_t fake_page_in(const struct abi_page_in_sealed *a, const uint8_t *bulk, uint64_t most,
	struct abi_page_in_ret *ret)
{
	uint32_t status = ABI_ST_OK;

	pthread_mutex_lock(&lock);
	for (uint64_t i = 0; i < a->bytes / PAGE && ret->pages < most; i++) {
		uint64_t page = a->gpa / PAGE + i;

		if ((a->present[i / 64] >> i % 64 & 1) == 0 || !is_sealed[page])
			continue;
		if (!is_good(bulk + i * PAGE, page)) {
			status = ABI_ST_BAD_PAGE;
			break;
		}
		is_sealed[page] = false;
		ret->pages++;
	}
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
	return status;
}

void fake_pages_reset(void)
{
	pthread_mutex_lock(&lock);
	memset(is_sealed, 0, sizeof(is_sealed));
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

void fake_pages_await(uint64_t gpa, uint64_t bytes, bool sealed)
{
	pthread_mutex_lock(&lock);
	for (uint64_t page = gpa / PAGE; page < (gpa + bytes) / PAGE; page++) {
		while (is_sealed[page] != sealed)
			pthread_cond_wait(&changed, &lock);
	}
	pthread_mutex_unlock(&lock);
}
