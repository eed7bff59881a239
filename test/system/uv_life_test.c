/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The life of the lethe-uv process: whatever the hypervisor says, stops saying or does
 * not answer, it lives as long as the connection, ends by itself, and leaves nothing.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/memfd.h"
#include "test/system/uv_client.h"

#define MEMORY (8 * MIB)

static const char text[] = "vcpu 0\n"
			   "write 1M 7M\n"
			   "protect 1M 1M\n"
			   "share 2M 1M\n"
			   "print here\n"
			   "unshare 2M 1M\n"
			   "reboot\n"
			   "poweroff\n"
			   "vcpu 1\n"
			   "loop 1000000000\n"
			   "random 16M 1M 10\n"
			   "end\n";

/* ---- a scripted run, one step after another ---- */

static struct abi_vcpu_page last;

static void step_hello(struct uvc *c)
{
	assert_int_equal(uvc_hello(c), ABI_ST_OK);
}

static void step_create(struct uvc *c)
{
	assert_int_equal(uvc_create(c, 2, ABI_VM_SHARE_MAPPED), ABI_ST_OK);
}

static void step_slots(struct uvc *c)
{
	assert_int_equal(uvc_slot_add(c, 0, 0, MEMORY), ABI_ST_OK);
	assert_int_equal(uvc_slot_add(c, 1, 16 * MIB, MIB), ABI_ST_OK);
	uvc_load(c, text);
}

static void step_start(struct uvc *c)
{
	uvc_start(c);
}

static void step_asked(struct uvc *c)
{
	uvc_run_until(c, ABI_EXIT_PROTECT, &last);
}

static void step_init_start(struct uvc *c)
{
	assert_int_equal(uvc_call0(c, ABI_CALL_INIT_START, NULL, 0), ABI_ST_OK);
}

static void step_page_in(struct uvc *c)
{
	const struct abi_range *range = (const struct abi_range *)(const void *)last.data;

	for (size_t i = 0; i < last.data_size / sizeof(*range); i++)
		assert_int_equal(uvc_page_in(c, range[i].gpa, range[i].bytes), ABI_ST_OK);
}

static void step_init_done(struct uvc *c)
{
	assert_int_equal(uvc_call0(c, ABI_CALL_INIT_DONE, NULL, 0), ABI_ST_OK);
}

static void step_convert(struct uvc *c)
{
	uvc_reply(c, 0, ABI_ST_OK);
	uvc_exit(c, 0, &last);
	assert_int_equal(last.type, ABI_EXIT_CONVERT);
}

static void step_print(struct uvc *c)
{
	uvc_reply(c, 0, ABI_ST_OK);
	uvc_exit(c, 0, &last);
	assert_int_equal(last.type, ABI_EXIT_PRINT);
}

static void step_copy(struct uvc *c)
{
	assert_int_equal(uvc_mem(c, ABI_CALL_MEM_READ, 2 * MIB, MIB), ABI_ST_OK);
}

static void step_reboot(struct uvc *c)
{
	uvc_reply(c, 0, ABI_ST_OK);
	uvc_exit(c, 0, &last);
	assert_int_equal(last.type, ABI_EXIT_REBOOT);
}

static void step_prepare(struct uvc *c)
{
	assert_int_equal(uvc_call0(c, ABI_CALL_PREPARE, NULL, 0), ABI_ST_OK);
	uvc_slots_drop(c);
}

static void step_perform(struct uvc *c)
{
	const struct abi_none none = {0};

	uvc_send(c, ABI_CALL_PERFORM, &none, sizeof(none), NULL, 0);
}

static void step_stop(struct uvc *c)
{
	assert_int_equal(uvc_call0(c, ABI_CALL_VM_STOP, NULL, 0), ABI_ST_OK);
	uvc_exit(c, 0, &last);
	assert_int_equal(last.type, ABI_EXIT_CLOSED);
}

static void (*const steps[])(struct uvc *c) = {step_hello, step_create, step_slots, step_start,
	step_asked, step_init_start, step_page_in, step_init_done, step_convert, step_print,
	step_copy, step_convert, step_reboot, step_prepare, step_perform, step_slots, step_start,
	step_stop};

