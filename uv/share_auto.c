/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "uv/share_auto.h"

#include <errno.h>
#include <stdlib.h>

#include "base/failpoint.h"
#include "base/log.h"
#include "os/clock.h"
#include "uv/guest_stop.h"
#include "uv/pager.h"
#include "uv/share_map.h"

#define RANGES 64

/* Smaller ranges are copied for ever; in larger ones it takes too long to see what they hold. */
#define PAGES_MIN 64
#define PAGES_MAX ((uint64_t)4 << 20)

/* A range is mapped when so many times its resident bytes were copied, and this at least. */
#define WORTH     4
#define WORTH_MIN ((uint64_t)1 << 20)

/* And only if it has been shared for so long without a flip. */
#define AGE_NS (10 * NS_PER_MS)

/* So many flips of pages of a mapped range make all of it copied. */
#define FLIPS_MAX 4

/* Doublings of what a range must be used; with the last it is copied for ever. */
#define DOUBT_MAX 24

/* What is changed without letting go of the locks. */
#define STEP_PAGES ((uint64_t)1024)

/* Written under vm->lock and vm->memory, read under either. */
struct tracked {
	struct gfn_range range; /* empty: none */
	uint64_t since_ns;      /* shared, or flipped last */
	_Atomic uint64_t copied;
	_Atomic uint64_t look_at; /* the bytes at which the thread looks at it again */
	unsigned int doubt;       /* flips of it while it was mapped, in all */
	unsigned int flips;       /* since it was mapped */
	bool is_mapped;
};

struct share_auto {
	struct uv_vm *vm;
	pthread_t thread;
	pthread_mutex_t lock; /* inside vm->memory */
	pthread_cond_t work;
	bool poked; /* guarded by lock */
	bool quit;  /* guarded by lock */
	struct tracked tracked[RANGES];
	_Atomic unsigned int count; /* entries from here on are empty */
};

static bool overlap(struct gfn_range a, struct gfn_range b)
{
	return a.start.v < range_end(b) && b.start.v < range_end(a);
}

static void poke(struct share_auto *s)
{
	pthread_mutex_lock(&s->lock);
	s->poked = true;
	pthread_cond_signal(&s->work);
	pthread_mutex_unlock(&s->lock);
}

/* ---- what is told ---- */

void share_auto_used(struct share_auto *s, gpa_t a, uint64_t bytes)
{
	unsigned int count = s == NULL ? 0 : atomic_load(&s->count);
	uint64_t page = a.v >> PAGE_SHIFT;

	for (unsigned int i = 0; i < count; i++) {
		struct tracked *t = &s->tracked[i];
		uint64_t before, look;

		if (page < t->range.start.v || page >= range_end(t->range))
			continue;
		before = atomic_fetch_add_explicit(&t->copied, bytes, memory_order_relaxed);
		look = atomic_load_explicit(&t->look_at, memory_order_relaxed);
		if (!t->is_mapped && before < look && before + bytes >= look)
			poke(s);
		return;
	}
}

/* The one that overlaps @range, else a free one, else the one that is used least. */
static struct tracked *choose(struct share_auto *s, struct gfn_range range)
{
	struct tracked *best = NULL;

	for (unsigned int i = 0; i < s->count; i++) {
		struct tracked *t = &s->tracked[i];

		if (overlap(t->range, range))
			return t;
		if (!t->is_mapped && (best == NULL || t->copied < best->copied))
			best = t;
	}
	if (s->count < RANGES)
		return &s->tracked[s->count];
	return best;
}

static void start_anew(struct tracked *t)
{
	t->since_ns = clock_ns();
	t->copied = 0;
	t->look_at = WORTH_MIN;
}

