/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The reclaimer: a thread that frees what nobody can reach any more.
 *
 * It works in rounds.  A round takes over all that is waiting, lets every walker finish (an
 * RCU grace period for vCPUs, passing through the walk lock for other threads), then empties
 * the dead slots' rmaps and takes the dead trees apart.  What is added meanwhile is for the
 * next round, and nothing grows in a tree that nobody can reach, so each round ends, however
 * often others zap and fault: that is the whole argument against livelock.
 *
 * It holds no lock while it works but an rmap word's, and gives the CPU away after each
 * BATCH of entries, some tens of microseconds.
 *
 * Waking a thread takes longer than all the rest of a zap.  So who zaps leaves it to the
 * first vCPU that reloads its root, and does it himself only if none is in guest mode.
 *
 * A dead slot goes before the trees: emptying its rmap takes its last entries out of the
 * trees, so it need not wait for them to be taken apart.  Others may remove the same
 * entries at the same time.  It stays while another thread still works on it.
 */
#include <assert.h>
#include <sched.h>

#include "mmu/rmap.h"

#define BATCH     1024
#define GIVE_BACK 64 /* tables freed at a time */

void reclaim_tree(struct mmu *mmu, struct mmu_page *top)
{
	pthread_mutex_lock(&mmu->reclaim_lock);
	top->next = NULL;
	*mmu->dead.trees_end = top;
	mmu->dead.trees_end = &top->next;
	atomic_fetch_add(&mmu->trees_waiting, 1);
	pthread_mutex_unlock(&mmu->reclaim_lock);
}

void reclaim_slot(struct mmu *mmu, struct slot *slot, struct slot_table *table)
{
	pthread_mutex_lock(&mmu->reclaim_lock);
	if (slot) {
		slot->next_dead = mmu->dead.slots;
		mmu->dead.slots = slot;
		atomic_fetch_add(&mmu->slots_dying, 1);
	}
	if (table) {
		table->next_dead = mmu->dead.tables;
		mmu->dead.tables = table;
	}
	pthread_mutex_unlock(&mmu->reclaim_lock);
	reclaim_kick_soon(mmu);
}

void reclaim_kick(struct mmu *mmu)
{
	pthread_mutex_lock(&mmu->reclaim_lock);
	if (!mmu->reclaim_kicked) {
		mmu->reclaim_kicked = true;
		pthread_cond_signal(&mmu->reclaim_work);
	}
	pthread_mutex_unlock(&mmu->reclaim_lock);
}

void reclaim_kick_if_owed(struct mmu *mmu)
{
	if (atomic_load(&mmu->kick_owed) && atomic_exchange(&mmu->kick_owed, false))
		reclaim_kick(mmu);
}

/* Owes first and looks second; a vCPU that leaves publishes that first and looks second. */
void reclaim_kick_soon(struct mmu *mmu)
{
	bool inside = false;

	atomic_store(&mmu->kick_owed, true);
	pthread_mutex_lock(&mmu->flush_lock);
	for (unsigned int i = 0; i < mmu->vcpus; i++)
		inside |= atomic_load(&mmu->vcpu[i]->acked) != ACK_OUTSIDE;
	pthread_mutex_unlock(&mmu->flush_lock);
	if (!inside)
		reclaim_kick_if_owed(mmu);
}

/* Collects freed tables, to give them back some at a time. */
struct freed {
	struct mmu_page *list;
	unsigned int count;
};

static void freed_give_back(struct mmu *mmu, struct freed *freed)
{
	mem_give_back(&mmu->mem, freed->list);
	*freed = (struct freed){0};
}

static void freed_add(struct mmu *mmu, struct freed *freed, struct mmu_page *page)
{
	page->next = freed->list;
	freed->list = page;
	if (++freed->count == GIVE_BACK)
		freed_give_back(mmu, freed);
}

/* One entry of a dead table.  Returns the table below, to go on in, or NULL. */
static struct mmu_page *reclaim_entry(struct mmu *mmu, struct mmu_page *page, unsigned int i)
{
	entry_t *entry = &page_words(page)[i];
	uint64_t value = atomic_load_explicit(entry, memory_order_acquire);
	uint64_t frame = page->base + i * mmu_level_pages(page->level);

	if (entry_is_table(value)) {
		atomic_store_explicit(entry, 0, memory_order_relaxed);
		return page_of(entry_table(value));
	}
	value = entry_take_leaf(entry);
	if (value)
		rmap_forget(mmu, value, frame, page->level, entry);
	return NULL;
}

bool reclaim_tree_step(
	struct mmu *mmu, struct mmu_page *top, struct mmu_page **at, unsigned int budget)
{
	struct mmu_page *page = *at;
	struct freed freed = {0};

	for (; page && budget > 0; budget--) {
		struct mmu_page *below = NULL;

		if (page->cursor < TABLE_ENTRIES) {
			below = reclaim_entry(mmu, page, page->cursor++);
			page = below ? below : page;
			continue;
		}
		below = page == top ? NULL : page->parent;
		freed_add(mmu, &freed, page);
		page = below;
	}
	freed_give_back(mmu, &freed);
	*at = page;
	return !page;
}

bool reclaim_rmap_step(
	struct mmu *mmu, struct slot *slot, unsigned int level, uint64_t *at, unsigned int budget)
{
	const struct sparse *words = &slot->rmap[level];
	uint64_t end = block_index(range_end(slot->range) - 1, level) + 1;
	uint64_t i = sparse_next(words, *at, end);

