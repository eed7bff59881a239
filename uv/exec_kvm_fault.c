/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The KVM executor: demand paging.
 *
 * KVM maps what the window shows, so a sealed page has to be one that the window does not
 * show: its memory is gone and the 2M block around it is registered with userfaultfd.  A
 * vCPU that touches a missing page of the block sleeps in the kernel, and the thread here
 * gets to know the page.  If it is sealed, the hypervisor is told that it is wanted, and
 * PAGE_IN_SEALED puts it in place, which wakes the vCPU.  If nobody has ever touched it,
 * it is filled with zeros at once.  Blocks are registered no more when their last sealed
 * page is back; all other memory is as fast as ever, in large pages too.
 *
 * Invariants
 *   - A page of a registered block is filled with zeros only while vm->memory is held for
 *     reading and its attribute says that it is not sealed (serve(), kvm_settle()).
 *   - No thread of the ultravisor sleeps on a missing page: they touch guest memory under
 *     vm->memory, after kvm_settle(), or resident pages only.  So the thread here always
 *     gets vm->memory in the end.
 *   - A vCPU that sleeps in the kernel is not reached by a kick (where KVM was copying for
 *     the guest, not by any signal but a deadly one).  Whoever waits for vCPUs to go
 *     outside looks at kvm_waits() (vcpus_pause()).  A stop ends such sleeps by
 *     kvm_give_up(): the page that the vCPU then finds is not the guest's, so all vCPUs
 *     have been kicked before, none enters guest code again, and run() drops the exit that
 *     an instruction under way may still cause.
 *
 * Its lock comes after all those of struct uv_vm.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/failpoint.h"
#include "base/log.h"
#include "base/range_map.h"
#include "uv/exec_kvm.h"
#include "uv/pager.h"

/* How long to wait before a full socket is tried again. */
#define ASK_AGAIN_MS 10

/* What is known of a sealed page that a vCPU sleeps for; keys are host pages. */
enum { TO_ASK = 1, ASKED = 2 };

struct kvm_faults {
	struct uv_vm *vm;
	pthread_t thread;
	_Atomic bool given_up;
	pthread_mutex_t lock;
	struct window window[SLOTS_MAX]; /* those with registered memory; guarded by lock */
	struct range_map *wanted;        /* guarded by lock */
};

static uint64_t key(const uint8_t *page)
{
	return (uintptr_t)page >> PAGE_SHIFT;
}

/* The slot whose registered window holds @page, and where; -1: none any more. */
static int find_window(struct kvm_faults *f, const uint8_t *page, uint64_t *ret_offset)
{
	int found = -1;

	pthread_mutex_lock(&f->lock);
	for (int i = 0; i < SLOTS_MAX && found < 0; i++) {
		const struct window *w = &f->window[i];

		if (w->base != NULL && page >= w->base && page < w->base + w->bytes) {
			*ret_offset = (uint64_t)(page - w->base);
			found = i;
		}
	}
	pthread_mutex_unlock(&f->lock);
	return found;
}

static bool is_registered(struct kvm_faults *f, unsigned int slot)
{
	bool yes;

	pthread_mutex_lock(&f->lock);
	yes = f->window[slot].base != NULL;
	pthread_mutex_unlock(&f->lock);
	return yes;
}

/* Without memory for the note, whoever sleeps looks again and asks anew. */
static void note_wanted(struct kvm_faults *f, unsigned int slot, const uint8_t *page, int what)
{
	pthread_mutex_lock(&f->lock);
	if (f->window[slot].base != NULL &&
		(what == TO_ASK || range_map_get(f->wanted, key(page)) != 0) &&
		range_map_set(f->wanted, key(page), key(page) + 1, (uint32_t)what) < 0)
		(void)userfault_wake(&f->vm->userfault, page, PAGE_SIZE);
	pthread_mutex_unlock(&f->lock);
}

