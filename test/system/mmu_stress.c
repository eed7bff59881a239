/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Everything at once: vCPU threads read and write patterned memory while other threads take
 * it away from under them in every way there is.
 *
 *	mmu_stress [OPERATIONS [SEED]]		a million accesses by default
 *
 * What is checked:
 *   - Each page has one vCPU that writes it, and remembers what.  It must read that back,
 *     whichever mapping leads there: a lost write or a stale read is a wrong pointer.
 *   - Who takes memory away moves its content elsewhere and overwrites the old place as soon
 *     as the call returned.  Those accesses are plain, so under TSan each use of a pointer
 *     that should be dead is a data race as well.
 *   - The logger keeps a copy of its slot by dirty log only; it must be exact when the vCPUs
 *     pause.
 *   - At the end every count of the MMU is zero.
 *
 * The slots: two whose pages are converted one by one between two memories, one of them at
 * an odd address; two aliases of one memory; one that is deleted and added; one that is
 * moved; one that is logged.
 */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "mmu/mmu.h"
#include "test/xorshift.h"

#define VCPUS 3
#define PAGES 1536 /* of each slot: three 2M blocks */
#define HOT   48
#define SPAN  8192 /* frames from slot to slot */
#define WORDS (PAGE_SIZE / sizeof(uint64_t))

enum { CONVERTED, CONVERTED_ODD, ALIAS, ALIAS_TOO, COMING_AND_GOING, MOVING, LOGGED, SLOTS };

static const uint64_t home[SLOTS] = {
	[CONVERTED] = 0 * SPAN,
	[CONVERTED_ODD] = 1 * SPAN + 77,
	[ALIAS] = 2 * SPAN,
	[ALIAS_TOO] = 3 * SPAN + 512,
	[COMING_AND_GOING] = 4 * SPAN + 3,
	[MOVING] = 5 * SPAN,
	[LOGGED] = 6 * SPAN,
};

static struct mmu *mmu;
static uint8_t *memory[SLOTS][2];           /* the two places that a page may be in */
static _Atomic uint8_t place[SLOTS][PAGES]; /* which one it is in */
static pthread_mutex_t places = PTHREAD_MUTEX_INITIALIZER; /* held to change place[][] */
static _Atomic uint64_t moving_at = 5 * SPAN;
static uint64_t operations = 1000000;
static _Atomic uint64_t accesses, changes;
static _Atomic bool stop;

/* The vCPUs pause together, outside guest mode, when the logger wants it. */
static pthread_mutex_t pause_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t pause_cond = PTHREAD_COND_INITIALIZER;
static bool pausing;         /* guarded by pause_lock */
static unsigned int running; /* vCPUs that do not pause; guarded by pause_lock */
static _Atomic bool pause_wanted;

static void fail(const char *what, unsigned int slot, uint64_t page)
{
	fprintf(stderr, "mmu_stress: %s: slot %u page %llu\n", what, slot,
		(unsigned long long)page);
	abort();
}

static uint64_t dice(uint64_t *seed, uint64_t sides)
{
	return xorshift(seed) % sides;
}

/* ---- the owner's answers ---- */

/* The memory behind a page.  ALIAS_TOO has none of its own. */
static uint8_t *host_of(unsigned int slot, uint64_t page)
{
	slot = slot == ALIAS_TOO ? ALIAS : slot;
	return memory[slot][atomic_load(&place[slot][page])] + page * PAGE_SIZE;
}

/* A page of the slot; every other time one of the first HOT, so that TLBs matter. */
static uint64_t some_page(uint64_t *seed)
{
	return dice(seed, 2) ? dice(seed, HOT) : dice(seed, PAGES);
}

static bool find(uint64_t frame, unsigned int *ret_slot, uint64_t *ret_page)
{
	for (unsigned int slot = 0; slot < SLOTS; slot++) {
		uint64_t start = slot == MOVING ? atomic_load(&moving_at) : home[slot];

		if (frame >= start && frame < start + PAGES) {
			*ret_slot = slot;
			*ret_page = frame - start;
			return true;
		}
	}
	return false;
}

