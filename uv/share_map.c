/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "uv/share_map.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "os/memfd.h"
#include "uv/executor.h"
#include "uv/share_list.h"
#include "uv/stale.h"
#include "uv/vcpu.h"

/* Pages of one attribute in one slot. */
struct part {
	struct slot_memory *m;
	struct gfn_range range;
	uint64_t offset; /* in the slot's window and memfd */
	enum page_attr attr;
};

/* The part at page @at, which is memory, that ends at @end at the latest. */
static struct part part_at(struct uv_vm *vm, uint64_t at, uint64_t end)
{
	int id = slots_find(&vm->slots, gfn(at));
	struct gfn_range slot = vm->slots.slot[id].range;
	struct attr_run run =
		attr_run_at(vm->attr, at, end < range_end(slot) ? end : range_end(slot));

	return (struct part){.m = &vm->memory_of[id],
		.range = {gfn(at), run.end - at},
		.offset = (at - slot.start.v) << PAGE_SHIFT,
		.attr = run.attr};
}

/* Copies a private part into the memfd, which stays without memory where that is zero. */
static int copy_out(struct uv_vm *vm, const struct part *p)
{
	struct slot_memory *m = p->m;
	uint64_t bytes = range_bytes(p->range);
	struct window view;
	int ret = memfd_discard(m->memfd, p->offset, bytes);

	if (ret == 0)
		ret = window_shared(m->memfd, m->window.bytes, &view);
	if (ret < 0)
		return ret;
	if (vm->executor->settle != NULL)
		vm->executor->settle(vm, (unsigned int)(m - vm->memory_of), p->offset, bytes);
	window_copy(view.base + p->offset, m->window.base + p->offset, bytes);
	(void)window_unmap(&view);
	return 0;
}

/*
 * private window => memfd laid over it, same content.  On failure the memfd part is
 * empty again and the window unchanged; but for -ENOTRECOVERABLE, when the content is in the
 * memfd and the guest cannot reach it.  The private pages that the overlay frees are not
 * wiped: their content is the hypervisor's to read from here on.
 */
static int map_part(struct uv_vm *vm, const struct part *p)
{
	struct slot_memory *m = p->m;
	uint64_t bytes = range_bytes(p->range);
	int ret = stale_take_back(vm, m, p->offset, bytes);

	if (ret == 0)
		ret = copy_out(vm, p);
	if (ret == 0)
		ret = window_overlay(&m->window, m->memfd, p->offset, bytes);
	if (ret == -ENOTRECOVERABLE && window_mend(&m->window, m->memfd, p->offset, bytes) == 0)
		ret = 0;
	if (ret < 0 && ret != -ENOTRECOVERABLE)
		(void)memfd_discard(m->memfd, p->offset, bytes);
	else if (ret == 0)
		share_list_add(vm, p->range);
	return ret;
}

/*
 * memfd laid over the window => private pages with the same content; the memfd part is
 * stale.  On failure nothing has changed; but for -ENOTRECOVERABLE, as in map_part().
 */
static int unmap_part(struct uv_vm *vm, const struct part *p)
{
	struct slot_memory *m = p->m;
	uint64_t bytes = range_bytes(p->range);
	int ret;

	/* First: what the hypervisor writes from here on is lost, and it knows. */
	share_list_remove(vm, p->range);
	ret = window_restore(&m->window, p->offset, bytes, m->window.base + p->offset);
	if (ret == -ENOTRECOVERABLE && window_mend(&m->window, m->memfd, p->offset, bytes) == 0)
		ret = -ENOMEM;
	if (ret < 0)
		share_list_add(vm, p->range);
	else if (stale_add(vm, m, p->offset, bytes) < 0)
		ret = memfd_discard(m->memfd, p->offset, bytes);
	return ret;
}

/*
 * Puts what is not yet so where pages that are @to lie.  On failure *ret_done says how far
 * it came.  Caller holds lock, and memory for writing.
 */
