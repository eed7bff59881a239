/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Failpoints: named places where a test can make the program fail or die.
 *
 *	ret = failpoint("window-map");
 *	if (ret < 0)
 *		return ret;
 *
 * The environment variable LETHE_FAILPOINT=NAME[:NTH[:WHAT]] chooses one: the NTH time
 * (1 by default) that this process reaches NAME, failpoint() returns -WHAT (an errno as
 * a name or number, ENOMEM by default) or, if WHAT is `kill`, `term` or `stop`, the process
 * sends itself SIGKILL, SIGTERM or SIGSTOP and, if it goes on, failpoint() returns 0.  All
 * other times, and for all other names, it returns 0.
 *
 * Only in builds with -Dfailpoints=true, which are for tests; in others failpoint() is
 * the constant 0 and nothing looks at the environment.  The variable is read at the
 * first failpoint that the process reaches, and a malformed one ends the process there:
 * a test must not pass because of a typing error.
 *
 * A name is lower-case words joined by `-`, and belongs to one place in the source.
 */
#ifndef BASE_FAILPOINT_H
#define BASE_FAILPOINT_H

#ifdef LETHE_FAILPOINTS
/* Thread-safe.  Makes no system call but to send a signal. */
int failpoint(const char *name);
#else
static inline int failpoint(const char *name)
{
	return 0;
}
#endif

#endif
