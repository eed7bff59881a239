/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * seal: how fast pages are sealed and taken back, by the calls of a VM and on one core, beside
 * openssl's AES-256-GCM on 4 KiB: of one buffer that stays in the cache, as `openssl speed` does
 * it (openssl), and of memory, each page with its own IV and tag (openssl-pages).  Beside that,
 * what a guest notices that works on one half of its memory while the other half is paged out.
 *
 * Rates of sealing are by the time that both processes had of their core: what else runs on a
 * machine does not count.
 *
 * The store is memory here.  What it does is not counted: one that refuses gets the pages taken
 * back by the same call, so sealing is timed until the store is asked, and unsealing from its
 * answer on.
 */
#include "bench/bench.h"

#include <errno.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/types.h"
#include "bench/guest.h"
#include "lethe/page_store.h"

#define NO_CLOCK CLOCK_REALTIME

#define BATCH_BYTES (LETHE_STORE_RUN * (uint64_t)LETHE_PAGE_SIZE)

static uint64_t read_clock(clockid_t clock)
{
	struct timespec t;

	return clock_gettime(clock, &t) < 0 ? 0
					    : (uint64_t)t.tv_sec * NS_PER_SEC + (uint64_t)t.tv_nsec;
}

/* The time that this process had, and the ultravisor, whose clock is @uv unless NO_CLOCK. */
static uint64_t used_ns(clockid_t uv)
{
	return read_clock(CLOCK_PROCESS_CPUTIME_ID) + (uv == NO_CLOCK ? 0 : read_clock(uv));
}

/* ---- a store ---- */

struct store {
	struct lethe_page_store ops; /* first */
	bool refuses;
	clockid_t uv_clock;
	uint64_t asked_ns, answered_ns; /* the last put, by used_ns() */
	uint8_t *pages;
};

static struct store *of(struct lethe_page_store *store)
{
	return (struct store *)store;
}

static int put(struct lethe_page_store *store, uint64_t gpa, const void *pages, size_t count)
{
	struct store *s = of(store);
	int ret = s->refuses ? -ENOSPC : 0;

	s->asked_ns = used_ns(s->uv_clock);
	if (ret == 0)
		memcpy(s->pages + gpa, pages, count * LETHE_PAGE_SIZE);
	s->answered_ns = used_ns(s->uv_clock);
	return ret;
}

static int get(struct lethe_page_store *store, uint64_t gpa, void *pages, size_t count)
{
	memcpy(pages, of(store)->pages + gpa, count * LETHE_PAGE_SIZE);
	return 0;
}

static void drop(struct lethe_page_store *store, uint64_t gpa, size_t count)
{
}

static void nothing(struct lethe_page_store *store)
{
}

static int store_init(struct store *s, uint64_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return -errno;
	*s = (struct store){
		.ops = {"memory", put, get, drop, nothing, nothing},
		.uv_clock = NO_CLOCK,
		.pages = p,
	};
	return 0;
}

/* ---- a guest that has filled its memory ---- */

static int begin(const char *text, uint64_t memory, struct store *store, struct guest *guest,
	const char **ret_why)
{
	const struct lethe_vm_config config = {0};
	int err = store_init(store, memory);

	*ret_why = "no memory for a page store";
	if (err)
		return err;
	err = guest_new(text, memory, &config, guest, ret_why);
	if (err) {
		munmap(store->pages, memory);
		return err;
	}
	err = lethe_vm_set_page_store(guest->vm, &store->ops);
	if (!err)
		err = lethe_vm_start(guest->vm, NULL);
	if (!err)
		err = guest_run(guest);
	if (err) {
		*ret_why = lethe_error();
		guest_free(guest);
		munmap(store->pages, memory);
	}
	return err;
}

static void end(struct guest *guest, struct store *store, uint64_t memory)
{
	guest_free(guest);
	munmap(store->pages, memory);
}

/* ---- seal and unseal ---- */

