/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test/system/uv_client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "abi/guestcall.h"
#include "guest/workload.h"
#include "os/futex.h"
#include "os/memfd.h"
#include "os/socket.h"

/* Longer than anything takes under a sanitizer on a busy machine: only a hang is longer. */
#define PATIENCE_MS 60000

/* How long a connection that has ended may be ahead of its process, for a better message. */
#define HANG_UP_MS 1000

#define VM_NAME "test"

/* ---- the process ---- */

static void exec_uv(int fd)
{
	const char *path = getenv("LETHE_UV");

	/* dup2() leaves close-on-exec set if both are one. */
	if (fd == ABI_SOCKET_FD)
		fcntl(fd, F_SETFD, 0);
	else if (dup2(fd, ABI_SOCKET_FD) < 0)
		_exit(126);
	execl(path, path, (char *)NULL);
	_exit(127);
}

void uvc_spawn(struct uvc *c)
{
	int pair[2], status;
	pid_t first;

	assert_non_null(getenv("LETHE_UV"));
	*c = (struct uvc){
		.pidfd = -1, .pages_fd = -1, .bulk_fd = -1, .status_fd = -1, .folder_fd = -1};
	for (unsigned int i = 0; i < ABI_MAX_SLOTS; i++)
		c->slot[i].memfd = -1;
	snprintf(c->dir, sizeof(c->dir), "/tmp/lethe-uv-test-XXXXXX");
	assert_non_null(mkdtemp(c->dir));
	snprintf(c->folder, sizeof(c->folder), "%s/" VM_NAME, c->dir);
	assert_int_equal(socket_pair(pair), 0);
	first = fork();
	assert_true(first >= 0);
	if (first == 0)
		exec_uv(pair[1]);
	close(pair[1]);
	c->socket = pair[0];
	/* It goes on in a process that is also a child of this one. */
	assert_int_equal(waitpid(first, &status, 0), first);
	assert_int_equal(status, 0);
}

void uvc_spawn_failing(struct uvc *c, const char *failpoint)
{
	setenv("LETHE_FAILPOINT", failpoint, 1);
	uvc_spawn(c);
	unsetenv("LETHE_FAILPOINT");
	assert_int_equal(uvc_hello(c), ABI_ST_OK);
}

void uvc_hang_up(struct uvc *c)
{
	if (c->socket >= 0)
		close(c->socket);
	c->socket = -1;
}

/* Without HELLO its number is not known; it is the only child then. */
static int wait_end(struct uvc *c)
{
	int status = -1;

	if (c->pidfd >= 0) {
		struct pollfd p = {.fd = c->pidfd, .events = POLLIN};

		assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
		close(c->pidfd);
		assert_int_equal(waitpid(c->pid, &status, 0), c->pid);
	} else {
		assert_true(waitpid(-1, &status, 0) > 0);
	}
	return status;
}

static void unmap(void *p, size_t bytes)
{
	if (p != NULL)
		munmap(p, bytes);
}

static void say_how_it_ended(int status)
{
	if (WIFSIGNALED(status))
		print_error("lethe-uv was ended by signal %d (%s)\n", WTERMSIG(status),
			strsignal(WTERMSIG(status)));
	else
		print_error("lethe-uv ended with exit status %d\n", WEXITSTATUS(status));
}

/* A connection that ends in the middle of a test is mostly a process that has died. */
static void say_if_it_died(struct uvc *c)
{
	struct pollfd p = {.fd = c->pidfd, .events = POLLIN};
	siginfo_t info = {0};

	if (c->pidfd < 0 || poll(&p, 1, HANG_UP_MS) != 1 ||
		waitid(P_PID, (id_t)c->pid, &info, WEXITED | WNOWAIT) < 0)
		return;
	if (info.si_code != CLD_EXITED)
		say_how_it_ended(info.si_status);
	else if (info.si_status != 0)
		say_how_it_ended(info.si_status << 8);
}

