/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "os/pressure.h"

#include <stdatomic.h>
#include <unistd.h>

#include "os/clock.h"

/*
 * Stalls of 5% of two seconds.  Who has no privilege may only ask for windows that are
 * multiples of two seconds.
 */
#define TRIGGER "some 100000 2000000"

/* A trigger fires at most once in its window: silence that is longer means relief. */
#define STALL_NS (3 * NS_PER_SEC)

void pressure_arm(struct meminfo *m)
{
	static const char trigger[] = TRIGGER;

	if (m->armed)
		return;
	for (int i = 0; i < 2; i++) {
		if (m->pressure[i] < 0 ||
			write(m->pressure[i], trigger, sizeof(trigger)) == (ssize_t)sizeof(trigger))
			continue;
		close(m->pressure[i]);
		m->pressure[i] = -1;
	}
	m->armed = true;
}

unsigned int pressure_fds(const struct meminfo *m, struct pollfd *ret)
{
	unsigned int n = 0;

	/* A file without a trigger would look as if it had fired. */
	for (int i = 0; i < 2 && m->armed; i++) {
		if (m->pressure[i] >= 0)
			ret[n++] = (struct pollfd){.fd = m->pressure[i], .events = POLLPRI};
	}
	for (unsigned int i = 0; i < m->levels; i++) {
		if (m->level[i].events >= 0)
			ret[n++] = (struct pollfd){.fd = m->level[i].events, .events = POLLPRI};
	}
	return n;
}

/*
 * The file of a cgroup that is gone, which a process can outlive by being moved elsewhere.
 * It would be readable for ever.
 */
static void forget_file(int *fd)
{
	close(*fd);
	*fd = -1;
}

/* Whether the file of @l, which changed, tells of a limit that was hit. */
static bool is_hit(struct meminfo_level *l)
{
	uint64_t before = l->hits;

	if (!meminfo_hits(l, &l->hits))
		forget_file(&l->events);
	return l->hits != before;
}

/* The same of a PSI trigger, which tells of nothing else.  Only a dead one has errors. */
static bool is_stall(int *trigger, short revents)
{
	if ((revents & POLLERR) != 0)
		forget_file(trigger);
	return (revents & POLLERR) == 0;
}

static bool tells_of_pressure(struct meminfo *m, const struct pollfd *fd)
{
	for (unsigned int i = 0; i < m->levels; i++) {
		if (m->level[i].events == fd->fd)
			return is_hit(&m->level[i]);
	}
	return is_stall(&m->pressure[m->pressure[0] != fd->fd], fd->revents);
}

void pressure_polled(struct meminfo *m, const struct pollfd *fds, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++) {
		if ((fds[i].revents & POLLPRI) != 0 && tells_of_pressure(m, &fds[i]))
			atomic_store(&m->stalled_until_ns, clock_ns() + STALL_NS);
	}
}

static enum pressure level_of(uint64_t left, uint64_t all)
{
	if (all == UINT64_MAX)
		return PRESSURE_NONE;
	return left < all / 32 ? PRESSURE_HIGH : left < all / 8 ? PRESSURE_RAISED : PRESSURE_NONE;
}

enum pressure pressure_level(const struct meminfo *m)
{
	struct meminfo_now now;
	enum pressure machine, cgroup, stall;

	meminfo_read(m, &now);
	machine = level_of(now.available, now.total);
	cgroup = level_of(now.room, now.limit);
	stall = clock_ns() < atomic_load(&m->stalled_until_ns) ? PRESSURE_RAISED : PRESSURE_NONE;
	if (cgroup > machine)
		machine = cgroup;
	return stall > machine ? stall : machine;
}
