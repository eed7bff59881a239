/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "os/futex.h"

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "os/clock.h"

/*
 * How often to look before sleeping, and how often then to let others run in between: as
 * long as a wake-up takes.  Looking alone would keep the other side from its core where
 * cores are few.  Where others do want the core, they keep it for long, and who sleeps
 * gets it back sooner than who yields.
 */
#define SPINS         200
#define YIELDS        200
#define LONG_YIELD_NS 20000

int futex_wait(uint32_t *word, uint32_t expected, const struct timespec *relative)
{
	if (syscall(SYS_futex, word, FUTEX_WAIT, expected, relative, NULL, 0) == 0)
		return 0;
	return -errno;
}

void futex_wake(uint32_t *word, int count)
{
	(void)syscall(SYS_futex, word, FUTEX_WAKE, count, NULL, NULL, 0);
}

/* Each side writes its word, then reads the other's, both in one order for all. */
void futex_ring(uint32_t *bell, const uint32_t *sleeps)
{
	(void)__atomic_fetch_add(bell, 1, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(sleeps, __ATOMIC_SEQ_CST) != 0)
		futex_wake(bell, 1);
}

void futex_sleep(uint32_t *bell, uint32_t seen, uint32_t *sleeps)
{
	__atomic_store_n(sleeps, 1, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(bell, __ATOMIC_SEQ_CST) == seen)
		(void)futex_wait(bell, seen, NULL);
	__atomic_store_n(sleeps, 0, __ATOMIC_RELAXED);
}

void futex_await(uint32_t *bell, uint32_t seen, uint32_t *sleeps, unsigned int *steps)
{
	uint64_t start;

	if (*steps < SPINS) {
		(*steps)++;
		cpu_relax();
		return;
	}
	if (*steps >= SPINS + YIELDS) {
		futex_sleep(bell, seen, sleeps);
		return;
	}
	start = clock_ns();
	sched_yield();
	*steps = clock_ns() - start < LONG_YIELD_NS ? *steps + 1 : SPINS + YIELDS;
}
