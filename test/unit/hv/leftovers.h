/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a VM must not leave behind in this process and around it. */
#ifndef TEST_HV_LEFTOVERS_H
#define TEST_HV_LEFTOVERS_H

#include <stdbool.h>

/* Makes a runtime directory of this test's own, empty, and names it in the environment. */
void runtime_dir_make(void);
void runtime_dir_remove(void);
const char *runtime_dir(void);

/* Remembers what there is now. */
void leftovers_remember(void);

/*
 * Fails the test unless, within a while, there are no more descriptors, shared mappings,
 * threads, children and runtime entries than were remembered.
 */
void leftovers_check(void);

#endif
