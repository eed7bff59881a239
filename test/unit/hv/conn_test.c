/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The connection against an other end that behaves, misbehaves, or goes. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "hv/conn.h"
#include "os/socket.h"

struct request {
	struct abi_request head;
	uint8_t args[512];
};

struct packet {
	struct abi_answer head;
	uint8_t result[ABI_MAX_PACKET * 2];
};

static struct conn *conn;
static int other; /* the ultravisor's end */
static int deaths;
static int events; /* that were accepted, and what each wanted: */
static uint64_t wanted[8];

static void on_death(void *ctx)
{
	__atomic_add_fetch((int *)ctx, 1, __ATOMIC_SEQ_CST);
}

static bool on_event(void *ctx, const struct abi_event *event)
{
	if (event->type != ABI_EVENT_PAGE_WANTED)
		return false;
	wanted[__atomic_load_n(&events, __ATOMIC_SEQ_CST)] = event->gpa;
	__atomic_add_fetch(&events, 1, __ATOMIC_SEQ_CST);
	return true;
}

static int setup(void **unused)
{
	const struct conn_handlers handlers = {&deaths, on_death, on_event};
	int pair[2];

	deaths = 0;
	events = 0;
	assert_int_equal(socket_pair(pair), 0);
	other = pair[1];
	assert_int_equal(conn_new(pair[0], &handlers, &conn), 0);
	return 0;
}

static int teardown(void **unused)
{
	conn_stop(conn);
	conn_free(conn);
	if (other >= 0)
		close(other);
	assert_int_equal(deaths, 1);
	return 0;
}

static bool receive(struct request *r)
{
	unsigned int nfds;
	int fds[SOCKET_MAX_FDS];
	ssize_t n = socket_recv(other, r, sizeof(*r), fds, SOCKET_MAX_FDS, &nfds);

	for (unsigned int i = 0; n > 0 && i < nfds; i++)
		close(fds[i]);
	return n > 0;
}

static void send_raw(const struct packet *p, size_t bytes)
{
	struct iovec iov = {(void *)p, bytes};

	(void)socket_send(other, &iov, 1, NULL, 0);
}

static void send_answer(uint32_t seq, uint32_t status, uint32_t size, uint8_t fill)
{
	struct packet p = {
		.head = {.magic = ABI_MAGIC, .status = status, .seq = seq, .size = size}};

	memset(p.result, fill, sizeof(p.result));
	send_raw(&p, sizeof(p.head) + size);
}

static bool is_dead_to_poll(void)
{
	struct pollfd p = {.fd = conn_death_fd(conn), .events = POLLIN};

	return poll(&p, 1, 20000) == 1;
}

/* ---- one answer to one call ---- */

struct reply {
	uint32_t magic_xor, seq_add, status, size;
	size_t cut; /* bytes of the packet that are not sent */
};

static void *answer_once(void *arg)
{
	const struct reply *reply = arg;
	struct request r;
	struct packet p;

	if (!receive(&r))
		return NULL;
	memset(&p, 0x5a, sizeof(p));
	p.head = (struct abi_answer){.magic = ABI_MAGIC ^ reply->magic_xor,
		.status = reply->status,
		.seq = r.head.seq + reply->seq_add,
		.size = reply->size};
	send_raw(&p, sizeof(p.head) + reply->size - reply->cut);
	return NULL;
}

/* Makes an INFO call that is answered with @reply. */
static int call_info(struct reply *reply, struct abi_info_ret *ret)
{
	pthread_t thread;
	int err;

	assert_int_equal(pthread_create(&thread, NULL, answer_once, reply), 0);
	err = conn_call(conn, ABI_CALL_INFO, NULL, ret, NULL, 0);
	pthread_join(thread, NULL);
	return err;
}

#define INFO_SIZE ((uint32_t)sizeof(struct abi_info_ret))

