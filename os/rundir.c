/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "os/rundir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/failpoint.h"

int rundir_base(char *path, size_t size)
{
	const char *own = getenv("LETHE_RUNTIME_DIR"), *xdg = getenv("XDG_RUNTIME_DIR");
	int n;

	if (own != NULL && own[0] != '\0')
		n = snprintf(path, size, "%s", own);
	else if (geteuid() == 0)
		n = snprintf(path, size, "/run/lethe");
	else if (xdg != NULL && xdg[0] == '/')
		n = snprintf(path, size, "%s/lethe", xdg);
	else
		n = snprintf(path, size, "/tmp/lethe-%u", (unsigned int)geteuid());
	return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

int rundir_path(const char *name, char *ret, size_t size)
{
	char base[512];
	int n, err = rundir_base(base, sizeof(base));

	if (err < 0)
		return err;
	n = snprintf(ret, size, "%s/%s", base, name);
	return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

/* Opens the runtime directory.  It must be ours, and nobody else may write to it. */
static int open_base(bool create, char *path, size_t size)
{
	struct stat st;
	int fd, ret = rundir_base(path, size);

	if (ret == 0 && create && mkdir(path, 0700) < 0 && errno != EEXIST)
		ret = -errno;
	if (ret < 0)
		return ret;
	fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0 || st.st_uid != geteuid() || (st.st_mode & 022) != 0) {
		close(fd);
		return -EPERM;
	}
	return fd;
}

static void remove_folder(int base, const char *name, int folder)
{
	(void)unlinkat(folder, "control", 0);
	(void)unlinkat(folder, "status", 0);
	(void)unlinkat(base, name, AT_REMOVEDIR);
}

/* Opens an entry's status file.  Returns it, or -ENOENT if the entry was stale and went. */
static int open_live(int base, const char *name)
{
	int folder = openat(base, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	int fd;

	if (folder < 0)
		return -errno;
	/* Whatever is there, nobody waits for it. */
	fd = openat(folder, "status", O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		fd = -errno;
	if (fd == -ENOENT) {
		remove_folder(base, name, folder);
	} else if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0) {
		remove_folder(base, name, folder);
		close(fd);
		fd = -ENOENT;
	}
	close(folder);
	return fd;
}

/* Its folder has no name yet that anybody looks at, so nobody finds it unlocked. */
static int make_status(int folder, uint64_t bytes)
{
	int ret = failpoint("rundir-status");
	int fd = ret < 0 ? -1
			 : openat(folder, "status", O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);

	if (fd < 0)
		return ret < 0 ? ret : -errno;
	/* Both processes map it: a hole that a full disk cannot fill would kill them. */
	ret = -posix_fallocate(fd, 0, (off_t)bytes);
	if (ret == 0 && flock(fd, LOCK_EX | LOCK_NB) < 0)
		ret = -errno;
	if (ret < 0) {
		close(fd);
		return ret;
	}
	return fd;
}

static int claim(int base, const char *name, uint64_t bytes, struct rundir_entry *ret)
{
	char temporary[128];
	int folder, status, err;

	/* Made under another name and renamed, so that no entry is ever without status. */
	snprintf(temporary, sizeof(temporary), ".%d-%s", (int)getpid(), name);
	if (mkdirat(base, temporary, 0700) < 0)
		return -errno;
	folder = openat(base, temporary, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	status = folder < 0 ? -errno : make_status(folder, bytes);
	err = status < 0 ? status : 0;
	if (err == 0 && renameat2(base, temporary, base, name, RENAME_NOREPLACE) < 0)
		err = -errno;
	if (err < 0) {
		if (folder >= 0) {
			remove_folder(base, temporary, folder);
			close(folder);
		} else {
			(void)unlinkat(base, temporary, AT_REMOVEDIR);
		}
		if (status >= 0)
			close(status);
		return err;
	}
	ret->folder = folder;
	ret->status = status;
	return 0;
}

int rundir_claim(const char *name, uint64_t bytes, struct rundir_entry *ret)
{
	struct rundir_entry entry = {.folder = -1, .status = -1};
	int base, live, err = failpoint("rundir-claim");

	if (err < 0)
		return err;
	base = open_base(true, entry.path, sizeof(entry.path));
	if (base < 0)
		return base;
	live = open_live(base, name);
	if (live >= 0)
		close(live);
	if (live != -ENOENT)
		err = live >= 0 ? -EEXIST : live;
	if (err == 0)
		err = claim(base, name, bytes, &entry);
	close(base);
	if (err < 0)
		return err;
	strncat(entry.path, "/", sizeof(entry.path) - strlen(entry.path) - 1);
	strncat(entry.path, name, sizeof(entry.path) - strlen(entry.path) - 1);
	*ret = entry;
	return 0;
}

void rundir_drop(struct rundir_entry *entry)
{
	if (entry->folder < 0)
		return;
	(void)unlinkat(entry->folder, "control", 0);
	(void)unlinkat(entry->folder, "status", 0);
	(void)rmdir(entry->path);
	close(entry->folder);
	close(entry->status);
	entry->folder = entry->status = -1;
}

/* ".PID-NAME" of a process that died while it claimed NAME. */
static void remove_unfinished(int base, const char *name)
{
	int folder, pid = atoi(name + 1);

	if (pid <= 0 || kill(pid, 0) == 0 || errno != ESRCH)
		return;
	folder = openat(base, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (folder < 0)
		return;
	remove_folder(base, name, folder);
	close(folder);
}

int rundir_list(rundir_visit_fn visit, void *ctx)
{
	char path[512];
	struct dirent *e;
	int base = open_base(false, path, sizeof(path));
	DIR *dir;

	if (base < 0)
		return base == -ENOENT ? 0 : base;
	dir = fdopendir(base);
	if (dir == NULL) {
		close(base);
		return -ENOMEM;
	}
	while ((e = readdir(dir)) != NULL) {
		int fd;

		if (e->d_name[0] == '.') {
			remove_unfinished(base, e->d_name);
			continue;
		}
		fd = open_live(base, e->d_name);
		if (fd < 0)
			continue;
		visit(ctx, e->d_name, fd);
		close(fd);
	}
	closedir(dir);
	return 0;
}