void share_auto_shared(struct share_auto *s, struct gfn_range range)
{
	struct tracked *t;

	if (s == NULL || range.count < PAGES_MIN || range.count > PAGES_MAX)
		return;
	pthread_rwlock_wrlock(&s->vm->memory);
	t = choose(s, range);
	/* A part of a mapped range that comes back is copied until all of it goes. */
	if (t != NULL && !(t->is_mapped && range.start.v >= t->range.start.v &&
				 range_end(range) <= range_end(t->range))) {
		/* What is known of a range that was shared before stays known. */
		if (t->range.count == 0 || !overlap(t->range, range))
			*t = (struct tracked){.flips = 0};
		if (t == &s->tracked[s->count])
			s->count++;
		t->range = range;
		t->is_mapped = false;
		start_anew(t);
	}
	pthread_rwlock_unlock(&s->vm->memory);
}

/* A page of @t turned private.  Caller holds vm->lock, and memory for writing. */
static void flip(struct tracked *t, struct gfn_range range)
{
	start_anew(t);
	if (!t->is_mapped)
		return;
	t->flips++;
	if (t->doubt < DOUBT_MAX)
		t->doubt++;
	/* All of it: there is nothing left to be copied again. */
	if (range.start.v <= t->range.start.v && range_end(range) >= range_end(t->range))
		t->is_mapped = false;
}

void share_auto_unshared(struct share_auto *s, struct gfn_range range)
{
	unsigned int count = s == NULL ? 0 : s->count;
	bool tired = false;

	for (unsigned int i = 0; i < count; i++) {
		struct tracked *t = &s->tracked[i];

		if (!overlap(t->range, range))
			continue;
		pthread_rwlock_wrlock(&s->vm->memory);
		flip(t, range);
		tired = tired || (t->is_mapped && t->flips >= FLIPS_MAX);
		pthread_rwlock_unlock(&s->vm->memory);
	}
	if (tired)
		poke(s);
}

void share_auto_forget(struct share_auto *s)
{
	for (unsigned int i = 0; s != NULL && i < RANGES; i++)
		s->tracked[i] = (struct tracked){.flips = 0};
	if (s != NULL)
		s->count = 0;
}

/* ---- what is done ---- */

/* Bytes of @t that are resident and copied: what it costs to map it.  Holds vm->lock. */
static uint64_t cost_of(struct uv_vm *vm, const struct tracked *t)
{
	uint64_t cost = 0, end = range_end(t->range);

	for (uint64_t at = t->range.start.v; at < end;) {
		struct attr_run run = attr_run_at(vm->attr, at, end);

		if (run.attr == ATTR_COPIED)
			cost += share_resident(vm, (struct gfn_range){gfn(at), run.end - at});
		at = run.end;
	}
	return cost;
}

/* Whether @t is worth to be mapped; else when to look again.  Holds vm->lock. */
static bool is_worth(struct uv_vm *vm, struct tracked *t)
{
	uint64_t need, copied = t->copied;

	if (t->is_mapped || t->range.count == 0 || copied < t->look_at)
		return false;
	need = WORTH * cost_of(vm, t);
	need = (need < WORTH_MIN ? WORTH_MIN : need) << t->doubt;
	if (copied >= need && clock_ns() - t->since_ns >= AGE_NS)
		return true;
	t->look_at = (copied >= need ? copied : need) + WORTH_MIN / 4;
	return false;
}

/* The first pages of @range that are @from, a step of them; empty if there are none. */
static struct gfn_range next_step(struct uv_vm *vm, struct gfn_range range, enum page_attr from)
{
	for (uint64_t at = range.start.v; at < range_end(range);) {
		struct attr_run run = attr_run_at(vm->attr, at, range_end(range));

		if (run.attr == from)
			return (struct gfn_range){
				gfn(at), run.end - at < STEP_PAGES ? run.end - at : STEP_PAGES};
		at = run.end;
	}
	return (struct gfn_range){gfn(0), 0};
}

/*
 * Makes the next pages of entry @i that are @from @to.  False when there are none, or it
 * cannot be done, or the range is not what it was when this began.
 */
