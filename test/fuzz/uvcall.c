/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzzing the ultravisor's calls, in this process: packets go to dispatch_one() through a
 * real socket, some with descriptors that a call may want.
 *
 * The input: a byte that says how far the VM has come, then packets, each
 *	call      1 byte
 *	how       1 byte: which descriptors, whether size and magic are right
 *	words     1 byte, then so many 8-byte words of arguments, the first half of the
 *	          bits of each choosing a border value instead
 *
 * Every packet that is a call is answered exactly once, and the state stays one of those
 * that exist.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/types.h"
#include "os/kvm.h"
#include "os/memfd.h"
#include "os/meminfo.h"
#include "os/socket.h"
#include "uv/dispatch.h"
#include "uv/measure.h"
#include "uv/seal.h"
#include "uv/vm_life.h"

#define SLOT_BYTES (8 * SIZE_2M)
#define WORDS_MAX  68 /* more than any call has */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int __wrap_kvm_open(char *why, size_t size);
void __wrap_meminfo_open(struct meminfo *m, const char *root);

/* The linker puts these in place: what host it runs on is none of the input. */
int __wrap_kvm_open(char *why, size_t size)
{
	return -ENODEV;
}

void __wrap_meminfo_open(struct meminfo *m, const char *root)
{
	*m = (struct meminfo){.machine = -1, .pressure = {-1, -1}};
}

/* What the other side holds; descriptors are duplicated by being sent. */
static struct {
	int pages, bulk, status, folder, slot;
	int end; /* one past the highest of them */
	struct abi_status_page *page;
} fixed;

struct input {
	const uint8_t *at, *end;
};

static uint8_t next_byte(struct input *in)
{
	return in->at < in->end ? *in->at++ : 0;
}

static uint64_t next_word(struct input *in)
{
	static const uint64_t borders[] = {0, 1, 2, PAGE_SIZE - 1, PAGE_SIZE, SIZE_2M, SLOT_BYTES,
		SLOT_BYTES - PAGE_SIZE, GPA_END, GPA_END - PAGE_SIZE, UINT32_MAX, -PAGE_SIZE,
		UINT64_MAX, (uint64_t)1 << 63, ABI_VERSION, PAGE_SIZE << 32};
	uint8_t choice = next_byte(in);
	uint64_t word = 0;

	if (choice < 128)
		return borders[choice % (sizeof(borders) / sizeof(borders[0]))];
	for (int i = 0; i < 8; i++)
		word = word << 8 | next_byte(in);
	return word;
}

static void on_kick(int sig)
{
}

/* The slot's memory holds something: a page that is taken in, sealed and brought back. */
static void fill_slot(void)
{
	const uint64_t words[PAGE_SIZE / 8] = {1, 2, 3};

	if (pwrite(fixed.slot, words, sizeof(words), (off_t)SIZE_2M) != (ssize_t)sizeof(words))
		abort();
}

static void setup(void)
{
	struct sigaction kick = {.sa_handler = on_kick};
	void *page;

	if (fixed.end != 0)
		return;
	sigaction(SIGUSR1, &kick, NULL);
	if (measure_setup() < 0 || seal_setup() < 0)
		abort();
	fixed.pages = memfd_new("pages", ABI_PAGES_BYTES(ABI_MAX_VCPUS));
	fixed.bulk = memfd_new("bulk", ABI_BULK_SIZE);
	fixed.status = memfd_new("status", ABI_STATUS_PAGE);
	fixed.slot = memfd_new("slot", SLOT_BYTES);
	fixed.folder = open("/proc/self", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fixed.folder < 0 || memfd_map(fixed.status, ABI_STATUS_PAGE, &page) < 0)
		abort();
	fixed.page = page;
	fixed.end = fixed.folder + 1;
}

/* ---- one VM ---- */

struct session {
	struct uv_vm vm;
	int socket; /* the hypervisor's end */
	uint32_t seq;
	unsigned int performs; /* that are answered later */
};

static void take_answer(struct session *s, uint32_t call, bool *ret_seen)
{
	struct {
		struct abi_answer head;
		uint8_t result[ABI_MAX_PACKET];
	} a;

	while (recv(s->socket, &a, sizeof(a), MSG_DONTWAIT) > 0) {
		if (a.head.magic == ABI_EVENT_MAGIC)
			continue;
		if (a.head.magic != ABI_MAGIC)
			abort();
		if (a.head.seq == s->seq) {
			if (*ret_seen)
				abort();
			*ret_seen = true;
		} else if (s->performs-- == 0) {
			abort();
		}
	}
}

static void check_state(struct uv_vm *vm)
{
	uint32_t phase, security;

	pthread_mutex_lock(&vm->lock);
	phase = vm->state.phase;
	security = vm->state.security;
	if (((phase & ABI_PHASE_VM) != 0) != vm->exists)
		abort();
	if (!vm->exists && (security != ABI_SEC_NORMAL || slots_pages(&vm->slots) != 0))
		abort();
	for (unsigned int i = 0; i < SLOTS_MAX; i++) {
		const struct slot_memory *m = &vm->memory_of[i];

		if (vm->slots.slot[i].used != (m->window.base != NULL) ||
			vm->slots.slot[i].used != (m->memfd >= 0))
			abort();
		if (vm->slots.slot[i].used &&
			(m->filling.base != NULL) != (security == ABI_SEC_TRANSIENT))
			abort();
	}
	if (attr_count(vm->attr, ATTR_SEALED) > 0 &&
		(security != ABI_SEC_SECURE || vm->seal == NULL))
		abort();
	if (security != ABI_SEC_SECURE && vm->seal != NULL)
		abort();
	pthread_mutex_unlock(&vm->lock);
}

