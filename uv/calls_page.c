/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * uv calls: pages that go to the hypervisor, encrypted, and come back.
 *
 *   PAGE_OUT         private, resident => sealed; the memory is given back last
 *   PAGE_IN_SEALED   sealed => private, with the content that was sealed, or not at all
 *   PAGE_LOST        a sealed page will not come back: the VM stops
 *
 * What a page is, the attribute map says and nothing that the hypervisor remembers.  A
 * conversion under way has no sealed page (uv/convert.c fetches them first) and none of its
 * pages can become one: PAGE_OUT answers -EAGAIN.  No vCPU uses a page from before it is
 * encrypted until its memory is gone, nor before it has been decrypted and checked.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "uv/coldest.h"
#include "uv/dispatch.h"
#include "uv/executor.h"
#include "uv/guest_stop.h"
#include "uv/pager.h"
#include "uv/seal.h"
#include "uv/vcpu.h"

/* Pages of one call: the page number in the call's range is in `index`. */
struct batch {
	struct uv_vm *vm;
	unsigned int slot;
	struct gfn_range range;
	unsigned int count;
	unsigned int index[ABI_SEALED_PAGES];
	struct seal_page page[ABI_SEALED_PAGES];
};

/* The range of a page call and its slot.  Caller holds vm->lock. */
static int check_range(struct uv_vm *vm, uint64_t start, uint64_t bytes, struct batch *ret)
{
	struct gfn_range r;
	int slot, err = checked_gfn_range(start, bytes, &r);

	if (err == 0 && bytes > ABI_BULK_SIZE)
		err = -EINVAL;
	if (err < 0)
		return err;
	if (vm->state.security != SECURITY_SECURE)
		return -EPROTO;
	slot = slots_find_range(&vm->slots, r);
	if (slot < 0)
		return slot;
	ret->vm = vm;
	ret->slot = (unsigned int)slot;
	ret->range = r;
	ret->count = 0;
	return 0;
}

static struct window *window_of(const struct batch *b)
{
	return &b->vm->memory_of[b->slot].window;
}

static uint64_t offset_of(const struct batch *b, uint64_t frame)
{
	return (frame - b->vm->slots.slot[b->slot].range.start.v) << PAGE_SHIFT;
}

static void add_page(struct batch *b, uint64_t frame, uint8_t *plain)
{
	uint64_t index = frame - b->range.start.v;

	b->index[b->count] = (unsigned int)index;
	b->page[b->count++] = (struct seal_page){
		.record = &b->vm->memory_of[b->slot]
				   .sealed->record[offset_of(b, frame) >> PAGE_SHIFT],
		.gfn = gfn(frame),
		.plain = plain,
		.cipher = b->vm->bulk + (index << PAGE_SHIFT)};
}

/* How many pages of @b from number @i on follow each other. */
static unsigned int run_length(const struct batch *b, unsigned int i)
{
	unsigned int n = 1;

	while (i + n < b->count && b->index[i + n] == b->index[i] + n)
		n++;
	return n;
}

static struct gfn_range run_range(const struct batch *b, unsigned int i, unsigned int n)
{
	return (struct gfn_range){b->page[i].gfn, n};
}

/* ---- out ---- */

/* The key and the table, at the first page.  0 or a negative errno. */
static int prepare(struct uv_vm *vm, unsigned int slot)
{
	struct slot_memory *m = &vm->memory_of[slot];
	int ret = 0;

	if (vm->seal == NULL)
		ret = seal_new(vm->id, vm->incarnation, &vm->seal);
	if (ret == 0 && m->sealed == NULL)
		ret = seal_table_new(vm->slots.slot[slot].range.count, &m->sealed);
	return ret;
}

/* Collects what is private and resident in @run.  0 or a negative errno. */
static int collect_run(struct batch *b, struct attr_run run)
{
	const struct window *w = window_of(b);
	uint64_t at = offset_of(b, run.start), end = offset_of(b, run.end), n;
	int ret;

	while ((ret = window_next_resident(w, at, end, &at, &n)) == 0) {
		for (uint64_t o = at; o < at + n; o += PAGE_SIZE)
			add_page(b, run.start + ((o - offset_of(b, run.start)) >> PAGE_SHIFT),
				w->base + o);
		at += n;
	}
	return ret == -ENXIO ? 0 : ret;
}