static int resolve(void *ctx, gfn_t at, bool write, struct mmu_resolution *ret)
{
	static _Thread_local unsigned int asked;
	unsigned int slot;
	uint64_t page;

	if (!find(at.v, &slot, &page))
		return -EAGAIN; /* asked between two positions of the moving slot */
	*ret = (struct mmu_resolution){
		.host = host_of(slot, page),
		.writable = write || page % 5 != 0,
		.shared = slot == CONVERTED && page % 2,
		.max_level = MMU_2M,
	};
	if (++asked % 64 == 0)
		sched_yield(); /* now and then the answer is old when it arrives */
	return 0;
}

static bool uniform(void *ctx, struct gfn_range range)
{
	unsigned int slot;
	uint64_t page;

	if (!find(range.start.v, &slot, &page) || page + range.count > PAGES)
		return false;
	slot = slot == ALIAS_TOO ? ALIAS : slot;
	for (uint64_t i = 1; i < range.count; i++) {
		if (atomic_load(&place[slot][page + i]) != atomic_load(&place[slot][page]))
			return false;
	}
	return true;
}

/* ---- vCPUs ---- */

struct player {
	pthread_t thread;
	struct mmu_vcpu *vcpu;
	unsigned int number;
	uint64_t seed, count;
	uint64_t expected[SLOTS][PAGES];
};

static void take_a_break(struct player *p)
{
	mmu_vcpu_leave(p->vcpu);
	pthread_mutex_lock(&pause_lock);
	running--;
	pthread_cond_broadcast(&pause_cond);
	while (pausing)
		pthread_cond_wait(&pause_cond, &pause_lock);
	running++;
	pthread_mutex_unlock(&pause_lock);
	mmu_vcpu_enter(p->vcpu);
}

/* NULL: there is none now, and no pointer may be used any more. */
static uint8_t *pointer_to(struct player *p, unsigned int slot, uint64_t page, bool write)
{
	uint64_t start = slot == MOVING ? atomic_load(&moving_at) : home[slot];
	uint64_t len;
	uint8_t *at = mmu_vcpu_translate(p->vcpu, gfn_to_gpa(gfn(start + page)), write, &len);

	if (at && slot == MOVING && atomic_load(&moving_at) != start)
		return NULL; /* perhaps another page's by now */
	if (at)
		return at;
	switch (mmu_vcpu_error(p->vcpu)) {
	case -EAGAIN:
		mmu_vcpu_wait(p->vcpu);
		return NULL;
	case -ENOENT:
		if (slot == MOVING || slot == COMING_AND_GOING) {
			mmu_vcpu_checkpoint(p->vcpu);
			return NULL;
		}
		/* fall through */
	default:
		fail("translation failed", slot, page);
		return NULL;
	}
}

/* The logger reads its slot while vCPUs write it: those accesses are atomic. */
static void use(struct player *p, unsigned int slot, uint64_t page, uint8_t *at, bool write)
{
	unsigned int book = slot == ALIAS_TOO ? ALIAS : slot;
	uint64_t *expected = &p->expected[book][page], word = page % WORDS;

	if (slot == LOGGED) {
		_Atomic uint64_t *cell = (_Atomic uint64_t *)at + word;

		if (atomic_load_explicit(cell, memory_order_relaxed) != *expected)
			fail("wrong content", slot, page);
		if (write)
			atomic_store_explicit(cell, ++*expected, memory_order_relaxed);
		return;
	}
	if (((uint64_t *)at)[word] != *expected)
		fail("wrong content", slot, page);
	if (write)
		((uint64_t *)at)[word] = ++*expected;
}

static void play(struct player *p)
{
	unsigned int slot[2];
	uint64_t page[2];
	uint8_t *at[2];
	bool write[2];

	/* Two pointers at once: the first must outlive the second one's fault. */
	for (unsigned int i = 0; i < 2; i++) {
		slot[i] = dice(&p->seed, SLOTS);
		page[i] = some_page(&p->seed) / VCPUS * VCPUS + p->number;
		write[i] = dice(&p->seed, 2);
		at[i] = pointer_to(p, slot[i], page[i], write[i]);
		if (!at[i])
			return;
	}
	for (unsigned int i = 0; i < 2; i++)
		use(p, slot[i], page[i], at[i], write[i]);
	p->count += 2;
	mmu_vcpu_checkpoint(p->vcpu);
}

