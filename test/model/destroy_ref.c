/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test/model/destroy_ref.h"

#include <string.h>

static bool is_inside(struct ref_range inner, struct ref_range outer)
{
	return inner.first >= outer.first && inner.first + inner.count <= outer.first + outer.count;
}

static bool overlap(struct ref_range a, struct ref_range b)
{
	return a.first < b.first + b.count && b.first < a.first + a.count;
}

int ref_slot_of(const struct ref *r, struct ref_range range)
{
	for (uint32_t id = 0; id < REF_SLOTS; id++) {
		if (is_inside(range, r->slot[id]))
			return (int)id;
	}
	return -1;
}

static bool any(const struct ref *r, struct ref_range range, enum ref_state state)
{
	for (uint32_t i = 0; i < range.count; i++) {
		if (r->page[range.first + i].state == state)
			return true;
	}
	return false;
}

static bool all(const struct ref *r, struct ref_range range, enum ref_state state)
{
	for (uint32_t i = 0; i < range.count; i++) {
		if (r->page[range.first + i].state != state)
			return false;
	}
	return true;
}

static void fill(struct ref *r, struct ref_range range, enum ref_state state)
{
	for (uint32_t i = 0; i < range.count; i++)
		r->page[range.first + i] = (struct ref_page){.state = state};
}

/* No memory, normal, ready to be set up. */
static void empty(struct ref *r)
{
	memset(r->slot, 0, sizeof(r->slot));
	memset(r->page, 0, sizeof(r->page));
	r->security = REF_NORMAL;
	r->phase = REF_SETUP;
	r->incarnation++;
}

uint32_t ref_slot_add(struct ref *r, uint32_t id, struct ref_range range)
{
	if (r->security == REF_SWITCHING)
		return ABI_ST_WRONG_STATE;
	if (r->slot[id].count > 0)
		return ABI_ST_EXISTS;
	for (uint32_t i = 0; i < REF_SLOTS; i++) {
		if (overlap(range, r->slot[i]))
			return ABI_ST_EXISTS;
	}
	r->slot[id] = range;
	fill(r, range, r->security == REF_SECURE ? REF_PRIVATE : REF_OPEN);
	return ABI_ST_OK;
}

uint32_t ref_slot_delete(struct ref *r, uint32_t id)
{
	if (r->security == REF_SWITCHING)
		return ABI_ST_WRONG_STATE;
	if (r->slot[id].count == 0)
		return ABI_ST_NOT_FOUND;
	if (r->security == REF_SECURE && !all(r, r->slot[id], REF_RELEASED))
		return ABI_ST_BUSY;
	if (r->security == REF_NORMAL && r->phase == REF_RUNNING)
		return ABI_ST_BUSY;
	fill(r, r->slot[id], REF_NONE);
	r->slot[id] = (struct ref_range){0, 0};
	return ABI_ST_OK;
}

uint32_t ref_init_start(struct ref *r)
{
	uint32_t slots = 0;

	if (r->phase == REF_STOPPED || r->security != REF_NORMAL ||
		(r->phase == REF_RUNNING && !r->asked))
		return ABI_ST_WRONG_STATE;
	for (uint32_t id = 0; id < REF_SLOTS; id++)
		slots += r->slot[id].count > 0;
	if (slots == 0)
		return ABI_ST_NOT_FOUND;
	for (uint32_t i = 0; i < REF_PAGES; i++)
		r->page[i].taken = false;
	r->security = REF_SWITCHING;
	return ABI_ST_OK;
}

static bool is_asked_for(const struct ref *r, struct ref_range range)
{
	for (uint32_t i = 0; i < r->asked_count; i++) {
		if (is_inside(range, r->asked_range[i]))
			return true;
	}
	return r->phase == REF_SETUP;
}

uint32_t ref_page_in(struct ref *r, struct ref_range range)
{
	if (r->phase == REF_STOPPED || r->security != REF_SWITCHING)
		return ABI_ST_WRONG_STATE;
	if (ref_slot_of(r, range) < 0)
		return ABI_ST_NOT_FOUND;
	if (!is_asked_for(r, range))
		return ABI_ST_DENIED;
	for (uint32_t i = 0; i < range.count; i++) {
		if (r->page[range.first + i].taken)
			return ABI_ST_EXISTS;
	}
	for (uint32_t i = 0; i < range.count; i++) {
		struct ref_page *p = &r->page[range.first + i];

		p->taken = true;
		p->taken_content = p->content;
	}
	return ABI_ST_OK;
}

