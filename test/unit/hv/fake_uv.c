/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A stand-in for lethe-uv that does as it is told, for tests of liblethe.
 *
 *	FAKE_UV_MODE	what is wrong or special with it: where mode_is() asks
 *	FAKE_UV_FAIL	CALL:STATUS[:TIMES], numbers: this call is answered with this status,
 *			always or so many times
 *	FAKE_UV_EXITS	what vCPU 0 asks after VM_START: TYPE,ARG0,ARG1,ARG2,RESULT,SIZE;...
 *			(RESULT: last_result; SIZE: of data, all bytes 'x'); a TYPE of
 *			enum step below is no exit
 *	FAKE_UV_LOG	a file that gets a line for each call and each reply
 *
 * Like the original, it goes on in a second process that is its parent's child.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "abi/exit.h"
#include "abi/uvcall.h"
#include "os/futex.h"
#include "os/memfd.h"
#include "os/sandbox.h"
#include "os/socket.h"
#include "test/unit/hv/fake_pages.h"

/* What a vCPU does beside exits. */
enum step {
	STEP_EVENT = 200, /* sends an event of type ARG2 with GPA ARG0 and ARG1 bytes */
	STEP_IN = 201,    /* waits until the ARG1 bytes at ARG0 are resident */
	STEP_OUT = 202,   /* waits until they are sealed */
	STEP_FLOOD = 203  /* wants ARG2 single pages, at ARG0 and every ARG1 bytes */
};

struct slot {
	uint64_t gpa, bytes;
	uint8_t *base;
};

static struct {
	char mode[32];
	uint32_t fail_call, fail_status, fail_times;
	int log;
	struct abi_vcpu_page *pages;
	uint8_t *bulk;
	struct slot slot[ABI_MAX_SLOTS];
	uint32_t parked_seq; /* of a PERFORM that CANCEL answers */
} uv;

