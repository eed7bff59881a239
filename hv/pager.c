/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The pager's life, its queue and list, and the thread that gives the store's space back. */
#include "hv/pager.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/failpoint.h"
#include "base/log.h"
#include "hv/error.h"
#include "hv/pager_impl.h"
#include "os/clock.h"

/* How long a store may take for what is under way when the VM ends. */
#define STOP_MS 2000

/* ---- wants ---- */

bool pager_want(struct pager *p, struct gfn_range r)
{
	bool fits = true, known = false;

	pthread_mutex_lock(&p->queue_lock);
	for (unsigned int i = 0; i < p->want_count && !known; i++)
		known = p->want[i].start.v == r.start.v && p->want[i].count == r.count;
	if (!known) {
		fits = p->want_count < WANTS_MAX;
		if (fits)
			p->want[p->want_count++] = r;
		pthread_cond_signal(&p->queue_changed);
	}
	pthread_mutex_unlock(&p->queue_lock);
	return fits;
}

bool pager_take_want(struct pager *p, struct gfn_range *ret)
{
	bool got;

	pthread_mutex_lock(&p->queue_lock);
	while (p->want_count == 0 && !p->queue_closed)
		pthread_cond_wait(&p->queue_changed, &p->queue_lock);
	got = !p->queue_closed;
	if (got) {
		*ret = p->want[0];
		memmove(&p->want[0], &p->want[1], --p->want_count * sizeof(p->want[0]));
	}
	pthread_mutex_unlock(&p->queue_lock);
	return got;
}

/* As pager_pause(); @arrival: or until pages come in. */
static bool wait_for(struct pager *p, unsigned int ms, bool arrival)
{
	const struct timespec deadline = clock_deadline(ms * NS_PER_MS);
	uint64_t seen;
	int ret = 0;
	bool closed;

	pthread_mutex_lock(&p->queue_lock);
	seen = p->arrivals;
	while (!p->queue_closed && ret != ETIMEDOUT && !(arrival && p->arrivals != seen))
		ret = pthread_cond_timedwait(&p->pause_over, &p->queue_lock, &deadline);
	closed = p->queue_closed;
	pthread_mutex_unlock(&p->queue_lock);
	return !closed;
}

bool pager_pause(struct pager *p, unsigned int ms)
{
	return wait_for(p, ms, false);
}

bool pager_await(struct pager *p, unsigned int ms)
{
	return wait_for(p, ms, true);
}

static void tell_arrival(struct pager *p)
{
	pthread_mutex_lock(&p->queue_lock);
	p->arrivals++;
	pthread_cond_broadcast(&p->pause_over);
	pthread_mutex_unlock(&p->queue_lock);
}

/* ---- transfers ---- */

void transfer_begin(struct pager *p, struct transfer *t)
{
	t->life = p->vm->life;
	t->next = p->transfers;
	p->transfers = t;
}

void transfer_end(struct pager *p, struct transfer *t)
{
	struct transfer **at = &p->transfers;

	while (*at != t)
		at = &(*at)->next;
	*at = t->next;
	pthread_cond_broadcast(&p->changed);
}

struct transfer *transfer_find(
	const struct pager *p, struct gfn_range r, const struct transfer *except)
{
	struct transfer *t = p->transfers;

	while (t != NULL && (t == except || t->range.start.v >= range_end(r) ||
				    r.start.v >= range_end(t->range)))
		t = t->next;
	return t;
}

/* ---- unsealing ---- */

/* What was sealed of @r, in one slot, is resident. */
static void note_in(struct pager *p, struct gfn_range r)
{
	struct slot *s = hv_find_slot(p->vm, r);

	if (s != NULL && s->states != NULL &&
		gfn_state_apply_to(s->states, r, LETHE_GFN_PAGED_OUT, GFN_PAGE_IN) < 0)
		log_warn("pages that are back are still held to be out: no memory");
	/* If there is no memory for that, it will be read in vain. */
	(void)range_map_set(p->stored, r.start.v, range_end(r), 0);
}

static bool next_run(struct gfn_range r, const uint64_t *bits, uint64_t from, uint64_t *ret_start,
	uint64_t *ret_end)
{
	bool is_set;

	for (uint64_t i = from; i < r.count; i = *ret_end) {
		*ret_end = bit_run(bits, i, r.count, &is_set);
		*ret_start = i;
		if (is_set)
			return true;
	}
	return false;
}

