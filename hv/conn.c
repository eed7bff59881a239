/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "hv/conn.h"

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/failpoint.h"
#include "base/log.h"
#include "os/clock.h"
#include "os/socket.h"

/* A caller that waits for its answer; on its stack. */
struct waiter {
	struct waiter *next;
	uint32_t seq;
	uint32_t result_size;
	void *result;
	bool done;
	int status; /* 0 or a negative errno */
	pthread_cond_t answered;
};

struct conn {
	int fd;
	int death_fd;
	struct conn_handlers handlers;
	pthread_t reader;
	pthread_mutex_t lock;
	struct waiter *waiters; /* guarded by lock */
	uint32_t next_seq;      /* guarded by lock */
	bool dead;              /* guarded by lock */
};

static const struct {
	uint32_t args, result;
} sizes[] = {
#define X(name, number, args, result, fds, phases, securities) \
	[number] = {sizeof(struct args), sizeof(struct result)},
	ABI_CALL_TABLE(X)
#undef X
};

int conn_errno(uint32_t status)
{
	switch (status) {
#define X(name, number, error, text) \
	case number:                 \
		return -error;
		ABI_STATUS_TABLE(X)
#undef X
	default:
		return 0;
	}
}

static struct waiter *find_waiter(const struct conn *c, uint32_t seq)
{
	struct waiter *w = c->waiters;

	while (w != NULL && w->seq != seq)
		w = w->next;
	return w;
}

/* Takes @w off the list and lets its thread go on.  Caller holds the lock. */
static void end_waiter(struct conn *c, struct waiter *w, int status)
{
	struct waiter **at = &c->waiters;

	while (*at != w)
		at = &(*at)->next;
	*at = w->next;
	w->status = status;
	w->done = true;
	pthread_cond_signal(&w->answered);
}

/* Bytes of result that an answer with @status must carry. */
static bool is_whole(const struct abi_answer *head, const struct waiter *w)
{
	switch (head->status) {
	case ABI_ST_OK:
	case ABI_ST_CANCELLED:
	case ABI_ST_QUARANTINED:
	case ABI_ST_VERSION:
		return head->size == w->result_size;
	default:
		return head->size == 0 && conn_errno(head->status) != 0;
	}
}

/* Gives one answer to its caller.  False if it is none of ours. */
static bool deliver(struct conn *c, const struct abi_answer *head, const void *payload)
{
	struct waiter *w;
	bool whole;

	pthread_mutex_lock(&c->lock);
	w = find_waiter(c, head->seq);
	whole = w != NULL && is_whole(head, w);
	if (whole) {
		if (w->result != NULL && head->size > 0)
			memcpy(w->result, payload, head->size);
		end_waiter(c, w, conn_errno(head->status));
	}
	pthread_mutex_unlock(&c->lock);
	return whole;
}

/* On the reader's thread, which is about to end. */
static void die(struct conn *c)
{
	uint64_t one = 1;

	pthread_mutex_lock(&c->lock);
	c->dead = true;
	while (c->waiters != NULL)
		end_waiter(c, c->waiters, -EPIPE);
	pthread_mutex_unlock(&c->lock);
	/* An ultravisor that answers nonsense but lives shall notice too. */
	shutdown(c->fd, SHUT_RDWR);
	if (c->handlers.on_death != NULL)
		c->handlers.on_death(c->handlers.ctx);
	if (write(c->death_fd, &one, sizeof(one)) < 0)
		log_error("nobody learns that the ultravisor is gone: %s", strerror(errno));
}

union packet {
	struct {
		struct abi_answer head;
		uint8_t payload[ABI_MAX_PACKET];
	} answer;
	struct abi_event event;
};

_Static_assert(offsetof(struct abi_answer, magic) == offsetof(struct abi_event, magic),
	"the first word says which of the two it is");

/* False if it is nothing that an ultravisor sends. */
static bool take(struct conn *c, const union packet *p, size_t bytes)
{
	const struct abi_answer *head = &p->answer.head;

	if (bytes == sizeof(p->event) && p->event.magic == ABI_EVENT_MAGIC)
		return c->handlers.on_event != NULL &&
		       c->handlers.on_event(c->handlers.ctx, &p->event);
	return bytes >= sizeof(*head) && head->magic == ABI_MAGIC &&
	       head->size == bytes - sizeof(*head) && deliver(c, head, p->answer.payload);
}

static void *reader_main(void *arg)
{
	struct conn *c = arg;
	bool good = true;

	while (good) {
		union packet packet;
		unsigned int nfds;
		int fds[1];
		ssize_t n = socket_recv(c->fd, &packet, sizeof(packet), fds, 0, &nfds);

		good = n > 0 && take(c, &packet, (size_t)n);
	}
	die(c);
	return NULL;
}