static void test_result(void **unused)
{
	struct reply reply = {.size = INFO_SIZE};
	struct abi_info_ret info = {0};

	assert_int_equal(call_info(&reply, &info), 0);
	assert_int_equal(info.incarnation, 0x5a5a5a5a5a5a5a5aull);
	assert_false(conn_is_dead(conn));
}

static void test_every_status(void **unused)
{
#define X(name, number, err, text)                                                           \
	if (number != 0) {                                                                   \
		bool carries = number == ABI_ST_CANCELLED || number == ABI_ST_QUARANTINED || \
			       number == ABI_ST_VERSION;                                     \
		struct reply reply = {.status = number, .size = carries ? INFO_SIZE : 0};    \
		struct abi_info_ret info = {.incarnation = 1};                               \
                                                                                             \
		assert_int_equal(call_info(&reply, &info), -err);                            \
		assert_int_equal(info.incarnation == 1, !carries);                           \
	}
	ABI_STATUS_TABLE(X)
#undef X
	assert_false(conn_is_dead(conn));
}

/* After nonsense the call fails, everything later fails, and both ends know. */
static void check_nonsense(struct reply reply)
{
	struct abi_info_ret info = {.incarnation = 1};
	struct request r;

	assert_int_equal(call_info(&reply, &info), -EPIPE);
	assert_int_equal(info.incarnation, 1);
	assert_true(is_dead_to_poll());
	assert_true(conn_is_dead(conn));
	assert_int_equal(conn_call(conn, ABI_CALL_INFO, NULL, &info, NULL, 0), -EPIPE);
	assert_false(receive(&r));
}

#define NONSENSE(name, ...)                                  \
	static void test_##name(void **unused)               \
	{                                                    \
		check_nonsense((struct reply){__VA_ARGS__}); \
	}

NONSENSE(wrong_magic, .magic_xor = 1, .size = INFO_SIZE)
NONSENSE(wrong_seq, .seq_add = 1, .size = INFO_SIZE)
NONSENSE(no_result, .size = 0)
NONSENSE(short_result, .size = INFO_SIZE - 8)
NONSENSE(long_result, .size = INFO_SIZE + 8)
NONSENSE(oversized, .size = ABI_MAX_PACKET + 1)
NONSENSE(cut_result, .size = INFO_SIZE, .cut = 8)
NONSENSE(cut_header, .size = 0, .cut = 4)
NONSENSE(unknown_status, .status = 19, .size = 0)
NONSENSE(huge_status, .status = UINT32_MAX, .size = 0)
NONSENSE(failure_with_result, .status = ABI_ST_BUSY, .size = INFO_SIZE)
NONSENSE(cancelled_without_result, .status = ABI_ST_CANCELLED, .size = 0)

/* The answer to a call is not taken twice. */
static void test_second_answer(void **unused)
{
	struct reply reply = {.size = INFO_SIZE};
	struct abi_info_ret info;

	assert_int_equal(call_info(&reply, &info), 0);
	send_answer(1, ABI_ST_OK, INFO_SIZE, 0);
	assert_true(is_dead_to_poll());
}

static void test_answer_to_nobody(void **unused)
{
	send_answer(77, ABI_ST_OK, 0, 0);
	assert_true(is_dead_to_poll());
}

static void test_end_before_a_call(void **unused)
{
	close(other);
	other = -1;
	assert_int_equal(conn_call(conn, ABI_CALL_INFO, NULL, NULL, NULL, 0), -EPIPE);
	assert_true(is_dead_to_poll());
}

static void *take_one_and_close(void *arg)
{
	struct request r;

	(void)receive(&r);
	close(other);
	other = -1;
	return NULL;
}

static void test_end_during_a_call(void **unused)
{
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, take_one_and_close, NULL), 0);
	assert_int_equal(conn_call(conn, ABI_CALL_INFO, NULL, NULL, NULL, 0), -EPIPE);
	pthread_join(thread, NULL);
}

/* ---- events ---- */

