/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "os/meminfo.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Version 1 says "no limit" by a number near the largest of 64 signed bits. */
#define NO_LIMIT_V1 ((uint64_t)1 << 62)

/* A mounted hierarchy. */
struct mount {
	char root[PATH_MAX];  /* the cgroup that its top is */
	char point[PATH_MAX]; /* where it is mounted */
};

static int open_in(const char *root, const char *path, int flags)
{
	char full[4 * PATH_MAX];

	if ((size_t)snprintf(full, sizeof(full), "%s%s", root, path) >= sizeof(full))
		return -1;
	return open(full, flags | O_CLOEXEC);
}

static FILE *fopen_in(const char *root, const char *path)
{
	int fd = open_in(root, path, O_RDONLY);
	FILE *f = fd < 0 ? NULL : fdopen(fd, "r");

	if (f == NULL && fd >= 0)
		close(fd);
	return f;
}

/* Whether the comma-separated @list has @word. */
static bool has_word(const char *list, const char *word)
{
	size_t length = strlen(word);

	for (const char *at = list; at != NULL; at = strchr(at, ',')) {
		at += *at == ',';
		if (strncmp(at, word, length) == 0 && strchr(",\n", at[length]) != NULL)
			return true;
	}
	return false;
}

/* One line of /proc/self/mountinfo.  False if it is not the hierarchy that is looked for. */
static bool parse_mount(char *line, bool v2, struct mount *ret)
{
	char *dash = strstr(line, " - ");
	char type[32], options[PATH_MAX];
	struct mount m;

	if (dash == NULL || sscanf(line, "%*s %*s %*s %4095s %4095s", m.root, m.point) != 2 ||
		sscanf(dash, " - %31s %*s %4095s", type, options) != 2)
		return false;
	if (v2 ? strcmp(type, "cgroup2") != 0
	       : strcmp(type, "cgroup") != 0 || !has_word(options, "memory"))
		return false;
	*ret = m;
	return true;
}

static bool find_mount(const char *root, bool v2, struct mount *ret)
{
	FILE *f = fopen_in(root, "/proc/self/mountinfo");
	char *line = NULL;
	size_t size = 0;
	bool found = false;

	while (f != NULL && !found && getline(&line, &size, f) > 0)
		found = parse_mount(line, v2, ret);
	free(line);
	if (f != NULL)
		fclose(f);
	return found;
}

/* The own cgroup in the hierarchy of memory (or, @v2, in the unified one). */
static bool find_cgroup(const char *root, bool v2, char ret[PATH_MAX])
{
	FILE *f = fopen_in(root, "/proc/self/cgroup");
	char *line = NULL;
	size_t size = 0;
	bool found = false;

	while (f != NULL && !found && getline(&line, &size, f) > 0) {
		char *list = strchr(line, ':');
		char *path = list == NULL ? NULL : strchr(list + 1, ':');

		if (path == NULL)
			continue;
		*path++ = '\0';
		path[strcspn(path, "\n")] = '\0';
		found = (v2 ? list[1] == '\0' : has_word(list + 1, "memory")) &&
			strlen(path) < PATH_MAX;
		if (found)
			strcpy(ret, path);
	}
	free(line);
	if (f != NULL)
		fclose(f);
	return found;
}

static int open_file(const char *root, const char *folder, const char *name, int flags)
{
	char path[2 * PATH_MAX + 64];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return open_in(root, path, flags);
}

static void close_level(struct meminfo_level *l)
{
	const int fds[] = {l->max, l->high, l->usage, l->stat, l->events};

	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
		if (fds[i] >= 0)
			close(fds[i]);
	}
}

/*
 * memory.events counts what happens at the limits of cgroups below, too: that a neighbour has
 * reached its own says nothing.  Linux has had the other since 5.2.
 */
static int open_events(const char *root, const char *folder)
{
	int fd = open_file(root, folder, "memory.events.local", O_RDONLY);

	return fd < 0 ? open_file(root, folder, "memory.events", O_RDONLY) : fd;
}

/* The root of a version 2 hierarchy has none of these files. */
static void open_level(struct meminfo *m, const char *root, const char *folder, bool v2)
{
	const char *max = v2 ? "memory.max" : "memory.limit_in_bytes";
	const char *usage = v2 ? "memory.current" : "memory.usage_in_bytes";
	struct meminfo_level l = {
		.max = open_file(root, folder, max, O_RDONLY),
		.high = v2 ? open_file(root, folder, "memory.high", O_RDONLY) : -1,
		.usage = open_file(root, folder, usage, O_RDONLY),
		.stat = open_file(root, folder, "memory.stat", O_RDONLY),
		.events = v2 ? open_events(root, folder) : -1,
	};

	if (l.usage < 0 || (l.max < 0 && l.high < 0)) {
		close_level(&l);
		return;
	}
	(void)meminfo_hits(&l, &l.hits);
	m->level[m->levels++] = l;
}