/*
 * Until nothing is left to take in: the ultravisor may come to a page that it has no memory for
 * after others, and says then how far it came.
 */
static int call_page_in(struct pager *p, const struct abi_page_in_sealed *args, uint64_t expected)
{
	struct abi_page_in_ret result = {0};
	uint64_t pages = 0;
	int ret;

	do {
		ret = hv_call(p->vm, ABI_CALL_PAGE_IN_SEALED, args, &result);
		if (ret == 0)
			pages += result.pages;
	} while (ret == 0 && result.pages > 0 && pages < expected);
	p->pages_in += pages;
	if (pages > 0)
		tell_arrival(p);
	return ret;
}

int pager_unseal(struct pager *p, struct gfn_range r, const uint64_t *present, const uint8_t *pages)
{
	struct abi_page_in_sealed args = {.gpa = gfn_to_gpa(r.start).v, .bytes = range_bytes(r)};
	uint64_t expected = 0;
	int ret;

	memcpy(args.present, present, sizeof(args.present));
	pthread_mutex_lock(&p->vm->bulk_lock);
	for (uint64_t i = 0, end = 0; next_run(r, present, end, &i, &end); expected += end - i)
		memcpy(p->vm->bulk + i * PAGE_SIZE, pages + i * PAGE_SIZE, (end - i) * PAGE_SIZE);
	ret = call_page_in(p, &args, expected);
	pthread_mutex_unlock(&p->vm->bulk_lock);
	if (ret < 0)
		return ret;
	for (uint64_t i = 0, end = 0; next_run(r, present, end, &i, &end);)
		note_in(p, (struct gfn_range){gfn(r.start.v + i), end - i});
	return 0;
}

/* ---- the space of the store ---- */

void pager_may_drop(struct pager *p, struct gfn_range r)
{
	/* Where that cannot be noted, space stays in use until the next reset. */
	(void)range_map_set(p->droppable, r.start.v, range_end(r), 1);
	pthread_cond_broadcast(&p->changed);
}

/* Finds a run that may be dropped now, and takes it off the map. */
static bool find_droppable(struct pager *p, struct gfn_range *ret)
{
	struct range_run run, kept;

	for (uint64_t at = 0; range_map_next(p->droppable, at, &run); at = run.end) {
		struct gfn_range r = {gfn(run.start), run.end - run.start};

		if (transfer_find(p, r, NULL) != NULL)
			continue;
		kept = range_map_run_at(p->stored, run.start, run.end);
		r.count = kept.end - run.start;
		if (range_map_set(p->droppable, run.start, kept.end, 0) < 0)
			range_map_clear(p->droppable);
		if (kept.value != 0) {
			run.end = kept.end;
			continue;
		}
		*ret = r;
		return true;
	}
	return false;
}

static void drop_some(struct pager *p, struct gfn_range r)
{
	struct transfer t = {.kind = TRANSFER_DROP, .range = r};

	transfer_begin(p, &t);
	pthread_mutex_unlock(&p->vm->lock);
	p->store->drop(p->store, gfn_to_gpa(r.start).v, r.count);
	pthread_mutex_lock(&p->vm->lock);
	transfer_end(p, &t);
}

/* Of a life that is over: nobody wants these any more. */
static void drop_kept(struct pager *p)
{
	for (struct transfer *t = p->transfers, *next; t != NULL; t = next) {
		next = t->next;
		if (t->kept && t->readers == 0) {
			transfer_end(p, t);
			transfer_free(t);
		}
	}
}

/* Nothing is put meanwhile; what was under way ends first. */
static void drop_everything(struct pager *p)
{
	drop_kept(p);
	while (p->transfers != NULL && !p->stopping) {
		pthread_cond_wait(&p->changed, &p->vm->lock);
		drop_kept(p);
	}
	if (p->stopping)
		return;
	if (p->dirty) {
		pthread_mutex_unlock(&p->vm->lock);
		p->store->drop_all(p->store);
		pthread_mutex_lock(&p->vm->lock);
	}
	p->dirty = false;
	p->drop_all = false;
	pthread_cond_broadcast(&p->changed);
}

void pager_cleaner(struct pager_thread *t)
{
	struct pager *p = t->pager;
	struct gfn_range r;

	pthread_mutex_lock(&p->vm->lock);
	while (!p->stopping) {
		if (p->drop_all)
			drop_everything(p);
		else if (find_droppable(p, &r))
			drop_some(p, r);
		else
			pthread_cond_wait(&p->changed, &p->vm->lock);
	}
	pthread_mutex_unlock(&p->vm->lock);
}

