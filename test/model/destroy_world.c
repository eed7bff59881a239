/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test/model/destroy_world.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os/futex.h"
#include "os/memfd.h"
#include "os/socket.h"
#include "test/model/destroy_guest.h"
#include "test/model/destroy_watch.h"
#include "uv/dispatch.h"
#include "uv/measure.h"
#include "uv/vm_life.h"

#define PATIENCE_MS 60000
#define PAGE        4096u
#define SMALL       32u   /* pages of most backings */
#define LARGE       1200u /* of the others: over three blocks of 2M */
#define BACKINGS    96u

/* Shared memory for slots, used again in the next sequence. */
struct backing {
	int fd;
	uint8_t *base;
	uint32_t pages;
	bool used;
};

struct answer {
	struct abi_answer head;
	uint8_t result[256];
};

struct uv_vm world_vm;
uint8_t *world_bulk;

static struct backing backings[BACKINGS];
static struct {
	struct backing *backing; /* NULL: none */
	uint32_t first;
} slots[REF_SLOTS];
static struct abi_vcpu_page *pages;
static uint32_t exit_seen[GUEST_VCPUS];
static uint32_t seq;
static int hv_socket;
static char folder[64], status_path[96], vm_folder[80];
static struct answer later[64];
static unsigned int later_count;

/* ---- packets ---- */

/* False if @wait is not and nothing is there. */
static bool receive(bool wait, struct answer *ret)
{
	struct pollfd p = {.fd = hv_socket, .events = POLLIN};
	unsigned int nfds;
	ssize_t n;
	int fds[1];

	if (poll(&p, 1, wait ? PATIENCE_MS : 0) != 1) {
		if (wait)
			model_die("a call is not answered");
		return false;
	}
	n = socket_recv(hv_socket, ret, sizeof(*ret), fds, 1, &nfds);
	if (n < (ssize_t)sizeof(ret->head) || ret->head.magic != ABI_MAGIC)
		model_die("the answer is no packet of ours");
	return true;
}

static uint32_t send_call(
	uint32_t nr, const void *args, uint32_t size, const int *fds, unsigned int nfds)
{
	struct abi_request head = {.magic = ABI_MAGIC, .call = nr, .seq = ++seq, .size = size};
	struct iovec iov[2] = {{&head, sizeof(head)}, {(void *)args, size}};

	if (socket_send(hv_socket, iov, 2, fds, nfds) < 0 || !dispatch_one(&world_vm))
		model_die("the connection is over");
	return head.seq;
}

static void await(uint32_t number, struct answer *ret)
{
	while (receive(true, ret) && ret->head.seq != number) {
		if (later_count == sizeof(later) / sizeof(later[0]))
			model_die("too many answers that nobody waits for");
		later[later_count++] = *ret;
	}
}

static uint32_t call_with(uint32_t nr, const void *args, uint32_t size, const int *fds,
	unsigned int nfds, void *ret, uint32_t ret_size)
{
	struct answer a;

	await(send_call(nr, args, size, fds, nfds), &a);
	if (ret != NULL && a.head.size == ret_size)
		memcpy(ret, a.result, ret_size);
	return a.head.status;
}

uint32_t world_call(uint32_t nr, const void *args, uint32_t size, void *ret, uint32_t ret_size)
{
	return call_with(nr, args, size, NULL, 0, ret, ret_size);
}

uint32_t world_call0(uint32_t nr)
{
	const struct abi_none none = {0};

	return world_call(nr, &none, sizeof(none), NULL, 0);
}

uint32_t world_call_range(uint32_t nr, struct ref_range range)
{
	const struct abi_page_in in = {
		.gpa = (uint64_t)range.first * PAGE, .bytes = (uint64_t)range.count * PAGE};
	const struct abi_mem mem = {.gpa = in.gpa, .bytes = range.count * PAGE};

	if (nr == ABI_CALL_PAGE_IN)
		return world_call(nr, &in, sizeof(in), NULL, 0);
	return world_call(nr, &mem, sizeof(mem), NULL, 0);
}