static int collect(struct batch *b)
{
	int ret = 0;

	for (uint64_t at = b->range.start.v; at < range_end(b->range) && ret == 0;) {
		struct attr_run run = attr_run_at(b->vm->attr, at, range_end(b->range));

		if (run.attr == ATTR_PRIVATE)
			ret = collect_run(b, run);
		at = run.end;
	}
	return ret;
}

static int take(struct batch *b, struct gfn_range r)
{
	const struct executor *x = b->vm->executor;
	uint64_t offset = offset_of(b, r.start.v);

	if (x->page_take != NULL)
		return x->page_take(b->vm, b->slot, offset, range_bytes(r));
	return window_vacate(window_of(b), offset, range_bytes(r));
}

/*
 * sealed => private, after take() failed with @err, which is returned; -ENOTRECOVERABLE if pages
 * are gone already.
 */
static int keep(struct batch *b, struct gfn_range r, int err)
{
	uint64_t at = offset_of(b, r.start.v), held = 0;

	if (window_resident(window_of(b), at, at + range_bytes(r), &held) < 0 ||
		held < range_bytes(r) || attr_set(b->vm->attr, r, ATTR_PRIVATE) < 0)
		return -ENOTRECOVERABLE;
	return err;
}

/*
 * private, encrypted => sealed, without memory, a run at a time.  A run that fails stays as
 * it was, and so do those after it.  Holds vm->lock, and memory for writing.
 */
static int commit_out(struct batch *b, struct abi_page_out_ret *done)
{
	for (unsigned int i = 0, n; i < b->count; i += n) {
		struct gfn_range r;
		int ret;

		n = run_length(b, i);
		r = run_range(b, i, n);
		ret = failpoint("uv-sealed-out");
		if (ret == 0)
			ret = attr_set(b->vm->attr, r, ATTR_SEALED);
		if (ret < 0)
			return ret;
		ret = take(b, r);
		if (ret < 0)
			return keep(b, r, ret);
		for (unsigned int k = i; k < i + n; k++)
			done->sealed[b->index[k] / 64] |= (uint64_t)1 << b->index[k] % 64;
		done->pages += n;
	}
	return 0;
}

/* Encrypts what there is in the range and gives its memory back.  Holds vm->lock. */
static int seal_batch(struct batch *b, struct abi_page_out_ret *done)
{
	struct uv_vm *vm = b->vm;
	int ret = prepare(vm, b->slot);

	if (ret == 0 && vm->executor->seal_begin != NULL) {
		/* Who has settled a page that is missing may be about to touch it. */
		pthread_rwlock_wrlock(&vm->memory);
		ret = vm->executor->seal_begin(vm, b->slot, b->range);
		pthread_rwlock_unlock(&vm->memory);
	}
	if (ret < 0)
		return ret;
	if (vm->executor->range_begin != NULL)
		vm->executor->range_begin(vm, b->range);
	ret = collect(b);
	if (ret == 0)
		ret = seal_pages(vm->seal, vm->crew, b->page, b->count);
	if (ret == 0) {
		pthread_rwlock_wrlock(&vm->memory);
		ret = commit_out(b, done);
		attr_map_reclaim(vm->attr);
		pthread_rwlock_unlock(&vm->memory);
	}
	if (vm->executor->range_end != NULL)
		vm->executor->range_end(vm, b->range);
	return ret;
}

static int page_out(struct uv_vm *vm, const struct call *c)
{
	const struct abi_page_out *a = &c->args->page_out;
	struct abi_page_out_ret *done = &c->result->page_out;
	struct batch b;
	int ret;

	pthread_mutex_lock(&vm->lock);
	ret = check_range(vm, a->gpa, a->bytes, &b);
	if (ret == 0 && pending_overlaps(&vm->pending, b.range))
		ret = -EAGAIN;
	if (ret == 0)
		ret = seal_batch(&b, done);
	pthread_mutex_unlock(&vm->lock);
	if (ret == -ENOTRECOVERABLE)
		guest_stop_all(vm, ABI_STOP_HOST, a->gpa, "a page could not be kept");
	/* What went out, went out: the caller has to know. */
	return done->pages > 0 ? 0 : ret;
}