static void run_steps(struct uvc *c, size_t count)
{
	uvc_spawn(c);
	for (size_t i = 0; i < count; i++)
		steps[i](c);
}

static void test_hang_up_at_every_step(void **state)
{
	for (size_t n = 0; n <= COUNT(steps); n++) {
		struct uvc c;

		run_steps(&c, n);
		uvc_end(&c);
	}
}

/* The same with only this side's half of the connection closed. */
static void test_shut_down_at_every_step(void **state)
{
	for (size_t n = 0; n <= COUNT(steps); n++) {
		struct uvc c;

		run_steps(&c, n);
		assert_int_equal(shutdown(c.socket, SHUT_WR), 0);
		uvc_reap(&c, 0);
	}
}

static void test_sigterm_at_every_step(void **state)
{
	for (size_t n = 1; n <= COUNT(steps); n++) {
		struct uvc c;

		run_steps(&c, n);
		assert_int_equal(kill(c.pid, SIGTERM), 0);
		uvc_reap(&c, 0);
	}
}

/* The terminal's keys are the hypervisor's. */
static void test_other_signals_do_not_end_it(void **state)
{
	static const int signals[] = {SIGINT, SIGHUP, SIGPIPE, SIGUSR1};
	struct uvc c;

	run_steps(&c, 4);
	for (size_t i = 0; i < COUNT(signals); i++)
		assert_int_equal(kill(c.pid, signals[i]), 0);
	assert_int_equal(uvc_info(&c).phase, ABI_PHASE_RUNNING);
	uvc_end(&c);
}

/* Who can truncate the status file must not be able to end the VM, nor to hide it. */
static void test_truncated_status(void **state)
{
	struct abi_status_page st = {0};
	struct uvc c;

	run_steps(&c, 4);
	assert_int_equal(ftruncate(c.status_fd, 0), 0);
	assert_int_equal(uvc_call0(&c, ABI_CALL_VM_STOP, NULL, 0), ABI_ST_OK);
	/* It is written between two calls. */
	assert_int_equal(uvc_info(&c).phase, ABI_PHASE_STOPPED);
	assert_int_equal(pread(c.status_fd, &st, sizeof(st), 0), sizeof(st));
	assert_int_equal(st.magic, ABI_STATUS_MAGIC);
	assert_int_equal(st.state, ABI_VM_STOPPED);
	assert_string_equal(st.name, c.status->name);
	uvc_end(&c);
}

/* Killed, it cannot clean up, but it is gone, and so is the connection. */
static void test_sigkill(void **state)
{
	struct uvc c;

	run_steps(&c, 8);
	assert_int_equal(kill(c.pid, SIGKILL), 0);
	assert_int_equal(uvc_answer(&c, 0, NULL), UVC_GONE);
	c.status->magic = 0; /* the folder is ours again */
	uvc_reap(&c, SIGKILL);
}

/* ---- a hypervisor that does not answer ---- */

static void test_unanswered_exits_delay_nothing(void **state)
{
	static const char *const texts[] = {"print x\n", "protect\n", "release 2M 4K\n",
		"share 2M 4K\n", "dma 2M 4K 1\n", "sleep 4000000000\n"};

	for (size_t i = 0; i < COUNT(texts); i++) {
		struct uvc c;

		for (int end = 0; end < 2; end++) {
			uvc_begin(&c, 1, 0, MEMORY);
			uvc_load(&c, texts[i]);
			if (i > 1)
				uvc_protect(&c, LOW);
			uvc_start(&c);
			if (i < 5)
				uvc_exit(&c, 0, &last);
			if (end == 0) {
				assert_int_equal(
					uvc_call0(&c, ABI_CALL_VM_STOP, NULL, 0), ABI_ST_OK);
				assert_int_equal(uvc_call0(&c, ABI_CALL_RESET, NULL, 0), ABI_ST_OK);
			}
			uvc_end(&c);
		}
	}
}

