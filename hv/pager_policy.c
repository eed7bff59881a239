/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Paging out by itself: while memory is short, a little of what was not used for longest.
 *
 * Once a second the thread looks at how short the ultravisor finds memory (its status page:
 * what is left to the machine and to its control group).  It begins when that was so twice in a
 * row, and goes on until there is no pressure any more.  If most of what went out has come back
 * by the next look, the guest needs what it has: each time the pause doubles, up to half a
 * minute, until a look finds less coming back.  After a failure the pause is the longest.
 */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "hv/pager_impl.h"

#define PAUSE_MS     1000u
#define PAUSE_MS_MAX 32000u

#define BYTES_RAISED ((uint64_t)16 << 20)
#define BYTES_HIGH   ((uint64_t)64 << 20)

uint64_t pager_policy_look(struct pager_policy *s, uint32_t pressure, uint64_t pages_in)
{
	uint64_t came_back = pages_in - s->pages_in;
	bool is_short = pressure > 0;

	if (s->pages_out > 0 && came_back > s->pages_out / 2)
		s->pause_ms = s->pause_ms < PAUSE_MS_MAX / 2 ? s->pause_ms * 2 : PAUSE_MS_MAX;
	else
		s->pause_ms = PAUSE_MS;
	s->active = is_short && (s->active || s->was_short);
	s->was_short = is_short;
	s->pages_in = pages_in;
	s->pages_out = 0;
	if (!s->active)
		return 0;
	return pressure > 1 ? BYTES_HIGH : BYTES_RAISED;
}

void pager_policy_done(struct pager_policy *s, uint64_t pages, int err)
{
	s->pages_out = pages;
	/* Not protected, or a conversion everywhere: that passes. */
	if (err < 0 && err != -EPROTO && err != -EAGAIN)
		s->pause_ms = PAUSE_MS_MAX;
}

static bool may_page_out(struct lethe_vm *vm, uint64_t *ret_pages_in)
{
	bool may;

	pthread_mutex_lock(&vm->lock);
	may = vm->is_protected;
	*ret_pages_in = vm->pager != NULL ? vm->pager->pages_in : 0;
	pthread_mutex_unlock(&vm->lock);
	return may;
}

static void report(struct pager *p, int err, int *last)
{
	if (err < 0 && err != *last && err != -EPROTO && err != -EAGAIN && err != -EPIPE &&
		err != -ECANCELED)
		log_warn("memory is short and nothing can be paged out: %s", strerror(-err));
	*last = err;
}

void *pager_policy_thread(void *arg)
{
	struct pager *p = arg;
	struct pager_policy s = {.pause_ms = PAUSE_MS};
	uint64_t pages_in;
	int last = 0;

	while (pager_pause(p, s.pause_ms)) {
		uint32_t pressure = __atomic_load_n(&p->vm->status->pressure, __ATOMIC_RELAXED);
		bool may = may_page_out(p->vm, &pages_in);
		uint64_t pages = 0, bytes = pager_policy_look(&s, may ? pressure : 0, pages_in);
		int err = 0;

		if (bytes == 0)
			continue;
		err = pager_out_cold(p, bytes, &pages);
		pager_policy_done(&s, pages, err);
		report(p, err, &last);
	}
	return NULL;
}
