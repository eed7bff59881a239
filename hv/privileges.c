/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Giving up root, for good. */
#include <cap-ng.h>
#include <errno.h>
#include <grp.h>
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

static int change_ids(uid_t uid, gid_t gid)
{
	if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)
		return -errno;
	capng_clear(CAPNG_SELECT_ALL);
	(void)capng_apply(CAPNG_SELECT_ALL);
	/* It must not come back. */
	if (setresuid(0, 0, 0) == 0 || geteuid() == 0)
		return -EPERM;
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -errno : 0;
}

int lethe_drop_root(void)
{
	int ret;

	if (geteuid() != 0 && getuid() != 0)
		return 0;
	ret = change_ids(id_from("SUDO_UID", NOBODY), id_from("SUDO_GID", NOBODY));
	return ret < 0 ? fail(ret, "root could not be given up: %s", strerror(-ret)) : 0;
}