/* All of it on one core, the ultravisor too, which inherits that. */
static bool bind_to_one_core(cpu_set_t *ret_before)
{
	cpu_set_t one;
	int cpu = sched_getcpu();

	CPU_ZERO(&one);
	CPU_SET(cpu < 0 ? 0 : cpu, &one);
	return sched_getaffinity(0, sizeof(*ret_before), ret_before) == 0 &&
	       sched_setaffinity(0, sizeof(one), &one) == 0;
}

/* Seals and unseals each batch of @memory; the rates over all of it. */
static int seal_once(struct guest *guest, struct store *store, uint64_t memory, double *ret_seal,
	double *ret_unseal)
{
	uint64_t seal_ns = 0, unseal_ns = 0, bytes = 0, unused;

	for (uint64_t at = 2 * MIB; at < memory; at += BATCH_BYTES) {
		uint64_t start = used_ns(store->uv_clock), done;
		int err = lethe_page_out(guest->vm, at, BATCH_BYTES, &unused);

		done = used_ns(store->uv_clock);
		if (err != -ENOSPC)
			return err == 0 ? -ENODATA : err;
		seal_ns += store->asked_ns - start;
		unseal_ns += done - store->answered_ns;
		bytes += BATCH_BYTES;
	}
	*ret_seal = bench_rate(bytes, seal_ns);
	*ret_unseal = bench_rate(bytes, unseal_ns);
	return 0;
}

static void measure_calls(struct bench *bench, uint64_t memory, unsigned int runs)
{
	struct bench_row seal = {.name = "seal", .unit = "MB/s", .memory_bytes = memory};
	struct bench_row unseal = {.name = "unseal", .unit = "MB/s", .memory_bytes = memory};
	struct bench_samples seals = {0}, unseals = {0};
	struct guest guest;
	struct store store;
	const char *why;
	char text[128];
	int err;

	snprintf(text, sizeof(text), "protect\nwrite 2M %" PRIu64 "\nprint filled\npoweroff\n",
		memory - 2 * MIB);
	err = begin(text, memory, &store, &guest, &why);
	if (err) {
		bench_missing(bench, &seal, "%s", why);
		bench_missing(bench, &unseal, "%s", why);
		return;
	}
	store.refuses = true;
	err = -clock_getcpuclockid(lethe_vm_uv_pid(guest.vm), &store.uv_clock);
	for (unsigned int run = 0; run <= runs && !err; run++) {
		double s, u;

		err = seal_once(&guest, &store, memory, &s, &u);
		/* The first shows the cold caches of everything. */
		if (!err && run > 0) {
			bench_sample(&seals, s);
			bench_sample(&unseals, u);
		}
	}
	end(&guest, &store, memory);
	bench_add(bench, &seal, &seals);
	bench_add(bench, &unseal, &unseals);
}

/* ---- openssl ---- */

/* One buffer over and over, under one IV. */
static bool encrypt_one(EVP_CIPHER_CTX *ctx, uint8_t *to, const uint8_t *from, uint64_t bytes)
{
	bool good = true;
	int n;

	for (uint64_t o = 0; o < bytes && good; o += LETHE_PAGE_SIZE)
		good = EVP_EncryptUpdate(ctx, to, &n, from, LETHE_PAGE_SIZE) == 1;
	return good;
}

static bool encrypt_pages(EVP_CIPHER_CTX *ctx, uint8_t *to, const uint8_t *from, uint64_t bytes)
{
	uint8_t iv[12] = {0}, tag[16];
	bool good = true;
	int n;

	for (uint64_t o = 0; o < bytes && good; o += LETHE_PAGE_SIZE) {
		memcpy(iv, &o, sizeof(o));
		good = EVP_EncryptInit_ex(ctx, NULL, NULL, NULL, iv) == 1 &&
		       EVP_EncryptUpdate(ctx, to + o, &n, from + o, LETHE_PAGE_SIZE) == 1 &&
		       EVP_EncryptFinal_ex(ctx, to + o, &n) == 1 &&
		       EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, sizeof(tag), tag) == 1;
	}
	return good;
}