static void check_left_overs(struct uvc *c, bool took_over, int status)
{
	if (took_over) {
		if (access(c->folder, F_OK) == 0)
			fail_msg("lethe-uv left %s", c->folder);
		if (status == 0) {
			assert_int_equal(c->status->state, ABI_VM_GONE);
			assert_int_equal(c->status->forget_bytes, 0);
		}
	} else if (c->folder_fd >= 0) {
		unlinkat(c->folder_fd, "status", 0);
		unlinkat(c->folder_fd, "control", 0);
		assert_int_equal(rmdir(c->folder), 0);
	}
	assert_int_equal(rmdir(c->dir), 0);
}

void uvc_reap(struct uvc *c, int expected)
{
	bool took_over = c->status != NULL && c->status->magic == ABI_STATUS_MAGIC;
	int status = wait_end(c);

	/* First of all: whatever else is wrong follows from it. */
	if (status != expected)
		say_how_it_ended(status);
	assert_int_equal(status, expected);
	check_left_overs(c, took_over, status);
	uvc_hang_up(c);
	uvc_slots_drop(c);
	unmap(c->pages, ABI_PAGES_BYTES(c->vcpus));
	unmap(c->bulk, ABI_BULK_SIZE);
	unmap(c->status, ABI_STATUS_PAGE);
	if (c->folder_fd >= 0) {
		close(c->pages_fd);
		close(c->bulk_fd);
		close(c->status_fd);
		close(c->folder_fd);
	}
}

void uvc_end(struct uvc *c)
{
	uvc_hang_up(c);
	uvc_reap(c, 0);
}

/* ---- packets ---- */

uint32_t uvc_send(struct uvc *c, uint32_t nr, const void *args, size_t size, const int *fds,
	unsigned int nfds)
{
	struct abi_request head = {
		.magic = ABI_MAGIC, .call = nr, .seq = ++c->seq, .size = (uint32_t)size};
	struct iovec iov[2] = {{&head, sizeof(head)}, {(void *)args, size}};
	int ret = socket_send(c->socket, iov, 2, fds, nfds);

	assert_true(ret == 0 || ret == -EPIPE || ret == -ECONNRESET);
	return head.seq;
}

static bool take_later(struct uvc *c, uint32_t seq, struct uvc_answer *ret)
{
	for (unsigned int i = 0; i < c->later_count; i++) {
		if (c->later[i].head.seq != seq)
			continue;
		*ret = c->later[i];
		c->later[i] = c->later[--c->later_count];
		return true;
	}
	return false;
}

static void keep_event(struct uvc *c, const void *packet, ssize_t size)
{
	struct abi_event *e = &c->event[c->event_count];

	assert_true(c->event_count < UVC_EVENTS_MAX);
	assert_int_equal(size, sizeof(*e));
	memcpy(e, packet, sizeof(*e));
	assert_int_equal(e->type, ABI_EVENT_PAGE_WANTED);
	c->event_count++;
}

/*
 * The next packet, whichever call it answers, or an event, which is kept and has a seq of 0.
 * False at the end of the connection.
 */
static bool receive(struct uvc *c, struct uvc_answer *ret)
{
	struct pollfd p = {.fd = c->socket, .events = POLLIN};
	int fds[SOCKET_MAX_FDS];
	unsigned int nfds;
	ssize_t n;

	assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
	n = socket_recv(c->socket, ret, sizeof(*ret), fds, SOCKET_MAX_FDS, &nfds);
	if (n == 0 || n == -ECONNRESET) {
		say_if_it_died(c);
		return false;
	}
	assert_true(n >= (ssize_t)sizeof(ret->head));
	assert_int_equal(nfds, 0);
	if (ret->head.magic == ABI_EVENT_MAGIC) {
		keep_event(c, ret, n);
		ret->head.seq = 0;
		return true;
	}
	assert_int_equal(ret->head.magic, ABI_MAGIC);
	assert_int_equal(ret->head.size, n - (ssize_t)sizeof(ret->head));
	return true;
}

uint32_t uvc_answer(struct uvc *c, uint32_t seq, struct uvc_answer *ret_answer)
{
	struct uvc_answer a;

	if (!take_later(c, seq, &a)) {
		while (true) {
			if (!receive(c, &a))
				return UVC_GONE;
			if (a.head.seq == seq)
				break;
			if (a.head.seq == 0)
				continue;
			assert_true(c->later_count < UVC_LATER_MAX);
			c->later[c->later_count++] = a;
		}
	}
	if (ret_answer != NULL)
		*ret_answer = a;
	return a.head.status;
}

