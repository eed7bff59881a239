/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "uv/cipher.h"

#include <string.h>

#include "base/types.h"

#ifdef LETHE_IPSEC_MB
#define FASTEST (&cipher_mb)
#else
#define FASTEST (&cipher_evp)
#endif

/* A page that is different in every block, what @a makes of it, and what @b makes of that. */
struct trial {
	uint8_t plain[PAGE_SIZE], sealed[PAGE_SIZE], opened[PAGE_SIZE];
	uint8_t bound[40], tag[CIPHER_TAG_SIZE];
};

static void fill(uint8_t *p, size_t bytes, unsigned int seed)
{
	for (size_t i = 0; i < bytes; i++)
		p[i] = (uint8_t)((i + seed) * 2654435761u >> 13);
}

static bool opens(const struct cipher *from, void *from_key, const struct cipher *to, void *to_key)
{
	struct trial t;
	struct cipher_page page = {.bound = t.bound, .bound_bytes = sizeof(t.bound), .tag = t.tag};

	fill(t.plain, sizeof(t.plain), 1);
	fill(t.bound, sizeof(t.bound), 2);
	fill(page.nonce, sizeof(page.nonce), 3);
	if (!from->encrypt(from_key, 0, &page, t.sealed, t.plain) ||
		!to->decrypt(to_key, 0, &page, t.opened, t.sealed) ||
		memcmp(t.opened, t.plain, PAGE_SIZE) != 0)
		return false;
	t.tag[CIPHER_TAG_SIZE - 1] ^= 1;
	return !to->decrypt(to_key, 0, &page, t.opened, t.sealed);
}

bool cipher_agrees(const struct cipher *a, const struct cipher *b)
{
	uint8_t key[CIPHER_KEY_SIZE];
	void *a_key = NULL, *b_key = NULL;
	bool agrees;

	fill(key, sizeof(key), 4);
	agrees = a->key_new(key, 1, &a_key) == 0 && b->key_new(key, 1, &b_key) == 0 &&
		 opens(a, a_key, b, b_key) && opens(b, b_key, a, a_key);
	a->key_free(a_key);
	b->key_free(b_key);
	return agrees;
}

int cipher_choose(const struct cipher **ret)
{
	const struct cipher *best = FASTEST;
	int err = cipher_evp.setup();

	if (err < 0)
		return err;
	if (best != &cipher_evp && (best->setup() < 0 || !cipher_agrees(best, &cipher_evp)))
		best = &cipher_evp;
	*ret = best;
	return 0;
}