static void measure_openssl(struct bench *bench, const char *name,
	bool (*work)(EVP_CIPHER_CTX *ctx, uint8_t *to, const uint8_t *from, uint64_t bytes),
	uint64_t bytes, unsigned int runs)
{
	static const uint8_t key[32], iv[12];
	struct bench_row row = {.unit = "MB/s", .memory_bytes = bytes};
	struct bench_samples samples = {0};
	uint8_t *from = malloc(bytes), *to = malloc(bytes);
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	bool good =
		from && to && ctx && EVP_EncryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, iv) == 1;

	snprintf(row.name, sizeof(row.name), "%s", name);
	if (good) {
		memset(from, 1, bytes);
		memset(to, 2, bytes);
		good = work(ctx, to, from, bytes);
	}
	for (unsigned int run = 0; run < runs && good; run++) {
		uint64_t start = used_ns(NO_CLOCK);

		good = work(ctx, to, from, bytes);
		if (good)
			bench_sample(&samples, bench_rate(bytes, used_ns(NO_CLOCK) - start));
	}
	EVP_CIPHER_CTX_free(ctx);
	free(from);
	free(to);
	bench_add(bench, &row, &samples);
}

/* ---- a guest ---- */

/* Half of the memory, four times over, from one print to the next. */
static int run_half(struct guest *guest, uint64_t half, double *ret)
{
	uint64_t start = guest->exit.time_ns;
	int err = guest_run(guest);

	if (!err && guest->exit.type != LETHE_EXIT_PRINT)
		err = -EPROTO;
	*ret = bench_rate(4 * half, guest->exit.time_ns - start);
	return err;
}

static void measure_guest(struct bench *bench, uint64_t memory, unsigned int runs)
{
	struct bench_row in = {.name = "guest", .unit = "MB/s", .memory_bytes = memory};
	struct bench_row out = {.name = "guest-half-out", .unit = "MB/s", .memory_bytes = memory};
	struct bench_samples ins = {0}, outs = {0};
	uint64_t half = memory / 2 - 2 * MIB, pages;
	struct guest guest;
	struct store store;
	const char *why;
	char text[256];
	int err;

	snprintf(text, sizeof(text),
		"protect\nwrite 2M %" PRIu64 "\nloop 100\nloop 4\nwrite 2M %" PRIu64
		" 1\nend\nprint done\nend\npoweroff\n",
		memory - 2 * MIB, half);
	err = begin(text, memory, &store, &guest, &why);
	if (err) {
		bench_missing(bench, &in, "%s", why);
		bench_missing(bench, &out, "%s", why);
		return;
	}
	for (unsigned int run = 0; run < 2 * runs && !err; run++) {
		double rate;

		if (run == runs)
			err = lethe_page_out(guest.vm, memory / 2, memory / 2, &pages);
		if (!err)
			err = run_half(&guest, half, &rate);
		/* The first after page-out began before it. */
		if (!err && run != runs)
			bench_sample(run < runs ? &ins : &outs, rate);
	}
	end(&guest, &store, memory);
	out.resident_bytes = memory / 2;
	bench_add(bench, &in, &ins);
	bench_add(bench, &out, &outs);
}

void bench_seal(struct bench *bench)
{
	unsigned int runs = bench->quick ? 3 : 7;
	cpu_set_t before;

	if (bind_to_one_core(&before)) {
		measure_calls(bench, bench_size(bench, 256 * MIB, 64 * MIB), runs);
		measure_openssl(bench, "openssl", encrypt_one, 64 * MIB, runs);
		measure_openssl(bench, "openssl-pages", encrypt_pages, 64 * MIB, runs);
		(void)sched_setaffinity(0, sizeof(before), &before);
	}
	measure_guest(bench, bench_size(bench, 512 * MIB, 64 * MIB), runs);
}
