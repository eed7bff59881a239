/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "uv/meter.h"

#include <assert.h>
#include <string.h>

#include "os/clock.h"

#define SLOT_NS (NS_PER_SEC / METER_SLOTS)
#define SLOTS   (METER_SLOTS + 1)

void meter_begin(struct meter *m, uint64_t now)
{
	if (m->active++ > 0)
		return;
	m->offset_ns += now - m->seen_ns;
	m->seen_ns = now;
}

/* Moves on to the slot of @now; what is older than a second is forgotten. */
static void move_on(struct meter *m, uint64_t now)
{
	uint64_t slot = (now - m->offset_ns) / SLOT_NS;

	if (slot - m->slot >= SLOTS)
		memset(m->bytes, 0, sizeof(m->bytes));
	else
		for (uint64_t s = m->slot + 1; s <= slot; s++)
			m->bytes[s % SLOTS] = 0;
	m->slot = slot;
	m->seen_ns = now;
}

void meter_end(struct meter *m, uint64_t now)
{
	assert(m->active > 0);
	m->active--;
	move_on(m, now);
}

void meter_add(struct meter *m, uint64_t now, uint64_t bytes)
{
	assert(m->active > 0);
	move_on(m, now);
	m->bytes[m->slot % SLOTS] += bytes;
}

uint64_t meter_rate(const struct meter *m)
{
	uint64_t oldest = m->slot < METER_SLOTS ? 0 : m->slot - METER_SLOTS;
	uint64_t span = m->seen_ns - m->offset_ns - oldest * SLOT_NS, sum = 0;

	for (unsigned int i = 0; i < SLOTS; i++)
		sum += m->bytes[i];
	return span == 0 ? 0 : (uint64_t)((double)sum * 1e9 / (double)span);
}
