/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <assert.h>
#include <errno.h>

#include "mmu/gate.h"

/* The vCPU of this thread that is in guest mode. */
static _Thread_local struct vcpu *inside;

static void lock_vcpus(struct mmu *mmu)
{
	pthread_mutex_lock(&mmu->lock);
	pthread_mutex_lock(&mmu->flush_lock);
	pthread_mutex_lock(&mmu->ack_lock);
}

static void unlock_vcpus(struct mmu *mmu)
{
	pthread_mutex_unlock(&mmu->ack_lock);
	pthread_mutex_unlock(&mmu->flush_lock);
	pthread_mutex_unlock(&mmu->lock);
}

int mmu_vcpu_new(struct mmu *mmu, struct mmu_vcpu **ret_vcpu)
{
	struct vcpu *v = mem_zalloc(&mmu->mem, sizeof(*v));
	int ret = 0;

	if (!v)
		return -ENOMEM;
	v->mmu = mmu;
	v->pub.epoch = MMU_TLB_EPOCH_FIRST;
	atomic_init(&v->acked, ACK_OUTSIDE);
	lock_vcpus(mmu);
	if (mmu->vcpus < MMU_VCPUS)
		mmu->vcpu[mmu->vcpus++] = v;
	else
		ret = -ENOSPC;
	unlock_vcpus(mmu);
	if (ret < 0)
		mem_free(&mmu->mem, v);
	else
		*ret_vcpu = &v->pub;
	return ret;
}

/* Keeps what a vCPU counted.  mmu->lock is held. */
static void keep_counts(struct mmu *mmu, const struct vcpu *v)
{
	for (unsigned int level = MMU_4K; level <= MMU_1G; level++)
		atomic_fetch_add(&mmu->gone_installed[level], v->installed[level]);
	atomic_fetch_add(&mmu->gone_misses, v->misses);
	atomic_fetch_add(&mmu->gone_faults, v->faults);
	atomic_fetch_add(&mmu->gone_retries, v->retries);
	atomic_fetch_add(&mmu->gone_splits, v->splits);
	atomic_fetch_add(&mmu->gone_displaced, v->displaced);
}

void mmu_vcpu_free(struct mmu_vcpu *pub)
{
	struct vcpu *v = vcpu_of(pub);
	struct mmu *mmu = v->mmu;
	unsigned int i = 0;

	assert(!v->attached);
	lock_vcpus(mmu);
	while (mmu->vcpu[i] != v)
		i++;
	mmu->vcpu[i] = mmu->vcpu[--mmu->vcpus];
	keep_counts(mmu, v);
	unlock_vcpus(mmu);
	mem_cache_empty(&mmu->mem, &v->cache);
	mem_free(&mmu->mem, v);
}

void mmu_vcpu_attach(struct mmu_vcpu *pub)
{
	struct vcpu *v = vcpu_of(pub);

	assert(!v->attached);
	v->attached = true;
	rcu_reader_attach();
}

void mmu_vcpu_detach(struct mmu_vcpu *pub)
{
	struct vcpu *v = vcpu_of(pub);

	assert(v->attached && inside != v);
	v->attached = false;
	rcu_reader_detach();
}

void mmu_vcpu_enter(struct mmu_vcpu *pub)
{
	struct vcpu *v = vcpu_of(pub);

	assert(v->attached && !inside);
	inside = v;
	rcu_reader_online();
	/* What was current when it left may be gone: start without a root. */
	v->root = NULL;
	atomic_store(&v->acked, v->flush_seen);
	flush_catch_up(v);
	if (!v->root) {
		v->root = atomic_load_explicit(&v->mmu->root, memory_order_acquire);
		v->generation = v->root ? v->root->generation : 0;
	}
}

void mmu_vcpu_leave(struct mmu_vcpu *pub)
{
	struct vcpu *v = vcpu_of(pub);

	assert(inside == v);
	atomic_store(&v->acked, ACK_OUTSIDE);
	flush_wake(v->mmu);
	rcu_reader_offline();
	inside = NULL;
	reclaim_kick_if_owed(v->mmu);
}

/*
 * The quiescent state comes first.  A grace period that it lets end began after the request
 * to reload was posted, so the request is seen right after, before the old root is used.
 */
void mmu_vcpu_checkpoint(struct mmu_vcpu *pub)
{
	struct vcpu *v = vcpu_of(pub);

	assert(inside == v);
	rcu_reader_quiescent();
	if (atomic_load_explicit(&v->mmu->flush_seq, memory_order_acquire) != v->flush_seen)
		flush_catch_up(v);
}

void mmu_vcpu_wait(struct mmu_vcpu *pub)
{
	struct vcpu *v = vcpu_of(pub);
	struct mmu *mmu = v->mmu;
	struct gfn_range page = {v->failed, 1};

	mmu_vcpu_leave(pub);
	pthread_mutex_lock(&mmu->lock);
	for (;;) {
		const struct slot_table *table = atomic_load(&mmu->slots);
		const struct slot_view *view = slot_find(table, page.start.v, &v->slot_hint);

		if (!view || !invalidate_covers(mmu, table, view, page))
			break;
		pthread_cond_wait(&mmu->ended, &mmu->lock);
	}
	pthread_mutex_unlock(&mmu->lock);
	mmu_vcpu_enter(pub);
}

int mmu_vcpu_error(const struct mmu_vcpu *pub)
{
	return ((const struct vcpu *)pub)->error;
}