static void send_event(uint32_t magic, uint32_t type, uint64_t gpa, size_t cut)
{
	const struct abi_event event = {.magic = magic, .type = type, .gpa = gpa, .bytes = 4096};
	struct iovec iov = {(void *)&event, sizeof(event) - cut};

	assert_int_equal(socket_send(other, &iov, 1, NULL, 0), 0);
}

static void *events_then_answer(void *arg)
{
	struct request r;

	send_event(ABI_EVENT_MAGIC, ABI_EVENT_PAGE_WANTED, 0x1000, 0);
	if (!receive(&r))
		return NULL;
	send_event(ABI_EVENT_MAGIC, ABI_EVENT_PAGE_WANTED, 0x2000, 0);
	send_event(ABI_EVENT_MAGIC, ABI_EVENT_PAGE_WANTED, 0x3000, 0);
	send_answer(r.head.seq, ABI_ST_OK, INFO_SIZE, 0x5a);
	return NULL;
}

/* They come in order, between answers, and are none. */
static void test_events(void **unused)
{
	struct abi_info_ret info = {0};
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, events_then_answer, NULL), 0);
	assert_int_equal(conn_call(conn, ABI_CALL_INFO, NULL, &info, NULL, 0), 0);
	pthread_join(thread, NULL);
	assert_int_equal(info.incarnation, 0x5a5a5a5a5a5a5a5aull);
	assert_int_equal(__atomic_load_n(&events, __ATOMIC_SEQ_CST), 3);
	for (uint64_t i = 0; i < 3; i++)
		assert_int_equal(wanted[i], (i + 1) * 0x1000);
	assert_false(conn_is_dead(conn));
}

static void check_no_event(uint32_t magic, uint32_t type, size_t cut)
{
	send_event(magic, type, 0x1000, cut);
	assert_true(is_dead_to_poll());
	assert_int_equal(__atomic_load_n(&events, __ATOMIC_SEQ_CST), 0);
}

static void test_event_that_is_refused(void **unused)
{
	check_no_event(ABI_EVENT_MAGIC, 0, 0);
}

static void test_event_of_another_magic(void **unused)
{
	check_no_event(ABI_EVENT_MAGIC ^ 1, ABI_EVENT_PAGE_WANTED, 0);
}

static void test_event_that_is_cut(void **unused)
{
	check_no_event(ABI_EVENT_MAGIC, ABI_EVENT_PAGE_WANTED, 8);
}

/* ---- hello ---- */

static void test_hello_in_vain(void **unused)
{
	struct abi_hello_ret ret = {.pid = 5};

	assert_int_equal(conn_hello(conn, 20, &ret), -ETIMEDOUT);
	assert_int_equal(ret.pid, 5);
	assert_true(is_dead_to_poll());
	assert_int_equal(conn_call(conn, ABI_CALL_INFO, NULL, NULL, NULL, 0), -EPIPE);
}

static void test_hello_other_version(void **unused)
{
	struct reply reply = {.status = ABI_ST_VERSION, .size = sizeof(struct abi_hello_ret)};
	struct abi_hello_ret ret;
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, answer_once, &reply), 0);
	assert_int_equal(conn_hello(conn, 20000, &ret), -EPROTONOSUPPORT);
	pthread_join(thread, NULL);
	assert_int_equal(ret.version, 0x5a5a5a5a);
}

/* ---- many callers ---- */

#define CALLERS 4
#define ROUNDS  500

/*
 * Answers pairs of requests in the wrong order, so that a caller waits while a later one
 * is served.  MEM_READ's argument comes back as its status: 0 or NOT_FOUND.
 */
static void *answer_crosswise(void *arg)
{
	struct request held;
	bool holding = false;
	struct request r;

	while (receive(&r)) {
		struct abi_mem *mem = (struct abi_mem *)r.args;
		uint32_t status = mem->gpa % 2 == 0 ? ABI_ST_OK : ABI_ST_NOT_FOUND;

		if (r.head.call == ABI_CALL_PERFORM) {
			held = r;
			holding = true;
			continue;
		}
		send_answer(r.head.seq, status, status == 0 ? sizeof(struct abi_none) : 0, 0);
		if (holding) {
			send_answer(held.head.seq, ABI_ST_OK, sizeof(struct abi_perform_ret), 9);
			holding = false;
		}
	}
	return NULL;
}

