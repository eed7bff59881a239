/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "uv/seal.h"

#include <endian.h>
#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/failpoint.h"

#define KEY_SIZE   32
#define NONCE_SIZE 12
#define TAG_SIZE   16

/* What is authenticated beside a page's content.  Numbers are little-endian. */
struct seal_binding {
	uint8_t vm_id[VM_ID_SIZE];
	uint64_t incarnation, gfn, version;
};

struct seal {
	uint64_t version; /* the last one used */
	struct seal_binding binding;
	EVP_CIPHER_CTX *encrypt, *decrypt; /* these have the key, and wipe it in the end */
};

static EVP_CIPHER *cipher;

int seal_setup(void)
{
	uint8_t unused[KEY_SIZE];

	cipher = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
	/* What the generator loads and opens, it does at its first use. */
	if (cipher == NULL || RAND_priv_bytes(unused, sizeof(unused)) != 1)
		return -EIO;
	return 0;
}

int seal_random(void *ret, size_t size)
{
	return RAND_bytes(ret, (int)size) == 1 ? 0 : -EIO;
}

/* ---- the key ---- */

int seal_new(const uint8_t vm_id[VM_ID_SIZE], uint64_t incarnation, struct seal **ret)
{
	struct seal *s = failpoint("uv-seal-key") < 0 ? NULL : calloc(1, sizeof(*s));
	uint8_t key[KEY_SIZE];
	int err = 0;

	if (s == NULL)
		return -ENOMEM;
	memcpy(s->binding.vm_id, vm_id, VM_ID_SIZE);
	s->binding.incarnation = htole64(incarnation);
	s->encrypt = EVP_CIPHER_CTX_new();
	s->decrypt = EVP_CIPHER_CTX_new();
	if (s->encrypt == NULL || s->decrypt == NULL)
		err = -ENOMEM;
	else if (RAND_priv_bytes(key, sizeof(key)) != 1 ||
		 EVP_EncryptInit_ex2(s->encrypt, cipher, key, NULL, NULL) != 1 ||
		 EVP_DecryptInit_ex2(s->decrypt, cipher, key, NULL, NULL) != 1)
		err = -EIO;
	OPENSSL_cleanse(key, sizeof(key));
	if (err < 0) {
		seal_free(s);
		return err;
	}
	*ret = s;
	return 0;
}

void seal_free(struct seal *s)
{
	if (s == NULL)
		return;
	EVP_CIPHER_CTX_free(s->encrypt);
	EVP_CIPHER_CTX_free(s->decrypt);
	free(s);
}

/* ---- tables ---- */

int seal_table_new(uint64_t pages, struct seal_table **ret)
{
	struct seal_table *t = failpoint("uv-seal-table") < 0 ? NULL : calloc(1, sizeof(*t));
	void *p;

	if (t == NULL)
		return -ENOMEM;
	t->bytes = pages * sizeof(*t->record);
	p = mmap(NULL, t->bytes, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED) {
		free(t);
		return -ENOMEM;
	}
	t->record = p;
	*ret = t;
	return 0;
}

bool seal_table_free_some(struct seal_table *t)
{
	uint64_t n = t->bytes - t->freed < SIZE_2M ? t->bytes - t->freed : SIZE_2M;

	if (n > 0) {
		(void)munmap((uint8_t *)t->record + t->freed, n);
		t->freed += n;
	}
	if (t->freed < t->bytes)
		return true;
	free(t);
	return false;
}

/* ---- pages ---- */

/* Readies @ctx for the page of @p: nonce and what is authenticated. */
static bool begin_page(struct seal *s, EVP_CIPHER_CTX *ctx, const struct seal_page *p, int encrypt)
{
	uint64_t version = p->record->version & ~SEAL_WANTED;
	struct seal_binding binding = s->binding;
	uint8_t nonce[NONCE_SIZE] = {0};
	int n;

	binding.gfn = htole64(p->gfn.v);
	binding.version = htole64(version);
	memcpy(nonce, &binding.version, sizeof(binding.version));
	return EVP_CipherInit_ex2(ctx, NULL, NULL, nonce, encrypt, NULL) == 1 &&
	       EVP_CipherUpdate(ctx, NULL, &n, (const uint8_t *)&binding, sizeof(binding)) == 1;
}

static int seal_one(struct seal *s, const struct seal_page *p)
{
	uint8_t out[PAGE_SIZE] __attribute__((aligned(64)));
	const OSSL_PARAM get_tag[] = {
		{OSSL_CIPHER_PARAM_AEAD_TAG, OSSL_PARAM_OCTET_STRING, p->record->tag, TAG_SIZE, 0},
		{NULL, 0, NULL, 0, 0}};
	int n;

	if (!begin_page(s, s->encrypt, p, 1) ||
		EVP_CipherUpdate(s->encrypt, out, &n, p->plain, PAGE_SIZE) != 1 ||
		n != (int)PAGE_SIZE || EVP_CipherFinal_ex(s->encrypt, out, &n) != 1 ||
		EVP_CIPHER_CTX_get_params(s->encrypt, (OSSL_PARAM *)get_tag) != 1)
		return -EIO;
	memcpy(p->cipher, out, PAGE_SIZE);
	return 0;
}

int seal_pages(struct seal *s, const struct seal_page *page, unsigned int count)
{
	int ret = failpoint("uv-seal");

	if (ret == 0 && s->version >= SEAL_WANTED - 1 - count)
		ret = -EOVERFLOW;
	for (unsigned int i = 0; i < count && ret == 0; i++) {
		page[i].record->version = ++s->version;
		ret = seal_one(s, &page[i]);
	}
	return ret;
}

static int open_one(struct seal *s, const struct seal_page *p)
{
	int n;

	memcpy(p->plain, p->cipher, PAGE_SIZE);
	if (!begin_page(s, s->decrypt, p, 0) ||
		EVP_CIPHER_CTX_ctrl(s->decrypt, EVP_CTRL_AEAD_SET_TAG, TAG_SIZE, p->record->tag) !=
			1 ||
		EVP_CipherUpdate(s->decrypt, p->plain, &n, p->plain, PAGE_SIZE) != 1 ||
		n != (int)PAGE_SIZE || EVP_CipherFinal_ex(s->decrypt, p->plain, &n) != 1)
		return -EBADMSG;
	return 0;
}

int seal_open_pages(
	struct seal *s, const struct seal_page *page, unsigned int count, unsigned int *ret_bad)
{
	for (unsigned int i = 0; i < count; i++) {
		int ret = open_one(s, &page[i]);

		if (ret == 0)
			continue;
		for (unsigned int k = 0; k <= i; k++)
			window_wipe(page[k].plain, PAGE_SIZE);
		*ret_bad = i;
		return ret;
	}
	return 0;
}
