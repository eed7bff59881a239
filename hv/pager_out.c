/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Paging out: a batch at a time, each a transfer.
 *
 *	resident => sealed, in the transfer's buffer => in the store
 *
 * and back to resident from the buffer if the store does not take it.  If the ultravisor does
 * not take it back either, the transfer is kept: wants are served from its buffer, and the next
 * page-out there begins with it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "hv/error.h"
#include "hv/pager_impl.h"

/*
 * How often a batch is tried that a conversion, or a vCPU that waits for a page, is in the way
 * of, and for how long pages that come in are waited for between.
 */
#define TRIES    20
#define AWAIT_MS 5

static struct transfer *transfer_new(void)
{
	struct transfer *t = failpoint("pager-out") < 0 ? NULL : calloc(1, sizeof(*t));
	void *pages = NULL;

	if (t == NULL)
		return NULL;
	if (posix_memalign(&pages, PAGE_SIZE, (size_t)BATCH_PAGES * PAGE_SIZE) != 0) {
		free(t);
		return NULL;
	}
	t->pages = pages;
	return t;
}

void transfer_free(struct transfer *t)
{
	if (t == NULL)
		return;
	free(t->pages);
	free(t);
}

static struct transfer *transfer_take(struct pager *p)
{
	struct transfer *t;

	pthread_mutex_lock(&p->vm->lock);
	t = p->spare;
	p->spare = NULL;
	pthread_mutex_unlock(&p->vm->lock);
	return t != NULL ? t : transfer_new();
}

static void transfer_give(struct pager *p, struct transfer *t)
{
	pthread_mutex_lock(&p->vm->lock);
	if (p->spare == NULL) {
		p->spare = t;
		t = NULL;
	}
	pthread_mutex_unlock(&p->vm->lock);
	transfer_free(t);
}

/* ---- sealing ---- */

/* Which pages of @r are sealed, as far as this side knows. */
static void find_stored(const struct pager *p, struct gfn_range r, uint64_t *ret)
{
	for (uint64_t at = r.start.v; at < range_end(r);) {
		struct range_run run = range_map_run_at(p->stored, at, range_end(r));

		for (uint64_t i = run.start; run.value != 0 && i < run.end; i++)
			bit_set(ret, i - r.start.v);
		at = run.end;
	}
}

/* Leaves in `stored` those of @r that are in @bits; all of them are in it now. */
static void keep_stored(struct pager *p, struct gfn_range r, const uint64_t *bits)
{
	bool keep;

	for (uint64_t i = 0, end; i < r.count; i = end) {
		end = bit_run(bits, i, r.count, &keep);
		/* If there is no memory for that, the page is read ahead in vain. */
		if (!keep)
			(void)range_map_set(p->stored, r.start.v + i, r.start.v + end, 0);
	}
}

/* Takes the sealed pages out of the bulk buffer.  Returns how many. */
static uint64_t take_pages(struct transfer *t, const uint8_t *bulk)
{
	uint64_t pages = 0;
	bool sealed;

	for (uint64_t i = 0, end; i < t->range.count; i = end) {
		end = bit_run(t->sealed, i, t->range.count, &sealed);
		if (!sealed)
			continue;
		memcpy(t->pages + i * PAGE_SIZE, bulk + i * PAGE_SIZE, (end - i) * PAGE_SIZE);
		pages += end - i;
	}
	return pages;
}

/*
 * SECURE => PAGED-OUT.  The ultravisor has sealed them, so they were private, even if a
 * conversion that a policy allowed has not been heard of here.
 */
int pager_note_sealed(struct slot *s, struct gfn_range r)
{
	int ret = failpoint("pager-note");

	if (ret == 0 && !gfn_state_none(s->states, r, LETHE_GFN_SHARED))
		ret = gfn_state_apply_to(s->states, r, LETHE_GFN_SHARED, GFN_UNSHARE);
	return ret == 0 ? gfn_state_apply(s->states, r, GFN_PAGE_OUT) : ret;
}

/* 0 or -ENOMEM. */
static int note_out(struct slot *s, const struct transfer *t)
{
	bool sealed;
	int ret = 0;

	for (uint64_t i = 0, end; i < t->range.count && ret == 0; i = end) {
		end = bit_run(t->sealed, i, t->range.count, &sealed);
		if (sealed)
			ret = pager_note_sealed(
				s, (struct gfn_range){gfn(t->range.start.v + i), end - i});
	}
	return ret;
}

