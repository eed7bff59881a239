/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * zap: how long it takes to drop every mapping of a VM: by a new generation (fast), entry by
 * entry (walk), and by the kernel, which deletes a memslot of KVM's that a guest has touched
 * (kernel).  fast-stall is the longest that a vCPU, which never stops translating, did not
 * get anywhere around a fast zap: from one translation to the next.
 */
#include "bench/bench.h"

#include <pthread.h>
#include <stdatomic.h>

#include "bench/kvm_zap.h"
#include "bench/stage2.h"

#define HOT_PAGES     64
#define LOOK_AGAIN_NS 20000

/* ---- by a new generation ---- */

struct runner {
	struct stage2 *s;
	pthread_t thread;
	_Atomic bool stop;
	_Atomic uint64_t rounds;
	_Atomic uint64_t longest_ns; /* between two translations */
};

/* A vCPU with a small working set: every translation is timed. */
static void *runner_main(void *arg)
{
	struct runner *r = arg;
	struct mmu_vcpu *v = r->s->vcpu[1];
	uint64_t before, len, i = 0;

	mmu_vcpu_attach(v);
	mmu_vcpu_enter(v);
	before = clock_ns();
	while (!atomic_load_explicit(&r->stop, memory_order_relaxed)) {
		uint64_t now;

		(void)mmu_vcpu_translate(v, gpa((i++ % HOT_PAGES) << PAGE_SHIFT), true, &len);
		mmu_vcpu_checkpoint(v);
		now = clock_ns();
		if (now - before > atomic_load_explicit(&r->longest_ns, memory_order_relaxed))
			atomic_store_explicit(&r->longest_ns, now - before, memory_order_relaxed);
		atomic_store_explicit(&r->rounds, i, memory_order_relaxed);
		before = now;
	}
	mmu_vcpu_leave(v);
	mmu_vcpu_detach(v);
	return NULL;
}

/* Waits until the other vCPU has made @rounds more rounds. */
static void let_run(struct runner *r, uint64_t rounds)
{
	uint64_t until = atomic_load(&r->rounds) + rounds;

	/* Asleep, so that this thread takes no core from the one that it watches. */
	while (atomic_load(&r->rounds) < until)
		nanosleep(&(struct timespec){.tv_nsec = LOOK_AGAIN_NS}, NULL);
}

/*
 * Fills, lets the other vCPU run, zaps, and takes its longest gap from there until it has
 * its working set again and the old tables are gone.
 */
static bool zap_fast_once(struct runner *r, uint64_t entries, double *ret_ns, double *ret_stall)
{
	uint64_t start;

	if (!stage2_fill(r->s, 0, 0, entries))
		return false;
	let_run(r, HOT_PAGES);
	atomic_store(&r->longest_ns, 0);
	start = clock_ns();
	mmu_zap_all(r->s->mmu);
	*ret_ns = (double)(clock_ns() - start);
	let_run(r, 4 * HOT_PAGES);
	mmu_reclaim_wait(r->s->mmu);
	*ret_stall = (double)atomic_load(&r->longest_ns);
	return true;
}

/* How long @name takes to drop @entries pages of 4K. */
static struct bench_row row_of(const char *name, uint64_t entries)
{
	struct bench_row row = {
		.unit = "ns", .entries = entries, .memory_bytes = entries * PAGE_SIZE};

	snprintf(row.name, sizeof(row.name), "%s", name);
	return row;
}

/* Zaps of a VM whose vCPU runs, as it does when memslots are deleted: both rows of it. */
static void measure_fast(struct bench *bench, uint64_t entries)
{
	struct bench_row row = row_of("fast", entries);
	unsigned int runs = bench->quick ? 5 : entries > 100000 ? 11 : 21;
	struct bench_samples zaps = {0}, stalls = {0};
	struct stage2 s;
	struct runner r = {.s = &s};
	double ns, stall;

	if (stage2_open(&s, entries, MMU_4K, 2) != 0) {
		bench_missing(bench, &row, "no memory");
		return;
	}
	if (pthread_create(&r.thread, NULL, runner_main, &r) == 0) {
		for (unsigned int run = 0; run < runs + 1; run++) {
			if (!zap_fast_once(&r, entries, &ns, &stall) || run == 0)
				continue;
			bench_sample(&zaps, ns);
			bench_sample(&stalls, stall);
		}
		atomic_store(&r.stop, true);
		pthread_join(r.thread, NULL);
	}
	stage2_close(&s);
	bench_add(bench, &row, &zaps);
	snprintf(row.name, sizeof(row.name), "fast-stall");
	bench_add(bench, &row, &stalls);
}

/* ---- entry by entry ---- */

static void measure_walk(struct bench *bench, uint64_t entries)
{
	struct bench_row row = row_of("walk", entries);
	unsigned int runs = bench->quick ? 5 : entries > 100000 ? 7 : 21;
	struct bench_samples samples = {0};
	struct stage2 s;

	if (stage2_open(&s, entries, MMU_4K, 1) != 0) {
		bench_missing(bench, &row, "no memory");
		return;
	}
	for (unsigned int run = 0; run < runs + 1 && stage2_fill(&s, 0, 0, entries); run++) {
		uint64_t start = clock_ns();

		mmu_zap_all_by_walk(s.mmu);
		if (run > 0)
			bench_sample(&samples, (double)(clock_ns() - start));
	}
	stage2_close(&s);
	bench_add(bench, &row, &samples);
}

/* ---- the kernel ---- */

static void measure_kernel(struct bench *bench, uint64_t entries)
{
	struct bench_row row = row_of("kernel", entries);
	struct bench_samples samples = {0};
	const char *why = "";
	uint64_t ns;

	for (unsigned int run = 0; run < (bench->quick ? 1 : 3); run++) {
		if (kvm_zap_measure(entries, &ns, &why) != 0) {
			bench_missing(bench, &row, "%s", why);
			return;
		}
		bench_sample(&samples, (double)ns);
	}
	bench_add(bench, &row, &samples);
}

void bench_zap(struct bench *bench)
{
	static const uint64_t full[] = {1 << 10, 1 << 14, 1 << 18, 1 << 22, 0};
	static const uint64_t quick[] = {1 << 10, 1 << 18, 0};
	const uint64_t *sizes = bench->quick ? quick : full;

	for (const uint64_t *entries = sizes; *entries; entries++)
		measure_fast(bench, *entries);
	for (const uint64_t *entries = sizes; *entries; entries++)
		measure_walk(bench, *entries);
	for (const uint64_t *entries = sizes; *entries; entries++)
		measure_kernel(bench, *entries);
}