static bool take_later(unsigned int i, struct answer *ret)
{
	*ret = later[i];
	later_count--;
	memmove(&later[i], &later[i + 1], (later_count - i) * sizeof(later[0]));
	return true;
}

uint32_t world_perform(uint32_t *ret_seq)
{
	const struct abi_none none = {0};
	uint32_t number = send_call(ABI_CALL_PERFORM, &none, sizeof(none), NULL, 0);
	struct answer a;

	*ret_seq = number;
	while (later_count < sizeof(later) / sizeof(later[0]) && receive(false, &a)) {
		bool refused = a.head.status != ABI_ST_OK && a.head.status != ABI_ST_CANCELLED;

		if (a.head.seq == number && refused)
			return a.head.status;
		later[later_count++] = a;
	}
	return ABI_ST_OK;
}

bool world_answer(bool wait, uint32_t *ret_seq, uint32_t *ret_status)
{
	struct answer a;

	if (!(later_count > 0 ? take_later(0, &a) : receive(wait, &a)))
		return false;
	*ret_seq = a.head.seq;
	*ret_status = a.head.status;
	return true;
}

/* ---- memory ---- */

static struct backing *find_backing(uint32_t count)
{
	uint32_t want = count <= SMALL ? SMALL : LARGE;
	struct backing *b = backings;
	void *p;

	while (b->pages != 0 && (b->used || b->pages != want)) {
		if (++b == backings + BACKINGS)
			model_die("more than %u backings in one sequence", BACKINGS);
	}
	if (b->pages == 0) {
		b->fd = memfd_new("model", (uint64_t)want * PAGE);
		if (b->fd < 0 || memfd_map(b->fd, (uint64_t)want * PAGE, &p) < 0)
			model_die("no shared memory");
		b->base = p;
		b->pages = want;
	}
	return b;
}

uint32_t world_slot_add(uint32_t id, struct ref_range range)
{
	const struct abi_slot args = {.id = id,
		.gpa = (uint64_t)range.first * PAGE,
		.bytes = (uint64_t)range.count * PAGE};
	struct backing *b = find_backing(range.count);
	uint32_t status =
		call_with(ABI_CALL_SLOT_REGISTER, &args, sizeof(args), &b->fd, 1, NULL, 0);

	if (status == ABI_ST_OK) {
		b->used = true;
		slots[id].backing = b;
		slots[id].first = range.first;
	}
	return status;
}

void world_slot_drop(uint32_t id)
{
	slots[id].backing = NULL;
}

void world_slots_drop(void)
{
	for (uint32_t id = 0; id < REF_SLOTS; id++)
		world_slot_drop(id);
}

void world_recycle(void)
{
	for (struct backing *b = backings; b < backings + BACKINGS; b++) {
		if (b->used && memfd_discard(b->fd, 0, (uint64_t)b->pages * PAGE) < 0)
			model_die("shared memory cannot be cleared");
		b->used = false;
	}
}

uint64_t *world_page(uint32_t id, uint32_t gfn)
{
	return (uint64_t *)(void *)(slots[id].backing->base +
				    (size_t)(gfn - slots[id].first) * PAGE);
}

void world_each_page(void (*visit)(const uint64_t *page))
{
	for (struct backing *b = backings; b < backings + BACKINGS; b++) {
		uint64_t at = 0, end = (uint64_t)b->pages * PAGE, stop;

		while (b->used && memfd_next_data(b->fd, at, end, &at, &stop) == 0) {
			for (; at < stop; at += PAGE)
				visit((const uint64_t *)(const void *)(b->base + at));
		}
	}
}

/* ---- exits ---- */

static struct abi_vcpu_page *page_of(unsigned int vcpu)
{
	return (struct abi_vcpu_page *)((uint8_t *)pages + (size_t)vcpu * ABI_EXIT_PAGE);
}

