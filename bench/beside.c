/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A guest with one vCPU for each core touches memory round after round, while the memory of its
 * last life waits, or is destroyed: the same VM, in windows of which every other one has a
 * sweep in it (begun with its window and cancelled at its end).  What a window lost is by the
 * mean of its neighbours.
 *
 * A window's rate is of each vCPU from its first print to its last in it, so it does not matter
 * where rounds begin.
 */
#include "bench/beside.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include "base/types.h"
#include "bench/guest.h"
#include "bench/life.h"

#define VCPUS_MAX   16
#define ROUND_BYTES (8 * MIB) /* of each vCPU; a touch a cache line */
#define SETTLE_NS   (20 * NS_PER_MS)

struct toucher {
	struct beside *beside;
	unsigned int vcpu;
	pthread_t thread;
	/* Prints since the window began.  Guarded by lock. */
	uint64_t first_ns, last_ns, count;
};

struct beside {
	struct guest guest;
	pthread_mutex_t lock;
	struct toucher toucher[VCPUS_MAX];
	unsigned int vcpus, running;
	/* The sweep of the window under way. */
	struct lethe_destroy_result swept;
	int sweep_err;
};

static void count_round(struct toucher *t, uint64_t time_ns)
{
	pthread_mutex_lock(&t->beside->lock);
	if (t->count++ == 0)
		t->first_ns = time_ns;
	t->last_ns = time_ns;
	pthread_mutex_unlock(&t->beside->lock);
}

static void *toucher_main(void *arg)
{
	struct toucher *t = arg;
	struct lethe_exit exit = {0};

	while (guest_run_vcpu(&t->beside->guest, t->vcpu, &exit) == 0 &&
		exit.type == LETHE_EXIT_PRINT)
		count_round(t, exit.time_ns);
	return NULL;
}

/* ---- windows ---- */

static void wait_ns(uint64_t ns)
{
	struct timespec t = {
		.tv_sec = (time_t)(ns / NS_PER_SEC), .tv_nsec = (long)(ns % NS_PER_SEC)};

	while (clock_nanosleep(CLOCK_MONOTONIC, 0, &t, &t) == EINTR)
		;
}

/* Rounds a second of all vCPUs in the @ns from now on; 0 if one of them made no two. */
static double watch(struct beside *b, uint64_t ns)
{
	double rate = 0;

	pthread_mutex_lock(&b->lock);
	for (unsigned int i = 0; i < b->vcpus; i++)
		b->toucher[i].count = 0;
	pthread_mutex_unlock(&b->lock);
	wait_ns(ns);
	pthread_mutex_lock(&b->lock);
	for (unsigned int i = 0; i < b->vcpus; i++) {
		const struct toucher *t = &b->toucher[i];

		if (t->count < 2 || rate < 0)
			rate = -1;
		else
			rate += (double)(t->count - 1) * NS_PER_SEC /
				(double)(t->last_ns - t->first_ns);
	}
	pthread_mutex_unlock(&b->lock);
	return rate < 0 ? 0 : rate;
}

static void *sweep_main(void *arg)
{
	struct beside *b = arg;

	b->sweep_err = lethe_destroy_perform(b->guest.vm, &b->swept);
	return NULL;
}

/*
 * A window with a sweep in it.  0; -ENODATA the sweep came to its end before the window did;
 * another errno.
 */
static int watch_sweep(struct beside *b, uint64_t ns, double *ret_rate)
{
	pthread_t thread;
	int err = -pthread_create(&thread, NULL, sweep_main, b);

	if (err)
		return err;
	wait_ns(SETTLE_NS);
	*ret_rate = watch(b, ns);
	err = lethe_destroy_cancel(b->guest.vm);
	pthread_join(thread, NULL);
	if (!err)
		err = b->sweep_err == -ECANCELED ? 0 : b->sweep_err ? b->sweep_err : -ENODATA;
	return err;
}

/* Idle and sweeping windows in turn; what each of the latter lost, and how fast it swept. */
static void watch_all(struct beside *b, unsigned int windows, uint64_t ns,
	struct bench_samples *losses, struct bench_samples *rates)
{
	double before = watch(b, ns), during, after;

