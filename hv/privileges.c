/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Giving up root, for good. */
#include <cap-ng.h>
#include <dirent.h>
#include <errno.h>
#include <grp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "hv/error.h"
#include "lethe/lethe.h"

#define NOBODY 65534

/* A number above 0 from the environment, else @otherwise. */
static unsigned int id_from(const char *variable, unsigned int otherwise)
{
	const char *text = getenv(variable);
	char *end;
	unsigned long id;

	if (text == NULL || text[0] == '\0')
		return otherwise;
	id = strtoul(text, &end, 10);
	return *end != '\0' || id == 0 || id >= UINT32_MAX ? otherwise : (unsigned int)id;
}

/* Every thread of this process must have lost its capabilities. */
static bool have_no_capabilities(void)
{
	DIR *tasks = opendir("/proc/self/task");
	bool none = tasks != NULL;
	struct dirent *e;

	while (none && (e = readdir(tasks)) != NULL) {
		if (e->d_name[0] == '.')
			continue;
		capng_clear(CAPNG_SELECT_ALL);
		capng_setpid(atoi(e->d_name));
		/* A thread that has just ended has none. */
		none = capng_get_caps_process() < 0 ||
		       (capng_have_capabilities(CAPNG_SELECT_CAPS) == CAPNG_NONE);
	}
	if (tasks != NULL)
		closedir(tasks);
	capng_setpid(getpid());
	return none;
}

/* Tries to become root again by every id that could still be one. */
static bool is_final(uid_t uid, gid_t gid)
{
	uid_t r, e, s;
	gid_t rg, eg, sg;

	if (getresuid(&r, &e, &s) < 0 || r != uid || e != uid || s != uid)
		return false;
	if (getresgid(&rg, &eg, &sg) < 0 || rg != gid || eg != gid || sg != gid)
		return false;
	return getgroups(0, NULL) == 0 && setuid(0) < 0 && seteuid(0) < 0 &&
	       setresuid(0, 0, 0) < 0 && setresgid(0, 0, 0) < 0 && have_no_capabilities();
}

/* glibc changes ids in all threads, and the kernel takes capabilities away with them. */
static int change_ids(uid_t uid, gid_t gid)
{
	if (prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0) < 0 || setgroups(0, NULL) < 0 ||
		setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)
		return -errno;
	/* Nor by running a program that is set-uid. */
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	return is_final(uid, gid) ? 0 : -EPERM;
}

int lethe_drop_root(void)
{
	int ret;

	if (geteuid() != 0 && getuid() != 0)
		return 0;
	ret = change_ids(id_from("SUDO_UID", NOBODY), id_from("SUDO_GID", NOBODY));
	return ret < 0 ? fail(ret, "root could not be given up: %s", strerror(-ret)) : 0;
}