void world_exit(unsigned int vcpu, uint32_t type)
{
	const struct timespec patience = {.tv_sec = PATIENCE_MS / 1000};
	struct abi_vcpu_page *page = page_of(vcpu);
	uint32_t now;

	/* It says all the time that it sleeps, so that it is always woken. */
	__atomic_store_n(&page->reply_sleeps, 1, __ATOMIC_SEQ_CST);
	while (true) {
		uint32_t bell = __atomic_load_n(&page->bell, __ATOMIC_SEQ_CST);

		now = __atomic_load_n(&page->exit_seq, __ATOMIC_ACQUIRE);
		if (now != exit_seen[vcpu])
			break;
		if (futex_wait(&page->bell, bell, &patience) == -ETIMEDOUT)
			model_die("vCPU %u does not exit", vcpu);
	}
	exit_seen[vcpu] = now;
	if (page->type != type)
		model_die("an exit of type %u where %u is due", page->type, type);
}

void world_reply(unsigned int vcpu, uint32_t status)
{
	struct abi_vcpu_page *page = page_of(vcpu);

	page->reply_status = status;
	__atomic_store_n(&page->reply_seq, exit_seen[vcpu], __ATOMIC_RELEASE);
	futex_ring(&page->reply_bell, &page->sleeps);
}

void world_skip_exits(void)
{
	for (unsigned int i = 0; i < GUEST_VCPUS; i++)
		exit_seen[i] = __atomic_load_n(&page_of(i)->exit_seq, __ATOMIC_ACQUIRE);
}

/* ---- the VM ---- */

/* What VM_CREATE wants: exit pages, bulk buffer, status file, folder. */
static void make_shared(int fds[4])
{
	void *p;

	snprintf(folder, sizeof(folder), "/tmp/lethe-model-XXXXXX");
	if (mkdtemp(folder) == NULL)
		model_die("no folder in /tmp");
	snprintf(vm_folder, sizeof(vm_folder), "%s/model", folder);
	snprintf(status_path, sizeof(status_path), "%s/status", vm_folder);
	if (mkdir(vm_folder, 0700) < 0)
		model_die("no folder in %s", folder);
	fds[0] = memfd_new("pages", ABI_PAGES_BYTES(GUEST_VCPUS));
	fds[1] = memfd_new("bulk", ABI_BULK_SIZE);
	fds[2] = open(status_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	fds[3] = open(vm_folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (memfd_map(fds[0], ABI_PAGES_BYTES(GUEST_VCPUS), &p) < 0)
		model_die("no exit pages");
	pages = p;
	if (memfd_map(fds[1], ABI_BULK_SIZE, &p) < 0)
		model_die("no bulk buffer");
	world_bulk = p;
	if (ftruncate(fds[2], ABI_STATUS_PAGE) < 0 ||
		pwrite(fds[2], "model", 6, offsetof(struct abi_status_page, name)) != 6)
		model_die("no status file");
}

void world_begin(uint32_t flags)
{
	const struct abi_hello hello = {.version = ABI_VERSION};
	const struct abi_vm_create create = {
		.vcpus = GUEST_VCPUS, .executor = ABI_EXEC_SW, .flags = flags};
	int pair[2], fds[4];

	if (measure_setup() < 0 || socket_pair(pair) < 0 || uv_vm_init(&world_vm, pair[1]) < 0)
		model_die("no VM");
	hv_socket = pair[0];
	make_shared(fds);
	if (world_call(ABI_CALL_HELLO, &hello, sizeof(hello), NULL, 0) != ABI_ST_OK ||
		call_with(ABI_CALL_VM_CREATE, &create, sizeof(create), fds, 4, NULL, 0) !=
			ABI_ST_OK)
		model_die("no VM");
	for (unsigned int i = 0; i < 4; i++)
		close(fds[i]);
	guest_install(&world_vm);
}

void world_end(void)
{
	close(hv_socket);
	if (dispatch_one(&world_vm))
		model_die("the end of the connection was not noticed");
	uv_vm_finish(&world_vm);
	if (watch_windows() != 0)
		model_die("%u windows are left at the end", watch_windows());
	if (access(vm_folder, F_OK) == 0 || rmdir(folder) < 0)
		model_die("files are left at the end");
}
