/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Flush requests and the TLBs they are for.
 *
 * Requests are numbered; the last FLUSH_RING ranges are kept.  A vCPU compares the number at
 * its checkpoint, drops what it has not seen (everything, if it is too far behind), takes up
 * the current root and publishes the number as acknowledged.  Outside guest mode it holds
 * nothing, and publishes a number above all.
 *
 * Each side publishes first and looks second, sequentially consistent: either the requester
 * sees that a vCPU is in guest mode, or the vCPU, on its way in, sees the request.
 */
#include <string.h>
#include <time.h>

#include "mmu/gate.h"

#define WAIT_SPINS   400 /* some microseconds: a vCPU's usual distance to a checkpoint */
#define FLUSH_SINGLY 256 /* a larger range costs less as a full drop */

uint64_t flush_post_locked(struct mmu *mmu, struct gfn_range range)
{
	uint64_t seq = atomic_load_explicit(&mmu->flush_seq, memory_order_relaxed) + 1;
	unsigned int i = seq % FLUSH_RING;

	atomic_store_explicit(&mmu->flush_ring[i].start, range.start.v, memory_order_release);
	atomic_store_explicit(&mmu->flush_ring[i].end, range_end(range), memory_order_release);
	atomic_store(&mmu->flush_seq, seq);
	return seq;
}

uint64_t flush_post(struct mmu *mmu, struct gfn_range range)
{
	uint64_t seq;

	pthread_mutex_lock(&mmu->flush_lock);
	seq = flush_post_locked(mmu, range);
	pthread_mutex_unlock(&mmu->flush_lock);
	return seq;
}

static bool all_acked(struct mmu *mmu, uint64_t seq)
{
	for (unsigned int i = 0; i < mmu->vcpus; i++) {
		if (atomic_load(&mmu->vcpu[i]->acked) < seq)
			return false;
	}
	return true;
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void note_wait(struct mmu *mmu, uint64_t ns)
{
	uint64_t most = atomic_load_explicit(&mmu->flush_wait_max_ns, memory_order_relaxed);

	while (ns > most && !atomic_compare_exchange_weak(&mmu->flush_wait_max_ns, &most, ns))
		;
}

void flush_wait(struct mmu *mmu, uint64_t seq)
{
	uint64_t start;

	pthread_mutex_lock(&mmu->ack_lock);
	if (all_acked(mmu, seq)) {
		pthread_mutex_unlock(&mmu->ack_lock);
		return;
	}
	start = now_ns();
	for (unsigned int i = 0; i < WAIT_SPINS && !all_acked(mmu, seq); i++)
		mmu_relax();
	atomic_fetch_add(&mmu->ack_waiters, 1);
	while (!all_acked(mmu, seq))
		pthread_cond_wait(&mmu->acks, &mmu->ack_lock);
	atomic_fetch_sub(&mmu->ack_waiters, 1);
	pthread_mutex_unlock(&mmu->ack_lock);
	note_wait(mmu, now_ns() - start);
}

void flush_range(struct mmu *mmu, struct gfn_range range)
{
	flush_wait(mmu, flush_post(mmu, range));
}

void mmu_sync(struct mmu *mmu)
{
	flush_wait(mmu, atomic_load(&mmu->flush_seq));
}

void flush_wake(struct mmu *mmu)
{
	if (atomic_load(&mmu->ack_waiters) == 0)
		return;
	pthread_mutex_lock(&mmu->ack_lock);
	pthread_cond_broadcast(&mmu->acks);
	pthread_mutex_unlock(&mmu->ack_lock);
}

void tlb_drop_all(struct vcpu *v)
{
	v->pub.epoch += MMU_TLB_EPOCH_FIRST;
	if (v->pub.epoch < MMU_TLB_EPOCH_END)
		return;
	memset(v->pub.set, 0, sizeof(v->pub.set));
	v->pub.epoch = MMU_TLB_EPOCH_FIRST;
}

static void tlb_drop(struct vcpu *v, uint64_t start, uint64_t end)
{
	if (end - start > FLUSH_SINGLY) {
		tlb_drop_all(v);
		return;
	}
	for (uint64_t frame = start; frame < end; frame++) {
		struct mmu_tlb_set *set = &v->pub.set[mmu_tlb_index(frame)];

		for (unsigned int way = 0; way < MMU_TLB_WAYS; way++) {
			if (set->tag[way] >> PAGE_SHIFT == frame)
				set->tag[way] = 0;
		}
	}
}

/*
 * Writes go through the TLB only once the entry is marked dirty, so that the first one
 * comes by to mark it.
 */
void tlb_fill(struct vcpu *v, uint64_t frame, uint64_t value, unsigned int level)
{
	struct mmu_tlb_set *set = &v->pub.set[mmu_tlb_index(frame)];
	uint64_t host = (uint64_t)(uintptr_t)entry_host(value, level, frame);
	unsigned int way = v->victim++ % MMU_TLB_WAYS;
	bool write = (value & ENTRY_WRITE) && (value & ENTRY_DIRTY);

	for (unsigned int i = 0; i < MMU_TLB_WAYS; i++) {
		if (set->tag[i] >> PAGE_SHIFT == frame)
			way = i;
	}
	set->tag[way] = frame << PAGE_SHIFT | v->pub.epoch | (write ? MMU_TLB_WRITE : 0);
	set->addend[way] = host - (frame << PAGE_SHIFT);
}

static void drop_requested(struct vcpu *v, uint64_t seq)
{
	struct mmu *mmu = v->mmu;

	for (uint64_t s = v->flush_seen + 1; s <= seq && seq - v->flush_seen < FLUSH_RING; s++) {
		unsigned int i = s % FLUSH_RING;
		uint64_t start =
			atomic_load_explicit(&mmu->flush_ring[i].start, memory_order_acquire);
		uint64_t end = atomic_load_explicit(&mmu->flush_ring[i].end, memory_order_acquire);

		tlb_drop(v, start, end);
	}
	/* What was read may have been overwritten by requests since. */
	if (atomic_load_explicit(&mmu->flush_seq, memory_order_acquire) - v->flush_seen >=
		FLUSH_RING)
		tlb_drop_all(v);
}

void flush_catch_up(struct vcpu *v)
{
	struct mmu *mmu = v->mmu;
	uint64_t seq = atomic_load(&mmu->flush_seq);

	while (v->flush_seen != seq) {
		drop_requested(v, seq);
		v->flush_seen = seq;
		v->root = atomic_load_explicit(&mmu->root, memory_order_acquire);
		v->generation = v->root ? v->root->generation : 0;
		atomic_store(&v->acked, seq);
		seq = atomic_load(&mmu->flush_seq);
	}
	flush_wake(mmu);
	reclaim_kick_if_owed(mmu);
}
