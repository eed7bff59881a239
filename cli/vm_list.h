/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The list of VMs for people, as ps and top show it. */
#ifndef CLI_VM_LIST_H
#define CLI_VM_LIST_H

#include <stdio.h>

#include "lethe/lethe.h"

/* Fetches the VMs.  False: it failed, and that was logged.  Caller frees *ret_entries. */
bool vm_list_get(struct lethe_ps_entry **ret_entries, size_t *ret_count);

/* When nothing will be left to forget, in *ret_ns from now.  False: not known. */
bool vm_list_eta(const struct lethe_ps_entry *entry, uint64_t *ret_ns);

void vm_list_print(FILE *out, const struct lethe_ps_entry *entries, size_t count);

#endif
