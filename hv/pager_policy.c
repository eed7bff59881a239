/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Paging out by itself: while memory is short, a little of what was not used for longest.
 *
 * Twenty times a second the thread looks at what is left to the machine and to its control
 * groups (os/pressure.h).  While that is little, something goes out at each look; while it is
 * very little, looks follow each other.  If most of what went out has come back by the next
 * look, the guest needs what it has: each time the pause doubles, until a look finds less coming
 * back.  Where nothing can be done the pause is the longest.
 */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "hv/pager_impl.h"
#include "os/pressure.h"

#define PAUSE_MS          50u
#define PAUSE_MS_HIGH     5u
#define PAUSE_MS_MAX      3200u
#define PAUSE_MS_MAX_HIGH 400u

#define BYTES_RAISED ((uint64_t)16 << 20)
#define BYTES_HIGH   ((uint64_t)32 << 20)

uint64_t pager_policy_look(struct pager_policy *s, enum pressure pressure, uint64_t pages_in)
{
	bool high = pressure == PRESSURE_HIGH;
	unsigned int most = high ? PAUSE_MS_MAX_HIGH : PAUSE_MS_MAX;

	if (s->pages_out > 0 && pages_in - s->pages_in > s->pages_out / 2)
		s->pause_ms = s->pause_ms < most / 2 ? s->pause_ms * 2 : most;
	else
		s->pause_ms = high ? PAUSE_MS_HIGH : PAUSE_MS;
	s->pages_in = pages_in;
	s->pages_out = 0;
	return high ? BYTES_HIGH : pressure == PRESSURE_RAISED ? BYTES_RAISED : 0;
}

void pager_policy_done(struct pager_policy *s, uint64_t pages, int err)
{
	s->pages_out = pages;
	/* A conversion passes. */
	if (err == 0 ? pages == 0 : err != -EAGAIN)
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

static void look(struct pager *p, const struct meminfo *m, struct pager_policy *s, int *last)
{
	uint64_t pages_in, pages = 0, bytes;
	bool may = may_page_out(p->vm, &pages_in);
	int err;

	bytes = pager_policy_look(s, may ? pressure_level(m) : PRESSURE_NONE, pages_in);
	if (bytes == 0)
		return;
	err = pager_out_cold(p, bytes, &pages);
	pager_policy_done(s, pages, err);
	report(p, err, last);
}

void pager_policy_thread(struct pager_thread *t)
{
	struct pager *p = t->pager;
	struct pager_policy s = {.pause_ms = PAUSE_MS};
	struct meminfo m;
	int last = 0;

	meminfo_open(&m, "");
	while (pager_pause(p, s.pause_ms))
		look(p, &m, &s, &last);
	meminfo_close(&m);
}
