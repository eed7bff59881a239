/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/table.h"

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#include "base/size.h"
#include "base/types.h"

#define CELL_BYTES   128
#define COLUMN_COUNT 5

enum column { COLUMN_OPERATION, COLUMN_MEMORY, COLUMN_WAITED, COLUMN_EAGER, COLUMN_BEHIND };

struct row {
	char cell[COLUMN_COUNT][CELL_BYTES];
};

/* The mean of @count times as text, "-" of none. */
static void mean_format(uint64_t ns, uint64_t count, char *cell)
{
	if (count)
		duration_format(ns / count, cell, CELL_BYTES);
	else
		snprintf(cell, CELL_BYTES, "-");
}

/* "NAME", or "NAME (3 times)". */
static void name_format(const char *name, uint64_t count, char *cell)
{
	if (count > 1)
		snprintf(cell, CELL_BYTES, "%s (%" PRIu64 " times)", name, count);
	else
		snprintf(cell, CELL_BYTES, "%s", name);
}

static bool protect_row(const struct costs *lazy, const struct costs *eager, struct row *row)
{
	char copied[32], secured[32];

	if (!lazy->protect.count)
		return false;
	name_format("protect", lazy->protect.count, row->cell[COLUMN_OPERATION]);
	size_format(lazy->memory_bytes, row->cell[COLUMN_MEMORY], CELL_BYTES);
	mean_format(lazy->protect.guest_ns, lazy->protect.count, row->cell[COLUMN_WAITED]);
	mean_format(eager->protect.guest_ns, eager->protect.count, row->cell[COLUMN_EAGER]);
	size_format(lazy->protect.pages_copied / lazy->protect.count * PAGE_SIZE, copied,
		sizeof(copied));
	size_format(lazy->protect.pages_secured / lazy->protect.count * PAGE_SIZE, secured,
		sizeof(secured));
	snprintf(row->cell[COLUMN_BEHIND], CELL_BYTES,
		"%s copied and measured, %s secure without a copy", copied, secured);
	return true;
}

static bool dma_row(const struct costs *lazy, const struct costs *eager, struct row *row)
{
	if (!lazy->dma.count)
		return false;
	name_format("share, transfer, unshare", lazy->dma.count, row->cell[COLUMN_OPERATION]);
	size_format(lazy->dma.bytes, row->cell[COLUMN_MEMORY], CELL_BYTES);
	mean_format(lazy->dma.guest_ns, lazy->dma.count, row->cell[COLUMN_WAITED]);
	mean_format(eager->dma.guest_ns, eager->dma.count, row->cell[COLUMN_EAGER]);
	snprintf(row->cell[COLUMN_BEHIND], CELL_BYTES, "stale shared pages discarded in batches");
	return true;
}

static void forgetting_format(const struct costs *costs, char *cell)
{
	char bytes[32], duration[32];

	if (!costs->destroy.count) {
		snprintf(cell, CELL_BYTES, "nothing yet");
		return;
	}
	snprintf(cell, CELL_BYTES, "%s %s in %s%s",
		size_format(costs->destroy.bytes, bytes, sizeof(bytes)),
		costs->wiped ? "wiped" : "freed",
		duration_format(costs->destroy.duration_ns, duration, sizeof(duration)),
		costs->destroy.cancelled ? ", the rest after the end" : "");
}

static bool reboot_row(const struct costs *lazy, const struct costs *eager, struct row *row)
{
	if (!lazy->reboot.count)
		return false;
	name_format("reboot", lazy->reboot.count, row->cell[COLUMN_OPERATION]);
	size_format(lazy->memory_bytes, row->cell[COLUMN_MEMORY], CELL_BYTES);
	mean_format(lazy->reboot.guest_ns, lazy->reboot.count, row->cell[COLUMN_WAITED]);
	mean_format(eager->reboot.guest_ns, eager->reboot.count, row->cell[COLUMN_EAGER]);
	forgetting_format(lazy, row->cell[COLUMN_BEHIND]);
	return true;
}

static bool poweroff_row(const struct costs *lazy, const struct costs *eager, struct row *row)
{
	char freed[32];

	if (!lazy->poweroff.count)
		return false;
	name_format("power off", 1, row->cell[COLUMN_OPERATION]);
	size_format(lazy->memory_bytes, row->cell[COLUMN_MEMORY], CELL_BYTES);
	mean_format(lazy->poweroff.guest_ns, 1, row->cell[COLUMN_WAITED]);
	mean_format(eager->poweroff.guest_ns, eager->poweroff.count, row->cell[COLUMN_EAGER]);
	if (lazy->poweroff.freed_ns)
		snprintf(row->cell[COLUMN_BEHIND], CELL_BYTES, "all memory %s after %s",
			lazy->wiped ? "wiped" : "freed",
			duration_format(lazy->poweroff.freed_ns, freed, sizeof(freed)));
	else
		snprintf(row->cell[COLUMN_BEHIND], CELL_BYTES,
			"the ultravisor forgets the rest (lethe ps)");
	return true;
}

typedef bool (*row_fn)(const struct costs *lazy, const struct costs *eager, struct row *row);

static const row_fn row_functions[] = {protect_row, dma_row, reboot_row, poweroff_row};

#define ROW_MAX (1 + sizeof(row_functions) / sizeof(row_functions[0]))

/* Prints the columns as wide as their widest cell; without @with_eager, not that one. */
static void print_rows(FILE *out, const struct row *rows, size_t count, bool with_eager)
{
	int width[COLUMN_COUNT] = {0};

	for (size_t r = 0; r < count; r++) {
		for (int c = 0; c < COLUMN_COUNT; c++) {
			int length = (int)strlen(rows[r].cell[c]);

			width[c] = length > width[c] ? length : width[c];
		}
	}
	for (size_t r = 0; r < count; r++) {
		for (int c = 0; c < COLUMN_BEHIND; c++) {
			if (c != COLUMN_EAGER || with_eager)
				fprintf(out, c == COLUMN_OPERATION ? "%-*s  " : "%*s  ", width[c],
					rows[r].cell[c]);
		}
		fprintf(out, "%s\n", rows[r].cell[COLUMN_BEHIND]);
	}
}

void table_print(FILE *out, const struct costs *lazy, const struct costs *eager)
{
	static const struct row head = {
		{"operation", "memory", "guest waited", "the old way", "what went on behind"}};
	static const struct costs none;
	struct row rows[ROW_MAX];
	size_t count = 1;

	rows[0] = head;
	for (size_t i = 0; i < ROW_MAX - 1; i++) {
		if (row_functions[i](lazy, eager ? eager : &none, &rows[count]))
			count++;
	}
	if (count > 1)
		print_rows(out, rows, count, eager != NULL);
}
