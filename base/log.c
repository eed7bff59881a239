/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Log lines.  A line is formatted into a fixed buffer (longer ones are cut) and handed
 * to the sink as a whole, so that lines of several threads do not mix.  Text that came
 * from outside may be in a line: control characters are replaced, so that one call is
 * always one line.
 */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

#define LINE_BYTES 1024

static void sink_stderr(enum log_level level, const char *line);

static const char *program_name = "lethe";
static enum log_level level_limit = LOG_WARN;
static log_sink_fn line_sink = sink_stderr;

static void sink_stderr(enum log_level level, const char *line)
{
	fprintf(stderr, "%s: %s\n", program_name, line);
}

void log_setup(const char *program, enum log_level max_level, log_sink_fn sink_or_null)
{
	program_name = program;
	level_limit = max_level;
	line_sink = sink_or_null ? sink_or_null : sink_stderr;
}

void log_line(enum log_level level, const char *format, ...)
{
	char line[LINE_BYTES];
	va_list args;

	if (level > level_limit)
		return;
	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	for (char *c = line; *c; c++) {
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
	}
	line_sink(level, line);
}