/* Sends a packet and lets it be performed. */
static void call(struct session *s, uint32_t nr, const void *args, uint32_t size, const int *fds,
	unsigned int nfds, bool is_call)
{
	struct abi_request head = {.magic = ABI_MAGIC, .call = nr, .seq = ++s->seq, .size = size};
	struct iovec iov[2] = {{&head, sizeof(head)}, {(void *)args, size}};
	bool seen = false;

	if (!is_call)
		head.magic ^= 1u << nr % 32;
	if (socket_send(s->socket, iov, 2, fds, nfds) < 0 || !dispatch_one(&s->vm))
		abort();
	take_answer(s, nr, &seen);
	if (is_call && !seen) {
		if (nr != ABI_CALL_PERFORM)
			abort();
		s->performs++;
	}
	check_state(&s->vm);
}

static void say_hello(struct session *s)
{
	const struct abi_hello hello = {.version = ABI_VERSION};

	call(s, ABI_CALL_HELLO, &hello, sizeof(hello), NULL, 0, true);
}

static void create(struct session *s, uint32_t flags)
{
	const struct abi_vm_create args = {.vcpus = 1,
		.executor = ABI_EXEC_SW,
		.flags = (flags & 15) | ((flags & ABI_VM_SHARE_MAPPED) ? 0 : ABI_VM_SHARE_AUTO)};
	const int fds[4] = {fixed.pages, fixed.bulk, fixed.status, fixed.folder};

	call(s, ABI_CALL_VM_CREATE, &args, sizeof(args), fds, 4, true);
}

static void add_slot(struct session *s)
{
	const struct abi_slot args = {.bytes = SLOT_BYTES};

	call(s, ABI_CALL_SLOT_REGISTER, &args, sizeof(args), &fixed.slot, 1, true);
}

static void protect(struct session *s)
{
	const struct abi_page_in in = {.gpa = SIZE_2M, .bytes = SIZE_2M};
	const struct abi_none none = {0};

	call(s, ABI_CALL_INIT_START, &none, sizeof(none), NULL, 0, true);
	call(s, ABI_CALL_PAGE_IN, &in, sizeof(in), NULL, 0, true);
	call(s, ABI_CALL_INIT_DONE, &none, sizeof(none), NULL, 0, true);
}

static void page_out(struct session *s)
{
	const struct abi_page_out out = {.gpa = SIZE_2M, .bytes = PAGE_SIZE};

	call(s, ABI_CALL_PAGE_OUT, &out, sizeof(out), NULL, 0, true);
}

/* A packet from the input. */
static void random_call(struct session *s, struct input *in)
{
	const int kinds[4][4] = {{fixed.slot, fixed.slot, fixed.slot, fixed.slot},
		{fixed.pages, fixed.bulk, fixed.status, fixed.folder},
		{fixed.folder, s->socket, fixed.bulk, fixed.pages},
		{fixed.bulk, fixed.pages, fixed.folder, fixed.slot}};
	uint32_t nr = next_byte(in) % 34;
	uint8_t how = next_byte(in);
	uint64_t words[WORDS_MAX];
	uint32_t count = next_byte(in) % (WORDS_MAX + 1);

	for (uint32_t i = 0; i < count; i++)
		words[i] = next_word(in);
	call(s, nr, words, count * 8, kinds[how >> 3 & 3], how & 7 ? how % 5 : 0,
		how >> 5 != 0 && count * 8 <= sizeof(union call_args));
}

/* Closes what a VM leaves open until its process ends. */
static void end(struct session *s)
{
	close(s->socket);
	if (s->vm.exists)
		uv_vm_finish(&s->vm);
	else
		attr_map_free(s->vm.attr);
	close_range((unsigned int)fixed.end, ~0u, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct session s;
	struct input in = {data, data + size};
	int pair[2];
	uint8_t start, start_at;

	setup();
	fill_slot();
	memset(&s, 0, sizeof(s));
	memset(fixed.page, 0, ABI_STATUS_PAGE);
	snprintf(fixed.page->name, sizeof(fixed.page->name), "no-such-folder");
	if (socket_pair(pair) < 0 || uv_vm_init(&s.vm, pair[0]) < 0)
		abort();
	s.socket = pair[1];
	start = next_byte(&in);
	start_at = (start & 15) % 6;
	if (start_at > 0)
		say_hello(&s);
	if (start_at > 1)
		create(&s, start >> 4);
	if (start_at > 2)
		add_slot(&s);
	if (start_at > 3)
		protect(&s);
	if (start_at > 4)
		page_out(&s);
	while (in.at < in.end)
		random_call(&s, &in);
	end(&s);
	return 0;
}
