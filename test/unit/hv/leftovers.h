/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a VM must not leave behind in this process and around it. */
#ifndef TEST_HV_LEFTOVERS_H
#define TEST_HV_LEFTOVERS_H

#include <stdbool.h>

/* Makes a runtime directory of this test's own, empty, and names it in the environment. */
void runtime_dir_make(void);
void runtime_dir_remove(void);
const char *runtime_dir(void);

/*
 * For tests with the stand-in for lethe-uv (fake_uv.c): a runtime directory, and a log beside
 * it of what the stand-in is asked.  At the end nothing may be left.
 */
void fake_uv_setup(void);
void fake_uv_teardown(void);
const char *fake_uv_log(void);

/*
 * Runs this program with these arguments (@second may be NULL) in a process where @failpoint
 * fails, because the choice is read once.  It must end with status 0.
 */
void rerun_failing(const char *failpoint, const char *first, const char *second);

/* Remembers what there is now. */
void leftovers_remember(void);

/*
 * Fails the test unless, within a while, there are no more descriptors, shared mappings,
 * threads, children and runtime entries than were remembered.
 */
void leftovers_check(void);

#endif
