/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test/unit/hv/leftovers.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define PATIENCE_MS 20000

struct inventory {
	unsigned int descriptors, mappings, threads, entries, children; /* no padding */
};

static char directory[64], uv_log[128];
static struct inventory before;

void runtime_dir_make(void)
{
	snprintf(directory, sizeof(directory), "/tmp/lethe-hv-XXXXXX");
	assert_non_null(mkdtemp(directory));
	assert_int_equal(setenv("LETHE_RUNTIME_DIR", directory, 1), 0);
}

void runtime_dir_remove(void)
{
	assert_int_equal(rmdir(directory), 0);
}

const char *runtime_dir(void)
{
	return directory;
}

void fake_uv_setup(void)
{
	runtime_dir_make();
	snprintf(uv_log, sizeof(uv_log), "%s-log", directory);
	setenv("FAKE_UV_LOG", uv_log, 1);
	unsetenv("FAKE_UV_MODE");
	unsetenv("FAKE_UV_FAIL");
	unsetenv("FAKE_UV_EXITS");
	leftovers_remember();
}

void fake_uv_teardown(void)
{
	leftovers_check();
	(void)unlink(uv_log);
	runtime_dir_remove();
}

const char *fake_uv_log(void)
{
	return uv_log;
}

void rerun_failing(const char *failpoint, const char *first, const char *second)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		setenv("LETHE_FAILPOINT", failpoint, 1);
		execl("/proc/self/exe", program_invocation_short_name, first, second, NULL);
		_exit(99);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (status != 0)
		fail_msg("%s: status %#x", failpoint, (unsigned int)status);
}

static unsigned int count_entries(const char *path)
{
	unsigned int n = 0;
	DIR *dir = opendir(path);

	assert_non_null(dir);
	while (readdir(dir) != NULL)
		n++;
	closedir(dir);
	return n;
}

static unsigned int count_mappings(void)
{
	unsigned int n = 0;
	char line[512];
	FILE *f = fopen("/proc/self/maps", "re");

	assert_non_null(f);
	while (fgets(line, sizeof(line), f) != NULL)
		n += strstr(line, "memfd:lethe") != NULL || strstr(line, "/status") != NULL;
	fclose(f);
	return n;
}

static struct inventory look(void)
{
	siginfo_t unused;

	return (struct inventory){
		.descriptors = count_entries("/proc/self/fd"),
		.mappings = count_mappings(),
		.threads = count_entries("/proc/self/task"),
		.entries = count_entries(directory),
		.children = waitid(P_ALL, 0, &unused, WEXITED | WNOHANG | WNOWAIT) == 0,
	};
}

static void *do_nothing(void *arg)
{
	return arg;
}

void leftovers_remember(void)
{
	pthread_t thread;

	/* ThreadSanitizer starts one of its own with the first. */
	assert_int_equal(pthread_create(&thread, NULL, do_nothing, NULL), 0);
	pthread_join(thread, NULL);
	before = look();
}

void leftovers_check(void)
{
	struct inventory now = look();

	/* What is freed on threads of their own needs its moment. */
	for (unsigned int ms = 0; ms < PATIENCE_MS; ms++) {
		if (memcmp(&now, &before, sizeof(now)) == 0)
			return;
		usleep(1000);
		now = look();
	}
	assert_int_equal(now.descriptors, before.descriptors);
	assert_int_equal(now.mappings, before.mappings);
	assert_int_equal(now.threads, before.threads);
	assert_int_equal(now.entries, before.entries);
	assert_int_equal(now.children, before.children);
}
