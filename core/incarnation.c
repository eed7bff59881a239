/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "core/incarnation.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>

static const uint8_t edges[5] = {
	[INC_SET_ASIDE] = 1 << INC_DESTROYING | 1 << INC_LEFT,
	[INC_LEFT] = 1 << INC_DESTROYING,
	[INC_DESTROYING] = 1 << INC_LEFT | 1 << INC_DONE | 1 << INC_QUARANTINED,
	[INC_DONE] = 0,
	[INC_QUARANTINED] = 0,
};

bool incarnation_set_state(struct incarnation *inc, enum incarnation_state to)
{
	if ((edges[inc->state] & 1 << to) == 0)
		return false;
	inc->state = to;
	return true;
}

struct incarnation *incarnation_find(
	const struct incarnation_queue *q, enum incarnation_state state)
{
	for (struct incarnation *i = q->first; i != NULL; i = i->next) {
		if (i->state == state)
			return i;
	}
	return NULL;
}

int incarnation_push(struct incarnation_queue *q, struct incarnation *inc)
{
	struct incarnation **at = &q->first;

	assert(inc->state == INC_SET_ASIDE || inc->state == INC_LEFT);
	if (inc->state == INC_SET_ASIDE && incarnation_find(q, INC_SET_ASIDE) != NULL)
		return -EALREADY;
	while (*at != NULL)
		at = &(*at)->next;
	inc->next = NULL;
	*at = inc;
	return 0;
}

void incarnation_remove(struct incarnation_queue *q, struct incarnation *inc)
{
	struct incarnation **at = &q->first;

	while (*at != inc) {
		assert(*at != NULL);
		at = &(*at)->next;
	}
	*at = inc->next;
	inc->next = NULL;
}
