/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Memory limits, read from a made-up /proc and /sys, and from the real ones. */
#include <dirent.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "os/meminfo.h"

#define MIB ((uint64_t)1 << 20)

static char root[] = "/tmp/meminfo-test-XXXXXX";

/* Writes a file, and the folders on the way to it. */
static void put(const char *path, const char *text)
{
	char full[512];
	FILE *f;

	snprintf(full, sizeof(full), "%s%s", root, path);
	for (char *at = full + strlen(root) + 1; (at = strchr(at, '/')) != NULL; at++) {
		*at = '\0';
		mkdir(full, 0755);
		*at = '/';
	}
	f = fopen(full, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	return remove(path);
}

static int setup(void **state)
{
	strcpy(root + strlen(root) - 6, "XXXXXX");
	assert_non_null(mkdtemp(root));
	put("/proc/meminfo", "MemTotal:       1048576 kB\nMemFree:   1 kB\n"
			     "MemAvailable:    524288 kB\n");
	return 0;
}

static int teardown(void **state)
{
	return nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static struct meminfo_now ask(void)
{
	struct meminfo m;
	struct meminfo_now now;

	meminfo_open(&m, root);
	meminfo_read(&m, &now);
	meminfo_close(&m);
	return now;
}

static void test_machine_only(void **state)
{
	struct meminfo_now now = ask();

	assert_int_equal(now.total, 1024 * MIB);
	assert_int_equal(now.available, 512 * MIB);
	assert_true(now.limit == UINT64_MAX && now.room == UINT64_MAX);
}

static void test_nothing_is_known(void **state)
{
	struct meminfo_now now;

	put("/proc/meminfo", "nonsense\n");
	now = ask();
	assert_true(now.total == UINT64_MAX && now.available == UINT64_MAX);
	put("/proc/meminfo", "");
	now = ask();
	assert_true(now.available == UINT64_MAX);
}

static void mount_v2(const char *cgroup)
{
	put("/proc/self/mountinfo", "22 1 0:20 / /proc rw - proc proc rw\n"
				    "31 23 0:28 / /cg rw,relatime shared:4 - cgroup2 cgroup rw\n");
	put("/proc/self/cgroup", cgroup);
}

static void test_version_2(void **state)
{
	struct meminfo_now now;

	mount_v2("0::/a/b\n");
	put("/cg/a/b/memory.max", "max\n");
	put("/cg/a/b/memory.high", "104857600\n");
	put("/cg/a/b/memory.current", "52428800\n");
	put("/cg/a/b/memory.stat", "anon 1\nfile 5\ninactive_file 10485760\nslab 3\n");
	now = ask();
	assert_int_equal(now.limit, 100 * MIB);
	assert_int_equal(now.room, 60 * MIB);
	/* The one around it is tighter. */
	put("/cg/a/memory.max", "209715200\n");
	put("/cg/a/memory.high", "max\n");
	put("/cg/a/memory.current", "199229440\n");
	now = ask();
	assert_int_equal(now.limit, 200 * MIB);
	assert_int_equal(now.room, 10 * MIB);
	/* Beyond its limit. */
	put("/cg/a/memory.current", "299229440\n");
	assert_int_equal(ask().room, 0);
}

static void test_version_1(void **state)
{
	struct meminfo_now now;

	put("/proc/self/mountinfo",
		"30 23 0:27 / /cg/cpu rw - cgroup cgroup rw,cpu\n"
		"32 31 0:31 / /cg/memory rw,relatime - cgroup cgroup rw,memory\n"
		"33 31 0:38 / /cg/unified rw,relatime - cgroup2 cgroup2 rw\n");
	put("/proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/job/one\n0::/\n");
	put("/cg/memory/job/one/memory.limit_in_bytes", "9223372036854771712\n");
	put("/cg/memory/job/one/memory.usage_in_bytes", "4096\n");
	put("/cg/memory/memory.limit_in_bytes", "9223372036854771712\n");
	put("/cg/memory/memory.usage_in_bytes", "4096\n");
	assert_true(ask().limit == UINT64_MAX);
	put("/cg/memory/job/memory.limit_in_bytes", "67108864\n");
	put("/cg/memory/job/memory.usage_in_bytes", "33554432\n");
	put("/cg/memory/job/memory.stat",
		"inactive_file 1\ntotal_cache 7\ntotal_inactive_file 1048576\n");
	now = ask();
	assert_int_equal(now.limit, 64 * MIB);
	assert_int_equal(now.room, 33 * MIB);
}

/* How often a limit was hit: not those of cgroups below, where the kernel tells them apart. */
static void test_hits(void **state)
{
	struct meminfo m;

	mount_v2("0::/a/b\n");
	for (int i = 0; i < 2; i++) {
		const char *const folder = i == 0 ? "/cg/a" : "/cg/a/b";
		char path[64];

		snprintf(path, sizeof(path), "%s/memory.max", folder);
		put(path, "8388608\n");
		snprintf(path, sizeof(path), "%s/memory.current", folder);
		put(path, "0\n");
		snprintf(path, sizeof(path), "%s/memory.events", folder);
		put(path, "low 1\nhigh 20\nmax 300\noom 4000\n");
	}
	put("/cg/a/memory.events.local", "low 0\nhigh 5\nmax 2\noom 0\n");
	meminfo_open(&m, root);
	assert_int_equal(m.levels, 2);
	assert_int_equal(m.level[0].hits, 320);
	assert_int_equal(m.level[1].hits, 7);
	meminfo_close(&m);
}

/* In a container, what is mounted is not the top of the hierarchy. */
static void test_container(void **state)
{
	put("/proc/self/mountinfo", "31 23 0:28 /box /cg rw - cgroup2 cgroup rw\n");
	put("/proc/self/cgroup", "0::/box/in\n");
	put("/cg/in/memory.max", "8388608\n");
	put("/cg/in/memory.current", "1048576\n");
	assert_int_equal(ask().room, 7 * MIB);
	/* The own cgroup lies outside: the limits of what is mounted count. */
	put("/proc/self/cgroup", "0::/../other\n");
	put("/cg/memory.max", "4194304\n");
	put("/cg/memory.current", "1048576\n");
	assert_int_equal(ask().room, 3 * MIB);
}

static void test_limit_changes(void **state)
{
	struct meminfo m;
	struct meminfo_now now;

	mount_v2("0::/a\n");
	put("/cg/a/memory.max", "8388608\n");
	put("/cg/a/memory.current", "0\n");
	meminfo_open(&m, root);
	meminfo_read(&m, &now);
	assert_int_equal(now.room, 8 * MIB);
	put("/cg/a/memory.max", "4194304\n");
	meminfo_read(&m, &now);
	assert_int_equal(now.room, 4 * MIB);
	put("/cg/a/memory.max", "junk\n");
	meminfo_read(&m, &now);
	assert_true(now.room == UINT64_MAX);
	meminfo_close(&m);
}

static void test_more_levels_than_fit(void **state)
{
	char path[300] = "/cg", cgroup[300] = "0::";
	struct meminfo m;

	for (int i = 0; i < 2 * MEMINFO_LEVELS; i++) {
		char file[340];

		strcat(path, "/d");
		strcat(cgroup, "/d");
		snprintf(file, sizeof(file), "%s/memory.max", path);
		put(file, "max\n");
		snprintf(file, sizeof(file), "%s/memory.current", path);
		put(file, "0\n");
	}
	strcat(cgroup, "\n");
	mount_v2(cgroup);
	meminfo_open(&m, root);
	assert_int_equal(m.levels, MEMINFO_LEVELS);
	meminfo_close(&m);
}

static unsigned int count_open_files(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned int n = 0;

	assert_non_null(d);
	while (readdir(d) != NULL)
		n++;
	closedir(d);
	return n;
}

static void test_this_machine(void **state)
{
	unsigned int before = count_open_files();
	struct meminfo m;
	struct meminfo_now now;

	meminfo_open(&m, "");
	meminfo_read(&m, &now);
	meminfo_close(&m);
	assert_true(now.available <= now.total);
	assert_true(now.room <= now.limit);
	assert_int_equal(count_open_files(), before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_machine_only, setup, teardown),
		cmocka_unit_test_setup_teardown(test_nothing_is_known, setup, teardown),
		cmocka_unit_test_setup_teardown(test_version_2, setup, teardown),
		cmocka_unit_test_setup_teardown(test_version_1, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hits, setup, teardown),
		cmocka_unit_test_setup_teardown(test_container, setup, teardown),
		cmocka_unit_test_setup_teardown(test_limit_changes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_more_levels_than_fit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_this_machine, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
