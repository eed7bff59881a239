/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "uv/seal.h"

#include <endian.h>
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/failpoint.h"
#include "uv/cipher.h"

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
	unsigned int threads; /* that the key is for */
	void *key;
};

static const struct cipher *cipher;

int seal_setup(void)
{
	uint8_t unused[CIPHER_KEY_SIZE];
	int err = cipher_choose(&cipher);

	/* What the generator loads and opens, it does at its first use. */
	if (err == 0 && RAND_priv_bytes(unused, sizeof(unused)) != 1)
		err = -EIO;
	return err;
}

int seal_random(void *ret, size_t size)
{
	return RAND_bytes(ret, (int)size) == 1 ? 0 : -EIO;
}

/* ---- the key ---- */

int seal_new(const uint8_t vm_id[VM_ID_SIZE], uint64_t incarnation, struct seal **ret)
{
	struct seal *s = failpoint("uv-seal-key") < 0 ? NULL : calloc(1, sizeof(*s));
	uint8_t key[CIPHER_KEY_SIZE];
	int err;

	if (s == NULL)
		return -ENOMEM;
	memcpy(s->binding.vm_id, vm_id, VM_ID_SIZE);
	s->binding.incarnation = htole64(incarnation);
	s->threads = crew_threads();
	err = RAND_priv_bytes(key, sizeof(key)) == 1 ? 0 : -EIO;
	if (err == 0)
		err = cipher->key_new(key, s->threads, &s->key);
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
	cipher->key_free(s->key);
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

/* A call's pages, cut into parts for the crew: each is a thread to the cipher. */
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
	j->parts = wanted < s->threads ? wanted : s->threads;
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

/* What makes the page of @p itself: nonce, tag and, in @binding, what is authenticated. */
static struct cipher_page name_page(
	const struct seal *s, const struct seal_page *p, struct seal_binding *binding)
{
	struct cipher_page c = {
		.bound = binding, .bound_bytes = sizeof(*binding), .tag = p->record->tag};

	*binding = s->binding;
	binding->gfn = htole64(p->gfn.v);
	binding->version = htole64(p->record->version & ~SEAL_WANTED);
	memcpy(c.nonce, &binding->version, sizeof(binding->version));
	return c;
}

static int seal_one(const struct seal *s, unsigned int part, const struct seal_page *p)
{
	uint8_t out[PAGE_SIZE] __attribute__((aligned(64)));
	struct seal_binding binding;
	struct cipher_page c = name_page(s, p, &binding);

	if (!cipher->encrypt(s->key, part, &c, out, p->plain))
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
		ret = seal_one(j->s, (unsigned int)part, &j->page[i]);
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

static int open_one(const struct seal *s, unsigned int part, const struct seal_page *p)
{
	struct seal_binding binding;
	struct cipher_page c = name_page(s, p, &binding);

	memcpy(p->plain, p->cipher, PAGE_SIZE);
	return cipher->decrypt(s->key, part, &c, p->plain, p->plain) ? 0 : -EBADMSG;
}

static int open_part(void *arg, uint64_t part)
{
	struct job *j = arg;

	for (unsigned int i = part_start(j, part); i < part_start(j, part + 1); i++) {
		int ret;

		prefetch(j->page[i + 1 < j->count ? i + 1 : i].cipher, j->page[i].plain);
		ret = open_one(j->s, (unsigned int)part, &j->page[i]);
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