/* Every level of the hierarchy, from the own cgroup up to what is mounted. */
static void open_hierarchy(struct meminfo *m, const char *root, bool v2)
{
	char cgroup[PATH_MAX], folder[2 * PATH_MAX];
	struct mount mount;
	size_t top, skip;

	if (!find_cgroup(root, v2, cgroup) || !find_mount(root, v2, &mount))
		return;
	top = strlen(mount.point);
	skip = strcmp(mount.root, "/") == 0 ? 0 : strlen(mount.root);
	/* Where the own cgroup is not below what is mounted, the top is all there is. */
	if (strncmp(cgroup, mount.root, skip) != 0 || strstr(cgroup, "/..") != NULL)
		skip = strlen(cgroup);
	snprintf(folder, sizeof(folder), "%s%s", mount.point, cgroup + skip);
	if (v2)
		m->pressure[1] = open_file(root, folder, "memory.pressure", O_RDWR | O_NONBLOCK);
	while (m->levels < MEMINFO_LEVELS) {
		char *slash = strrchr(folder, '/');

		if (strlen(folder) != top + 1)
			open_level(m, root, folder, v2);
		if (strlen(folder) <= top || slash == NULL)
			break;
		*slash = '\0';
	}
}

void meminfo_open(struct meminfo *m, const char *root)
{
	*m = (struct meminfo){.machine = open_in(root, "/proc/meminfo", O_RDONLY),
		.pressure = {open_file(root, "/proc/pressure", "memory", O_RDWR | O_NONBLOCK), -1}};
	open_hierarchy(m, root, false);
	open_hierarchy(m, root, true);
}

void meminfo_close(struct meminfo *m)
{
	if (m->machine >= 0)
		close(m->machine);
	for (int i = 0; i < 2; i++) {
		if (m->pressure[i] >= 0)
			close(m->pressure[i]);
	}
	for (unsigned int i = 0; i < m->levels; i++)
		close_level(&m->level[i]);
	*m = (struct meminfo){.machine = -1, .pressure = {-1, -1}};
}

static bool read_text(int fd, char *buffer, size_t size)
{
	ssize_t n = fd < 0 ? -1 : pread(fd, buffer, size - 1, 0);

	if (n <= 0)
		return false;
	buffer[n] = '\0';
	return true;
}

/* UINT64_MAX for "max", for what version 1 says instead, and for what is no number. */
static uint64_t read_limit(int fd)
{
	char text[64];
	uint64_t value;

	if (!read_text(fd, text, sizeof(text)) || sscanf(text, "%" SCNu64, &value) != 1 ||
		value >= NO_LIMIT_V1)
		return UINT64_MAX;
	return value;
}

/* The number after @key at the start of a line. */
static bool find_value(const char *text, const char *key, uint64_t *ret)
{
	size_t length = strlen(key);

	for (const char *at = text; at != NULL; at = strchr(at, '\n')) {
		at += *at == '\n';
		if (strncmp(at, key, length) == 0)
			return sscanf(at + length, "%" SCNu64, ret) == 1;
	}
	return false;
}

/* What the kernel gives up first.  Version 1 says "total_" to what includes children. */
static uint64_t reclaimable(const struct meminfo_level *l)
{
	char text[8192];
	uint64_t bytes;

	if (!read_text(l->stat, text, sizeof(text)))
		return 0;
	if (find_value(text, "total_inactive_file ", &bytes) ||
		find_value(text, "inactive_file ", &bytes))
		return bytes;
	return 0;
}

bool meminfo_hits(const struct meminfo_level *l, uint64_t *ret)
{
	uint64_t high = 0, max = 0;
	char text[512];

	if (!read_text(l->events, text, sizeof(text)))
		return false;
	(void)find_value(text, "high ", &high);
	(void)find_value(text, "max ", &max);
	*ret = high + max;
	return true;
}

static void read_level(const struct meminfo_level *l, struct meminfo_now *now)
{
	uint64_t max = read_limit(l->max), high = read_limit(l->high);
	uint64_t limit = max < high ? max : high, usage, cache, room;

	if (limit == UINT64_MAX)
		return;
	usage = read_limit(l->usage);
	cache = reclaimable(l);
	usage -= cache < usage ? cache : usage;
	room = usage < limit ? limit - usage : 0;
	if (room >= now->room)
		return;
	now->room = room;
	now->limit = limit;
}

void meminfo_read(const struct meminfo *m, struct meminfo_now *ret)
{
	struct meminfo_now now = {UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX};
	char text[4096];
	uint64_t total, available;

	if (read_text(m->machine, text, sizeof(text)) && find_value(text, "MemTotal:", &total) &&
		find_value(text, "MemAvailable:", &available)) {
		now.total = total * 1024;
		now.available = available * 1024;
	}
	for (unsigned int i = 0; i < m->levels; i++)
		read_level(&m->level[i], &now);
	*ret = now;
}