/* ---- what happens to the VM ---- */

void pager_forget(struct pager *p, struct gfn_range r)
{
	struct range_run run;

	for (uint64_t at = r.start.v;
		range_map_next(p->stored, at, &run) && run.start < range_end(r); at = run.end) {
		uint64_t end = run.end < range_end(r) ? run.end : range_end(r);

		pager_may_drop(p, (struct gfn_range){gfn(run.start), end - run.start});
	}
	(void)range_map_set(p->stored, r.start.v, range_end(r), 0);
}

void pager_reset(struct pager *p)
{
	pthread_mutex_lock(&p->queue_lock);
	p->want_count = 0;
	pthread_mutex_unlock(&p->queue_lock);
	range_map_clear(p->stored);
	range_map_clear(p->droppable);
	p->drop_all = true;
	pthread_cond_broadcast(&p->changed);
}

/* Of a run in `stored`, what begins in one slot.  Returns its end. */
static uint64_t restate_part(struct pager *p, uint64_t start, uint64_t end)
{
	struct slot *s = hv_find_slot(p->vm, (struct gfn_range){gfn(start), 1});

	if (s == NULL || s->states == NULL)
		return end;
	if (end > range_end(s->range))
		end = range_end(s->range);
	if (pager_note_sealed(s, (struct gfn_range){gfn(start), end - start}) < 0)
		log_warn("pages that are out are held to be private: no memory");
	return end;
}

void pager_restate(struct pager *p, struct gfn_range r)
{
	struct range_run run;

	for (uint64_t at = r.start.v;
		range_map_next(p->stored, at, &run) && run.start < range_end(r);)
		at = restate_part(p, run.start, run.end < range_end(r) ? run.end : range_end(r));
}

uint64_t pager_stored(const struct pager *p, struct gfn_range r)
{
	struct range_run run;
	uint64_t pages = 0;

	for (uint64_t at = r.start.v;
		range_map_next(p->stored, at, &run) && run.start < range_end(r); at = run.end)
		pages += (run.end < range_end(r) ? run.end : range_end(r)) - run.start;
	return pages;
}

void pager_counters(const struct pager *p, uint64_t *ret_out, uint64_t *ret_in)
{
	*ret_out = p->pages_out;
	*ret_in = p->pages_in;
}

/* ---- the pager's life ---- */

static void init_cond(pthread_cond_t *cond)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(cond, &attr);
	pthread_condattr_destroy(&attr);
}

static void free_pager(struct pager *p)
{
	for (struct transfer *t = p->transfers, *next; t != NULL; t = next) {
		next = t->next;
		transfer_free(t);
	}
	for (unsigned int i = 0; i < THREADS; i++)
		free(p->thread[i].buffer);
	transfer_free(p->spare);
	range_map_free(p->stored);
	range_map_free(p->droppable);
	pthread_cond_destroy(&p->changed);
	pthread_cond_destroy(&p->queue_changed);
	pthread_cond_destroy(&p->pause_over);
	pthread_mutex_destroy(&p->queue_lock);
	free(p);
}

static void *thread_main(void *arg)
{
	struct pager_thread *t = arg;
	struct lethe_vm *vm = t->pager->vm;
	bool left;

	t->run(t);
	pthread_mutex_lock(&vm->lock);
	t->ended = true;
	left = t->pager->left;
	pthread_cond_broadcast(&t->pager->changed);
	pthread_mutex_unlock(&vm->lock);
	if (left)
		hv_put(vm);
	return NULL;
}

static int start_thread(
	struct pager *p, void (*run)(struct pager_thread *t), size_t buffer, const char *point)
{
	struct pager_thread *t = &p->thread[p->threads];
	void *memory = NULL;
	int ret = failpoint(point);

	if (ret < 0)
		return ret;
	if (buffer > 0 && posix_memalign(&memory, PAGE_SIZE, buffer) != 0)
		return -ENOMEM;
	*t = (struct pager_thread){.pager = p, .run = run, .buffer = memory};
	ret = -pthread_create(&t->thread, NULL, thread_main, t);
	if (ret == 0)
		p->threads++;
	return ret;
}

