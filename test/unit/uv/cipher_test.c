/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The ciphers of pages: each gives the bytes that OpenSSL gives when it is asked in the plainest
 * way, for zeros and for random pages, and opens those and nothing else; one that computes
 * something else is noticed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include "base/types.h"
#include "uv/cipher.h"

#define ROUNDS  50
#define THREADS 2

/* One page in full, with what goes with it. */
struct sealed {
	uint8_t key[CIPHER_KEY_SIZE], nonce[CIPHER_NONCE_SIZE], bound[40], tag[CIPHER_TAG_SIZE];
	uint8_t plain[PAGE_SIZE], content[PAGE_SIZE];
};

static void randomize(struct sealed *s)
{
	assert_int_equal(RAND_bytes((uint8_t *)s, sizeof(*s)), 1);
}

/* By nothing of ours. */
static void reference(struct sealed *s)
{
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	int n;

	assert_non_null(ctx);
	assert_int_equal(EVP_EncryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, s->key, s->nonce), 1);
	assert_int_equal(EVP_EncryptUpdate(ctx, NULL, &n, s->bound, sizeof(s->bound)), 1);
	assert_int_equal(EVP_EncryptUpdate(ctx, s->content, &n, s->plain, PAGE_SIZE), 1);
	assert_int_equal(EVP_EncryptFinal_ex(ctx, s->content + n, &n), 1);
	assert_int_equal(
		EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, sizeof(s->tag), s->tag), 1);
	EVP_CIPHER_CTX_free(ctx);
}

static struct cipher_page name_page(struct sealed *s)
{
	struct cipher_page p = {.bound = s->bound, .bound_bytes = sizeof(s->bound), .tag = s->tag};

	memcpy(p.nonce, s->nonce, sizeof(p.nonce));
	return p;
}

static void check_encrypt(const struct cipher *c, void *key, const struct sealed *want)
{
	struct sealed got = *want;
	struct cipher_page page = name_page(&got);

	memset(got.content, 0xee, PAGE_SIZE);
	memset(got.tag, 0xee, sizeof(got.tag));
	assert_true(c->encrypt(key, 0, &page, got.content, got.plain));
	assert_memory_equal(got.content, want->content, PAGE_SIZE);
	assert_memory_equal(got.tag, want->tag, sizeof(got.tag));
	/* In its own place. */
	assert_true(c->encrypt(key, THREADS - 1, &page, got.plain, got.plain));
	assert_memory_equal(got.plain, want->content, PAGE_SIZE);
}

static void check_decrypt(const struct cipher *c, void *key, const struct sealed *want)
{
	struct sealed got = *want;
	struct cipher_page page = name_page(&got);

	memset(got.plain, 0xee, PAGE_SIZE);
	assert_true(c->decrypt(key, 0, &page, got.plain, got.content));
	assert_memory_equal(got.plain, want->plain, PAGE_SIZE);
	assert_true(c->decrypt(key, THREADS - 1, &page, got.content, got.content));
	assert_memory_equal(got.content, want->plain, PAGE_SIZE);
}

/* A bit of anything that goes with the page, and of its first and last bytes. */
static void check_refused(const struct cipher *c, void *key, const struct sealed *good)
{
	struct sealed got = *good;
	struct cipher_page page = name_page(&got);
	uint8_t *const changed[] = {page.nonce, page.nonce + CIPHER_NONCE_SIZE - 1, got.bound,
		got.bound + sizeof(got.bound) - 1, got.tag, got.tag + CIPHER_TAG_SIZE - 1,
		got.content, got.content + PAGE_SIZE - 1};

	for (size_t i = 0; i < sizeof(changed) / sizeof(changed[0]); i++) {
		*changed[i] ^= 0x10;
		assert_false(c->decrypt(key, 0, &page, got.plain, got.content));
		*changed[i] ^= 0x10;
	}
	assert_true(c->decrypt(key, 0, &page, got.plain, got.content));
}

static void check(const struct cipher *c, struct sealed *s)
{
	void *key = NULL;

	reference(s);
	assert_int_equal(c->key_new(s->key, THREADS, &key), 0);
	check_encrypt(c, key, s);
	check_decrypt(c, key, s);
	check_refused(c, key, s);
	c->key_free(key);
}

static void check_cipher(const struct cipher *c)
{
	static struct sealed s;

	memset(&s, 0, sizeof(s));
	check(c, &s);
	for (unsigned int i = 0; i < ROUNDS; i++) {
		randomize(&s);
		check(c, &s);
	}
	c->key_free(NULL);
}

static void test_evp(void **state)
{
	assert_int_equal(cipher_evp.setup(), 0);
	check_cipher(&cipher_evp);
}

static void test_mb(void **state)
{
#ifdef LETHE_IPSEC_MB
	if (cipher_mb.setup() < 0)
		skip();
	check_cipher(&cipher_mb);
#else
	skip();
#endif
}

/* ---- one that is wrong ---- */

static bool wrong_content;

static bool encrypt_wrongly(void *key, unsigned int thread, const struct cipher_page *p,
	uint8_t *to, const uint8_t *from)
{
	bool good = cipher_evp.encrypt(key, thread, p, to, from);

	if (wrong_content)
		to[PAGE_SIZE - 1] ^= 1;
	else
		p->tag[0] ^= 1;
	return good;
}

static bool decrypt_anything(void *key, unsigned int thread, const struct cipher_page *p,
	uint8_t *to, const uint8_t *from)
{
	(void)cipher_evp.decrypt(key, thread, p, to, from);
	return true;
}

static void test_wrong_is_noticed(void **state)
{
	struct cipher wrong = cipher_evp;

	assert_int_equal(cipher_evp.setup(), 0);
	assert_true(cipher_agrees(&wrong, &cipher_evp));
	wrong.encrypt = encrypt_wrongly;
	assert_false(cipher_agrees(&wrong, &cipher_evp));
	wrong_content = true;
	assert_false(cipher_agrees(&wrong, &cipher_evp));
	wrong.encrypt = cipher_evp.encrypt;
	wrong.decrypt = decrypt_anything;
	assert_false(cipher_agrees(&wrong, &cipher_evp));
}

static void test_choice(void **state)
{
	const struct cipher *chosen = NULL, *want = &cipher_evp;

#ifdef LETHE_IPSEC_MB
	if (cipher_mb.setup() == 0)
		want = &cipher_mb;
#endif
	assert_int_equal(cipher_choose(&chosen), 0);
	assert_ptr_equal(chosen, want);
	/* And again. */
	assert_int_equal(cipher_choose(&chosen), 0);
	assert_ptr_equal(chosen, want);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_evp),
		cmocka_unit_test(test_mb),
		cmocka_unit_test(test_wrong_is_noticed),
		cmocka_unit_test(test_choice),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
