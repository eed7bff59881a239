/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* AES-256-GCM by OpenSSL: a context for each thread and direction, which has the key. */
#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>

#include "base/types.h"
#include "uv/cipher.h"

struct evp_key {
	unsigned int threads;
	struct {
		EVP_CIPHER_CTX *encrypt, *decrypt;
	} of[];
};

static EVP_CIPHER *gcm;

static int evp_setup(void)
{
	if (gcm == NULL)
		gcm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
	return gcm == NULL ? -EIO : 0;
}

/* The contexts wipe what they have of the key. */
static void evp_key_free(void *key)
{
	struct evp_key *k = key;

	for (unsigned int i = 0; k != NULL && i < k->threads; i++) {
		EVP_CIPHER_CTX_free(k->of[i].encrypt);
		EVP_CIPHER_CTX_free(k->of[i].decrypt);
	}
	free(k);
}

static int add_thread(struct evp_key *k, const uint8_t key[CIPHER_KEY_SIZE])
{
	EVP_CIPHER_CTX *e = EVP_CIPHER_CTX_new(), *d = EVP_CIPHER_CTX_new();

	k->of[k->threads].encrypt = e;
	k->of[k->threads].decrypt = d;
	k->threads++;
	if (e == NULL || d == NULL)
		return -ENOMEM;
	return EVP_EncryptInit_ex2(e, gcm, key, NULL, NULL) == 1 &&
			       EVP_DecryptInit_ex2(d, gcm, key, NULL, NULL) == 1
		       ? 0
		       : -EIO;
}

static int evp_key_new(const uint8_t key[CIPHER_KEY_SIZE], unsigned int threads, void **ret)
{
	struct evp_key *k = calloc(1, sizeof(*k) + threads * sizeof(k->of[0]));
	int err = k == NULL ? -ENOMEM : 0;

	while (err == 0 && k->threads < threads)
		err = add_thread(k, key);
	if (err < 0) {
		evp_key_free(k);
		return err;
	}
	*ret = k;
	return 0;
}

static bool begin(EVP_CIPHER_CTX *ctx, const struct cipher_page *p)
{
	int n;

	return EVP_CipherInit_ex2(ctx, NULL, NULL, p->nonce, -1, NULL) == 1 &&
	       EVP_CipherUpdate(ctx, NULL, &n, p->bound, (int)p->bound_bytes) == 1;
}

static bool evp_encrypt(void *key, unsigned int thread, const struct cipher_page *p, uint8_t *to,
	const uint8_t *from)
{
	EVP_CIPHER_CTX *ctx = ((struct evp_key *)key)->of[thread].encrypt;
	int n;

	return begin(ctx, p) && EVP_CipherUpdate(ctx, to, &n, from, PAGE_SIZE) == 1 &&
	       n == (int)PAGE_SIZE && EVP_CipherFinal_ex(ctx, to, &n) == 1 &&
	       EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, CIPHER_TAG_SIZE, p->tag) == 1;
}

static bool evp_decrypt(void *key, unsigned int thread, const struct cipher_page *p, uint8_t *to,
	const uint8_t *from)
{
	EVP_CIPHER_CTX *ctx = ((struct evp_key *)key)->of[thread].decrypt;
	int n;

	return begin(ctx, p) &&
	       EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, CIPHER_TAG_SIZE, p->tag) == 1 &&
	       EVP_CipherUpdate(ctx, to, &n, from, PAGE_SIZE) == 1 && n == (int)PAGE_SIZE &&
	       EVP_CipherFinal_ex(ctx, to, &n) == 1;
}

const struct cipher cipher_evp = {
	.name = "evp",
	.setup = evp_setup,
	.key_new = evp_key_new,
	.key_free = evp_key_free,
	.encrypt = evp_encrypt,
	.decrypt = evp_decrypt,
};