static void *vcpu_thread(void *arg)
{
	struct player *p = arg;

	mmu_vcpu_attach(p->vcpu);
	mmu_vcpu_enter(p->vcpu);
	while (p->count < operations / VCPUS) {
		play(p);
		if (atomic_load_explicit(&pause_wanted, memory_order_relaxed))
			take_a_break(p);
	}
	mmu_vcpu_leave(p->vcpu);
	mmu_vcpu_detach(p->vcpu);
	pthread_mutex_lock(&pause_lock);
	running--;
	pthread_cond_broadcast(&pause_cond);
	pthread_mutex_unlock(&pause_lock);
	atomic_fetch_add(&accesses, p->count);
	return NULL;
}

/* ---- those who take away ---- */

/* Moves a page's content to its other place.  Nobody may use the old one any more. */
static void change_place(unsigned int slot, uint64_t page)
{
	uint8_t *from = host_of(slot, page), *to;

	atomic_fetch_xor(&place[slot][page], 1);
	to = host_of(slot, page);
	memcpy(to, from, PAGE_SIZE);
	memset(from, 0xee, PAGE_SIZE);
}

/* All pages of the range end up in place @to: that is what mmu_large_update() relies on. */
static void convert(unsigned int slot, uint64_t page, uint64_t count, unsigned int to)
{
	struct gfn_range range = {gfn(home[slot] + page), count};
	struct mmu_invalidation inv;

	mmu_invalidate_begin(mmu, &inv, range);
	pthread_mutex_lock(&places);
	for (uint64_t i = 0; i < count; i++) {
		if (atomic_load(&place[slot][page + i]) != to)
			change_place(slot, page + i);
	}
	mmu_large_update(mmu, range);
	pthread_mutex_unlock(&places);
	mmu_invalidate_end(mmu, &inv);
}

/* Mostly a page or two, now and then whole blocks, so that there are large leaves again. */
static void *converter(void *arg)
{
	static const unsigned int victims[] = {CONVERTED, CONVERTED_ODD, CONVERTED};
	uint64_t seed = (uintptr_t)arg;

	for (; !atomic_load(&stop); atomic_fetch_add(&changes, 1)) {
		unsigned int slot = victims[dice(&seed, 3)];
		uint64_t page = some_page(&seed), count = 1 + (page < PAGES - 1 && dice(&seed, 2));

		if (dice(&seed, 50) == 0) {
			page = dice(&seed, 2) ? dice(&seed, 3) * 512 : dice(&seed, PAGES - 600);
			count = dice(&seed, 2) ? 512 : PAGES - page;
		}
		convert(slot, page, count, dice(&seed, 2));
		if (dice(&seed, 20) == 0)
			mmu_collapse(mmu, (struct gfn_range){gfn(home[slot]), PAGES});
	}
	return NULL;
}

/* Through one alias; both must lose the page. */
static void *alias_converter(void *arg)
{
	uint64_t seed = (uintptr_t)arg;

	for (; !atomic_load(&stop); atomic_fetch_add(&changes, 1)) {
		unsigned int through = dice(&seed, 2) ? ALIAS : ALIAS_TOO;
		uint64_t page = some_page(&seed);
		struct gfn_range range = {gfn(home[through] + page), 1};
		struct gfn_range both[2] = {
			{gfn(home[ALIAS] + page), 1}, {gfn(home[ALIAS_TOO] + page), 1}};
		struct mmu_invalidation inv;

		mmu_invalidate_begin(mmu, &inv, range);
		pthread_mutex_lock(&places);
		change_place(ALIAS, page);
		mmu_large_update(mmu, both[0]);
		mmu_large_update(mmu, both[1]);
		pthread_mutex_unlock(&places);
		mmu_invalidate_end(mmu, &inv);
	}
	return NULL;
}

