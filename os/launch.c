/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "os/launch.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/failpoint.h"

static int set_attributes(posix_spawnattr_t *attr)
{
	sigset_t blocked, all;
	int ret;

	sigemptyset(&blocked);
	sigaddset(&blocked, SIGINT);
	sigaddset(&blocked, SIGHUP);
	sigfillset(&all);
	sigdelset(&all, SIGKILL);
	sigdelset(&all, SIGSTOP);
	ret = posix_spawnattr_setsigmask(attr, &blocked);
	if (ret == 0)
		ret = posix_spawnattr_setsigdefault(attr, &all);
	if (ret == 0)
		ret = posix_spawnattr_setflags(
			attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	return -ret;
}

static int set_actions(posix_spawn_file_actions_t *actions, int fd, int as_fd)
{
	int ret = posix_spawn_file_actions_adddup2(actions, fd, as_fd);

	if (ret == 0)
		ret = posix_spawn_file_actions_addclosefrom_np(actions, as_fd + 1);
	return -ret;
}

int spawn_with_fd(const char *path, int fd, int as_fd, pid_t *ret_pid)
{
	char *argv[] = {(char *)path, NULL};
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	int ret = failpoint("spawn");

	if (ret < 0)
		return ret;
	if (posix_spawnattr_init(&attr) != 0)
		return -ENOMEM;
	if (posix_spawn_file_actions_init(&actions) != 0) {
		posix_spawnattr_destroy(&attr);
		return -ENOMEM;
	}
	ret = set_attributes(&attr);
	if (ret == 0)
		ret = set_actions(&actions, fd, as_fd);
	if (ret == 0)
		ret = -posix_spawn(ret_pid, path, &actions, &attr, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attr);
	return ret;
}

int find_beside(const char *name, const char *fallback_dir, char *ret_path, size_t size)
{
	char self[4096];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash;

	if (n > 0) {
		self[n] = '\0';
		slash = strrchr(self, '/');
		if (slash != NULL)
			*slash = '\0';
		if ((size_t)snprintf(ret_path, size, "%s/%s", self, name) >= size)
			return -ENAMETOOLONG;
		if (access(ret_path, X_OK) == 0)
			return 0;
	}
	if ((size_t)snprintf(ret_path, size, "%s/%s", fallback_dir, name) >= size)
		return -ENAMETOOLONG;
	return access(ret_path, X_OK) == 0 ? 0 : -ENOENT;
}
