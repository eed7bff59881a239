/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * RCU for the walkers.
 *
 * The QSBR flavour: a vCPU must reach checkpoints anyway, because flushes wait for them, so
 * declaring a quiescent state there asks for nothing new; walking costs nothing at all, and
 * a grace period sends no interrupt to the CPUs that run vCPUs (membarrier would).  What
 * QSBR punishes, a reader that blocks, is just what guest mode forbids already; outside
 * guest mode a vCPU's thread is offline.
 *
 * liburcu orders memory with instructions that TSan does not see.  The order that it
 * guarantees, from a reader's quiescent state to the end of a grace period, is told to TSan
 * here; a use after the quiescent state is still reported.
 */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define RCU_TSAN
#endif
#endif
#ifdef __SANITIZE_THREAD__
#define RCU_TSAN
#endif

/* Inlined but for TSan, which is to see our memory accesses and not liburcu's. */
#ifndef RCU_TSAN
#define _LGPL_SOURCE
#endif
#include <urcu/urcu-qsbr.h>

#include "mmu/internal.h"

#ifdef RCU_TSAN
#include <sanitizer/tsan_interface.h>

static char order;

static void done_reading(void)
{
	__tsan_release(&order);
}

static void readers_done(void)
{
	__tsan_acquire(&order);
}
#else
static inline void done_reading(void)
{
}

static inline void readers_done(void)
{
}
#endif

/* vCPUs attached to this thread: liburcu counts threads. */
static _Thread_local unsigned int attached;

void rcu_reader_attach(void)
{
	if (attached++ > 0)
		return;
	urcu_qsbr_register_thread();
	urcu_qsbr_thread_offline();
}

void rcu_reader_detach(void)
{
	if (--attached > 0)
		return;
	urcu_qsbr_unregister_thread();
}

void rcu_reader_online(void)
{
	urcu_qsbr_thread_online();
}

void rcu_reader_offline(void)
{
	done_reading();
	urcu_qsbr_thread_offline();
}

void rcu_reader_quiescent(void)
{
	done_reading();
	urcu_qsbr_quiescent_state();
}

void rcu_wait_for_readers(void)
{
	urcu_qsbr_synchronize_rcu();
	readers_done();
}