/* A late answer to an exit that a stop has overtaken is not taken for another's. */
static void test_late_answers_are_ignored(void **state)
{
	uint32_t old, first;
	struct uvc c;

	uvc_begin(&c, 1, 0, MEMORY);
	uvc_load(&c, "print first\nprint second\n");
	uvc_start(&c);
	uvc_exit(&c, 0, &last);
	old = c.exit_seen[0];
	step_stop(&c);
	assert_int_equal(uvc_call0(&c, ABI_CALL_RESET, NULL, 0), ABI_ST_OK);
	uvc_slots_drop(&c);
	assert_int_equal(uvc_slot_add(&c, 0, 0, MEMORY), ABI_ST_OK);
	uvc_load(&c, "print first\nprint second\n");
	uvc_start(&c);
	uvc_exit(&c, 0, &last);
	assert_memory_equal(last.data, "first", 5);
	assert_int_not_equal(c.exit_seen[0], old);
	first = c.exit_seen[0];
	__atomic_store_n(&c.pages->reply_seq, old, __ATOMIC_RELEASE);
	/* Stopped while it waits, not gone on to the second. */
	step_stop(&c);
	assert_int_equal(c.exit_seen[0], first + 1);
	uvc_end(&c);
}

/* Who leaves all answers unread is as good as gone: it does not wait for that one. */
static void test_unread_answers(void **state)
{
	struct abi_request req = {.magic = ABI_MAGIC, .call = ABI_CALL_INFO, .size = 8};
	uint8_t packet[sizeof(req) + 8] = {0};
	struct uvc c;

	run_steps(&c, 3);
	memcpy(packet, &req, sizeof(req));
	while (send(c.socket, packet, sizeof(packet), MSG_NOSIGNAL) > 0)
		;
	assert_true(errno == EPIPE || errno == ECONNRESET);
	uvc_reap(&c, 0);
}

/* ---- what is no call ---- */

