/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/failpoint.h"

#ifdef LETHE_FAILPOINTS

#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

#define ERRNO_MAX      4095
#define NAME_MAX_BYTES 64

static struct {
	char name[NAME_MAX_BYTES]; /* empty: none chosen */
	unsigned long nth;
	int error;  /* positive errno; 0: a signal */
	int signal; /* that this process sends to itself */
	atomic_ulong hits;
} chosen;

static const struct {
	const char *name;
	int number;
} signals[] = {{"kill", SIGKILL}, {"term", SIGTERM}, {"stop", SIGSTOP}};

static pthread_once_t chosen_once = PTHREAD_ONCE_INIT;

static bool parse_nth(const char *text, size_t len)
{
	char *end;

	chosen.nth = strtoul(text, &end, 10);
	return isdigit((unsigned char)text[0]) && end == text + len && chosen.nth > 0;
}

static bool parse_what(const char *text)
{
	char *end;
	long number;

	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
		if (strcmp(text, signals[i].name) == 0) {
			chosen.signal = signals[i].number;
			chosen.error = 0;
			return true;
		}
	}
	number = strtol(text, &end, 10);
	if (isdigit((unsigned char)text[0])) {
		chosen.error = (int)number;
		return *end == '\0' && number > 0 && number <= ERRNO_MAX;
	}
	for (chosen.error = 1; chosen.error <= ERRNO_MAX; chosen.error++) {
		const char *name = strerrorname_np(chosen.error);

		if (name && strcmp(name, text) == 0)
			return true;
	}
	return false;
}

/* Fills `chosen` from NAME[:NTH[:WHAT]]. */
static bool parse_choice(const char *text)
{
	size_t len = strcspn(text, ":");

	if (len == 0 || len >= sizeof(chosen.name))
		return false;
	memcpy(chosen.name, text, len);
	chosen.nth = 1;
	chosen.error = ENOMEM;
	text += len;
	if (*text == '\0')
		return true;
	text++;
	len = strcspn(text, ":");
	if (!parse_nth(text, len))
		return false;
	text += len;
	return *text == '\0' || parse_what(text + 1);
}

static void choose(void)
{
	const char *text = getenv("LETHE_FAILPOINT");

	if (!text)
		return;
	if (!parse_choice(text)) {
		log_error("LETHE_FAILPOINT=%s: not NAME[:NTH[:ERRNO, kill, term or stop]]", text);
		abort();
	}
}

int failpoint(const char *name)
{
	pthread_once(&chosen_once, choose);
	if (strcmp(chosen.name, name) != 0 || atomic_fetch_add(&chosen.hits, 1) + 1 != chosen.nth)
		return 0;
	if (chosen.error == 0)
		kill(getpid(), chosen.signal);
	return -chosen.error;
}

#endif