static int move_pages(struct uv_vm *vm, struct gfn_range r, enum page_attr to, uint64_t *ret_done)
{
	int ret = 0;

	for (uint64_t at = r.start.v; at < range_end(r) && ret == 0;) {
		struct part p = part_at(vm, at, range_end(r));

		*ret_done = at;
		if (to == ATTR_MAPPED && p.attr != ATTR_MAPPED)
			ret = map_part(vm, &p);
		else if (to != ATTR_MAPPED && p.attr == ATTR_MAPPED)
			ret = unmap_part(vm, &p);
		at = range_end(p.range);
	}
	if (ret == 0)
		*ret_done = range_end(r);
	return ret;
}

/*
 * Puts the pages of @r back where their attributes, which have not changed, say.  A part
 * that cannot be put back keeps its content in its new place; the guest sees no difference.
 * 0, or -ENOTRECOVERABLE as share_change().
 */
static int move_back(struct uv_vm *vm, struct gfn_range r, enum page_attr to)
{
	int worst = 0;

	for (uint64_t at = r.start.v; at < range_end(r);) {
		struct part p = part_at(vm, at, range_end(r));
		int ret = 0;

		if (to == ATTR_MAPPED && p.attr != ATTR_MAPPED)
			ret = unmap_part(vm, &p);
		else if (to != ATTR_MAPPED && p.attr == ATTR_MAPPED)
			ret = map_part(vm, &p);
		if (ret < 0)
			log_error("a failed conversion could not be undone");
		if (ret == -ENOTRECOVERABLE)
			worst = ret;
		at = range_end(p.range);
	}
	return worst;
}

/* The shared backing that is left behind: now, or by the sweeper, which has been told. */
static void discard(struct uv_vm *vm, struct gfn_range r)
{
	if ((vm->flags & ABI_VM_DISCARD_EAGER) == 0)
		return;
	for (uint64_t at = r.start.v; at < range_end(r);) {
		struct part p = part_at(vm, at, range_end(r));

		if (stale_discard_now(vm, p.m, p.offset, range_bytes(p.range)) < 0)
			log_warn("stale shared memory is kept for the sweeper");
		at = range_end(p.range);
	}
}

uint64_t share_resident(struct uv_vm *vm, struct gfn_range r)
{
	uint64_t total = 0;

	for (uint64_t at = r.start.v; at < range_end(r);) {
		struct part p = part_at(vm, at, range_end(r));
		uint64_t from = p.offset, end = from + range_bytes(p.range), n;

		while (window_next_resident(&p.m->window, from, end, &from, &n) == 0) {
			total += n;
			from += n;
		}
		at = range_end(p.range);
	}
	return total;
}

/*
 * An executor that cannot keep vCPUs off a range keeps them out of guest code: what one
 * writes while its page is copied would be lost.
 */
int share_range_begin(struct uv_vm *vm, struct gfn_range r)
{
	if (vm->executor->range_begin == NULL)
		return vcpus_pause(vm) ? 0 : -EDEADLK;
	vm->executor->range_begin(vm, r);
	return 0;
}

void share_range_end(struct uv_vm *vm, struct gfn_range r)
{
	if (vm->executor->range_end != NULL)
		vm->executor->range_end(vm, r);
	if (vm->executor->range_begin == NULL)
		vcpus_resume(vm);
}

int share_change(struct uv_vm *vm, struct gfn_range r, enum page_attr to)
{
	/* Pages that stay where they are need no vCPU to be told. */
	bool moves = to == ATTR_MAPPED || !attr_none(vm->attr, r, ATTR_MAPPED);
	uint64_t done = r.start.v;
	int ret = 0;

	if (moves)
		ret = share_range_begin(vm, r);
	if (ret < 0)
		return ret;
	pthread_rwlock_wrlock(&vm->memory);
	if (moves)
		ret = move_pages(vm, r, to, &done);
	if (ret == 0)
		ret = attr_set(vm->attr, r, to);
	attr_map_reclaim(vm->attr);
	if (ret < 0 && done > r.start.v &&
		move_back(vm, (struct gfn_range){r.start, done - r.start.v}, to) < 0)
		ret = -ENOTRECOVERABLE;
	pthread_rwlock_unlock(&vm->memory);
	if (moves)
		share_range_end(vm, r);
	if (moves && ret == 0 && to != ATTR_MAPPED)
		discard(vm, r);
	return ret;
}
