/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "uv/measure.h"

#include <endian.h>
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdlib.h>

#include "base/failpoint.h"

struct measure {
	EVP_MD_CTX *ctx;
};

static EVP_MD *sha384;

int measure_setup(void)
{
	if (OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL) != 1)
		return -EIO;
	sha384 = EVP_MD_fetch(NULL, "SHA2-384", NULL);
	return sha384 != NULL ? 0 : -EIO;
}

int measure_new(struct measure **ret)
{
	struct measure *m = calloc(1, sizeof(*m));

	if (m == NULL || failpoint("uv-measure") < 0)
		goto fail;
	m->ctx = EVP_MD_CTX_new();
	if (m->ctx == NULL || EVP_DigestInit_ex(m->ctx, sha384, NULL) != 1)
		goto fail;
	*ret = m;
	return 0;
fail:
	measure_free(m);
	return -ENOMEM;
}

int measure_copy(const struct measure *m, struct measure **ret)
{
	struct measure *copy;
	int err = measure_new(&copy);

	if (err < 0)
		return err;
	if (EVP_MD_CTX_copy_ex(copy->ctx, m->ctx) != 1) {
		measure_free(copy);
		return -ENOMEM;
	}
	*ret = copy;
	return 0;
}

void measure_free(struct measure *m)
{
	if (m == NULL)
		return;
	EVP_MD_CTX_free(m->ctx);
	free(m);
}

int measure_add(struct measure *m, enum measure_record type, uint64_t a, uint64_t b)
{
	uint64_t head[3] = {htole64(type), htole64(a), htole64(b)};

	return measure_content(m, head, sizeof(head));
}

int measure_content(struct measure *m, const void *content, uint64_t bytes)
{
	return EVP_DigestUpdate(m->ctx, content, bytes) == 1 ? 0 : -EIO;
}

int measure_finish(struct measure *m, uint8_t ret[ABI_MEASUREMENT_SIZE])
{
	unsigned int size = ABI_MEASUREMENT_SIZE;

	return EVP_DigestFinal_ex(m->ctx, ret, &size) == 1 ? 0 : -EIO;
}
