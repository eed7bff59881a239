/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fault: what one stage-2 fault costs, by the size of its leaf, beside the kernel's fault on
 * its own anonymous 4K pages; and what a translation costs whose page the TLB has (tlb-hit) or
 * only the tables (tlb-miss).  Threads work on parts of their own; a row is the time of one
 * operation on one thread.
 */
#include "bench/bench.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "bench/stage2.h"

#define HOT_PAGES  256 /* fit the TLB */
#define HOT_ROUNDS 4000

enum what { FAULT_4K, FAULT_2M, KERNEL_4K, TLB_HIT, TLB_MISS, WHATS };

static const char *const names[WHATS] = {[FAULT_4K] = "lethe-4k",
	[FAULT_2M] = "lethe-2m",
	[KERNEL_4K] = "kernel-4k",
	[TLB_HIT] = "tlb-hit",
	[TLB_MISS] = "tlb-miss"};

/* One run of all threads. */
struct round {
	enum what what;
	struct stage2 s;
	uint8_t *memory; /* KERNEL_4K */
	uint64_t pages;  /* of each thread */
	pthread_barrier_t begin;
};

struct worker {
	struct round *round;
	pthread_t thread;
	unsigned int index;
	uint64_t operations, ns;
	bool failed;
};

static void touch_kernel(struct worker *w)
{
	volatile uint8_t *memory = w->round->memory + w->index * w->round->pages * PAGE_SIZE;
	uint64_t start = clock_ns();

	for (uint64_t i = 0; i < w->round->pages; i++)
		memory[i * PAGE_SIZE] = 1;
	w->ns = clock_ns() - start;
	w->operations = w->round->pages;
}

static void touch_stage2(struct worker *w)
{
	struct round *r = w->round;
	uint64_t first = w->index * r->pages, stride = r->what == FAULT_2M ? 512 : 1;
	unsigned int rounds = r->what == TLB_HIT ? HOT_ROUNDS : 1;
	uint64_t count = r->what == TLB_HIT ? HOT_PAGES : r->pages / stride;
	uint64_t start;

	mmu_vcpu_enter(r->s.vcpu[w->index]);
	/* What is asked about is the TLB: the tables, or the TLB, are filled before. */
	if (r->what == TLB_HIT || r->what == TLB_MISS)
		w->failed = !stage2_touch(&r->s, w->index, first, count, stride);
	start = clock_ns();
	for (unsigned int i = 0; i < rounds && !w->failed; i++)
		w->failed = !stage2_touch(&r->s, w->index, first, count, stride);
	w->ns = clock_ns() - start;
	mmu_vcpu_leave(r->s.vcpu[w->index]);
	w->operations = rounds * count;
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	struct round *r = w->round;

	if (r->what != KERNEL_4K)
		mmu_vcpu_attach(r->s.vcpu[w->index]);
	pthread_barrier_wait(&r->begin);
	if (r->what == KERNEL_4K)
		touch_kernel(w);
	else
		touch_stage2(w);
	if (r->what != KERNEL_4K)
		mmu_vcpu_detach(r->s.vcpu[w->index]);
	return NULL;
}

static int prepare(struct round *r, unsigned int threads)
{
	uint64_t pages = r->pages * threads;

	if (r->what != KERNEL_4K)
		return stage2_open(&r->s, pages, r->what == FAULT_2M ? MMU_2M : MMU_4K, threads);
	r->memory = mmap(NULL, pages * PAGE_SIZE, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (r->memory == MAP_FAILED)
		return -1;
	(void)madvise(r->memory, pages * PAGE_SIZE, MADV_NOHUGEPAGE);
	return 0;
}

/* The mean time of one operation on one thread, or a negative number. */
static double run_round(enum what what, uint64_t pages, unsigned int threads)
{
	struct round r = {.what = what, .pages = pages};
	struct worker worker[STAGE2_THREADS];
	unsigned int started = 0;
	double ns = 0;

	if (prepare(&r, threads) != 0)
		return -1;
	pthread_barrier_init(&r.begin, NULL, threads);
	for (; started < threads; started++) {
		worker[started] = (struct worker){.round = &r, .index = started};
		/* The last one is this thread: a barrier must not wait for who cannot come. */
		if (started + 1 == threads)
			worker_main(&worker[started]);
		else if (pthread_create(
				 &worker[started].thread, NULL, worker_main, &worker[started]) != 0)
			abort();
	}
	for (unsigned int i = 0; i < threads; i++) {
		if (i + 1 < threads)
			pthread_join(worker[i].thread, NULL);
		if (worker[i].failed)
			ns = -1;
		if (ns >= 0)
			ns += (double)worker[i].ns / (double)worker[i].operations / threads;
	}
	pthread_barrier_destroy(&r.begin);
	if (what == KERNEL_4K)
		munmap(r.memory, pages * threads * PAGE_SIZE);
	else
		stage2_close(&r.s);
	return ns;
}

static void measure(struct bench *bench, enum what what, uint64_t bytes, unsigned int threads)
{
	struct bench_row row = {.unit = "ns", .memory_bytes = bytes * threads, .threads = threads};
	unsigned int runs = bench->quick ? 5 : 11;
	struct bench_samples samples = {0};

	snprintf(row.name, sizeof(row.name), "%s", names[what]);
	for (unsigned int run = 0; run < runs + 1; run++) {
		double ns = run_round(what, bytes / PAGE_SIZE, threads);

		if (run > 0 && ns >= 0)
			bench_sample(&samples, ns);
	}
	bench_add(bench, &row, &samples);
}

void bench_fault(struct bench *bench)
{
	for (enum what what = FAULT_4K; what < WHATS; what++) {
		uint64_t bytes = what == FAULT_2M ? 512 * GIB : bench_size(bench, GIB, GIB / 4);

		for (unsigned int threads = 1; threads <= 2; threads++)
			measure(bench, what, bytes, threads);
	}
}