static int start_threads(struct pager *p)
{
	int ret = 0;

	for (unsigned int i = 0; i < LETHE_STORE_GETS && ret == 0; i++)
		ret = start_thread(
			p, pager_worker, (size_t)FETCH_PAGES * PAGE_SIZE, "pager-thread");
	if (ret == 0)
		ret = start_thread(p, pager_cleaner, 0, "pager-cleaner");
	if (ret == 0)
		ret = start_thread(p, pager_policy_thread, 0, "pager-policy");
	return ret;
}

static bool all_ended(const struct pager *p)
{
	unsigned int i = 0;

	while (i < p->threads && p->thread[i].ended)
		i++;
	return i == p->threads;
}

static void ask_to_end(struct pager *p)
{
	pthread_mutex_lock(&p->vm->lock);
	p->stopping = true;
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->vm->lock);
	pthread_mutex_lock(&p->queue_lock);
	p->queue_closed = true;
	pthread_cond_broadcast(&p->queue_changed);
	pthread_cond_broadcast(&p->pause_over);
	pthread_mutex_unlock(&p->queue_lock);
}

static void stop(struct pager *p, bool for_long)
{
	const struct timespec deadline = clock_deadline(STOP_MS * NS_PER_MS);
	bool ended[THREADS];
	int ret = 0;

	ask_to_end(p);
	pthread_mutex_lock(&p->vm->lock);
	while (!all_ended(p) && ret != ETIMEDOUT)
		ret = for_long ? pthread_cond_wait(&p->changed, &p->vm->lock)
			       : pthread_cond_timedwait(&p->changed, &p->vm->lock, &deadline);
	p->left = !all_ended(p);
	for (unsigned int i = 0; i < p->threads; i++) {
		ended[i] = p->thread[i].ended;
		if (!ended[i])
			hv_get(p->vm);
	}
	pthread_mutex_unlock(&p->vm->lock);
	for (unsigned int i = 0; i < p->threads; i++) {
		if (ended[i])
			pthread_join(p->thread[i].thread, NULL);
		else
			pthread_detach(p->thread[i].thread);
	}
	if (p->left)
		log_warn("%s: it does not come back from a call; the VM ends without it",
			p->store->name);
}

void pager_stop(struct pager *p)
{
	stop(p, false);
}

/* Starts the pager's threads.  -ENOMEM or another errno; @store is then still the caller's. */
static int pager_new(struct lethe_vm *vm, struct lethe_page_store *store, struct pager **ret)
{
	struct pager *p = failpoint("pager-new") < 0 ? NULL : calloc(1, sizeof(*p));
	int err;

	if (p == NULL)
		return -ENOMEM;
	p->vm = vm;
	p->store = store;
	p->first_window = PAGER_FIRST_WINDOW;
	p->stored = range_map_new();
	p->droppable = range_map_new();
	init_cond(&p->changed);
	init_cond(&p->queue_changed);
	init_cond(&p->pause_over);
	pthread_mutex_init(&p->queue_lock, NULL);
	err = p->stored == NULL || p->droppable == NULL ? -ENOMEM : start_threads(p);
	if (err < 0) {
		stop(p, true);
		free_pager(p);
		return err;
	}
	*ret = p;
	return 0;
}

void pager_free(struct pager *p)
{
	p->store->close(p->store);
	free_pager(p);
}

static bool is_complete(const struct lethe_page_store *s)
{
	return s->name != NULL && s->put != NULL && s->get != NULL && s->drop != NULL &&
	       s->drop_all != NULL && s->close != NULL;
}

int lethe_vm_set_page_store(struct lethe_vm *vm, struct lethe_page_store *store)
{
	struct pager *p = NULL;
	int ret;

	if (!is_complete(store))
		return fail(-EINVAL, "a page store without a name or one of its functions");
	if (__atomic_load_n(&vm->pager, __ATOMIC_ACQUIRE) != NULL)
		return fail(-EEXIST, "the VM has a page store");
	ret = pager_new(vm, store, &p);
	if (ret < 0)
		return fail(ret, "%s: no page store: %s", store->name, strerror(-ret));
	/* Two at once: there is one winner, and the other has done nothing yet. */
	pthread_mutex_lock(&vm->lock);
	if (vm->pager == NULL)
		__atomic_store_n(&vm->pager, p, __ATOMIC_RELEASE);
	else
		ret = -EEXIST;
	pthread_mutex_unlock(&vm->lock);
	if (ret < 0) {
		stop(p, true);
		free_pager(p);
		return fail(ret, "the VM has a page store");
	}
	return 0;
}
