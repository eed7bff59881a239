/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "hv/conn.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/failpoint.h"
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
	void (*on_death)(void *ctx);
	void *ctx;
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

static int errno_of(uint32_t status)
{
	switch (status) {
#define X(name, number, error, text) \
	case number:                 \
		return -error;
		ABI_STATUS_TABLE(X)
#undef X
	default:
		return -EIO;
	}
}

static struct waiter *take_waiter(struct conn *c, uint32_t seq)
{
	for (struct waiter **at = &c->waiters; *at != NULL; at = &(*at)->next) {
		struct waiter *w = *at;

		if (w->seq == seq) {
			*at = w->next;
			return w;
		}
	}
	return NULL;
}

/* Gives one answer to its caller.  False if it is none of ours. */
static bool deliver(struct conn *c, const struct abi_answer *head, const void *payload)
{
	struct waiter *w;
	bool known;

	pthread_mutex_lock(&c->lock);
	w = take_waiter(c, head->seq);
	known = w != NULL && (head->size == 0 || head->size == w->result_size);
	if (known) {
		w->status = errno_of(head->status);
		if (w->status == 0 && head->size != w->result_size)
			w->status = -EIO;
		if (w->result != NULL && head->size > 0)
			memcpy(w->result, payload, head->size);
	} else if (w != NULL) {
		w->status = -EPIPE;
	}
	if (w != NULL) {
		w->done = true;
		pthread_cond_signal(&w->answered);
	}
	pthread_mutex_unlock(&c->lock);
	return known;
}

static void die(struct conn *c)
{
	uint64_t one = 1;
	struct waiter *w;

	pthread_mutex_lock(&c->lock);
	c->dead = true;
	while ((w = c->waiters) != NULL) {
		c->waiters = w->next;
		w->status = -EPIPE;
		w->done = true;
		pthread_cond_signal(&w->answered);
	}
	pthread_mutex_unlock(&c->lock);
	if (c->on_death != NULL)
		c->on_death(c->ctx);
	if (write(c->death_fd, &one, sizeof(one)) < 0)
		return; /* cannot fail: the counter is 0 */
}

static void *reader_main(void *arg)
{
	struct conn *c = arg;
	bool good = true;

	while (good) {
		struct {
			struct abi_answer head;
			uint8_t payload[ABI_MAX_PACKET];
		} packet;
		unsigned int nfds;
		int fds[1];
		ssize_t n = socket_recv(c->fd, &packet, sizeof(packet), fds, 0, &nfds);

		good = n >= (ssize_t)sizeof(packet.head) && packet.head.magic == ABI_MAGIC &&
		       packet.head.size == (size_t)n - sizeof(packet.head) &&
		       deliver(c, &packet.head, packet.payload);
	}
	die(c);
	return NULL;
}

int conn_new(int fd, void (*on_death)(void *ctx), void *ctx, struct conn **ret)
{
	struct conn *c = calloc(1, sizeof(*c));
	int err = failpoint("conn-new");

	if (c == NULL || err < 0) {
		free(c);
		return -ENOMEM;
	}
	*c = (struct conn){.fd = fd, .on_death = on_death, .ctx = ctx, .next_seq = 1};
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

void conn_free(struct conn *c)
{
	shutdown(c->fd, SHUT_RDWR);
	pthread_join(c->reader, NULL);
	close(c->fd);
	close(c->death_fd);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

static void add_waiter(struct conn *c, struct waiter *w)
{
	w->seq = c->next_seq++;
	w->next = c->waiters;
	c->waiters = w;
}

static int send_request(struct conn *c, enum abi_call call, uint32_t seq, const void *args,
	const int *fds, unsigned int nfds)
{
	struct abi_request head = {
		.magic = ABI_MAGIC, .call = call, .seq = seq, .size = sizes[call].args};
	struct iovec iov[2] = {{&head, sizeof(head)}, {(void *)args, sizes[call].args}};

	return socket_send(c->fd, iov, 2, fds, nfds);
}

int conn_call(struct conn *c, enum abi_call call, const void *args, void *result, const int *fds,
	unsigned int nfds)
{
	static const struct abi_none none;
	struct waiter w = {.result = result, .result_size = sizes[call].result};
	int ret;

	pthread_cond_init(&w.answered, NULL);
	pthread_mutex_lock(&c->lock);
	if (c->dead) {
		w.status = -EPIPE;
		w.done = true;
	} else {
		add_waiter(c, &w);
		/* Under the lock: a packet is one step, and answers need the lock. */
		ret = send_request(c, call, w.seq, args != NULL ? args : &none, fds, nfds);
		if (ret < 0 && take_waiter(c, w.seq) != NULL) {
			w.status = ret == -ECONNRESET ? -EPIPE : ret;
			w.done = true;
		}
	}
	while (!w.done)
		pthread_cond_wait(&w.answered, &c->lock);
	pthread_mutex_unlock(&c->lock);
	pthread_cond_destroy(&w.answered);
	return w.status;
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
