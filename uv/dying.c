/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "uv/dying.h"

#include <stdlib.h>

#include "base/failpoint.h"
#include "uv/sweeper.h"

struct dying *dying_new(uint64_t number)
{
	struct dying *d = failpoint("uv-dying") < 0 ? NULL : calloc(1, sizeof(*d));

	if (d == NULL)
		return NULL;
	d->inc.number = number;
	for (unsigned int i = 0; i < SLOTS_MAX; i++)
		d->memfd[i] = -1;
	return d;
}

void dying_free(struct dying *d)
{
	free(d);
}

uint64_t dying_bytes(const struct uv_vm *vm)
{
	uint64_t left = 0;

	for (const struct incarnation *i = vm->dying.first; i != NULL; i = i->next)
		left += ((const struct dying *)i)->left;
	if (vm->dying_now != NULL)
		left += vm->dying_now->left;
	return left;
}

void dying_leave(struct uv_vm *vm, struct dying *d, bool background)
{
	d->inc.state = INC_LEFT;
	d->background = background;
	/* Only a second SET_ASIDE is ever refused. */
	(void)incarnation_push(&vm->dying, &d->inc);
	if (background)
		sweeper_wake(vm->sweeper);
}