	for (; i < end && budget > 0; budget--) {
		rmap_zap(mmu, sparse_get(words, i), level);
		i = sparse_next(words, i + 1, end);
	}
	*at = i;
	return i >= end;
}

static void take_tree_apart(struct mmu *mmu, struct mmu_page *top)
{
	struct mmu_page *at = top;

	while (!reclaim_tree_step(mmu, top, &at, BATCH))
		sched_yield();
	atomic_fetch_sub(&mmu->trees_waiting, 1);
}

static void empty_rmap(struct mmu *mmu, struct slot *slot)
{
	for (unsigned int level = MMU_4K; level <= MMU_1G; level++) {
		uint64_t at = 0;

		while (!reclaim_rmap_step(mmu, slot, level, &at, BATCH))
			sched_yield();
	}
}

/* slot: dead, rmap empty => freed, unless another thread is at work on it. */
static bool bury_slot(struct mmu *mmu, struct slot *slot)
{
	bool unused;

	pthread_mutex_lock(&mmu->lock);
	unused = slot->refs == 0;
	if (unused)
		atomic_store_explicit(&mmu->handle[slot->handle], NULL, memory_order_release);
	pthread_mutex_unlock(&mmu->lock);
	if (!unused)
		return false;
	slot_free(mmu, slot);
	pthread_mutex_lock(&mmu->reclaim_lock);
	atomic_fetch_sub(&mmu->slots_dying, 1);
	pthread_cond_broadcast(&mmu->reclaim_progress);
	pthread_mutex_unlock(&mmu->reclaim_lock);
	return true;
}

/* A grace period for all who walk: afterwards nobody is in what was unreachable before. */
static void wait_for_walkers(struct mmu *mmu)
{
	rcu_wait_for_readers();
	pthread_mutex_lock(&mmu->walk);
	pthread_mutex_unlock(&mmu->walk);
}

/* Frees what @dead holds.  Slots that are still in use go back to the queue. */
static void round_of(struct mmu *mmu, struct graveyard *dead)
{
	wait_for_walkers(mmu);
	while (dead->tables) {
		struct slot_table *table = dead->tables;

		dead->tables = table->next_dead;
		mem_free(&mmu->mem, table);
	}
	while (dead->slots) {
		struct slot *slot = dead->slots;

		dead->slots = slot->next_dead;
		empty_rmap(mmu, slot);
		if (bury_slot(mmu, slot))
			continue;
		pthread_mutex_lock(&mmu->reclaim_lock);
		slot->next_dead = mmu->dead.slots;
		mmu->dead.slots = slot;
		pthread_mutex_unlock(&mmu->reclaim_lock);
	}
	while (dead->trees) {
		struct mmu_page *top = dead->trees;

		dead->trees = top->next;
		take_tree_apart(mmu, top);
	}
}

static void *reclaimer(void *arg)
{
	struct mmu *mmu = arg;
	struct graveyard dead;

	pthread_mutex_lock(&mmu->reclaim_lock);
	while (mmu->reclaim_kicked || !mmu->reclaim_stopping) {
		if (!mmu->reclaim_kicked) {
			pthread_cond_wait(&mmu->reclaim_work, &mmu->reclaim_lock);
			continue;
		}
		dead = mmu->dead;
		mmu->dead = (struct graveyard){.trees_end = &mmu->dead.trees};
		mmu->reclaim_kicked = false;
		mmu->reclaim_busy = true;
		pthread_mutex_unlock(&mmu->reclaim_lock);
		round_of(mmu, &dead);
		pthread_mutex_lock(&mmu->reclaim_lock);
		mmu->reclaim_busy = false;
		pthread_cond_broadcast(&mmu->reclaim_progress);
	}
	pthread_mutex_unlock(&mmu->reclaim_lock);
	return NULL;
}

void mmu_reclaim_wait(struct mmu *mmu)
{
	reclaim_kick(mmu);
	pthread_mutex_lock(&mmu->reclaim_lock);
	while (mmu->reclaim_kicked || mmu->reclaim_busy || mmu->dead.slots)
		pthread_cond_wait(&mmu->reclaim_progress, &mmu->reclaim_lock);
	pthread_mutex_unlock(&mmu->reclaim_lock);
}

void reclaim_throttle_slots(struct mmu *mmu)
{
	if (atomic_load(&mmu->slots_dying) < SLOTS_DYING)
		return;
	reclaim_kick(mmu);
	pthread_mutex_lock(&mmu->reclaim_lock);
	while (atomic_load(&mmu->slots_dying) >= SLOTS_DYING)
		pthread_cond_wait(&mmu->reclaim_progress, &mmu->reclaim_lock);
	pthread_mutex_unlock(&mmu->reclaim_lock);
}

int reclaim_start(struct mmu *mmu)
{
	mmu->dead.trees_end = &mmu->dead.trees;
	return -pthread_create(&mmu->reclaimer, NULL, reclaimer, mmu);
}

void reclaim_stop(struct mmu *mmu)
{
	pthread_mutex_lock(&mmu->reclaim_lock);
	mmu->reclaim_stopping = true;
	mmu->reclaim_kicked = true;
	pthread_cond_signal(&mmu->reclaim_work);
	pthread_mutex_unlock(&mmu->reclaim_lock);
	pthread_join(mmu->reclaimer, NULL);
	assert(!mmu->dead.slots && !mmu->dead.trees);
}
