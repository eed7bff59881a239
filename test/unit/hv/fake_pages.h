/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The pages of the stand-in for lethe-uv: every page of the first 64 MiB is private and holds
 * something.  A sealed page is its number and how often it was sealed, over and over.
 */
#ifndef TEST_HV_FAKE_PAGES_H
#define TEST_HV_FAKE_PAGES_H

#include <stdbool.h>
#include <stdint.h>

#include "abi/uvcall.h"

uint32_t fake_page_out(const struct abi_page_out *a, uint8_t *bulk, struct abi_page_out_ret *ret);

/* @most: it takes in no more than that at a time. */
uint32_t fake_page_in(const struct abi_page_in_sealed *a, const uint8_t *bulk, uint64_t most,
	struct abi_page_in_ret *ret);

/* All memory is new. */
void fake_pages_reset(void);

/* Waits until every page of the range is sealed, or none is. */
void fake_pages_await(uint64_t gpa, uint64_t bytes, bool sealed);

#endif
