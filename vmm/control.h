/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The control socket: how other programs ask something of a VM that runs.
 *
 * A SOCK_SEQPACKET socket `control` in the VM's folder, for its own user and root.  One
 * connection is one packet with a JSON object, the request, and one packet with a JSON
 * object, the answer:
 *
 *	{"command": "memory-add", "bytes": 1073741824}
 *	{"schema": 1, "result": {...}}
 *	{"schema": 1, "error": {"errno": 16, "why": "...", "todo": "..."}}
 *
 * One thread serves all clients.  It never waits for one: a client that says nothing is
 * dropped after a while, or at once when its place is needed; one that does not take its
 * answer loses it.  What a request makes the VM do is done on this thread, so requests are
 * performed one after another, and each must be bounded.
 */
#ifndef VMM_CONTROL_H
#define VMM_CONTROL_H

#include <jansson.h>
#include <stddef.h>

/* Bytes of a request, and of an answer. */
#define CONTROL_REQUEST_MAX 4096
#define CONTROL_ANSWER_MAX  65536

struct control;

/* Performs a request, which is borrowed.  Returns the answer, or NULL if memory is short. */
typedef json_t *(*control_fn)(void *ctx, const json_t *request);

json_t *control_result(json_t *result);
json_t *control_error(int err, const char *why, const char *todo);

/*
 * Makes the socket in @folder.  It answers nobody before control_start(), and needs no
 * access to the folder after this.  0 or a negative errno; nothing is left on failure.
 */
int control_new(const char *folder, struct control **ret);

/* Starts the thread that serves requests by @perform.  0 or a negative errno. */
int control_start(struct control *control, control_fn perform, void *ctx);

/* Ends the thread, after the request under way, and the socket.  NULL is allowed. */
void control_free(struct control *control);

/*
 * Asks the VM in @folder: sends @request, which is taken over (NULL: -ENOMEM), and waits
 * for *ret_answer, an object.  0; -ENOENT, -ECONNREFUSED nobody listens there; -EACCES not
 * allowed; -ETIMEDOUT no answer came; -ECONNRESET the VM ended; -EBADMSG what came is no
 * answer; -ENOMEM; any errno of sockets.
 */
int control_ask(const char *folder, json_t *request, json_t **ret_answer);

#endif
