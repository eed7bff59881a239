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
#define CACHE_LINE 64

/* Fewer pages are not worth waking another thread for. */
#define PART_MIN 16

/* What is authenticated beside a page's content.  Numbers are little-endian. */
struct seal_binding {
	uint8_t vm_id[VM_ID_SIZE];
	uint64_t incarnation, gfn, version;
};

struct seal {
	uint64_t version; /* the last one used */
	struct seal_binding binding;
	/* These have the key, and wipe it in the end. */
	unsigned int ciphers;
	EVP_CIPHER_CTX *encrypt[CREW_MAX], *decrypt[CREW_MAX];
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

static int add_cipher(struct seal *s, const uint8_t key[KEY_SIZE])
{
	EVP_CIPHER_CTX *e = EVP_CIPHER_CTX_new(), *d = EVP_CIPHER_CTX_new();

	s->encrypt[s->ciphers] = e;
	s->decrypt[s->ciphers] = d;
	s->ciphers++;
	if (e == NULL || d == NULL)
		return -ENOMEM;
	return EVP_EncryptInit_ex2(e, cipher, key, NULL, NULL) == 1 &&
			       EVP_DecryptInit_ex2(d, cipher, key, NULL, NULL) == 1
		       ? 0
		       : -EIO;
}

int seal_new(const uint8_t vm_id[VM_ID_SIZE], uint64_t incarnation, struct seal **ret)
{
	struct seal *s = failpoint("uv-seal-key") < 0 ? NULL : calloc(1, sizeof(*s));
	uint8_t key[KEY_SIZE];
	int err;

	if (s == NULL)
		return -ENOMEM;
	memcpy(s->binding.vm_id, vm_id, VM_ID_SIZE);
	s->binding.incarnation = htole64(incarnation);
	err = RAND_priv_bytes(key, sizeof(key)) == 1 ? 0 : -EIO;
	for (unsigned int i = 0; i < crew_threads() && err == 0; i++)
		err = add_cipher(s, key);
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
	for (unsigned int i = 0; i < s->ciphers; i++) {
		EVP_CIPHER_CTX_free(s->encrypt[i]);
		EVP_CIPHER_CTX_free(s->decrypt[i]);
	}
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

/* A call's pages, cut into parts for the crew: each has a cipher of its own. */
struct job {
	struct seal *s;
	const struct seal_page *page;
	unsigned int count, parts;
	unsigned int bad[CREW_MAX]; /* of each part: the page that failed, or count */
};

static void cut(struct job *j, struct seal *s, const struct seal_page *page, unsigned int count)
{
	unsigned int wanted = (count + PART_MIN - 1) / PART_MIN;

	*j = (struct job){.s = s, .page = page, .count = count};
	j->parts = wanted < s->ciphers ? wanted : s->ciphers;
	for (unsigned int i = 0; i < j->parts; i++)
		j->bad[i] = count;
}

static unsigned int part_start(const struct job *j, uint64_t part)
{
	return (unsigned int)(j->count * part / j->parts);
}

/*
 * Has what is read next, and what is written at the end of this page, come into the cache
 * while the processor computes: its own prefetching ends with a page.
 */
static void prefetch(const uint8_t *read, const uint8_t *write)
{
	for (unsigned int o = 0; o < PAGE_SIZE; o += CACHE_LINE) {
		__builtin_prefetch(read + o, 0);
		__builtin_prefetch(write + o, 1);
	}
}

/* Readies @ctx for the page of @p: nonce and what is authenticated. */
static bool begin_page(const struct seal *s, EVP_CIPHER_CTX *ctx, const struct seal_page *p)
{
	struct seal_binding binding = s->binding;
	uint8_t nonce[NONCE_SIZE] = {0};
	int n;

	binding.gfn = htole64(p->gfn.v);
	binding.version = htole64(p->record->version & ~SEAL_WANTED);
	memcpy(nonce, &binding.version, sizeof(binding.version));
	return EVP_CipherInit_ex2(ctx, NULL, NULL, nonce, -1, NULL) == 1 &&
	       EVP_CipherUpdate(ctx, NULL, &n, (const uint8_t *)&binding, sizeof(binding)) == 1;
}

static int seal_one(const struct seal *s, EVP_CIPHER_CTX *ctx, const struct seal_page *p)
{
	uint8_t out[PAGE_SIZE] __attribute__((aligned(64)));
	OSSL_PARAM get_tag[] = {OSSL_PARAM_construct_octet_string(
					OSSL_CIPHER_PARAM_AEAD_TAG, p->record->tag, TAG_SIZE),
		OSSL_PARAM_construct_end()};
	int n;

	if (!begin_page(s, ctx, p) || EVP_CipherUpdate(ctx, out, &n, p->plain, PAGE_SIZE) != 1 ||
		n != (int)PAGE_SIZE || EVP_CipherFinal_ex(ctx, out, &n) != 1 ||
		EVP_CIPHER_CTX_get_params(ctx, get_tag) != 1)
		return -EIO;
	memcpy(p->cipher, out, PAGE_SIZE);
	return 0;
}

static int seal_part(void *arg, uint64_t part)
{
	struct job *j = arg;
	int ret = 0;

	for (unsigned int i = part_start(j, part); i < part_start(j, part + 1) && ret == 0; i++) {
		prefetch(j->page[i + 1 < j->count ? i + 1 : i].plain, j->page[i].cipher);
		ret = seal_one(j->s, j->s->encrypt[part], &j->page[i]);
	}
	return ret;
}

int seal_pages(struct seal *s, struct crew *crew, const struct seal_page *page, unsigned int count)
{
	int ret = failpoint("uv-seal");
	struct job j;

	if (ret == 0 && s->version >= SEAL_WANTED - 1 - count)
		ret = -EOVERFLOW;
	if (ret < 0)
		return ret;
	for (unsigned int i = 0; i < count; i++)
		page[i].record->version = ++s->version;
	cut(&j, s, page, count);
	return crew_run(crew, seal_part, &j, j.parts);
}

static int open_one(const struct seal *s, EVP_CIPHER_CTX *ctx, const struct seal_page *p)
{
	int n;

	memcpy(p->plain, p->cipher, PAGE_SIZE);
	if (!begin_page(s, ctx, p) ||
		EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, TAG_SIZE, p->record->tag) != 1 ||
		EVP_CipherUpdate(ctx, p->plain, &n, p->plain, PAGE_SIZE) != 1 ||
		n != (int)PAGE_SIZE || EVP_CipherFinal_ex(ctx, p->plain, &n) != 1)
		return -EBADMSG;
	return 0;
}

static int open_part(void *arg, uint64_t part)
{
	struct job *j = arg;

	for (unsigned int i = part_start(j, part); i < part_start(j, part + 1); i++) {
		int ret;

		prefetch(j->page[i + 1 < j->count ? i + 1 : i].cipher, j->page[i].plain);
		ret = open_one(j->s, j->s->decrypt[part], &j->page[i]);
		if (ret == 0)
			continue;
		j->bad[part] = i;
		return ret;
	}
	return 0;
}

int seal_open_pages(struct seal *s, struct crew *crew, const struct seal_page *page,
	unsigned int count, unsigned int *ret_bad)
{
	struct job j;
	int ret;

	cut(&j, s, page, count);
	ret = crew_run(crew, open_part, &j, j.parts);
	if (ret == 0)
		return 0;
	for (unsigned int i = 0; i < count; i++)
		window_wipe(page[i].plain, PAGE_SIZE);
	for (unsigned int i = j.parts; i-- > 0;) {
		if (j.bad[i] < count)
			*ret_bad = j.bad[i];
	}
	return ret;
}