int call_page_out(struct uv_vm *vm, const struct call *c)
{
	const struct executor *x = vm->executor;
	bool pause = x->range_begin == NULL;
	int ret;

	if (pause && x->seal_begin == NULL)
		return -EOPNOTSUPP;
	if (pause && !vcpus_pause(vm))
		return -EAGAIN;
	ret = page_out(vm, c);
	if (pause)
		vcpus_resume(vm);
	return ret;
}

/* ---- in ---- */

static bool has_bits_beyond(const struct abi_page_in_sealed *a, uint64_t pages)
{
	for (uint64_t i = pages; i < ABI_SEALED_PAGES; i++) {
		if ((a->present[i / 64] >> i % 64 & 1) != 0)
			return true;
	}
	return false;
}

/*
 * Where the page at @frame is decrypted: where it belongs, which no vCPU sees before it is
 * sealed no more; or beside it, if the executor has to put it there.
 */
static uint8_t *place_of(const struct batch *b, uint64_t frame)
{
	if (b->vm->executor->page_put == NULL)
		return window_of(b)->base + offset_of(b, frame);
	return b->vm->scratch.base + ((frame - b->range.start.v) << PAGE_SHIFT);
}

/* Of the pages that are brought, those that are sealed. */
static void collect_sealed(struct batch *b, const uint64_t *present)
{
	for (uint64_t i = 0; i < b->range.count; i++) {
		uint64_t frame = b->range.start.v + i;

		if ((present[i / 64] >> i % 64 & 1) != 0 &&
			attr_get(b->vm->attr, gfn(frame)) == ATTR_SEALED)
			add_page(b, frame, place_of(b, frame));
	}
}

/* Memory for pages that are decrypted in their place, at once instead of fault by fault. */
static void populate(const struct batch *b)
{
	for (unsigned int i = 0, n; i < b->count; i += n) {
		n = run_length(b, i);
		if (b->vm->executor->page_put == NULL && n > 1)
			window_populate(window_of(b), offset_of(b, b->page[i].gfn.v),
				(uint64_t)n << PAGE_SHIFT);
	}
}

/* Nothing is left where pages were decrypted that are not there to stay. */
static void clear_places(const struct batch *b)
{
	for (unsigned int i = 0; i < b->count; i++) {
		bool stays = b->vm->executor->page_put == NULL &&
			     attr_get(b->vm->attr, b->page[i].gfn) != ATTR_SEALED;

		if (!stays)
			window_wipe(b->page[i].plain, PAGE_SIZE);
		if (!stays && b->vm->executor->page_put == NULL &&
			window_vacate(window_of(b), offset_of(b, b->page[i].gfn.v), PAGE_SIZE) < 0)
			log_warn("a page that could not come back keeps its memory");
	}
}

/*
 * Puts the pages of a run, which are private now, and side by side where they were decrypted, too.
 * Those that cannot be are sealed again.
 */
static int put_run(struct batch *b, unsigned int i, unsigned int n, uint64_t *ret_pages)
{
	const struct executor *x = b->vm->executor;
	uint64_t bytes = (uint64_t)n << PAGE_SHIFT, done = bytes;
	struct gfn_range rest;
	int ret = 0;

	if (x->page_put != NULL)
		ret = x->page_put(b->vm, b->slot, offset_of(b, b->page[i].gfn.v), b->page[i].plain,
			bytes, &done);
	done >>= PAGE_SHIFT;
	*ret_pages += done;
	if (ret == 0)
		return 0;
	rest = (struct gfn_range){gfn(b->page[i].gfn.v + done), n - done};
	return attr_set(b->vm->attr, rest, ATTR_SEALED) < 0 ? -ENOTRECOVERABLE : ret;
}

