/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a guest's conversions make of the GFN states of this side.  One that is accepted is
 * noted at once, part by part where slots adjoin, and taken back if the ultravisor does not
 * complete it.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "hv/pager.h"
#include "hv/vm.h"

static struct gfn_range after(struct gfn_range r, struct gfn_range part)
{
	return (struct gfn_range){gfn(range_end(part)), r.count - part.count};
}

/* Puts the saved states back.  Caller holds vm->lock. */
static void restore(struct lethe_vm *vm, struct vcpu_local *l)
{
	struct gfn_range r = l->range, part;

	for (unsigned int i = 0; i < l->saved; i++, r = after(r, part)) {
		struct slot *s = hv_first_part(vm, r, &part);

		if (s == NULL)
			break;
		if (s->states != NULL)
			gfn_state_restore(s->states, l->before[i]);
	}
}

void hv_forget_saved(struct vcpu_local *l)
{
	for (unsigned int i = 0; i < l->saved; i++)
		free(l->before[i]);
	l->saved = 0;
}

/* One slot's part: saved, then changed.  Caller holds vm->lock. */
static int note_part(
	struct vcpu_local *l, struct slot *s, struct gfn_range part, enum gfn_event event)
{
	struct gfn_saved *before = gfn_state_save(s->states, part);
	int ret = before == NULL ? -ENOMEM : gfn_state_apply(s->states, part, event);

	if (ret < 0)
		free(before);
	else
		l->before[l->saved++] = before;
	return ret;
}

int hv_note_converted(struct lethe_vm *vm, struct vcpu_local *l, bool to_shared)
{
	const enum gfn_event event = to_shared ? GFN_PAGE_IN_SHARED : GFN_UNSHARE;
	struct gfn_range r = l->range, part;
	int ret = 0;

	pthread_mutex_lock(&vm->lock);
	l->saved = 0;
	for (; r.count > 0 && ret == 0; r = after(r, part)) {
		struct slot *s = hv_first_part(vm, r, &part);

		if (s == NULL || s->states == NULL)
			break;
		ret = note_part(l, s, part, event);
	}
	l->life = vm->life;
	if (ret < 0) {
		restore(vm, l);
		hv_forget_saved(l);
	}
	pthread_mutex_unlock(&vm->lock);
	return ret;
}

void hv_take_back(struct lethe_vm *vm, struct vcpu_local *l)
{
	pthread_mutex_lock(&vm->lock);
	if (l->life == vm->life) {
		restore(vm, l);
		/* Some may have gone out since, from what they were all along. */
		if (vm->pager != NULL)
			pager_restate(vm->pager, l->range);
	}
	pthread_mutex_unlock(&vm->lock);
}

void hv_note_released(struct lethe_vm *vm, struct gfn_range r)
{
	struct gfn_range part;
	struct slot *s;

	pthread_mutex_lock(&vm->lock);
	if (vm->pager != NULL)
		pager_forget(vm->pager, r);
	for (; r.count > 0 && (s = hv_first_part(vm, r, &part)) != NULL; r = after(r, part)) {
		if (s->states != NULL && gfn_state_apply(s->states, part, GFN_DROP) < 0)
			log_warn("released pages are still held to be private: no memory");
	}
	pthread_mutex_unlock(&vm->lock);
}