/* A missing page that is not sealed: zeros, unless somebody else was faster. */
static void fill(struct kvm_faults *f, uint8_t *page)
{
	int ret = userfault_zero(&f->vm->userfault, page);

	/* -ENOENT: registered no more, so nobody sleeps. */
	if (ret < 0 && ret != -ENOENT)
		(void)userfault_wake(&f->vm->userfault, page, PAGE_SIZE);
}

/* @page of a registered window is wanted. */
static void serve(struct kvm_faults *f, uint8_t *page)
{
	struct uv_vm *vm = f->vm;
	uint64_t offset;
	enum page_attr attr;
	gfn_t at;
	int slot;

	pthread_rwlock_rdlock(&vm->memory);
	slot = find_window(f, page, &offset);
	if (slot < 0) {
		pthread_rwlock_unlock(&vm->memory);
		return;
	}
	at = gfn(vm->slots.slot[slot].range.start.v + (offset >> PAGE_SHIFT));
	attr = attr_get(vm->attr, at);
	/* Noted before it can come, so that the note does not outlive it. */
	if (attr == ATTR_SEALED)
		note_wanted(f, (unsigned int)slot, page, TO_ASK);
	else if (attr == ATTR_RELEASED)
		(void)userfault_wake(&vm->userfault, page, PAGE_SIZE);
	else
		fill(f, page);
	pthread_rwlock_unlock(&vm->memory);
	if (attr == ATTR_SEALED && pager_want(vm, at))
		note_wanted(f, (unsigned int)slot, page, ASKED);
}

/* The first page that could not be asked for, or NULL. */
static uint8_t *find_unasked(struct kvm_faults *f)
{
	uint8_t *page = NULL;
	struct range_run run;
	uint64_t from = 0;

	pthread_mutex_lock(&f->lock);
	while (page == NULL && range_map_next(f->wanted, from, &run)) {
		if (run.value == TO_ASK)
			page = (uint8_t *)(uintptr_t)(run.start << PAGE_SHIFT);
		from = run.end;
	}
	pthread_mutex_unlock(&f->lock);
	return page;
}

static void *serve_all(void *arg)
{
	struct kvm_faults *f = arg;
	uint8_t *page, *unasked = NULL;
	int ret;

	do {
		ret = userfault_next(&f->vm->userfault, unasked != NULL ? ASK_AGAIN_MS : -1, &page);
		if (ret == 0)
			serve(f, page);
		else if (ret == -ETIMEDOUT)
			serve(f, unasked);
		unasked = find_unasked(f);
	} while (ret == 0 || ret == -ETIMEDOUT);
	return NULL;
}

int kvm_faults_new(struct uv_vm *vm, struct kvm_faults **ret)
{
	struct kvm_faults *f = calloc(1, sizeof(*f));
	int err = f == NULL ? -ENOMEM : failpoint("uv-kvm-faults");

	if (err == 0) {
		f->vm = vm;
		f->wanted = range_map_new();
		err = f->wanted == NULL ? -ENOMEM : 0;
	}
	if (err == 0) {
		pthread_mutex_init(&f->lock, NULL);
		err = -pthread_create(&f->thread, NULL, serve_all, f);
	}
	if (err < 0) {
		if (f != NULL)
			range_map_free(f->wanted);
		free(f);
		return err;
	}
	*ret = f;
	return 0;
}

void kvm_faults_free(struct kvm_faults *f)
{
	if (f == NULL)
		return;
	userfault_end(&f->vm->userfault);
	pthread_join(f->thread, NULL);
	range_map_free(f->wanted);
	pthread_mutex_destroy(&f->lock);
	free(f);
}

void kvm_faults_begin(struct kvm_faults *f)
{
	if (f != NULL)
		f->given_up = false;
}

bool kvm_faults_given_up(const struct kvm_faults *f)
{
	return f != NULL && f->given_up;
}

/* Nothing of the window waits from here on.  Caller holds f->lock. */
static void release_window(struct kvm_faults *f, struct window *w)
{
	if (w->base == NULL)
		return;
	if (userfault_unregister(&f->vm->userfault, w->base, w->bytes) < 0)
		log_error("a window could not be taken from userfaultfd");
	if (range_map_set(f->wanted, key(w->base), key(w->base + w->bytes), 0) < 0)
		log_error("a wanted page could not be forgotten");
	*w = (struct window){0};
}

