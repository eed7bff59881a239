/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "core/vm_state.h"

#include <stddef.h>

#include "base/log.h"

struct edge {
	int from, to;
};

static const struct edge phase_edges[] = {
	{PHASE_NEW, PHASE_GREETED}, {PHASE_GREETED, PHASE_SETUP}, {PHASE_SETUP, PHASE_RUNNING},
	{PHASE_SETUP, PHASE_STOPPED}, /* stopped before its first instruction */
	{PHASE_RUNNING, PHASE_STOPPED}, {PHASE_STOPPED, PHASE_SETUP}, /* the next incarnation */
	{PHASE_SETUP, PHASE_SETUP},                                   /* reset before start */
};

static const struct edge security_edges[] = {
	{SECURITY_NORMAL, SECURITY_TRANSIENT}, {SECURITY_TRANSIENT, SECURITY_SECURE},
	{SECURITY_TRANSIENT, SECURITY_NORMAL}, /* abort, reset */
	{SECURITY_SECURE, SECURITY_NORMAL},    /* set aside, reset */
	{SECURITY_NORMAL, SECURITY_NORMAL},    /* reset of a normal VM */
};

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static bool has_edge(const struct edge *table, size_t count, int from, int to)
{
	for (size_t i = 0; i < count; i++) {
		if (table[i].from == from && table[i].to == to)
			return true;
	}
	return false;
}

struct vm_state vm_state_initial(void)
{
	return (struct vm_state){.phase = PHASE_NEW, .security = SECURITY_NORMAL};
}

bool vm_state_set_phase(struct vm_state *s, enum vm_phase to)
{
	if (!has_edge(phase_edges, COUNT(phase_edges), (int)s->phase, (int)to))
		return false;
	log_debug("phase %s -> %s", vm_phase_name(s->phase), vm_phase_name(to));
	s->phase = to;
	return true;
}

bool vm_state_set_security(struct vm_state *s, enum vm_security to)
{
	if (!has_edge(security_edges, COUNT(security_edges), (int)s->security, (int)to))
		return false;
	log_debug("security %s -> %s", vm_security_name(s->security), vm_security_name(to));
	s->security = to;
	return true;
}

const char *vm_phase_name(enum vm_phase phase)
{
	switch (phase) {
	case PHASE_NEW:
		return "new";
	case PHASE_GREETED:
		return "greeted";
	case PHASE_SETUP:
		return "setup";
	case PHASE_RUNNING:
		return "running";
	case PHASE_STOPPED:
		return "stopped";
	}
	return "?";
}

const char *vm_security_name(enum vm_security security)
{
	switch (security) {
	case SECURITY_NORMAL:
		return "normal";
	case SECURITY_TRANSIENT:
		return "transient";
	case SECURITY_SECURE:
		return "secure";
	}
	return "?";
}