static const struct {
	const char *name;
	uint32_t args, result;
} calls[] = {
#define X(call, number, args, result, fds, phases, securities) \
	[number] = {#call, sizeof(struct args), sizeof(struct result)},
	ABI_CALL_TABLE(X)
#undef X
};

static bool mode_is(const char *mode)
{
	return strcmp(uv.mode, mode) == 0;
}

__attribute__((format(printf, 1, 2))) static void note(const char *format, ...)
{
	char line[256];
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	if (uv.log >= 0 && write(uv.log, line, (size_t)n) != n)
		_exit(9);
}

static void send_answer(uint32_t seq, uint32_t status, const void *result, uint32_t size)
{
	struct abi_answer head = {.magic = ABI_MAGIC, .status = status, .seq = seq, .size = size};
	struct iovec iov[2] = {{&head, sizeof(head)}, {(void *)result, size}};

	(void)socket_send(ABI_SOCKET_FD, iov, 2, NULL, 0);
}

/* ---- vCPU 0 ---- */

static void send_event(uint32_t type, uint64_t gpa, uint64_t bytes)
{
	const struct abi_event event = {
		.magic = ABI_EVENT_MAGIC, .type = type, .gpa = gpa, .bytes = bytes};
	const struct iovec iov = {(void *)&event, sizeof(event)};

	(void)socket_send(ABI_SOCKET_FD, &iov, 1, NULL, 0);
}

/* False: it is an exit. */
static bool take_step(unsigned int type, uint64_t a0, uint64_t a1, uint64_t a2)
{
	switch (type) {
	case STEP_EVENT:
		send_event((uint32_t)a2, a0, a1);
		return true;
	case STEP_IN:
	case STEP_OUT:
		fake_pages_await(a0, a1, type == STEP_OUT);
		return true;
	case STEP_FLOOD:
		for (uint64_t i = 0; i < a2; i++)
			send_event(ABI_EVENT_PAGE_WANTED, a0 + i * a1, 4096);
		return true;
	default:
		return false;
	}
}

static void post(struct abi_vcpu_page *page, uint32_t seq)
{
	__atomic_store_n(&page->exit_seq, seq, __ATOMIC_RELEASE);
	futex_ring(&page->bell, &page->reply_sleeps);
}

static void wait_for_reply(struct abi_vcpu_page *page, uint32_t seq)
{
	uint32_t bell = __atomic_load_n(&page->reply_bell, __ATOMIC_ACQUIRE);

	while (__atomic_load_n(&page->reply_seq, __ATOMIC_ACQUIRE) != seq) {
		futex_sleep(&page->reply_bell, bell, &page->sleeps);
		bell = __atomic_load_n(&page->reply_bell, __ATOMIC_ACQUIRE);
	}
	note("reply %u %llu\n", page->reply_status, (unsigned long long)page->reply_value);
}

static void play(const char *script)
{
	struct abi_vcpu_page *page = uv.pages;
	uint32_t seq = page->exit_seq;

	for (const char *at = script; at != NULL && *at != '\0';
		at = strchr(at, ';'), at = at == NULL ? NULL : at + 1) {
		unsigned long long a0, a1, a2;
		unsigned int type, size;
		long long result;

		if (sscanf(at, "%u,%llu,%llu,%llu,%lld,%u", &type, &a0, &a1, &a2, &result, &size) !=
			6)
			_exit(8);
		if (take_step(type, a0, a1, a2))
			continue;
		page->type = type;
		page->arg[0] = a0;
		page->arg[1] = a1;
		page->arg[2] = a2;
		page->arg[3] = a2;
		page->last_result = result;
		page->data_size = size;
		memset(page->data, 'x', sizeof(page->data));
		post(page, ++seq);
		if (type != ABI_EXIT_POWEROFF && type != ABI_EXIT_CLOSED && type <= ABI_EXIT_MMIO)
			wait_for_reply(page, seq);
	}
}

/* Many exits as fast as they are answered; each answer must be the question + 1. */
static void play_ping_pong(unsigned int rounds)
{
	struct abi_vcpu_page *page = uv.pages;
	uint32_t seq = page->exit_seq;

	for (uint64_t i = 0; i < rounds; i++) {
		page->type = ABI_EXIT_PIO;
		page->arg[3] = i;
		post(page, ++seq);
		for (;;) {
			uint32_t bell = __atomic_load_n(&page->reply_bell, __ATOMIC_ACQUIRE);

			if (__atomic_load_n(&page->reply_seq, __ATOMIC_ACQUIRE) == seq)
				break;
			if (i % 2 == 0)
				futex_sleep(&page->reply_bell, bell, &page->sleeps);
		}
		if (page->reply_value != i + 1)
			_exit(7);
		/* Sometimes the other side is given time to fall asleep. */
		if (i % 64 == 0)
			usleep(200);
	}
	page->type = ABI_EXIT_POWEROFF;
	post(page, ++seq);
}

static void *vcpu_main(void *arg)
{
	const char *script = getenv("FAKE_UV_EXITS");

	if (mode_is("ping-pong"))
		play_ping_pong(5000);
	else
		play(script);
	return NULL;
}

/* ---- calls ---- */

static void create(const int *fds)
{
	void *p;

	if (memfd_map(fds[0], ABI_PAGES_BYTES(1), &p) < 0)
		_exit(6);
	uv.pages = p;
	if (memfd_map(fds[1], ABI_BULK_SIZE, &p) < 0)
		_exit(6);
	uv.bulk = p;
}

static uint32_t add_slot(const struct abi_slot *a, int fd)
{
	void *p;

	if (memfd_map(fd, a->bytes, &p) < 0)
		return ABI_ST_NO_MEMORY;
	uv.slot[a->id] = (struct slot){a->gpa, a->bytes, p};
	return ABI_ST_OK;
}

static void drop_slot(unsigned int id)
{
	if (uv.slot[id].base != NULL)
		munmap(uv.slot[id].base, uv.slot[id].bytes);
	uv.slot[id] = (struct slot){0};
}

static uint32_t copy(const struct abi_mem *a, bool write)
{
	for (unsigned int i = 0; i < ABI_MAX_SLOTS; i++) {
		struct slot *s = &uv.slot[i];

		if (a->gpa < s->gpa || a->gpa + a->bytes > s->gpa + s->bytes)
			continue;
		if (write)
			memcpy(s->base + (a->gpa - s->gpa), uv.bulk, a->bytes);
		else
			memcpy(uv.bulk, s->base + (a->gpa - s->gpa), a->bytes);
		return ABI_ST_OK;
	}
	return ABI_ST_NOT_FOUND;
}

static void start_vcpu(void)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, vcpu_main, NULL) != 0)
		_exit(5);
	pthread_detach(thread);
}

/* Always a page more, after a quarter of slot 0, or as much as is asked for, at 0. */
static void coldest(const struct abi_coldest *args, struct abi_coldest_ret *ret)
{
	static uint64_t turns;

	*ret = (struct abi_coldest_ret){
		.count = 1, .looked = args->bytes, .range = {{0, args->bytes}}};
	if (mode_is("turns")) {
		ret->looked = uv.slot[0].bytes / 4;
		ret->range[0] = (struct abi_range){turns++ * 4096, 4096};
	}
}