/*
 * Seals the pages of @t->range and lists the transfer, if there were any.  0, *ret_pages of
 * them; a negative errno, nothing has changed.  Caller holds vm->lock; nothing is under way in
 * the range.
 */
static int seal(struct pager *p, struct transfer *t, uint64_t *ret_pages)
{
	const struct abi_page_out args = {
		.gpa = gfn_to_gpa(t->range.start).v, .bytes = range_bytes(t->range)};
	struct lethe_vm *vm = p->vm;
	struct slot *s = hv_find_slot(vm, t->range);
	uint64_t known[BATCH_WORDS] = {0}, pages = 0;
	struct abi_page_out_ret result = {0};
	int ret;

	if (!vm->is_protected || s == NULL)
		return !vm->is_protected ? -EPROTO : -ENOENT;
	*ret_pages = 0;
	if (!vm->has_policy && gfn_state_none(s->states, t->range, LETHE_GFN_SECURE))
		return 0;
	find_stored(p, t->range, known);
	/* Before the call, after which nothing may fail that leads back to the pages. */
	ret = failpoint("pager-stored");
	if (ret == 0)
		ret = range_map_set(p->stored, t->range.start.v, range_end(t->range), 1);
	if (ret < 0)
		return ret;
	pthread_mutex_lock(&vm->bulk_lock);
	ret = hv_call(vm, ABI_CALL_PAGE_OUT, &args, &result);
	if (ret == 0) {
		memcpy(t->sealed, result.sealed, sizeof(t->sealed));
		pages = take_pages(t, vm->bulk);
	}
	pthread_mutex_unlock(&vm->bulk_lock);
	for (unsigned int i = 0; i < BATCH_WORDS; i++)
		known[i] |= result.sealed[i];
	keep_stored(p, t->range, known);
	if (ret < 0 || pages == 0)
		return ret;
	t->err = note_out(s, t);
	p->pages_out += pages;
	p->dirty = true;
	transfer_begin(p, t);
	*ret_pages = pages;
	return 0;
}

/* Waits until nothing is under way in the range of @t, and seals it.  As seal(). */
static int begin_out(struct pager *p, struct transfer *t, uint64_t *ret_pages)
{
	for (;;) {
		struct transfer *other = transfer_find(p, t->range, NULL);
		int ret = 0;

		if (p->stopping)
			return -ECANCELED;
		if (other == NULL && !p->drop_all)
			return seal(p, t, ret_pages);
		if (other != NULL && other->kept && !p->drop_all)
			ret = pager_resolve_kept(p, other);
		else
			pthread_cond_wait(&p->changed, &p->vm->lock);
		if (ret < 0)
			return ret;
	}
}

/* ---- storing ---- */

/* Puts the runs of @sealed.  0 or the store's errno. */
static int put_pages(struct pager *p, const struct transfer *t, const uint64_t *sealed)
{
	int ret = 0;
	bool put;

	for (uint64_t i = 0, end; i < t->range.count && ret == 0; i = end) {
		end = bit_run(sealed, i, t->range.count, &put);
		if (put)
			ret = p->store->put(p->store, gfn_to_gpa(t->range.start).v + i * PAGE_SIZE,
				t->pages + i * PAGE_SIZE, end - i);
	}
	return ret;
}

/* Back to resident, from the buffer.  Nobody reads it. */
static int put_back(struct pager *p, struct transfer *t)
{
	int ret = failpoint("pager-put-back");

	if (ret == 0)
		ret = pager_unseal(p, t->range, t->sealed, t->pages);
	if (ret == 0)
		memset(t->sealed, 0, sizeof(t->sealed));
	return ret;
}

int pager_resolve_kept(struct pager *p, struct transfer *t)
{
	int ret;

	if (t->readers > 0) {
		pthread_cond_wait(&p->changed, &p->vm->lock);
		return 0;
	}
	ret = t->life == p->vm->life ? put_back(p, t) : 0;
	if (ret < 0)
		return ret;
	transfer_end(p, t);
	transfer_free(t);
	return 0;
}

/*
 * The batch is in the store, or @err says why not.  Returns @err, or -EPROTO if the incarnation
 * has ended meanwhile; *ret_kept: the transfer stays.  Caller holds vm->lock.
 */
