/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Futexes in memory that two processes share. */
#ifndef OS_FUTEX_H
#define OS_FUTEX_H

#include <stdint.h>
#include <time.h>

/*
 * Sleeps while *word == expected, at most for @relative (NULL: without limit).
 * Returns 0 when woken (perhaps for no reason), -EAGAIN if the value differed, -EINTR,
 * -ETIMEDOUT.  The caller checks its condition again in any case.
 */
int futex_wait(uint32_t *word, uint32_t expected, const struct timespec *relative);

/* Wakes up to @count sleepers. */
void futex_wake(uint32_t *word, int count);

/*
 * Bells: a counter that one side increments at every news, and a word in which the other
 * says that it sleeps there, so that nobody is woken who looks by himself.
 */

/* There is news: whoever sleeps at @bell wakes. */
void futex_ring(uint32_t *bell, const uint32_t *sleeps);

/* Sleeps until @bell is not @seen any more, or for no reason; *sleeps is the caller's. */
void futex_sleep(uint32_t *bell, uint32_t seen, uint32_t *sleeps);

/*
 * One step of waiting for news at @bell, which was @seen before the caller looked for it:
 * the first steps only pass time, the next let others run, the last ones sleep.  *steps is 0
 * at first, and when there was news.
 */
void futex_await(uint32_t *bell, uint32_t seen, uint32_t *sleeps, unsigned int *steps);

/* A step of a spin before a futex_wait(). */
static inline void cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#else
	__asm__ volatile("" : : : "memory");
#endif
}

/* A full barrier, which ThreadSanitizer need not understand: it is between processes. */
static inline void memory_barrier(void)
{
#if defined(__x86_64__)
	__asm__ volatile("lock; orl $0, (%%rsp)" : : : "memory", "cc");
#else
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}

#endif
