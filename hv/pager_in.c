/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Bringing pages in: the pager's workers.
 *
 * A want is brought in runs that are contiguous in the store.  What somebody else brings
 * already is left to them.  A want that goes on where an earlier one ended shows a guest that
 * goes through its memory: more and more is read for it at a time.  Wants that are never
 * followed by another make the first read of a new stream smaller, down to the page itself.
 */
#include <errno.h>
#include <string.h>

#include "base/failpoint.h"
#include "base/log.h"
#include "hv/pager_impl.h"

/* Pauses before a store, or a short-lived failure of the ultravisor, is tried again. */
static const unsigned int pause_ms[] = {10, 50, 250};

#define TRIES (sizeof(pause_ms) / sizeof(pause_ms[0]) + 1)

/* ---- reading ahead ---- */

static struct stream *find_stream(struct pager *p, uint64_t start)
{
	for (unsigned int i = 0; i < STREAMS; i++) {
		struct stream *s = &p->stream[i];

		if (s->window > 0 && start >= s->next && start - s->next <= s->window)
			return s;
	}
	return NULL;
}

static struct stream *new_stream(struct pager *p)
{
	struct stream *oldest = &p->stream[0];

	for (unsigned int i = 1; i < STREAMS; i++) {
		if (p->stream[i].used < oldest->used)
			oldest = &p->stream[i];
	}
	if (oldest->window > 0 && !oldest->hit && p->first_window > 1)
		p->first_window /= 2;
	*oldest = (struct stream){.window = p->first_window};
	return oldest;
}

/* The stream of a want at @start, with as many pages as are to be read for it. */
static struct stream *stream_of(struct pager *p, uint64_t start)
{
	struct stream *s = find_stream(p, start);

	if (s == NULL) {
		s = new_stream(p);
	} else {
		if (!s->hit && p->first_window < FETCH_PAGES / 16)
			p->first_window *= 2;
		s->hit = true;
		s->window = s->window < FETCH_PAGES / 2 ? s->window * 2 : FETCH_PAGES;
	}
	s->used = ++p->wants_seen;
	return s;
}

/* ---- one run ---- */

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Where what begins at @start must end, at most at @end, not to get into other transfers. */
static uint64_t clip_to_transfers(const struct pager *p, uint64_t start, uint64_t end)
{
	for (const struct transfer *t = p->transfers; t != NULL; t = t->next) {
		if (t->range.start.v > start && t->range.start.v < end)
			end = t->range.start.v;
	}
	return end;
}

/* Within an OUT: the pages whose buffer is its, or those that were out before. */
static uint64_t clip_to_buffer(const struct transfer *out, uint64_t start, uint64_t end, bool *ret)
{
	uint64_t base = out->range.start.v, run;

	run = bit_run(out->sealed, start - base, out->range.count, ret);
	return least(end, base + run);
}

static uint64_t clip_to_slot(const struct pager *p, uint64_t start, uint64_t end)
{
	const struct slot *s = hv_find_slot(p->vm, (struct gfn_range){gfn(start), 1});

	return s == NULL ? start : least(end, range_end(s->range));
}

static struct transfer *find_kind(const struct pager *p, uint64_t at, enum transfer_kind kind)
{
	struct transfer *t = p->transfers;

	while (t != NULL && (t->kind != kind || at < t->range.start.v || at >= range_end(t->range)))
		t = t->next;
	return t;
}

/* What an IN needs to know beside itself. */
struct in {
	struct transfer t;       /* first */
	struct transfer *source; /* the OUT from whose buffer it is copied, or NULL: the store */
	struct gfn_range wanted; /* read-ahead is what is not in here */
};

/*
 * Begins to bring what comes next of the want, from @at on; in->t.range.count is 0 if that is
 * nothing.  Returns where to go on.  Caller holds vm->lock.
 */