static void *call_many(void *arg)
{
	for (uint64_t i = 0; i < ROUNDS; i++) {
		const struct abi_mem mem = {.gpa = i + (uintptr_t)arg};
		int ret = conn_call(conn, ABI_CALL_MEM_READ, &mem, NULL, NULL, 0);

		assert_int_equal(ret, mem.gpa % 2 == 0 ? 0 : -ENOENT);
	}
	return NULL;
}

static void *perform_many(void *arg)
{
	struct abi_perform_ret ret;

	for (int i = 0; i < ROUNDS / 10; i++) {
		assert_int_equal(conn_call(conn, ABI_CALL_PERFORM, NULL, &ret, NULL, 0), 0);
		assert_int_equal(ret.bytes, 0x0909090909090909ull);
	}
	return NULL;
}

static void test_concurrent_callers(void **unused)
{
	pthread_t caller[CALLERS], performer, answerer;

	assert_int_equal(pthread_create(&answerer, NULL, answer_crosswise, NULL), 0);
	assert_int_equal(pthread_create(&performer, NULL, perform_many, NULL), 0);
	for (uintptr_t i = 0; i < CALLERS; i++)
		assert_int_equal(pthread_create(&caller[i], NULL, call_many, (void *)i), 0);
	for (int i = 0; i < CALLERS; i++)
		pthread_join(caller[i], NULL);
	/* A PERFORM that is still held is let go by the next call. */
	for (struct abi_mem mem = {0}; pthread_tryjoin_np(performer, NULL) != 0;)
		assert_int_equal(conn_call(conn, ABI_CALL_MEM_READ, &mem, NULL, NULL, 0), 0);
	shutdown(other, SHUT_RDWR);
	pthread_join(answerer, NULL);
}

static void *call_until_dead(void *arg)
{
	while (conn_call(conn, ABI_CALL_INFO, NULL, NULL, NULL, 0) != -EPIPE)
		;
	return NULL;
}

/* All who wait are told, whatever the moment. */
static void test_end_with_many_callers(void **unused)
{
	pthread_t caller[CALLERS];
	struct request r;

	for (int i = 0; i < CALLERS; i++)
		assert_int_equal(pthread_create(&caller[i], NULL, call_until_dead, NULL), 0);
	for (int i = 0; i < 20; i++) {
		assert_true(receive(&r));
		/* The last two get none. */
		if (i < 18)
			send_answer(r.head.seq, ABI_ST_OK, INFO_SIZE, 0);
	}
	close(other);
	other = -1;
	for (int i = 0; i < CALLERS; i++)
		pthread_join(caller[i], NULL);
	assert_true(is_dead_to_poll());
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_result),
		TEST(test_every_status),
		TEST(test_wrong_magic),
		TEST(test_wrong_seq),
		TEST(test_no_result),
		TEST(test_short_result),
		TEST(test_long_result),
		TEST(test_oversized),
		TEST(test_cut_result),
		TEST(test_cut_header),
		TEST(test_unknown_status),
		TEST(test_huge_status),
		TEST(test_failure_with_result),
		TEST(test_cancelled_without_result),
		TEST(test_second_answer),
		TEST(test_answer_to_nobody),
		TEST(test_end_before_a_call),
		TEST(test_end_during_a_call),
		TEST(test_events),
		TEST(test_event_that_is_refused),
		TEST(test_event_of_another_magic),
		TEST(test_event_that_is_cut),
		TEST(test_hello_in_vain),
		TEST(test_hello_other_version),
		TEST(test_concurrent_callers),
		TEST(test_end_with_many_callers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