	for (unsigned int i = 0; i < windows; i++) {
		if (watch_sweep(b, ns, &during) != 0)
			return;
		wait_ns(SETTLE_NS);
		after = watch(b, ns);
		if (before > 0 && during > 0 && after > 0) {
			bench_sample(losses, 100 * (1 - 2 * during / (before + after)));
			bench_sample(rates, bench_rate(b->swept.bytes, b->swept.duration_ns));
		}
		before = after;
	}
}

/* ---- the guest ---- */

static void write_text(const struct beside *b, uint64_t bytes, char *text, size_t size)
{
	size_t used = (size_t)snprintf(text, size,
		"vcpu 0\nprotect\ntouch 2M %" PRIu64 " 2M\nreboot\nprotect\n", bytes - 2 * MIB);

	for (unsigned int i = 0; i < b->vcpus; i++)
		used += (size_t)snprintf(text + used, size - used,
			"vcpu %u\nbarrier all\nloop 1000000000\ntouch %" PRIu64 " %" PRIu64
			" 64\nprint round\nend\n",
			i, 2 * MIB + i * ROUND_BYTES, (uint64_t)ROUND_BYTES);
}

/* Up to where the next life runs and the last one waits to be destroyed. */
static int begin(struct beside *b, uint64_t bytes, const char **ret_why)
{
	const struct lethe_vm_config config = {.vcpus = b->vcpus};
	char text[256 + VCPUS_MAX * 128];
	uint64_t unused;
	int err;

	write_text(b, bytes, text, sizeof(text));
	err = guest_new(text, bytes, &config, &b->guest, ret_why);
	if (err)
		return err;
	err = lethe_vm_start(b->guest.vm, NULL);
	if (!err)
		err = guest_run(&b->guest);
	if (!err && b->guest.exit.type != LETHE_EXIT_REBOOT)
		err = -EPROTO;
	if (!err)
		err = lethe_destroy_prepare(b->guest.vm, &unused, &unused);
	if (!err)
		err = guest_populate(&b->guest);
	if (!err)
		err = lethe_vm_start(b->guest.vm, NULL);
	*ret_why = "the guest did not come to its second life";
	if (err)
		guest_free(&b->guest);
	return err;
}

static void run_all(struct beside *b)
{
	for (unsigned int i = 0; i < b->vcpus; i++) {
		b->toucher[i] = (struct toucher){.beside = b, .vcpu = i};
		if (pthread_create(&b->toucher[i].thread, NULL, toucher_main, &b->toucher[i]) != 0)
			break;
		b->running++;
	}
}

static void stop_all(struct beside *b)
{
	lethe_vm_stop(b->guest.vm);
	for (unsigned int i = 0; i < b->running; i++)
		pthread_join(b->toucher[i].thread, NULL);
	guest_free(&b->guest);
}

void bench_beside(struct bench *bench, uint64_t bytes)
{
	struct bench_row loss = {.name = "guest-loss",
		.unit = "percent",
		.memory_bytes = bytes,
		.resident_bytes = bytes};
	struct bench_row rate = loss;
	struct bench_samples losses = {0}, rates = {0};
	struct beside b = {.lock = PTHREAD_MUTEX_INITIALIZER};
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	const char *why;

	b.vcpus = cores < 1 ? 1 : cores > VCPUS_MAX ? VCPUS_MAX : (unsigned int)cores;
	loss.threads = rate.threads = b.vcpus;
	snprintf(rate.name, sizeof(rate.name), "wipe-beside");
	rate.unit = "MB/s";
	if (!life_fits(bench, &loss, bytes))
		return;
	if (begin(&b, bytes, &why) != 0) {
		bench_missing(bench, &loss, "%s", why);
		bench_missing(bench, &rate, "%s", why);
		return;
	}
	run_all(&b);
	watch(&b, 10 * SETTLE_NS);
	watch_all(
		&b, bench->quick ? 3 : 9, (bench->quick ? 100 : 120) * NS_PER_MS, &losses, &rates);
	stop_all(&b);
	bench_add(bench, &loss, &losses);
	bench_add(bench, &rate, &rates);
}