static uint64_t begin_in(struct pager *p, uint64_t at, struct in *in)
{
	uint64_t end = range_end(in->wanted), limit;
	struct stream *stream = NULL;
	struct transfer *other;
	struct range_run run;
	bool in_buffer = false;

	in->t = (struct transfer){.kind = TRANSFER_IN};
	if (!range_map_next(p->stored, at, &run) || run.start >= end)
		return end;
	other = find_kind(p, run.start, TRANSFER_IN);
	if (other != NULL) {
		other->wanted_again = true;
		return range_end(other->range);
	}
	limit = least(run.end, run.start + FETCH_PAGES);
	other = find_kind(p, run.start, TRANSFER_OUT);
	if (other != NULL)
		limit = clip_to_buffer(other, run.start, limit, &in_buffer);
	if (in->wanted.count == 1 && other == NULL) {
		stream = stream_of(p, run.start);
		end = run.start + stream->window;
	}
	limit = clip_to_slot(p, run.start, clip_to_transfers(p, run.start, least(limit, end)));
	if (limit == run.start)
		return run.start + 1;
	if (stream != NULL)
		stream->next = limit;
	in->t.range = (struct gfn_range){gfn(run.start), limit - run.start};
	in->source = in_buffer ? other : NULL;
	if (in_buffer)
		other->readers++;
	transfer_begin(p, &in->t);
	return limit;
}

static bool is_wanted(struct pager *p, const struct in *in, uint64_t at)
{
	bool wanted = at >= in->wanted.start.v && at < range_end(in->wanted);

	if (wanted)
		return true;
	pthread_mutex_lock(&p->vm->lock);
	wanted = in->t.wanted_again;
	pthread_mutex_unlock(&p->vm->lock);
	return wanted;
}

/* One page, with patience.  0; the store's errno; -ECANCELED the pager stops. */
static int read_page(struct pager *p, uint64_t at, uint8_t *to)
{
	int ret;

	for (size_t try = 0;; try++) {
		ret = p->store->get(p->store, at << PAGE_SHIFT, to, 1);
		if (ret == 0 || try == TRIES - 1)
			return ret;
		log_debug("%s: 0x%llx: %s", p->store->name, (unsigned long long)at << PAGE_SHIFT,
			strerror(-ret));
		if (!pager_pause(p, pause_ms[try]))
			return -ECANCELED;
	}
}

/*
 * Reads the run: whole, or if that fails page by page what is wanted of it.  *ret_failed is the
 * GFN that could not be read if the result is not 0; what came before is in @present.
 */
static int read_run(
	struct pager *p, const struct in *in, uint8_t *to, uint64_t *present, uint64_t *ret_failed)
{
	uint64_t start = in->t.range.start.v, count = in->t.range.count;

	if (p->store->get(p->store, start << PAGE_SHIFT, to, count) == 0) {
		for (uint64_t i = 0; i < count; i++)
			bit_set(present, i);
		return 0;
	}
	for (uint64_t i = 0; i < count; i++) {
		int ret;

		if (!is_wanted(p, in, start + i))
			continue;
		ret = read_page(p, start + i, to + i * PAGE_SIZE);
		if (ret < 0) {
			*ret_failed = start + i;
			return ret;
		}
		bit_set(present, i);
	}
	return 0;
}

static void copy_run(const struct in *in, uint8_t *to, uint64_t *present)
{
	uint64_t first = in->t.range.start.v - in->source->range.start.v;

	memcpy(to, in->source->pages + first * PAGE_SIZE, range_bytes(in->t.range));
	for (uint64_t i = 0; i < in->t.range.count; i++)
		bit_set(present, i);
}

static bool may_pass(int err)
{
	return err == -ENOMEM || err == -EAGAIN || err == -EBUSY || err == -EIO;
}

/* Hands the pages to the ultravisor, with patience.  -ESTALE the incarnation is over. */
static int install(
	struct pager *p, const struct in *in, const uint64_t *present, const uint8_t *pages)
{
	int ret;

