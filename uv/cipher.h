/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * AES-256-GCM over single pages, by whichever library does it best here.
 *
 * Both give the same bytes: cipher_evp is OpenSSL's and works everywhere; cipher_mb is Intel's
 * multi-buffer library, several times as fast on processors with VAES, and there only in builds
 * that found it, on processors with AES instructions (docs/decisions/0013-page-cipher.md).
 * Before cipher_mb is used it has to agree with cipher_evp on the processor that it runs on.
 *
 * A key is used by several threads at once, each under a number of its own.
 */
#ifndef UV_CIPHER_H
#define UV_CIPHER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CIPHER_KEY_SIZE   32
#define CIPHER_NONCE_SIZE 12
#define CIPHER_TAG_SIZE   16

/* A page's own: what goes with its content. */
struct cipher_page {
	uint8_t nonce[CIPHER_NONCE_SIZE];
	const void *bound; /* authenticated, not encrypted */
	size_t bound_bytes;
	uint8_t *tag; /* written by encrypt, read by decrypt */
};

struct cipher {
	const char *name;

	/* Once, before the sandbox closes.  0; -EOPNOTSUPP not on this processor; -EIO. */
	int (*setup)(void);

	/* A key for @threads threads.  0, -ENOMEM, -EIO or another negative errno. */
	int (*key_new)(const uint8_t key[CIPHER_KEY_SIZE], unsigned int threads, void **ret);

	/* Wipes it.  NULL is allowed. */
	void (*key_free)(void *key);

	/* One page, @to and @from the same or apart.  False: it did not work, @to is worthless. */
	bool (*encrypt)(void *key, unsigned int thread, const struct cipher_page *page, uint8_t *to,
		const uint8_t *from);

	/*
	 * False: not what was encrypted.  @to has then content that nobody has authenticated: the
	 * caller wipes it.
	 */
	bool (*decrypt)(void *key, unsigned int thread, const struct cipher_page *page, uint8_t *to,
		const uint8_t *from);
};

extern const struct cipher cipher_evp;
#ifdef LETHE_IPSEC_MB
extern const struct cipher cipher_mb;
#endif

/* Whether both open what the other has sealed, and refuse what it has not.  Both are set up. */
bool cipher_agrees(const struct cipher *a, const struct cipher *b);

/* Sets up the best of them.  0 or -EIO. */
int cipher_choose(const struct cipher **ret);

#endif