static bool is_complete(const struct ref *r)
{
	for (uint32_t i = 0; i < r->asked_count; i++) {
		struct ref_range a = r->asked_range[i];

		for (uint32_t n = 0; n < a.count; n++) {
			if (!r->page[a.first + n].taken)
				return false;
		}
	}
	return true;
}

uint32_t ref_init_done(struct ref *r)
{
	if (r->phase == REF_STOPPED || r->security != REF_SWITCHING)
		return ABI_ST_WRONG_STATE;
	if (r->phase == REF_RUNNING && !is_complete(r))
		return ABI_ST_NOT_FOUND;
	for (uint32_t i = 0; i < REF_PAGES; i++) {
		struct ref_page *p = &r->page[i];

		if (p->state == REF_NONE)
			continue;
		p->state = REF_PRIVATE;
		p->content = p->taken ? p->taken_content : 0;
	}
	r->security = REF_SECURE;
	return ABI_ST_OK;
}

uint32_t ref_init_abort(struct ref *r)
{
	if (r->security != REF_SWITCHING)
		return ABI_ST_WRONG_STATE;
	r->security = REF_NORMAL;
	return ABI_ST_OK;
}

uint32_t ref_start(struct ref *r)
{
	if (r->phase != REF_SETUP || r->security == REF_SWITCHING)
		return ABI_ST_WRONG_STATE;
	r->phase = REF_RUNNING;
	return ABI_ST_OK;
}

uint32_t ref_stop(struct ref *r)
{
	if (r->security == REF_SWITCHING)
		r->security = REF_NORMAL;
	ref_guest_stopped(r);
	return ABI_ST_OK;
}

uint32_t ref_prepare(struct ref *r)
{
	if (r->lazy_off)
		return ABI_ST_NOT_SUPPORTED;
	if (r->phase == REF_RUNNING)
		return ABI_ST_BUSY;
	if (r->security != REF_SECURE)
		return ABI_ST_NOTHING;
	if (r->set_aside)
		return ABI_ST_PENDING;
	r->set_aside = true;
	empty(r);
	return ABI_ST_OK;
}

/* Of a protected VM, it takes along what was set aside. */
uint32_t ref_reset(struct ref *r)
{
	if (r->phase == REF_RUNNING)
		return ABI_ST_BUSY;
	if (r->security == REF_SECURE || r->lazy_off)
		r->set_aside = false;
	empty(r);
	return ABI_ST_OK;
}

uint32_t ref_copy(const struct ref *r, struct ref_range range)
{
	if (r->security == REF_SWITCHING)
		return ABI_ST_WRONG_STATE;
	if (any(r, range, REF_NONE))
		return ABI_ST_NOT_FOUND;
	if (r->security == REF_SECURE && !all(r, range, REF_SHARED))
		return ABI_ST_DENIED;
	return ABI_ST_OK;
}

enum ref_conversion ref_convert(
	const struct ref *r, struct ref_range range, bool to_shared, uint32_t *ret_status)
{
	if (r->security != REF_SECURE)
		*ret_status = ABI_ST_NOTHING;
	else if (any(r, range, REF_NONE))
		*ret_status = ABI_ST_NOT_FOUND;
	else if (any(r, range, REF_RELEASED))
		*ret_status = ABI_ST_DENIED;
	else if (all(r, range, to_shared ? REF_SHARED : REF_PRIVATE))
		return REF_ALREADY;
	else
		return REF_ASKS_HYPERVISOR;
	return REF_REFUSED;
}

void ref_convert_commit(struct ref *r, struct ref_range range, bool to_shared)
{
	for (uint32_t i = 0; i < range.count; i++)
		r->page[range.first + i].state = to_shared ? REF_SHARED : REF_PRIVATE;
}

uint32_t ref_release(struct ref *r, struct ref_range range)
{
	if (r->security != REF_SECURE)
		return ABI_ST_NOTHING;
	if (any(r, range, REF_NONE))
		return ABI_ST_NOT_FOUND;
	if (any(r, range, REF_SHARED))
		return ABI_ST_DENIED;
	fill(r, range, REF_RELEASED);
	return ABI_ST_OK;
}

uint32_t ref_ask_protect(struct ref *r, const struct ref_range *range, uint32_t count)
{
	if (r->security != REF_NORMAL || r->asked)
		return ABI_ST_WRONG_STATE;
	for (uint32_t i = 0; i < count; i++) {
		if (ref_slot_of(r, range[i]) < 0)
			return ABI_ST_NOT_FOUND;
	}
	r->asked = true;
	r->asked_count = count;
	memcpy(r->asked_range, range, count * sizeof(*range));
	return ABI_ST_OK;
}

void ref_guest_stopped(struct ref *r)
{
	r->phase = REF_STOPPED;
	r->asked = false;
}