static int end_out(
	struct pager *p, struct transfer *t, const uint64_t *put, int err, bool *ret_kept)
{
	while (t->readers > 0)
		pthread_cond_wait(&p->changed, &p->vm->lock);
	if (t->life != p->vm->life) {
		err = -EPROTO;
	} else if (err < 0) {
		int ret = put_back(p, t);

		t->kept = ret < 0 && ret != -EPIPE && ret != -EBADMSG;
		if (t->kept)
			log_warn("%s: %s; the pages stay in this process: %s", p->store->name,
				strerror(-err), strerror(-ret));
		pager_may_drop(p, t->range);
	} else if (memcmp(t->sealed, put, sizeof(t->sealed)) != 0) {
		/* Some were wanted while they were written. */
		pager_may_drop(p, t->range);
	}
	*ret_kept = t->kept;
	if (t->kept)
		pthread_cond_broadcast(&p->changed);
	else
		transfer_end(p, t);
	return err;
}

/* Pages out @r, a batch in one slot.  *at is a transfer to use, and replaced if it stays. */
static int out_batch(struct pager *p, struct gfn_range r, struct transfer **at, uint64_t *ret_pages)
{
	struct transfer *t = *at;
	uint64_t sealed[BATCH_WORDS];
	bool kept = false;
	int ret;

	*t = (struct transfer){.kind = TRANSFER_OUT, .range = r, .pages = t->pages};
	pthread_mutex_lock(&p->vm->lock);
	ret = begin_out(p, t, ret_pages);
	memcpy(sealed, t->sealed, sizeof(sealed));
	pthread_mutex_unlock(&p->vm->lock);
	if (ret < 0 || *ret_pages == 0)
		return ret;
	ret = t->err < 0 ? t->err : put_pages(p, t, sealed);
	pthread_mutex_lock(&p->vm->lock);
	ret = end_out(p, t, sealed, ret, &kept);
	pthread_mutex_unlock(&p->vm->lock);
	if (!kept)
		return ret;
	*at = transfer_new();
	return *at == NULL ? -ENOMEM : ret;
}

/* ---- ranges ---- */

/* The first batch of @r: within one slot.  -ENOENT no memory there. */
static int first_batch(struct lethe_vm *vm, struct gfn_range r, struct gfn_range *ret)
{
	struct slot *s;
	int err = 0;

	pthread_mutex_lock(&vm->lock);
	s = hv_find_slot(vm, (struct gfn_range){r.start, 1});
	if (s == NULL)
		err = -ENOENT;
	else if (range_end(r) > range_end(s->range))
		r.count = range_end(s->range) - r.start.v;
	pthread_mutex_unlock(&vm->lock);
	if (err < 0)
		return err;
	if (r.count > BATCH_PAGES)
		r.count = BATCH_PAGES;
	*ret = r;
	return 0;
}

static int out_patiently(
	struct pager *p, struct gfn_range r, struct transfer **at, uint64_t *ret_pages)
{
	int ret = out_batch(p, r, at, ret_pages);

	for (unsigned int try = 1; ret == -EAGAIN && try < TRIES; try++) {
		if (!pager_await(p, AWAIT_MS))
			return -ECANCELED;
		ret = out_batch(p, r, at, ret_pages);
	}
	return ret;
}

/* Pages out of @r until *pages, which counts up, is at least @enough.  0 or -errno. */
static int out_range(struct pager *p, struct gfn_range r, uint64_t enough, uint64_t *pages)
{
	struct transfer *t = transfer_take(p);
	struct gfn_range batch;
	int ret = t == NULL ? -ENOMEM : 0;

	while (ret == 0 && r.count > 0 && *pages < enough) {
		uint64_t n = 0;

		ret = first_batch(p->vm, r, &batch);
		if (ret == 0)
			ret = out_patiently(p, batch, &t, &n);
		if (ret == 0) {
			*pages += n;
			r.start.v += batch.count;
			r.count -= batch.count;
		}
	}
	transfer_give(p, t);
	return ret;
}

