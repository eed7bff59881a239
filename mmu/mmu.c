/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "mmu/mmu.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mmu/internal.h"

static void init_locks(struct mmu *mmu)
{
	pthread_mutex_init(&mmu->slots_lock, NULL);
	pthread_mutex_init(&mmu->lock, NULL);
	pthread_mutex_init(&mmu->flush_lock, NULL);
	pthread_mutex_init(&mmu->walk, NULL);
	pthread_mutex_init(&mmu->ack_lock, NULL);
	pthread_mutex_init(&mmu->reclaim_lock, NULL);
	pthread_cond_init(&mmu->ended, NULL);
	pthread_cond_init(&mmu->acks, NULL);
	pthread_cond_init(&mmu->reclaim_work, NULL);
	pthread_cond_init(&mmu->reclaim_progress, NULL);
}

static void destroy(struct mmu *mmu)
{
	pthread_mutex_destroy(&mmu->slots_lock);
	pthread_mutex_destroy(&mmu->lock);
	pthread_mutex_destroy(&mmu->flush_lock);
	pthread_mutex_destroy(&mmu->walk);
	pthread_mutex_destroy(&mmu->ack_lock);
	pthread_mutex_destroy(&mmu->reclaim_lock);
	pthread_cond_destroy(&mmu->ended);
	pthread_cond_destroy(&mmu->acks);
	pthread_cond_destroy(&mmu->reclaim_work);
	pthread_cond_destroy(&mmu->reclaim_progress);
	mem_free(&mmu->mem, atomic_load(&mmu->slots));
	mem_destroy(&mmu->mem);
	free(mmu);
}

int mmu_new(const struct mmu_config *config, struct mmu **ret_mmu)
{
	struct slot_table *none;
	struct mmu *mmu;
	int ret;

	if (!config->ops || !config->ops->resolve)
		return -EINVAL;
	mmu = aligned_alloc(64, sizeof(*mmu));
	if (!mmu)
		return -ENOMEM;
	memset(mmu, 0, sizeof(*mmu));
	mem_init(&mmu->mem);
	init_locks(mmu);
	mmu->ops = *config->ops;
	mmu->ctx = config->ctx;
	atomic_store(&mmu->generation, 1);
	none = mem_zalloc(&mmu->mem, sizeof(*none));
	atomic_store(&mmu->slots, none);
	ret = none ? reclaim_start(mmu) : -ENOMEM;
	if (ret < 0) {
		destroy(mmu);
		return ret;
	}
	*ret_mmu = mmu;
	return 0;
}

void mmu_free(struct mmu *mmu)
{
	struct slot_table *table = atomic_load(&mmu->slots);

	assert(mmu->vcpus == 0 && !mmu->active);
	mmu_zap_all(mmu);
	for (unsigned int i = 0; i < table->count; i++) {
		table->view[i].slot->dead = true;
		reclaim_slot(mmu, table->view[i].slot, NULL);
	}
	reclaim_stop(mmu);
	destroy(mmu);
}

static void add_vcpu_stats(const struct mmu *mmu, struct mmu_stats *s)
{
	for (unsigned int i = 0; i < mmu->vcpus; i++) {
		const struct vcpu *v = mmu->vcpu[i];

		for (unsigned int level = MMU_4K; level <= MMU_1G; level++)
			s->mapped[level] += atomic_load(&v->installed[level]);
		s->misses += atomic_load(&v->misses);
		s->faults += atomic_load(&v->faults);
		s->retries += atomic_load(&v->retries);
		s->splits += atomic_load(&v->splits);
		s->displaced += atomic_load(&v->displaced);
	}
}

void mmu_get_stats(struct mmu *mmu, struct mmu_stats *ret)
{
	struct mmu_stats s = {
		.table_pages = atomic_load(&mmu->mem.pages[PAGE_TABLE]),
		.rmap_pages = atomic_load(&mmu->mem.pages[PAGE_RMAP]),
		.large_pages = atomic_load(&mmu->mem.pages[PAGE_LARGE]),
		.dirty_pages = atomic_load(&mmu->mem.pages[PAGE_DIRTY]),
		.cached_pages = atomic_load(&mmu->mem.pages[PAGE_CACHED]),
		.pool_bytes = atomic_load(&mmu->mem.pool_bytes),
		.heap_objects = atomic_load(&mmu->mem.objects),
		.slots_dying = atomic_load(&mmu->slots_dying),
		.trees_waiting = atomic_load(&mmu->trees_waiting),
		.generation = atomic_load(&mmu->generation),
		.sequence = atomic_load(&mmu->sequence),
		.misses = atomic_load(&mmu->gone_misses),
		.faults = atomic_load(&mmu->gone_faults),
		.retries = atomic_load(&mmu->gone_retries),
		.splits = atomic_load(&mmu->gone_splits),
		.displaced = atomic_load(&mmu->gone_displaced),
		.flushes = atomic_load(&mmu->flush_seq),
		.flush_wait_max_ns = atomic_load(&mmu->flush_wait_max_ns),
	};

	pthread_mutex_lock(&mmu->lock);
	s.slots = atomic_load(&mmu->slots)->count;
	for (unsigned int level = MMU_4K; level <= MMU_1G; level++)
		s.mapped[level] = atomic_load(&mmu->gone_installed[level]);
	add_vcpu_stats(mmu, &s);
	for (unsigned int level = MMU_4K; level <= MMU_1G; level++)
		s.mapped[level] -= atomic_load(&mmu->removed[level]);
	pthread_mutex_unlock(&mmu->lock);
	*ret = s;
}