static bool change_step(struct share_auto *s, unsigned int i, struct gfn_range range,
	enum page_attr from, enum page_attr to)
{
	struct uv_vm *vm = s->vm;
	struct tracked *t = &s->tracked[i];
	struct gfn_range step = {gfn(0), 0};
	int ret = 0;

	do {
		pthread_mutex_lock(&vm->lock);
		step.count = 0;
		if (t->range.start.v == range.start.v && t->range.count == range.count &&
			t->is_mapped == (to == ATTR_MAPPED))
			step = next_step(vm, range, from);
		ret = step.count > 0 ? share_change(vm, step, to) : 0;
		pthread_mutex_unlock(&vm->lock);
	} while (ret == -EDEADLK && pager_wait(vm));
	if (ret == -ENOTRECOVERABLE)
		guest_stop_all(vm, ABI_STOP_HOST, gfn_to_gpa(step.start).v,
			"the host failed half way to move shared pages");
	if (ret < 0)
		log_warn("a range stays %s: %s", from == ATTR_MAPPED ? "mapped" : "copied",
			"the host refused");
	return step.count > 0 && ret == 0;
}

/* Decides about entry @i.  True with *ret_range and *ret_map: it is to be changed. */
static bool decide(struct share_auto *s, unsigned int i, struct gfn_range *ret_range, bool *ret_map)
{
	struct uv_vm *vm = s->vm;
	struct tracked *t = &s->tracked[i];
	bool tired, worth;

	pthread_mutex_lock(&vm->lock);
	tired = t->is_mapped && t->flips >= FLIPS_MAX;
	worth = !tired && t->doubt < DOUBT_MAX && is_worth(vm, t);
	if (tired || worth) {
		pthread_rwlock_wrlock(&vm->memory);
		t->is_mapped = worth;
		t->flips = 0;
		pthread_rwlock_unlock(&vm->memory);
		vm->shares.auto_maps += worth;
		vm->shares.auto_unmaps += tired;
		*ret_range = t->range;
		*ret_map = worth;
	}
	pthread_mutex_unlock(&vm->lock);
	return tired || worth;
}

static bool must_quit(struct share_auto *s)
{
	bool quit;

	pthread_mutex_lock(&s->lock);
	quit = s->quit;
	pthread_mutex_unlock(&s->lock);
	return quit;
}

static void look(struct share_auto *s, unsigned int i)
{
	struct gfn_range range;
	bool map;

	if (!decide(s, i, &range, &map))
		return;
	while (!must_quit(s) && change_step(s, i, range, map ? ATTR_COPIED : ATTR_MAPPED,
					map ? ATTR_MAPPED : ATTR_COPIED))
		;
}

/* Returns false when the thread is to end. */
static bool wait_for_work(struct share_auto *s)
{
	bool go;

	pthread_mutex_lock(&s->lock);
	while (!s->quit && !s->poked)
		pthread_cond_wait(&s->work, &s->lock);
	go = !s->quit;
	s->poked = false;
	pthread_mutex_unlock(&s->lock);
	return go;
}

static void *share_auto_main(void *arg)
{
	struct share_auto *s = arg;

	while (wait_for_work(s)) {
		for (unsigned int i = 0; i < RANGES; i++)
			look(s, i);
	}
	return NULL;
}

int share_auto_new(struct uv_vm *vm, struct share_auto **ret)
{
	struct share_auto *s = calloc(1, sizeof(*s));
	int err = failpoint("uv-share-auto");

	if (s == NULL || err < 0) {
		free(s);
		return -ENOMEM;
	}
	s->vm = vm;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->work, NULL);
	err = -pthread_create(&s->thread, NULL, share_auto_main, s);
	if (err < 0) {
		free(s);
		return err;
	}
	*ret = s;
	return 0;
}

void share_auto_free(struct share_auto *s)
{
	if (s == NULL)
		return;
	pthread_mutex_lock(&s->lock);
	s->quit = true;
	pthread_cond_signal(&s->work);
	pthread_mutex_unlock(&s->lock);
	pthread_join(s->thread, NULL);
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->work);
	free(s);
}