/* -ENOENT if a part of @r is no memory. */
static int check_memory(struct lethe_vm *vm, struct gfn_range r)
{
	int ret = 0;

	while (ret == 0 && r.count > 0) {
		struct slot *s;

		pthread_mutex_lock(&vm->lock);
		s = hv_find_slot(vm, (struct gfn_range){r.start, 1});
		if (s == NULL) {
			ret = -ENOENT;
		} else {
			uint64_t n = range_end(s->range) - r.start.v;

			n = n < r.count ? n : r.count;
			r.start.v += n;
			r.count -= n;
		}
		pthread_mutex_unlock(&vm->lock);
	}
	return ret;
}

static const char *why(int err)
{
	switch (-err) {
	case EPROTO:
		return "the VM is not protected";
	case EOPNOTSUPP:
		return "its executor cannot give pages away";
	case EAGAIN:
		return "a conversion is under way";
	default:
		return strerror(-err);
	}
}

int lethe_page_out(struct lethe_vm *vm, uint64_t at, uint64_t bytes, uint64_t *ret_pages)
{
	struct pager *p = __atomic_load_n(&vm->pager, __ATOMIC_ACQUIRE);
	uint64_t pages = 0;
	struct gfn_range r;
	int ret = checked_gfn_range(at, bytes, &r);

	if (ret < 0)
		return fail(ret, "not a range of whole pages below 2^48");
	if (p == NULL)
		return fail(-ENODEV, "the VM has no page store");
	ret = check_memory(vm, r);
	if (ret == 0)
		ret = out_range(p, r, UINT64_MAX, &pages);
	if (ret < 0)
		return fail(ret, "0x%llx: not paged out: %s", (unsigned long long)at, why(ret));
	*ret_pages = pages;
	return 0;
}

/* ---- the coldest ---- */

/* What the ultravisor thinks is coldest, up to @enough pages.  -EAGAIN parts are left. */
static int out_coldest(
	struct pager *p, const struct abi_coldest_ret *cold, uint64_t enough, uint64_t *pages)
{
	for (uint32_t i = 0; i < cold->count && i < ABI_MAX_RANGES && *pages < enough; i++) {
		struct gfn_range r;
		int ret = checked_gfn_range(cold->range[i].gpa, cold->range[i].bytes, &r);

		if (ret == 0)
			ret = out_range(p, r, enough, pages);
		if (ret < 0 && ret != -EAGAIN && ret != -ENOENT)
			return ret;
	}
	return 0;
}

static uint64_t all_memory(struct lethe_vm *vm)
{
	uint64_t bytes = 0;

	pthread_mutex_lock(&vm->lock);
	for (unsigned int i = 0; i < ABI_MAX_SLOTS; i++) {
		if (vm->slot[i].used)
			bytes += range_bytes(vm->slot[i].range);
	}
	pthread_mutex_unlock(&vm->lock);
	return bytes;
}

/*
 * All memory has its turn once: what the guest brings back meanwhile stays, or the two would
 * never come to an end with each other.
 */
int pager_out_cold(struct pager *p, uint64_t bytes, uint64_t *ret_pages)
{
	uint64_t enough = bytes >> PAGE_SHIFT, pages = 0, looked = 0, all = all_memory(p->vm);
	bool more = true;
	int ret = 0;

	while (ret == 0 && more && pages < enough && looked < all) {
		struct abi_coldest args = {.bytes = (enough - pages) << PAGE_SHIFT};
		struct abi_coldest_ret cold;
		uint64_t before = pages;

		ret = hv_call(p->vm, ABI_CALL_COLDEST, &args, &cold);
		if (ret < 0)
			break;
		looked += cold.looked < all ? cold.looked : all;
		ret = out_coldest(p, &cold, enough, &pages);
		more = cold.looked > 0 && (pages > before || cold.count == 0);
	}
	if (ret == 0 || pages > 0)
		*ret_pages = pages;
	return ret;
}

int lethe_page_out_cold(struct lethe_vm *vm, uint64_t bytes, uint64_t *ret_bytes)
{
	struct pager *p = __atomic_load_n(&vm->pager, __ATOMIC_ACQUIRE);
	uint64_t pages = 0, rounded;
	int ret;

	if (bytes == 0 || !checked_align_up(bytes, PAGE_SIZE, &rounded))
		return fail(-EINVAL, "not a number of bytes to page out");
	if (p == NULL)
		return fail(-ENODEV, "the VM has no page store");
	ret = pager_out_cold(p, rounded, &pages);
	if (ret < 0)
		return fail(ret, "not paged out: %s", why(ret));
	*ret_bytes = pages << PAGE_SHIFT;
	return 0;
}