static uint32_t perform(uint32_t call, const void *args, const int *fds, uint64_t *result)
{
	switch (call) {
	case ABI_CALL_VM_CREATE:
		create(fds);
		break;
	case ABI_CALL_SLOT_REGISTER:
		return add_slot(args, fds[0]);
	case ABI_CALL_SLOT_UNREGISTER:
		drop_slot(((const struct abi_slot *)args)->id);
		break;
	case ABI_CALL_PREPARE:
	case ABI_CALL_RESET:
		for (unsigned int i = 0; i < ABI_MAX_SLOTS; i++)
			drop_slot(i);
		fake_pages_reset();
		result[0] = 7;
		result[1] = 4096;
		break;
	case ABI_CALL_PAGE_OUT:
		return fake_page_out(args, uv.bulk, (void *)result);
	case ABI_CALL_PAGE_IN_SEALED:
		return fake_page_in(
			args, uv.bulk, mode_is("one-by-one") ? 1 : UINT64_MAX, (void *)result);
	case ABI_CALL_COLDEST:
		coldest(args, (void *)result);
		break;
	case ABI_CALL_MEM_READ:
	case ABI_CALL_MEM_WRITE:
		return copy(args, call == ABI_CALL_MEM_WRITE);
	case ABI_CALL_VM_START:
		result[0] = 123;
		start_vcpu();
		break;
	}
	return ABI_ST_OK;
}

static void answer_hello(uint32_t seq)
{
	struct abi_hello_ret ret = {.version = ABI_VERSION, .pid = getpid()};

	if (mode_is("version")) {
		ret.version = ABI_VERSION + 1;
		send_answer(seq, ABI_ST_VERSION, &ret, sizeof(ret));
		return;
	}
	if (mode_is("liar"))
		ret.pid = 1;
	send_answer(seq, ABI_ST_OK, &ret, sizeof(ret));
}

/* Everything else: PERFORM waits for CANCEL, a failing call for nothing. */
static void answer(const struct abi_request *head, const void *args, const int *fds)
{
	uint64_t result[512] = {0};
	uint32_t status, size = calls[head->call].result;

	if (head->call == ABI_CALL_PERFORM && mode_is("park")) {
		uv.parked_seq = head->seq;
		return;
	}
	if (head->call == uv.fail_call && uv.fail_times > 0) {
		status = uv.fail_status;
		uv.fail_times -= uv.fail_times != UINT32_MAX;
	} else {
		status = perform(head->call, args, fds, result);
	}
	if (head->call == ABI_CALL_CANCEL && uv.parked_seq != 0) {
		result[1] = 5;
		send_answer(
			uv.parked_seq, ABI_ST_CANCELLED, result, sizeof(struct abi_perform_ret));
	}
	if (status != ABI_ST_OK && status != ABI_ST_CANCELLED && status != ABI_ST_QUARANTINED)
		size = 0;
	send_answer(head->seq, status, result, size);
}

static bool serve_one(void)
{
	struct {
		struct abi_request head;
		uint8_t args[1024];
	} packet;
	int fds[SOCKET_MAX_FDS];
	unsigned int nfds = 0;
	ssize_t n = socket_recv(ABI_SOCKET_FD, &packet, sizeof(packet), fds, SOCKET_MAX_FDS, &nfds);

	if (n <= 0)
		return false;
	if (packet.head.size != calls[packet.head.call].args)
		_exit(4);
	note("%s %llu %llu\n", calls[packet.head.call].name,
		(unsigned long long)((uint64_t *)packet.args)[0],
		packet.head.size > 8 ? (unsigned long long)((uint64_t *)packet.args)[1] : 0);
	if (packet.head.call == uv.fail_call && uv.fail_status == 1000)
		raise(SIGKILL);
	if (packet.head.call == ABI_CALL_HELLO)
		answer_hello(packet.head.seq);
	else
		answer(&packet.head, packet.args, fds);
	for (unsigned int i = 0; i < nfds; i++)
		close(fds[i]);
	return true;
}

int main(void)
{
	const char *mode = getenv("FAKE_UV_MODE"), *fail = getenv("FAKE_UV_FAIL");
	const char *log = getenv("FAKE_UV_LOG");

	snprintf(uv.mode, sizeof(uv.mode), "%s", mode != NULL ? mode : "");
	uv.log = log != NULL ? open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
	uv.fail_times = UINT32_MAX;
	if (fail != NULL &&
		sscanf(fail, "%u:%u:%u", &uv.fail_call, &uv.fail_status, &uv.fail_times) < 2)
		return 3;
	if (mode_is("dies-first"))
		return 1;
	if (sandbox_reborn() < 0)
		return 2;
	if (mode_is("dies-second"))
		return 1;
	while (serve_one())
		;
	return 0;
}