static void raw(struct uvc *c, const void *packet, size_t size, const int *fds, unsigned int nfds)
{
	union {
		char buf[CMSG_SPACE(64 * sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	struct iovec iov = {(void *)packet, size};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (nfds > 0) {
		struct cmsghdr *cmsg;

		msg.msg_control = control.buf;
		msg.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(nfds * sizeof(int));
		memcpy(CMSG_DATA(cmsg), fds, nfds * sizeof(int));
	}
	assert_int_equal(sendmsg(c->socket, &msg, MSG_NOSIGNAL), (int)size);
}

struct packet {
	struct abi_request head;
	uint8_t args[8192];
};

#define NO_CALL_SEQ 99

/* None of these is answered; the call after them is. */
static void send_no_calls(struct uvc *c, uint32_t nr)
{
	struct packet p = {{.magic = ABI_MAGIC, .call = nr, .seq = NO_CALL_SEQ, .size = 8}, {0}};
	int fds[64];

	for (size_t n = 0; n < sizeof(p.head); n++)
		raw(c, &p, n, NULL, 0);
	p.head.magic ^= 1;
	raw(c, &p, sizeof(p.head) + 8, NULL, 0);
	p.head.magic ^= 1;
	/* A size that is not the packet's. */
	raw(c, &p, sizeof(p.head), NULL, 0);
	raw(c, &p, sizeof(p.head) + 16, NULL, 0);
	p.head.size = UINT32_MAX;
	raw(c, &p, sizeof(p.head) + 8, NULL, 0);
	p.head.size = (uint32_t) - sizeof(p.head);
	raw(c, &p, 0, NULL, 0);
	/* Longer than any call. */
	p.head.size = sizeof(p.args);
	raw(c, &p, sizeof(p), NULL, 0);
	/* More descriptors than any call has. */
	for (int i = 0; i < 64; i++)
		fds[i] = c->socket;
	p.head.size = 8;
	raw(c, &p, sizeof(p.head) + 8, fds, 9);
	raw(c, &p, sizeof(p.head) + 8, fds, 64);
	raw(c, &p, 3, fds, 64);
	raw(c, &p, 0, fds, 3);
}

static void test_no_calls(void **state)
{
	for (size_t n = 0; n <= COUNT(steps); n++) {
		struct uvc c;

		run_steps(&c, n);
		send_no_calls(&c, ABI_CALL_VM_STOP);
		send_no_calls(&c, ABI_CALL_RESET);
		assert_int_equal(uvc_call0(&c, 0, NULL, 0), ABI_ST_UNKNOWN_CALL);
		/* A PERFORM of the script may have been answered meanwhile. */
		for (unsigned int i = 0; i < c.later_count; i++)
			assert_int_not_equal(c.later[i].head.seq, NO_CALL_SEQ);
		uvc_end(&c);
	}
}

static uint64_t random_state;

static uint64_t random64(void)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return random_state ^ random_state >> 29;
}

/* Values at the borders of what calls check, and any other. */
static uint64_t random_field(void)
{
	static const uint64_t borders[] = {0, 1, 2, 4095, 4096, MIB, 2 * MIB, 8 * MIB, 16 * MIB,
		(uint64_t)1 << 48, UINT32_MAX, (uint64_t)1 << 63, -(uint64_t)4096, UINT64_MAX};
	uint64_t r = random64();

	return r % 4 == 0 ? random64() : borders[r / 4 % COUNT(borders)];
}

static size_t random_packet(struct packet *p)
{
	size_t words = random64() % 8;

	p->head = (struct abi_request){.magic = ABI_MAGIC,
		.call = (uint32_t)(random64() % 21),
		.seq = (uint32_t)random64() | 0x80000000,
		.size = (uint32_t)(words * 8)};
	if (random64() % 8 == 0)
		p->head.size = (uint32_t)random_field();
	if (random64() % 32 == 0)
		p->head.call = (uint32_t)random_field();
	for (size_t i = 0; i < words; i++) {
		uint64_t field = random_field();

		memcpy(p->args + i * 8, &field, 8);
	}
	return sizeof(p->head) + words * 8;
}

/* The answer to call @seq, skipping all that were made up. */
static uint32_t answer_amid_others(struct uvc *c, uint32_t seq)
{
	struct uvc_answer a;

	do
		assert_true(recv(c->socket, &a, sizeof(a), 0) > 0);
	while (a.head.seq != seq);
	return a.head.status;
}

/* Reads the answers that have come so far. */
static void drain(struct uvc *c)
{
	struct uvc_answer a;

	while (recv(c->socket, &a, sizeof(a), MSG_DONTWAIT) > 0)
		;
}

/*
 * Random calls in any order, some with descriptors, from every step on.  The process is
 * still there at the end, and ends as it should.
 */
static void test_random_packets(void **state)
{
	enum { PACKETS = 400 };
	int fds[4];

	fds[0] = memfd_new("any", MIB);
	fds[1] = memfd_new("any", 8 * MIB);
	fds[2] = STDIN_FILENO;
	fds[3] = fds[0];
	for (size_t n = 0; n <= COUNT(steps); n++) {
		struct abi_hello hello = {.version = ABI_VERSION + 1};
		uint32_t status;
		struct uvc c;

		random_state = n;
		run_steps(&c, n);
		for (int i = 0; i < PACKETS; i++) {
			struct packet p;
			size_t size = random_packet(&p);

			raw(&c, &p, size, fds,
				random64() % 4 ? (p.head.call == 3) : random64() % 5);
			drain(&c);
		}
		c.seq = 0;
		status = answer_amid_others(
			&c, uvc_send(&c, ABI_CALL_HELLO, &hello, sizeof(hello), NULL, 0));
		assert_true(status == ABI_ST_VERSION || status == ABI_ST_WRONG_STATE);
		uvc_end(&c);
	}
	close(fds[0]);
	close(fds[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hang_up_at_every_step),
		cmocka_unit_test(test_shut_down_at_every_step),
		cmocka_unit_test(test_sigterm_at_every_step),
		cmocka_unit_test(test_other_signals_do_not_end_it),
		cmocka_unit_test(test_truncated_status),
		cmocka_unit_test(test_sigkill),
		cmocka_unit_test(test_unanswered_exits_delay_nothing),
		cmocka_unit_test(test_late_answers_are_ignored),
		cmocka_unit_test(test_unread_answers),
		cmocka_unit_test(test_no_calls),
		cmocka_unit_test(test_random_packets),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