void kvm_faults_forget(struct kvm_faults *f, unsigned int slot)
{
	if (f == NULL)
		return;
	pthread_mutex_lock(&f->lock);
	release_window(f, &f->window[slot]);
	pthread_mutex_unlock(&f->lock);
}

void kvm_faults_forget_all(struct kvm_faults *f)
{
	for (unsigned int i = 0; i < SLOTS_MAX; i++)
		kvm_faults_forget(f, i);
}

static struct kvm_faults *faults_of(struct uv_vm *vm)
{
	return ((struct kvm_exec *)vm->exec)->faults;
}

/* @range, made larger to whole 2M blocks of the window as far as the slot goes. */
static struct gfn_range blocks_of(const struct uv_vm *vm, unsigned int slot, struct gfn_range range)
{
	const uint64_t pages = SIZE_2M / PAGE_SIZE;
	struct gfn_range s = vm->slots.slot[slot].range;
	uint64_t start = align_down(range.start.v - s.start.v, pages);
	uint64_t end = align_down(range_end(range) - s.start.v + pages - 1, pages);

	if (end > s.count)
		end = s.count;
	return (struct gfn_range){gfn(s.start.v + start), end - start};
}

/* Calls a function of os/userfault.h for a range of a slot. */
static int tell(struct uv_vm *vm, unsigned int slot, uint64_t start, uint64_t end,
	int (*what)(const struct userfault *u, const uint8_t *at, uint64_t bytes))
{
	uint64_t base = vm->slots.slot[slot].range.start.v;

	return what(&vm->userfault,
		vm->memory_of[slot].window.base + ((start - base) << PAGE_SHIFT),
		(end - start) << PAGE_SHIFT);
}

/* Shared mappings and what was released do not belong to it and have no missing pages. */
int kvm_seal_begin(struct uv_vm *vm, unsigned int slot, struct gfn_range range)
{
	struct kvm_faults *f = faults_of(vm);
	struct gfn_range r;
	int ret = 0;

	if (f == NULL)
		return -EOPNOTSUPP;
	r = blocks_of(vm, slot, range);
	/* Until all is registered: a stop that gives up meanwhile would miss what comes later. */
	pthread_mutex_lock(&f->lock);
	f->window[slot] = vm->memory_of[slot].window;
	for (uint64_t at = r.start.v; at < range_end(r) && ret == 0;) {
		struct attr_run run = attr_run_at(vm->attr, at, range_end(r));

		if (run.attr != ATTR_MAPPED && run.attr != ATTR_RELEASED)
			ret = tell(vm, slot, run.start, run.end, userfault_register);
		at = run.end;
	}
	pthread_mutex_unlock(&f->lock);
	return ret;
}

int kvm_page_put(struct uv_vm *vm, unsigned int slot, uint64_t offset, const uint8_t *pages,
	uint64_t bytes, uint64_t *ret_bytes)
{
	struct kvm_faults *f = faults_of(vm);
	uint8_t *to = vm->memory_of[slot].window.base + offset;
	int ret = userfault_copy(&vm->userfault, to, pages, bytes, ret_bytes);

	if (ret == -EEXIST || ret == -ENOENT) {
		log_error("a sealed page was not missing");
		return -ENOTRECOVERABLE;
	}
	if (*ret_bytes == 0)
		return ret;
	pthread_mutex_lock(&f->lock);
	if (range_map_set(f->wanted, key(to), key(to + *ret_bytes), 0) < 0)
		log_error("a wanted page could not be forgotten");
	pthread_mutex_unlock(&f->lock);
	return ret;
}

