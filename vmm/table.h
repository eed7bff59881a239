/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The table at the end of a run: what each whole-VM operation cost. */
#ifndef VMM_TABLE_H
#define VMM_TABLE_H

#include <stdio.h>

#include "vmm/costs.h"

/*
 * Prints a row for every operation that happened: the memory, how long the guest waited
 * (the mean, where there were several) and what went on behind.  @eager (NULL: no such
 * column): the same run done the old way.
 */
void table_print(FILE *out, const struct costs *lazy, const struct costs *eager);

#endif
