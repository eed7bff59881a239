/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Watches the ultravisor's windows from below: os/window.h is linked through here.
 *
 * What is private must be all zeros when it is given back to the kernel, nothing is given
 * back or unmapped twice, and in the end no window is left.
 */
#ifndef DESTROY_WATCH_H
#define DESTROY_WATCH_H

#include <stdbool.h>
#include <stdint.h>

/* With --wipe off the kernel clears memory: content may be given back as it is. */
void watch_expect_wiping(bool on);

/* Windows that are mapped now, and whether one of them holds private memory. */
unsigned int watch_windows(void);
bool watch_any_private(void);

/* Says what went wrong, how to see it again, and ends the process.  Any thread. */
__attribute__((noreturn, format(printf, 1, 2))) void model_die(const char *format, ...);

#endif