static void *zapper(void *arg)
{
	uint64_t seed = (uintptr_t)arg;

	for (; !atomic_load(&stop); atomic_fetch_add(&changes, 1)) {
		struct gfn_range range = {gfn(home[dice(&seed, SLOTS)]), 1 + dice(&seed, PAGES)};
		struct mmu_mapping m;

		switch (dice(&seed, 64)) {
		case 0:
			mmu_zap_all(mmu);
			break;
		case 1:
			mmu_zap_all(mmu);
			mmu_sync(mmu);
			break;
		case 2:
			mmu_zap_all_by_walk(mmu);
			break;
		case 3 ... 10:
			mmu_large_disallow(mmu, range.start);
			mmu_large_allow(mmu, range.start);
			break;
		case 11 ... 30:
			mmu_probe(mmu, range.start, &m);
			break;
		default:
			mmu_age(mmu, range);
		}
	}
	return NULL;
}

static int add_slot(unsigned int slot, uint64_t start, uint8_t *host)
{
	return mmu_slot_add(mmu, slot, (struct gfn_range){gfn(start), PAGES}, host);
}

static void *slotter(void *arg)
{
	static const uint64_t positions[] = {5 * SPAN, 5 * SPAN + 512, 5 * SPAN + 2000};
	uint64_t seed = (uintptr_t)arg;
	unsigned int slot = COMING_AND_GOING;

	for (; !atomic_load(&stop); atomic_fetch_add(&changes, 1)) {
		uint64_t to = positions[dice(&seed, 3)];

		if (mmu_slot_delete(mmu, slot) < 0)
			fail("delete", slot, 0);
		for (uint64_t page = 0; page < PAGES; page++)
			change_place(slot, page);
		if (add_slot(slot, home[slot], host_of(slot, 0)) < 0)
			fail("add", slot, 0);
		/* vCPUs must not take a page at the new position for one at the old. */
		atomic_store(&moving_at, GFN_END);
		if (mmu_slot_move(mmu, MOVING, gfn(to)) < 0)
			fail("move", MOVING, to);
		atomic_store(&moving_at, to);
	}
	return NULL;
}

/* ---- the logger ---- */

static uint64_t image[PAGES]; /* the word of each page that vCPUs write */

static void copy_word(uint64_t page)
{
	_Atomic uint64_t *cell = (_Atomic uint64_t *)host_of(LOGGED, page) + page % WORDS;

	image[page] = atomic_load_explicit(cell, memory_order_relaxed);
}

static void copy_dirty(void)
{
	struct gfn_range range = {gfn(home[LOGGED]), PAGES};
	uint64_t bitmap[PAGES / 64];

	if (mmu_dirty_get(mmu, LOGGED, range, bitmap) < 0 ||
		mmu_dirty_clear(mmu, LOGGED, range, bitmap) < 0)
		fail("dirty log", LOGGED, 0);
	for (uint64_t page = 0; page < PAGES; page++) {
		if (bitmap[page / 64] >> (page % 64) & 1)
			copy_word(page);
	}
}

static void check_image(void)
{
	for (uint64_t page = 0; page < PAGES; page++) {
		uint64_t copied = image[page];

		copy_word(page);
		if (image[page] != copied)
			fail("write missing in the dirty log", LOGGED, page);
	}
}

static void with_vcpus_paused(void (*fn)(void))
{
	pthread_mutex_lock(&pause_lock);
	pausing = true;
	atomic_store(&pause_wanted, true);
	while (running > 0)
		pthread_cond_wait(&pause_cond, &pause_lock);
	fn();
	pausing = false;
	atomic_store(&pause_wanted, false);
	pthread_cond_broadcast(&pause_cond);
	pthread_mutex_unlock(&pause_lock);
}

static void last_round(void)
{
	copy_dirty();
	check_image();
}