struct abi_event uvc_event(struct uvc *c)
{
	struct abi_event first;
	struct uvc_answer a;

	while (c->event_count == 0) {
		assert_true(receive(c, &a));
		if (a.head.seq == 0)
			continue;
		assert_true(c->later_count < UVC_LATER_MAX);
		c->later[c->later_count++] = a;
	}
	first = c->event[0];
	memmove(c->event, c->event + 1, --c->event_count * sizeof(first));
	return first;
}

uint32_t uvc_call(struct uvc *c, uint32_t nr, const void *args, size_t size, const int *fds,
	unsigned int nfds, void *ret, size_t ret_size)
{
	struct uvc_answer a;
	uint32_t status = uvc_answer(c, uvc_send(c, nr, args, size, fds, nfds), &a);

	if (status == UVC_GONE)
		return status;
	if (status == ABI_ST_OK && ret != NULL)
		assert_int_equal(a.head.size, ret_size);
	if (ret != NULL && a.head.size == ret_size)
		memcpy(ret, a.result, ret_size);
	return status;
}

uint32_t uvc_call0(struct uvc *c, uint32_t nr, void *ret, size_t ret_size)
{
	const struct abi_none none = {0};

	return uvc_call(c, nr, &none, sizeof(none), NULL, 0, ret, ret_size);
}

/* ---- calls ---- */

uint32_t uvc_hello(struct uvc *c)
{
	const struct abi_hello hello = {.version = ABI_VERSION};
	struct abi_hello_ret ret = {0};
	uint32_t status =
		uvc_call(c, ABI_CALL_HELLO, &hello, sizeof(hello), NULL, 0, &ret, sizeof(ret));

	if (status == ABI_ST_OK) {
		assert_int_equal(ret.version, ABI_VERSION);
		c->pid = ret.pid;
		c->pidfd = (int)syscall(SYS_pidfd_open, c->pid, 0);
		assert_true(c->pidfd >= 0);
	}
	return status;
}

