/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test/model/convert_model.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "os/memfd.h"
#include "os/socket.h"
#include "uv/copy.h"
#include "uv/dispatch.h"
#include "uv/measure.h"
#include "uv/vm_life.h"

const struct gfn_range cm_slot[CM_SLOTS] = {
	{{0}, 24}, {{24}, 8}, {{32}, 64}, {{128}, CM_PAGES - 128}};

static void die(const char *what)
{
	fprintf(stderr, "convert model: %s\n", what);
	abort();
}

static void on_kick(int sig)
{
}

/* Performs a call in this thread; the status. */
static uint32_t call(struct cm *c, uint32_t nr, const void *args, uint32_t size, const int *fds,
	unsigned int nfds)
{
	struct abi_request head = {.magic = ABI_MAGIC, .call = nr, .seq = ++c->seq, .size = size};
	struct iovec iov[2] = {{&head, sizeof(head)}, {(void *)args, size}};
	struct {
		struct abi_answer head;
		uint8_t result[512];
	} a;

	if (socket_send(c->socket, iov, 2, fds, nfds) < 0 || !dispatch_one(&c->vm) ||
		recv(c->socket, &a, sizeof(a), 0) < (ssize_t)sizeof(a.head) || a.head.seq != c->seq)
		die("a call got no answer");
	return a.head.status;
}

static void must(struct cm *c, uint32_t nr, const void *args, uint32_t size, const int *fds,
	unsigned int nfds)
{
	if (call(c, nr, args, size, fds, nfds) != ABI_ST_OK)
		die("a call failed");
}

static void create(struct cm *c, unsigned int vcpus, uint32_t flags)
{
	const struct abi_vm_create args = {.vcpus = vcpus, .executor = ABI_EXEC_SW, .flags = flags};
	const struct abi_hello hello = {.version = ABI_VERSION};
	char folder[] = "/tmp/convert-model-XXXXXX";
	struct abi_status_page *status;
	int fds[4];
	void *p;

	if (mkdtemp(folder) == NULL)
		die("no folder");
	fds[0] = memfd_new("pages", ABI_PAGES_BYTES(vcpus));
	fds[1] = memfd_new("bulk", ABI_BULK_SIZE);
	fds[2] = memfd_new("status", ABI_STATUS_PAGE);
	fds[3] = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (memfd_map(fds[2], ABI_STATUS_PAGE, &p) < 0)
		die("no memory");
	status = p;
	snprintf(status->name, sizeof(status->name), "%s", strrchr(folder, '/') + 1);
	must(c, ABI_CALL_HELLO, &hello, sizeof(hello), NULL, 0);
	must(c, ABI_CALL_VM_CREATE, &args, sizeof(args), fds, 4);
	munmap(p, ABI_STATUS_PAGE);
	for (int i = 0; i < 4; i++)
		close(fds[i]);
}

static void populate(struct cm *c)
{
	const struct abi_none none = {0};

	for (uint32_t i = 0; i < CM_SLOTS; i++) {
		const struct abi_slot args = {.id = i,
			.gpa = gfn_to_gpa(cm_slot[i].start).v,
			.bytes = range_bytes(cm_slot[i])};
		void *p;

		c->memfd[i] = memfd_new("slot", args.bytes);
		if (memfd_map(c->memfd[i], args.bytes, &p) < 0)
			die("no memory");
		c->hva[i] = p;
		must(c, ABI_CALL_SLOT_REGISTER, &args, sizeof(args), &c->memfd[i], 1);
	}
	must(c, ABI_CALL_INIT_START, &none, sizeof(none), NULL, 0);
	must(c, ABI_CALL_INIT_DONE, &none, sizeof(none), NULL, 0);
}

static void drop_slots(struct cm *c)
{
	for (int i = 0; i < CM_SLOTS; i++) {
		munmap(c->hva[i], range_bytes(cm_slot[i]));
		close(c->memfd[i]);
	}
}

void cm_begin(struct cm *c, unsigned int vcpus, uint32_t flags)
{
	struct sigaction kick = {.sa_handler = on_kick};
	int pair[2];

	sigaction(SIGUSR1, &kick, NULL);
	memset(c, 0, sizeof(*c));
	if (measure_setup() < 0 || socket_pair(pair) < 0 || uv_vm_init(&c->vm, pair[0]) < 0)
		die("no VM");
	c->socket = pair[1];
	create(c, vcpus, flags);
	populate(c);
}

void cm_end(struct cm *c)
{
	close(c->socket);
	uv_vm_finish(&c->vm);
	drop_slots(c);
}

void cm_reset(struct cm *c)
{
	const struct abi_none none = {0};

	must(c, ABI_CALL_RESET, &none, sizeof(none), NULL, 0);
	drop_slots(c);
	populate(c);
}

int cm_slot_of(uint64_t page)
{
	for (int i = 0; i < CM_SLOTS; i++) {
		if (page >= cm_slot[i].start.v && page < range_end(cm_slot[i]))
			return i;
	}
	return -1;
}

uint64_t *cm_guest(struct cm *c, uint64_t page)
{
	uint64_t unused;

	return (uint64_t *)(void *)uv_vm_address(&c->vm, gfn_to_gpa(gfn(page)), PAGE_SIZE, &unused);
}

uint64_t *cm_shared(struct cm *c, uint64_t page)
{
	int slot = cm_slot_of(page);

	return (uint64_t *)(void *)(c->hva[slot] + ((page - cm_slot[slot].start.v) << PAGE_SHIFT));
}

uint32_t cm_policy(struct cm *c, const struct abi_policy *policy)
{
	return call(c, ABI_CALL_POLICY, policy, sizeof(*policy), NULL, 0);
}

uint32_t cm_copy(struct cm *c, unsigned int vcpu, uint64_t gpa, uint32_t bytes, bool to_guest)
{
	struct uv_vcpu *v = &c->vm.vcpu[vcpu];
	struct abi_vcpu_page *page = v->page;

	page->copy[0] = (struct abi_copy){gpa, bytes, to_guest};
	page->copy_count = 1;
	page->copy_seq++;
	if (!copy_serve(v) || page->copy_done != page->copy_seq)
		die("a copy was not served");
	return page->copy_status;
}
