/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * AES-256-GCM by Intel's multi-buffer library, of which only the direct functions are used: a
 * whole message in one call, under a key prepared before.  All threads share that, for nobody
 * writes to it; it is in memory of its own that is locked where the limit allows.
 *
 * Without AES instructions the library would look the key up in tables, whose timing shows it:
 * not for us.
 */
#include <errno.h>
#include <intel-ipsec-mb.h>
#include <openssl/crypto.h>
#include <sys/mman.h>

#include "base/types.h"
#include "uv/cipher.h"

#define NEEDED (IMB_FEATURE_AESNI | IMB_FEATURE_PCLMULQDQ)

static struct {
	aes_gcm_pre_t prepare;
	aes_gcm_enc_dec_t encrypt, decrypt;
} gcm;

/* The manager chooses functions for this processor, and tries them; the rest of it is not used. */
static int mb_setup(void)
{
	IMB_MGR *m = alloc_mb_mgr(0);
	int err = -EOPNOTSUPP;

	if (m == NULL)
		return -ENOMEM;
	if ((m->features & NEEDED) == NEEDED) {
		init_mb_mgr_auto(m, NULL);
		if (imb_get_errno(m) == 0) {
			gcm.prepare = m->gcm256_pre;
			gcm.encrypt = m->gcm256_enc;
			gcm.decrypt = m->gcm256_dec;
			err = 0;
		}
	}
	free_mb_mgr(m);
	return err;
}

static void mb_key_free(void *key)
{
	if (key == NULL)
		return;
	OPENSSL_cleanse(key, sizeof(struct gcm_key_data));
	(void)munmap(key, PAGE_SIZE);
}

static int mb_key_new(const uint8_t key[CIPHER_KEY_SIZE], unsigned int threads, void **ret)
{
	void *p = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	_Static_assert(sizeof(struct gcm_key_data) <= PAGE_SIZE, "a key fits into a page");
	if (p == MAP_FAILED)
		return -ENOMEM;
	if (madvise(p, PAGE_SIZE, MADV_DONTDUMP) < 0 || madvise(p, PAGE_SIZE, MADV_DONTFORK) < 0) {
		munmap(p, PAGE_SIZE);
		return -ENOMEM;
	}
	(void)mlock2(p, PAGE_SIZE, MLOCK_ONFAULT);
	gcm.prepare(key, p);
	*ret = p;
	return 0;
}

static bool mb_encrypt(void *key, unsigned int thread, const struct cipher_page *p, uint8_t *to,
	const uint8_t *from)
{
	struct gcm_context_data context;

	gcm.encrypt(key, &context, to, from, PAGE_SIZE, p->nonce, p->bound, p->bound_bytes, p->tag,
		CIPHER_TAG_SIZE);
	return true;
}

static bool mb_decrypt(void *key, unsigned int thread, const struct cipher_page *p, uint8_t *to,
	const uint8_t *from)
{
	struct gcm_context_data context;
	uint8_t tag[CIPHER_TAG_SIZE];

	gcm.decrypt(key, &context, to, from, PAGE_SIZE, p->nonce, p->bound, p->bound_bytes, tag,
		CIPHER_TAG_SIZE);
	return CRYPTO_memcmp(tag, p->tag, sizeof(tag)) == 0;
}

const struct cipher cipher_mb = {
	.name = "ipsec-mb",
	.setup = mb_setup,
	.key_new = mb_key_new,
	.key_free = mb_key_free,
	.encrypt = mb_encrypt,
	.decrypt = mb_decrypt,
};
