/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The side of the control socket that asks. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "vmm/control.h"

/* A VM is busy with other requests, or was stopped by a debugger. */
#define ANSWER_TIMEOUT_S 60

static int set_timeouts(int fd)
{
	const struct timeval limit = {.tv_sec = ANSWER_TIMEOUT_S};

	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) < 0 ||
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) < 0)
		return -errno;
	return 0;
}

static int connect_in_folder(int folder, int fd)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int err = set_timeouts(fd);

	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/control", folder);
	if (!err && connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		err = errno == EAGAIN ? -ETIMEDOUT : -errno;
	return err;
}

static int open_connection(const char *path)
{
	int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int fd, err;

	if (folder < 0)
		return -errno;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	err = fd < 0 ? -errno : connect_in_folder(folder, fd);
	if (err && fd >= 0)
		close(fd);
	close(folder);
	return err ? err : fd;
}

static int send_request(int fd, const json_t *request)
{
	char *text = json_dumps(request, JSON_COMPACT);
	int err = 0;

	if (!text)
		return -ENOMEM;
	if (send(fd, text, strlen(text), MSG_NOSIGNAL) < 0)
		err = errno == EAGAIN ? -ETIMEDOUT : -errno;
	free(text);
	return err == -EPIPE ? -ECONNRESET : err;
}

static int receive_answer(int fd, json_t **ret)
{
	char *text = malloc(CONTROL_ANSWER_MAX);
	json_t *answer;
	ssize_t n;

	if (!text)
		return -ENOMEM;
	n = recv(fd, text, CONTROL_ANSWER_MAX, 0);
	if (n <= 0) {
		int err = n == 0 ? -ECONNRESET : errno == EAGAIN ? -ETIMEDOUT : -errno;

		free(text);
		return err;
	}
	answer = json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, NULL);
	free(text);
	if (!json_is_object(answer)) {
		json_decref(answer);
		return -EBADMSG;
	}
	*ret = answer;
	return 0;
}

int control_ask(const char *folder, json_t *request, json_t **ret_answer)
{
	int fd = request ? open_connection(folder) : -ENOMEM;
	int err = fd < 0 ? fd : send_request(fd, request);

	if (!err)
		err = receive_answer(fd, ret_answer);
	if (fd >= 0)
		close(fd);
	json_decref(request);
	return err;
}
