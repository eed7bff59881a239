/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/control.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/failpoint.h"
#include "base/log.h"
#include "os/clock.h"

#define CLIENTS_MAX    16
#define PATIENCE_NS    (5 * NS_PER_SEC)
#define ACCEPT_REST_NS (100 * NS_PER_MS) /* after accept() found no descriptor */

struct client {
	int fd;
	uint64_t until_ns; /* when its request must be there */
};

struct control {
	int folder, listener, wake;
	bool runs;
	pthread_t thread;
	control_fn perform;
	void *ctx;

	/* The thread's own. */
	struct client client[CLIENTS_MAX]; /* the longest connected first */
	size_t count;
	uint64_t rest_until_ns;
};

json_t *control_result(json_t *result)
{
	return json_pack("{s:i, s:o}", "schema", 1, "result", result);
}

json_t *control_error(int err, const char *why, const char *todo)
{
	return json_pack("{s:i, s:{s:i, s:s, s:s}}", "schema", 1, "error", "errno", -err, "why",
		why, "todo", todo);
}

/* ---- one client ---- */

static bool is_allowed(int fd)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
	       (peer.uid == geteuid() || peer.uid == 0);
}

/* Sends @answer, taken over, if the client takes it now. */
static void send_answer(int fd, json_t *answer)
{
	char *text = answer ? json_dumps(answer, JSON_COMPACT) : NULL;

	if (text && send(fd, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		log_info("control: a client did not take its answer: %s", strerror(errno));
	free(text);
	json_decref(answer);
}

static json_t *answer_to(struct control *control, const char *text, size_t bytes)
{
	json_t *request, *answer;

	if (bytes > CONTROL_REQUEST_MAX)
		return control_error(-EMSGSIZE, "the request is too long", "send less");
	request = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, NULL);
	if (!json_is_object(request)) {
		json_decref(request);
		return control_error(-EINVAL, "the request is not a JSON object", "send one");
	}
	answer = control->perform(control->ctx, request);
	json_decref(request);
	return answer;
}

/* Serves a client that has something to say, or is gone. */
static void serve(struct control *control, int fd)
{
	char text[CONTROL_REQUEST_MAX + 1];
	ssize_t n = recv(fd, text, sizeof(text), MSG_DONTWAIT);

	if (n > 0)
		send_answer(fd, answer_to(control, text, (size_t)n));
}

/* ---- all clients ---- */

static void drop(struct control *control, size_t index)
{
	close(control->client[index].fd);
	control->count--;
	memmove(&control->client[index], &control->client[index + 1],
		(control->count - index) * sizeof(control->client[0]));
}

static void welcome(struct control *control)
{
	int fd = accept4(control->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd < 0) {
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
			control->rest_until_ns = clock_ns() + ACCEPT_REST_NS;
		return;
	}
	if (!is_allowed(fd)) {
		close(fd);
		return;
	}
	if (control->count == CLIENTS_MAX)
		drop(control, 0);
	control->client[control->count++] =
		(struct client){.fd = fd, .until_ns = clock_ns() + PATIENCE_NS};
}

static bool is_resting(const struct control *control, uint64_t now)
{
	return now < control->rest_until_ns;
}

/* Milliseconds until something must be done without anybody asking; -1: never. */
static int timeout_ms(const struct control *control, uint64_t now)
{
	uint64_t until = UINT64_MAX;

	if (control->count)
		until = control->client[0].until_ns;
	if (is_resting(control, now) && control->rest_until_ns < until)
		until = control->rest_until_ns;
	if (until == UINT64_MAX)
		return -1;
	return until <= now ? 0 : (int)((until - now) / NS_PER_MS) + 1;
}

/* From the last: dropping one moves those behind it. */
static void serve_ready(struct control *control, const struct pollfd *fds)
{
	uint64_t now = clock_ns();

	for (size_t i = control->count; i-- > 0;) {
		if (fds[i].revents)
			serve(control, control->client[i].fd);
		if (fds[i].revents || now >= control->client[i].until_ns)
			drop(control, i);
	}
}

static void *control_main(void *arg)
{
	struct control *control = arg;
	struct pollfd fds[2 + CLIENTS_MAX];

	for (;;) {
		uint64_t now = clock_ns();

		fds[0] = (struct pollfd){.fd = control->wake, .events = POLLIN};
		fds[1] = (struct pollfd){
			.fd = is_resting(control, now) ? -1 : control->listener, .events = POLLIN};
		for (size_t i = 0; i < control->count; i++)
			fds[2 + i] = (struct pollfd){.fd = control->client[i].fd, .events = POLLIN};
		if (poll(fds, 2 + control->count, timeout_ms(control, now)) < 0)
			continue;
		if (fds[0].revents)
			return NULL;
		serve_ready(control, fds + 2);
		if (fds[1].revents)
			welcome(control);
	}
}

/* ---- its life ---- */

static void unlink_socket(const struct control *control)
{
	(void)unlinkat(control->folder, "control", 0);
}

/* A path of any length, by way of the folder's descriptor; for this user only. */
static int bind_in_folder(int folder, int fd)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/control", folder);
	/* Before there is a name by which somebody could connect. */
	if (fchmod(fd, 0600) < 0 ||
		bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	return 0;
}

static int open_all(struct control *control, const char *folder)
{
	int err = failpoint("vmm-control");

	if (err)
		return err;
	control->wake = eventfd(0, EFD_CLOEXEC);
	if (control->wake < 0)
		return -errno;
	control->folder = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (control->folder < 0)
		return -errno;
	control->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (control->listener < 0)
		return -errno;
	return bind_in_folder(control->folder, control->listener);
}

static void close_all(struct control *control)
{
	const int fds[] = {control->listener, control->folder, control->wake};

	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
		if (fds[i] >= 0)
			close(fds[i]);
	}
	free(control);
}

int control_new(const char *folder, struct control **ret)
{
	struct control *control = calloc(1, sizeof(*control));
	int err;

	if (!control)
		return -ENOMEM;
	control->folder = control->listener = control->wake = -1;
	err = open_all(control, folder);
	if (err) {
		close_all(control);
		return err;
	}
	*ret = control;
	return 0;
}

int control_start(struct control *control, control_fn perform, void *ctx)
{
	int err;

	control->perform = perform;
	control->ctx = ctx;
	if (listen(control->listener, CLIENTS_MAX) < 0)
		return -errno;
	err = pthread_create(&control->thread, NULL, control_main, control);
	control->runs = err == 0;
	return -err;
}

void control_free(struct control *control)
{
	uint64_t one = 1;

	if (!control)
		return;
	/* Cannot fail: an eventfd takes 2^64 - 1 of these. */
	if (control->runs && write(control->wake, &one, sizeof(one)) == sizeof(one))
		pthread_join(control->thread, NULL);
	while (control->count)
		drop(control, 0);
	unlink_socket(control);
	close_all(control);
}
