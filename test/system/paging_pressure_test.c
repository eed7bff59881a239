/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A guest with more memory than its control group allows lives by what goes out by itself.
 *
 * The guest grows in steps that fit into what is left where pressure begins, and takes the next
 * one when there is no pressure any more: nobody but the pager can bring that about.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "os/pressure.h"
#include "test/system/paging.h"

#define LIMIT (128 * MIB)
#define GROWN (192 * MIB)
#define STEP  (2 * MIB)

/* What is looked at again in the end; it is what went out first. */
#define CHECKED (34 * MIB)

/* The shadow of memory is in the group too, and does not go out with what it belongs to. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HAS_SHADOW true
#else
#define HAS_SHADOW false
#endif

static char group[128];

static int write_text(const char *file, const char *text)
{
	char path[256];
	int fd, ret;

	snprintf(path, sizeof(path), "%s/%s", group, file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ret = write(fd, text, strlen(text)) < 0 ? -errno : 0;
	close(fd);
	return ret;
}

/* A control group of version 1 or 2 with a limit.  0 or a negative errno. */
static int make_group(void)
{
	bool v1 = access("/sys/fs/cgroup/memory", F_OK) == 0;
	char limit[32];
	int ret;

	snprintf(group, sizeof(group), "/sys/fs/cgroup%s/lethe-test-%d", v1 ? "/memory" : "",
		(int)getpid());
	if (mkdir(group, 0755) < 0)
		return -errno;
	snprintf(limit, sizeof(limit), "%llu", (unsigned long long)LIMIT);
	ret = write_text(v1 ? "memory.limit_in_bytes" : "memory.max", limit);
	/* Swap would hide what is short; there may be none. */
	if (ret == 0 && !v1)
		(void)write_text("memory.swap.max", "0");
	if (ret < 0)
		(void)rmdir(group);
	return ret;
}

static char *grow_text(void)
{
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	NEED(f != NULL);
	fprintf(f, "protect\n");
	for (uint64_t at = 2 * MIB; at < GROWN; at += STEP)
		fprintf(f, "write %llu %llu\nprint step\n", (unsigned long long)at,
			(unsigned long long)STEP);
	for (uint64_t at = 2 * MIB; at < CHECKED; at += STEP)
		fprintf(f, "check %llu %llu\nprint step\n", (unsigned long long)at,
			(unsigned long long)STEP);
	fclose(f);
	return text;
}

/* In the group. */
static void grow(const char *path)
{
	struct lethe_page_store *store;
	char *text = grow_text();
	struct lethe_info info;
	struct guest guest;
	struct meminfo m;

	NEED(lethe_page_store_file(path, &store) == 0);
	guest_memory = GROWN;
	guest_start(&guest, 1, text, LETHE_SHARE_AUTO, store);
	meminfo_open(&m, "");
	for (uint64_t i = 0; i < (GROWN + CHECKED - 4 * MIB) / STEP; i++) {
		guest_run_to(&guest, 0, "step");
		while (pressure_level(&m) != PRESSURE_NONE)
			usleep(1000);
	}
	meminfo_close(&m);
	NEED(lethe_vm_info(guest.vm, &info) == 0);
	NEED(info.pages_out >= (GROWN - LIMIT) / PAGE && info.pages_in > 0);
	guest_end(&guest);
	free(text);
}

static int run_in_group(const char *path)
{
	pid_t pid = fork();
	int status = -1;

	if (pid == 0) {
		char self[32];

		snprintf(self, sizeof(self), "%d", (int)getpid());
		if (write_text("cgroup.procs", self) < 0)
			_exit(77);
		grow(path);
		exit(0);
	}
	NEED(pid > 0 && waitpid(pid, &status, 0) == pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

/* The machine's, which paging out these few pages would not relieve. */
static bool is_machine_short(void)
{
	struct meminfo m;
	bool is_short;

	meminfo_open(&m, "");
	is_short = pressure_level(&m) != PRESSURE_NONE;
	meminfo_close(&m);
	return is_short;
}

int main(void)
{
	char path[] = "paging-pressure-XXXXXX";
	struct statfs fs;
	int fd, ret;

	if (HAS_SHADOW) {
		fprintf(stderr, "a sanitizer takes more memory than the limit leaves\n");
		return 77;
	}
	if (is_machine_short()) {
		fprintf(stderr, "memory is short here already\n");
		return 77;
	}
	fd = mkstemp(path);
	NEED(fd >= 0 && fstatfs(fd, &fs) == 0);
	close(fd);
	ret = fs.f_type == TMPFS_MAGIC ? -ENOTBLK : make_group();
	if (ret < 0) {
		(void)unlink(path);
		fprintf(stderr, "%s\n",
			ret == -ENOTBLK ? "this folder is memory: pages cannot go there"
					: "no control group with a limit can be made here");
		return 77;
	}
	ret = run_in_group(path);
	(void)unlink(path);
	/* The ultravisor is a process of its own, and may be at its end. */
	while (rmdir(group) < 0 && errno == EBUSY)
		usleep(1000);
	return ret;
}