/* sealed, checked => private.  Holds vm->lock, and memory for writing. */
static int commit_in(struct batch *b, uint64_t *ret_pages)
{
	int ret = 0;

	for (unsigned int i = 0, n; i < b->count && ret == 0; i += n) {
		n = run_length(b, i);
		ret = failpoint("uv-sealed-in");
		if (ret == 0)
			ret = attr_set(b->vm->attr, run_range(b, i, n), ATTR_PRIVATE);
		if (ret == 0)
			ret = put_run(b, i, n, ret_pages);
	}
	return ret;
}

/* Decrypts what was brought and shows it.  Holds vm->lock. */
static int open_batch(struct batch *b, uint64_t *ret_pages, uint64_t *ret_bad)
{
	struct uv_vm *vm = b->vm;
	unsigned int bad;
	int ret;

	populate(b);
	ret = seal_open_pages(vm->seal, vm->crew, b->page, b->count, &bad);
	if (ret < 0) {
		*ret_bad = gfn_to_gpa(b->page[bad].gfn).v;
		clear_places(b);
		return ret;
	}
	if (vm->executor->range_begin != NULL)
		vm->executor->range_begin(vm, b->range);
	pthread_rwlock_wrlock(&vm->memory);
	ret = commit_in(b, ret_pages);
	attr_map_reclaim(vm->attr);
	pthread_rwlock_unlock(&vm->memory);
	if (vm->executor->range_end != NULL)
		vm->executor->range_end(vm, b->range);
	clear_places(b);
	return ret;
}

static int page_in(struct uv_vm *vm, const struct call *c, uint64_t *ret_bad)
{
	const struct abi_page_in_sealed *a = &c->args->page_in_sealed;
	uint64_t *pages = &c->result->page_in.pages;
	struct batch b;
	int ret;

	pthread_mutex_lock(&vm->lock);
	ret = check_range(vm, a->gpa, a->bytes, &b);
	if (ret == 0 && has_bits_beyond(a, b.range.count))
		ret = -EINVAL;
	if (ret == 0 && vm->executor->page_put != NULL && vm->scratch.base == NULL)
		ret = window_private(ABI_BULK_SIZE, &vm->scratch);
	if (ret == 0)
		collect_sealed(&b, a->present);
	if (ret == 0 && b.count > 0)
		ret = open_batch(&b, pages, ret_bad);
	pthread_mutex_unlock(&vm->lock);
	return ret;
}

int call_page_in_sealed(struct uv_vm *vm, const struct call *c)
{
	uint64_t bad = c->args->page_in_sealed.gpa;
	char text[128];
	int ret = page_in(vm, c, &bad);

	if (ret == -EBADMSG) {
		snprintf(text, sizeof(text),
			"what the hypervisor brought for page 0x%llx is not what was sealed there",
			(unsigned long long)bad);
		guest_stop_all(vm, ABI_STOP_LOST_PAGE, bad, text);
		return ret;
	}
	if (ret == -ENOTRECOVERABLE)
		guest_stop_all(vm, ABI_STOP_HOST, bad, "a page could not be kept");
	if (c->result->page_in.pages == 0)
		return ret;
	pager_arrived(vm);
	return 0;
}

int call_page_lost(struct uv_vm *vm, const struct call *c)
{
	uint64_t at = c->args->page_lost.gpa;
	char text[128];
	struct batch b;
	int ret;

	pthread_mutex_lock(&vm->lock);
	ret = check_range(vm, at, PAGE_SIZE, &b);
	if (ret == 0 && attr_get(vm->attr, b.range.start) != ATTR_SEALED)
		ret = -ENODATA;
	pthread_mutex_unlock(&vm->lock);
	if (ret < 0)
		return ret;
	snprintf(text, sizeof(text), "page 0x%llx was sealed and the hypervisor has lost it",
		(unsigned long long)at);
	guest_stop_all(vm, ABI_STOP_LOST_PAGE, at, text);
	return 0;
}

/* ---- which ---- */

int call_coldest(struct uv_vm *vm, const struct call *c)
{
	uint64_t bytes = c->args->coldest.bytes;

	if (bytes == 0 || (bytes & PAGE_MASK) != 0)
		return -EINVAL;
	return coldest_find(vm, bytes, &c->result->coldest);
}
