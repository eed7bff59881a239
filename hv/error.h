/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef HV_ERROR_H
#define HV_ERROR_H

/* Keeps one line for lethe_error() and returns @err. */
int fail(int err, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