static void *logger(void *arg)
{
	uint64_t seed = (uintptr_t)arg;

	for (; !atomic_load(&stop); atomic_fetch_add(&changes, 1)) {
		if (mmu_dirty_start(mmu, LOGGED) < 0)
			fail("start", LOGGED, 0);
		for (uint64_t page = 0; page < PAGES; page++)
			copy_word(page);
		for (uint64_t rounds = 1 + dice(&seed, 10); rounds > 0; rounds--)
			copy_dirty();
		with_vcpus_paused(last_round);
		if (mmu_dirty_stop(mmu, LOGGED) < 0)
			fail("stop", LOGGED, 0);
		mmu_collapse(mmu, (struct gfn_range){gfn(home[LOGGED]), PAGES});
	}
	return NULL;
}

/* ---- the frame ---- */

static uint8_t *new_memory(void)
{
	uint64_t bytes = PAGES * PAGE_SIZE;
	uint8_t *at = mmap(
		NULL, bytes + SIZE_2M, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert(at != MAP_FAILED);
	return (uint8_t *)align_down((uintptr_t)at + SIZE_2M - 1, SIZE_2M);
}

static void make_slots(void)
{
	for (unsigned int slot = 0; slot < SLOTS; slot++) {
		memory[slot][0] = slot == ALIAS_TOO ? memory[ALIAS][0] : new_memory();
		memory[slot][1] = slot == ALIAS_TOO ? memory[ALIAS][1] : new_memory();
		if (add_slot(slot, home[slot], memory[slot][0]) < 0)
			fail("add", slot, 0);
	}
}

static void check_counts(void)
{
	struct mmu_stats s;

	for (unsigned int slot = 0; slot < SLOTS; slot++)
		mmu_slot_delete(mmu, slot);
	mmu_zap_all(mmu);
	mmu_reclaim_wait(mmu);
	mmu_get_stats(mmu, &s);
	printf("mmu_stress: %llu accesses, %llu changes, %llu faults, %llu retries, %llu splits, "
	       "%llu displaced, %llu flushes, generation %llu\n",
		(unsigned long long)atomic_load(&accesses),
		(unsigned long long)atomic_load(&changes), (unsigned long long)s.faults,
		(unsigned long long)s.retries, (unsigned long long)s.splits,
		(unsigned long long)s.displaced, (unsigned long long)s.flushes,
		(unsigned long long)s.generation);
	if (s.mapped[MMU_4K] || s.mapped[MMU_2M] || s.mapped[MMU_1G] || s.table_pages ||
		s.rmap_pages || s.large_pages || s.dirty_pages || s.cached_pages || s.slots ||
		s.slots_dying || s.trees_waiting || s.heap_objects != 1)
		fail("something is left", SLOTS, s.heap_objects);
}

static void start_players(struct player **players, uint64_t seed)
{
	running = VCPUS;
	for (unsigned int i = 0; i < VCPUS; i++) {
		players[i] = calloc(1, sizeof(*players[i]));
		assert(players[i]);
		players[i]->number = i;
		players[i]->seed = seed + 1000 + i;
		if (mmu_vcpu_new(mmu, &players[i]->vcpu) < 0)
			fail("vcpu", i, 0);
		pthread_create(&players[i]->thread, NULL, vcpu_thread, players[i]);
	}
}

int main(int argc, char **argv)
{
	static void *(*const takers[])(void *) = {
		converter, converter, alias_converter, zapper, slotter, logger};
	static const struct mmu_ops ops = {.resolve = resolve, .uniform = uniform};
	uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
	struct player *players[VCPUS];
	pthread_t threads[6];

	if (argc > 1)
		operations = strtoull(argv[1], NULL, 0);
	if (mmu_new(&(struct mmu_config){.ops = &ops}, &mmu) < 0)
		return 1;
	make_slots();
	start_players(players, seed);
	for (uintptr_t i = 0; i < 6; i++)
		pthread_create(&threads[i], NULL, takers[i], (void *)(seed + 1 + i));
	for (unsigned int i = 0; i < VCPUS; i++)
		pthread_join(players[i]->thread, NULL);
	atomic_store(&stop, true);
	for (unsigned int i = 0; i < 6; i++)
		pthread_join(threads[i], NULL);
	for (unsigned int i = 0; i < VCPUS; i++) {
		mmu_vcpu_free(players[i]->vcpu);
		free(players[i]);
	}
	check_counts();
	mmu_free(mmu);
	return 0;
}