void uvc_make_shared(struct uvc *c, unsigned int vcpus, int ret_fds[4])
{
	void *p;

	assert_int_equal(mkdir(c->folder, 0700), 0);
	c->vcpus = vcpus;
	c->folder_fd = open(c->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	c->status_fd = openat(c->folder_fd, "status", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(ftruncate(c->status_fd, ABI_STATUS_PAGE), 0);
	close(openat(c->folder_fd, "control", O_RDWR | O_CREAT | O_CLOEXEC, 0600));
	c->pages_fd = memfd_new("pages", ABI_PAGES_BYTES(vcpus));
	c->bulk_fd = memfd_new("bulk", ABI_BULK_SIZE);
	assert_int_equal(memfd_map(c->pages_fd, ABI_PAGES_BYTES(vcpus), &p), 0);
	c->pages = p;
	assert_int_equal(memfd_map(c->bulk_fd, ABI_BULK_SIZE, &p), 0);
	c->bulk = p;
	assert_int_equal(memfd_map(c->status_fd, ABI_STATUS_PAGE, &p), 0);
	c->status = p;
	snprintf(c->status->name, sizeof(c->status->name), VM_NAME);
	ret_fds[0] = c->pages_fd;
	ret_fds[1] = c->bulk_fd;
	ret_fds[2] = c->status_fd;
	ret_fds[3] = c->folder_fd;
}

uint32_t uvc_create(struct uvc *c, unsigned int vcpus, uint32_t flags)
{
	const struct abi_vm_create args = {.vcpus = vcpus, .executor = ABI_EXEC_SW, .flags = flags};
	int fds[4];

	uvc_make_shared(c, vcpus, fds);
	return uvc_call(c, ABI_CALL_VM_CREATE, &args, sizeof(args), fds, 4, NULL, 0);
}

uint32_t uvc_slot_add(struct uvc *c, unsigned int id, uint64_t gpa, uint64_t bytes)
{
	const struct abi_slot args = {.id = id, .gpa = gpa, .bytes = bytes};
	struct uvc_slot s = {.memfd = memfd_new("slot", bytes), .gpa = gpa, .bytes = bytes};
	uint32_t status;
	void *p;

	assert_true(s.memfd >= 0);
	assert_int_equal(memfd_map(s.memfd, bytes, &p), 0);
	s.base = p;
	status = uvc_call(c, ABI_CALL_SLOT_REGISTER, &args, sizeof(args), &s.memfd, 1, NULL, 0);
	if (status == ABI_ST_OK) {
		c->slot[id] = s;
	} else {
		munmap(p, bytes);
		close(s.memfd);
	}
	return status;
}

uint32_t uvc_slot_remove(struct uvc *c, uint32_t id)
{
	const struct abi_slot args = {.id = id};

	return uvc_call(c, ABI_CALL_SLOT_UNREGISTER, &args, sizeof(args), NULL, 0, NULL, 0);
}

uint32_t uvc_slot_move(struct uvc *c, uint32_t id, uint64_t gpa)
{
	const struct abi_slot_move args = {.id = id, .gpa = gpa};

	return uvc_call(c, ABI_CALL_SLOT_MOVE, &args, sizeof(args), NULL, 0, NULL, 0);
}

void uvc_slots_drop(struct uvc *c)
{
	for (unsigned int i = 0; i < ABI_MAX_SLOTS; i++) {
		if (c->slot[i].memfd < 0)
			continue;
		munmap(c->slot[i].base, c->slot[i].bytes);
		close(c->slot[i].memfd);
		c->slot[i] = (struct uvc_slot){.memfd = -1};
	}
}

void uvc_begin(struct uvc *c, unsigned int vcpus, uint32_t flags, uint64_t bytes)
{
	uvc_spawn(c);
	assert_int_equal(uvc_hello(c), ABI_ST_OK);
	assert_int_equal(uvc_create(c, vcpus, flags), ABI_ST_OK);
	assert_int_equal(uvc_slot_add(c, 0, 0, bytes), ABI_ST_OK);
}

void uvc_begin_failing(
	struct uvc *c, const char *failpoint, unsigned int vcpus, uint32_t flags, uint64_t bytes)
{
	uvc_spawn_failing(c, failpoint);
	assert_int_equal(uvc_create(c, vcpus, flags), ABI_ST_OK);
	assert_int_equal(uvc_slot_add(c, 0, 0, bytes), ABI_ST_OK);
}

void uvc_load(struct uvc *c, const char *text)
{
	struct guest_text head = {.magic = GUEST_TEXT_MAGIC, .bytes = strlen(text)};

	memcpy(c->slot[0].base + GUEST_TEXT_GPA, &head, sizeof(head));
	memcpy(c->slot[0].base + GUEST_TEXT_GPA + sizeof(head), text, head.bytes);
}

uint32_t uvc_page_in(struct uvc *c, uint64_t gpa, uint64_t bytes)
{
	const struct abi_page_in args = {.gpa = gpa, .bytes = bytes};
	struct abi_page_in_ret ret;
	uint32_t status =
		uvc_call(c, ABI_CALL_PAGE_IN, &args, sizeof(args), NULL, 0, &ret, sizeof(ret));

	if (status == ABI_ST_OK)
		assert_int_equal(ret.pages, bytes / 4096);
	return status;
}

void uvc_protect(struct uvc *c, uint64_t bytes)
{
	assert_int_equal(uvc_call0(c, ABI_CALL_INIT_START, NULL, 0), ABI_ST_OK);
	assert_int_equal(uvc_page_in(c, 0, bytes), ABI_ST_OK);
	assert_int_equal(uvc_call0(c, ABI_CALL_INIT_DONE, NULL, 0), ABI_ST_OK);
}

void uvc_start(struct uvc *c)
{
	assert_int_equal(uvc_call0(c, ABI_CALL_VM_START, NULL, 0), ABI_ST_OK);
}

void uvc_start_protected(struct uvc *c, const char *text)
{
	uvc_load(c, text);
	uvc_protect(c, LOW);
	uvc_start(c);
}

uint32_t uvc_mem(struct uvc *c, uint32_t nr, uint64_t gpa, uint32_t bytes)
{
	const struct abi_mem args = {.gpa = gpa, .bytes = bytes};

	return uvc_call(c, nr, &args, sizeof(args), NULL, 0, NULL, 0);
}

struct abi_info_ret uvc_info(struct uvc *c)
{
	struct abi_info_ret info = {0};

	assert_int_equal(uvc_call0(c, ABI_CALL_INFO, &info, sizeof(info)), ABI_ST_OK);
	return info;
}

void uvc_fill(uint8_t *to, uint64_t gpa, uint64_t bytes, uint64_t seed)
{
	for (uint64_t o = 0; o < bytes; o += 8) {
		uint64_t word = workload_pattern(gpa + o, seed, 0);

		memcpy(to + o, &word, 8);
	}
}

void uvc_assert_filled(const uint8_t *at, uint64_t gpa, uint64_t bytes, uint64_t seed)
{
	for (uint64_t o = 0; o < bytes; o += 8) {
		uint64_t word;

		memcpy(&word, at + o, 8);
		assert_int_equal(word, workload_pattern(gpa + o, seed, 0));
	}
}

/* ---- vCPUs ---- */

void uvc_exit(struct uvc *c, unsigned int vcpu, struct abi_vcpu_page *ret)
{
	struct abi_vcpu_page *page =
		(struct abi_vcpu_page *)((uint8_t *)c->pages + (size_t)vcpu * ABI_EXIT_PAGE);
	const struct timespec patience = {.tv_sec = PATIENCE_MS / 1000};
	uint32_t seq;

	/* It says all the time that it sleeps, so that it is always woken. */
	__atomic_store_n(&page->reply_sleeps, 1, __ATOMIC_SEQ_CST);
	for (;;) {
		uint32_t bell = __atomic_load_n(&page->bell, __ATOMIC_SEQ_CST);

		seq = __atomic_load_n(&page->exit_seq, __ATOMIC_ACQUIRE);
		if (seq != c->exit_seen[vcpu])
			break;
		assert_int_not_equal(futex_wait(&page->bell, bell, &patience), -ETIMEDOUT);
	}
	c->exit_seen[vcpu] = seq;
	memcpy(ret, page, sizeof(*ret));
}

void uvc_reply(struct uvc *c, unsigned int vcpu, uint32_t status)
{
	struct abi_vcpu_page *page =
		(struct abi_vcpu_page *)((uint8_t *)c->pages + (size_t)vcpu * ABI_EXIT_PAGE);

	page->reply_status = status;
	__atomic_store_n(&page->reply_seq, c->exit_seen[vcpu], __ATOMIC_RELEASE);
	futex_ring(&page->reply_bell, &page->sleeps);
}

void uvc_run_until(struct uvc *c, uint32_t type, struct abi_vcpu_page *ret)
{
	while (true) {
		uvc_exit(c, 0, ret);
		if (ret->type == type)
			return;
		if (ret->type == ABI_EXIT_STOPPED)
			fail_msg("the guest was stopped: %.*s", (int)ret->data_size,
				(const char *)ret->data);
		assert_true(ret->type == ABI_EXIT_CONVERT || ret->type == ABI_EXIT_PRINT ||
			    ret->type == ABI_EXIT_RELEASE);
		uvc_reply(c, 0, ABI_ST_OK);
	}
}

void uvc_expect_stopped(struct uvc *c, uint64_t reason, uint64_t gpa)
{
	struct abi_vcpu_page page;

	uvc_exit(c, 0, &page);
	assert_int_equal(page.type, ABI_EXIT_STOPPED);
	assert_int_equal(page.arg[0], reason);
	assert_int_equal(page.arg[1], gpa);
}

void uvc_protect_asked(struct uvc *c, const struct abi_vcpu_page *page)
{
	const struct abi_range *range = (const struct abi_range *)(const void *)page->data;
	size_t count = page->data_size / sizeof(*range);

	assert_int_equal(page->type, ABI_EXIT_PROTECT);
	assert_int_equal(uvc_call0(c, ABI_CALL_INIT_START, NULL, 0), ABI_ST_OK);
	for (size_t i = 0; i < count; i++)
		assert_int_equal(uvc_page_in(c, range[i].gpa, range[i].bytes), ABI_ST_OK);
	assert_int_equal(uvc_call0(c, ABI_CALL_INIT_DONE, NULL, 0), ABI_ST_OK);
	uvc_reply(c, 0, ABI_ST_OK);
}
