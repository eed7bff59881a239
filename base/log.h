/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Log lines: one line each, a level, a program-wide sink.
 *
 * The default sink writes "PROGRAM: text" to standard error.  Until log_setup() is called,
 * lines above LOG_WARN are dropped.
 * lethe-uv, which has no standard error of its own, installs another sink.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

typedef void (*log_sink_fn)(enum log_level level, const char *line);

/* Lines above @max_level are dropped.  Not thread-safe: call at start. */
void log_setup(const char *program, enum log_level max_level, log_sink_fn sink_or_null);

void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)
#define log_warn(...)  log_line(LOG_WARN, __VA_ARGS__)
#define log_info(...)  log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_DEBUG, __VA_ARGS__)

#endif