	for (size_t try = 0;; try++) {
		ret = failpoint("pager-install");
		pthread_mutex_lock(&p->vm->lock);
		if (in->t.life != p->vm->life)
			ret = -ESTALE;
		if (ret == 0)
			ret = pager_unseal(p, in->t.range, present, pages);
		pthread_mutex_unlock(&p->vm->lock);
		if (!may_pass(ret) || try == TRIES - 1)
			return ret;
		if (!pager_pause(p, pause_ms[try]))
			return -ECANCELED;
	}
}

int pager_lost_error(const struct pager *p, uint64_t gpa)
{
	return p->lost_gpa == gpa ? p->lost_err : 0;
}

/* Says so to the ultravisor, which stops the VM unless it has the page after all. */
static void give_up(struct pager *p, const struct in *in, uint64_t failed, int err)
{
	const struct abi_page_lost args = {.gpa = failed << PAGE_SHIFT};

	if (err == -ESTALE || err == -ECANCELED || err == -EPIPE)
		return;
	/* The ultravisor has stopped the VM already, and says why. */
	if (err == -EBADMSG)
		return;
	log_info("%s: the page at 0x%llx cannot be had: %s", p->store->name,
		(unsigned long long)args.gpa, strerror(-err));
	pthread_mutex_lock(&p->vm->lock);
	p->lost_gpa = args.gpa;
	p->lost_err = err;
	if (in->t.life == p->vm->life)
		(void)hv_call(p->vm, ABI_CALL_PAGE_LOST, &args, NULL);
	pthread_mutex_unlock(&p->vm->lock);
}

/* Returns true if somebody else has come to want what was not brought. */
static bool end_in(struct pager *p, struct in *in, const uint64_t *present, bool installed)
{
	struct transfer *out = in->source;
	bool left = false;

	pthread_mutex_lock(&p->vm->lock);
	for (uint64_t i = 0; i < in->t.range.count; i++) {
		if (!installed || !bit_get(present, i))
			left = true;
		else if (out != NULL)
			bit_clear(out->sealed, in->t.range.start.v + i - out->range.start.v);
	}
	if (installed && out == NULL && in->t.life == p->vm->life)
		pager_may_drop(p, in->t.range);
	transfer_end(p, &in->t);
	if (out != NULL)
		out->readers--;
	pthread_mutex_unlock(&p->vm->lock);
	return left && installed && in->t.wanted_again;
}

static bool any(const uint64_t *bits)
{
	uint64_t all = 0;

	for (unsigned int i = 0; i < BATCH_WORDS; i++)
		all |= bits[i];
	return all != 0;
}

/* Brings one run.  Returns true if what was not brought of it is to be tried again. */
static bool carry_in(struct pager *p, struct in *in, uint8_t *buffer)
{
	uint64_t present[BATCH_WORDS] = {0}, failed = in->t.range.start.v;
	int read_err = 0, err = 0;

	if (in->source != NULL)
		copy_run(in, buffer, present);
	else
		read_err = read_run(p, in, buffer, present, &failed);
	if (any(present))
		err = install(p, in, present, buffer);
	if (err < 0)
		give_up(p, in, in->t.range.start.v, err);
	else if (read_err < 0)
		give_up(p, in, failed, read_err);
	return end_in(p, in, present, err == 0 && read_err == 0);
}

static void bring(struct pager *p, struct gfn_range wanted, uint8_t *buffer)
{
	struct in in = {.wanted = wanted};

	for (uint64_t at = wanted.start.v; at < range_end(wanted);) {
		pthread_mutex_lock(&p->vm->lock);
		at = begin_in(p, at, &in);
		pthread_mutex_unlock(&p->vm->lock);
		if (in.t.range.count > 0 && carry_in(p, &in, buffer)) {
			/* All of it is wanted now: no read-ahead, and no third time. */
			bring(p, in.t.range, buffer);
		}
	}
}

void pager_worker(struct pager_thread *t)
{
	struct gfn_range wanted;

	while (pager_take_want(t->pager, &wanted))
		bring(t->pager, wanted, t->buffer);
}