/* Of the range, forgets that pages are wanted which are not sealed any more. */
static void forget_wanted(struct kvm_faults *f, unsigned int slot, struct gfn_range r)
{
	struct uv_vm *vm = f->vm;
	uint64_t base = vm->slots.slot[slot].range.start.v;
	uint64_t first = key(vm->memory_of[slot].window.base);

	pthread_mutex_lock(&f->lock);
	for (uint64_t at = r.start.v; at < range_end(r);) {
		struct attr_run run = attr_run_at(vm->attr, at, range_end(r));

		if (run.attr != ATTR_SEALED && range_map_set(f->wanted, first + run.start - base,
						       first + run.end - base, 0) < 0)
			log_error("a wanted page could not be forgotten");
		at = run.end;
	}
	pthread_mutex_unlock(&f->lock);
}

/* As kvm_range_end(), of a range inside one slot. */
static void part_end(struct uv_vm *vm, unsigned int slot, struct gfn_range range)
{
	const uint64_t pages = SIZE_2M / PAGE_SIZE;
	struct kvm_faults *f = faults_of(vm);
	struct gfn_range r;

	if (!is_registered(f, slot))
		return;
	forget_wanted(f, slot, range);
	r = blocks_of(vm, slot, range);
	for (uint64_t at = r.start.v; at < range_end(r); at += pages) {
		uint64_t end = range_end(r) - at < pages ? range_end(r) : at + pages;
		bool none = attr_none(vm->attr, (struct gfn_range){gfn(at), end - at}, ATTR_SEALED);
		int ret = tell(vm, slot, at, end, none ? userfault_unregister : userfault_wake);

		if (ret < 0)
			log_error("a block could not be taken from userfaultfd");
	}
}

/*
 * After pages of @range were sealed, came back, or were released: a block without sealed
 * pages is registered no more; else who sleeps there looks again.
 */
void kvm_range_end(struct uv_vm *vm, struct gfn_range range)
{
	for (uint64_t at = range.start.v; faults_of(vm) != NULL && at < range_end(range);) {
		int slot = slots_find(&vm->slots, gfn(at));
		uint64_t end = range_end(range);

		if (slot < 0)
			return;
		if (end > range_end(vm->slots.slot[slot].range))
			end = range_end(vm->slots.slot[slot].range);
		part_end(vm, (unsigned int)slot, (struct gfn_range){gfn(at), end - at});
		at = end;
	}
}

void kvm_settle(struct uv_vm *vm, unsigned int slot, uint64_t offset, uint64_t bytes)
{
	struct kvm_faults *f = faults_of(vm);
	uint8_t *base = vm->memory_of[slot].window.base;
	uint64_t at = align_down(offset, PAGE_SIZE), end = offset + bytes;
	unsigned char resident[64];

	if (f == NULL || !is_registered(f, slot))
		return;
	while (at < end) {
		uint64_t n = (end - at + PAGE_SIZE - 1) >> PAGE_SHIFT;

		if (n > sizeof(resident))
			n = sizeof(resident);
		if (mincore(base + at, n << PAGE_SHIFT, resident) < 0)
			memset(resident, 0, sizeof(resident));
		for (uint64_t i = 0; i < n; i++) {
			if ((resident[i] & 1) == 0)
				fill(f, base + at + (i << PAGE_SHIFT));
		}
		at += n << PAGE_SHIFT;
	}
}

bool kvm_may_wait(struct uv_vm *vm)
{
	struct kvm_faults *f = faults_of(vm);
	bool yes = false;

	for (unsigned int i = 0; i < SLOTS_MAX && f != NULL && !yes; i++)
		yes = is_registered(f, i);
	return yes;
}

bool kvm_waits(struct uv_vm *vm)
{
	struct kvm_faults *f = faults_of(vm);
	bool yes;

	if (f == NULL)
		return false;
	pthread_mutex_lock(&f->lock);
	yes = range_map_runs(f->wanted) > 0;
	pthread_mutex_unlock(&f->lock);
	return yes;
}

void kvm_give_up(struct uv_vm *vm)
{
	struct kvm_faults *f = faults_of(vm);

	if (f == NULL)
		return;
	f->given_up = true;
	kvm_faults_forget_all(f);
}