int conn_new(int fd, const struct conn_handlers *handlers, struct conn **ret)
{
	struct conn *c = calloc(1, sizeof(*c));
	int err = failpoint("conn-new");

	if (c == NULL || err < 0) {
		free(c);
		return -ENOMEM;
	}
	*c = (struct conn){.fd = fd, .handlers = *handlers, .next_seq = 1};
	c->death_fd = eventfd(0, EFD_CLOEXEC);
	if (c->death_fd < 0) {
		err = -errno;
		free(c);
		return err;
	}
	pthread_mutex_init(&c->lock, NULL);
	err = -pthread_create(&c->reader, NULL, reader_main, c);
	if (err < 0) {
		close(c->death_fd);
		free(c);
		return err;
	}
	*ret = c;
	return 0;
}

void conn_stop(struct conn *c)
{
	shutdown(c->fd, SHUT_RDWR);
	pthread_join(c->reader, NULL);
}

void conn_free(struct conn *c)
{
	close(c->fd);
	close(c->death_fd);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

static int send_request(struct conn *c, enum abi_call call, uint32_t seq, const void *args,
	const int *fds, unsigned int nfds)
{
	struct abi_request head = {
		.magic = ABI_MAGIC, .call = call, .seq = seq, .size = sizes[call].args};
	struct iovec iov[2] = {{&head, sizeof(head)}, {(void *)args, sizes[call].args}};

	return socket_send(c->fd, iov, 2, fds, nfds);
}

static void init_waiter(struct waiter *w, enum abi_call call, void *result)
{
	pthread_condattr_t attr;

	*w = (struct waiter){.result = result, .result_size = sizes[call].result};
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&w->answered, &attr);
	pthread_condattr_destroy(&attr);
}

/* Puts @w on the list, under a number of its own.  -EPIPE when the connection is dead. */
static int add_waiter(struct conn *c, struct waiter *w)
{
	int ret = 0;

	pthread_mutex_lock(&c->lock);
	if (c->dead) {
		ret = -EPIPE;
	} else {
		w->seq = c->next_seq++;
		w->next = c->waiters;
		c->waiters = w;
	}
	pthread_mutex_unlock(&c->lock);
	return ret;
}

/* A request that could not be sent has no answer, unless the reader gave it one. */
static void give_up(struct conn *c, struct waiter *w, int err)
{
	pthread_mutex_lock(&c->lock);
	if (!w->done)
		end_waiter(c, w, err == -ECONNRESET ? -EPIPE : err);
	pthread_mutex_unlock(&c->lock);
}

/* Waits for the answer; a connection without one in time is of no use any more. */
static int await(struct conn *c, struct waiter *w, const struct timespec *deadline)
{
	bool late = false;

	pthread_mutex_lock(&c->lock);
	while (!w->done) {
		if (deadline == NULL || late)
			pthread_cond_wait(&w->answered, &c->lock);
		else if (pthread_cond_timedwait(&w->answered, &c->lock, deadline) == ETIMEDOUT &&
			 !w->done) {
			late = true;
			shutdown(c->fd, SHUT_RDWR);
		}
	}
	pthread_mutex_unlock(&c->lock);
	return late && w->status == -EPIPE ? -ETIMEDOUT : w->status;
}

static int call_by(struct conn *c, const struct timespec *deadline, enum abi_call call,
	const void *args, void *result, const int *fds, unsigned int nfds)
{
	static const struct abi_none none;
	struct waiter w;
	int ret;

	init_waiter(&w, call, result);
	ret = add_waiter(c, &w);
	if (ret == 0) {
		/* Not under the lock: the reader must go on when the socket is full. */
		ret = send_request(c, call, w.seq, args != NULL ? args : &none, fds, nfds);
		if (ret < 0)
			give_up(c, &w, ret);
		ret = await(c, &w, deadline);
	}
	pthread_cond_destroy(&w.answered);
	return ret;
}

int conn_call(struct conn *c, enum abi_call call, const void *args, void *result, const int *fds,
	unsigned int nfds)
{
	return call_by(c, NULL, call, args, result, fds, nfds);
}

int conn_hello(struct conn *c, unsigned int timeout_ms, struct abi_hello_ret *ret)
{
	const struct abi_hello hello = {.version = ABI_VERSION};
	const struct timespec deadline = clock_deadline(timeout_ms * NS_PER_MS);

	return call_by(c, &deadline, ABI_CALL_HELLO, &hello, ret, NULL, 0);
}

bool conn_is_dead(struct conn *c)
{
	bool dead;

	pthread_mutex_lock(&c->lock);
	dead = c->dead;
	pthread_mutex_unlock(&c->lock);
	return dead;
}

int conn_death_fd(const struct conn *c)
{
	return c->death_fd;
}
