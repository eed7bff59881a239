/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "uv/dispatch.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "os/socket.h"
#include "uv/status.h"

_Static_assert(
	(int)PHASE_NEW == ABI_PHASE_NEW && (int)PHASE_GREETED == ABI_PHASE_GREETED &&
		(int)PHASE_SETUP == ABI_PHASE_SETUP && (int)PHASE_RUNNING == ABI_PHASE_RUNNING &&
		(int)PHASE_STOPPED == ABI_PHASE_STOPPED && (int)SECURITY_NORMAL == ABI_SEC_NORMAL &&
		(int)SECURITY_TRANSIENT == ABI_SEC_TRANSIENT &&
		(int)SECURITY_SECURE == ABI_SEC_SECURE,
	"the states of core/vm_state.h are those of the call table");

struct row {
	const char *name;
	uint32_t args_size, result_size;
	unsigned int fds, phases, securities;
};

#define PERFORMERS(X)                            \
	X(HELLO, call_hello)                     \
	X(VM_CREATE, call_vm_create)             \
	X(SLOT_REGISTER, call_slot_register)     \
	X(SLOT_UNREGISTER, call_slot_unregister) \
	X(INIT_START, call_init_start)           \
	X(PAGE_IN, call_page_in)                 \
	X(INIT_DONE, call_init_done)             \
	X(INIT_ABORT, call_init_abort)           \
	X(VM_START, call_vm_start)               \
	X(VM_STOP, call_vm_stop)                 \
	X(PREPARE, call_prepare)                 \
	X(PERFORM, call_perform)                 \
	X(CANCEL, call_cancel)                   \
	X(RESET, call_reset)                     \
	X(MEM_READ, call_mem_read)               \
	X(MEM_WRITE, call_mem_write)             \
	X(INFO, call_info)                       \
	X(VCPU_STATE, call_vcpu_state)           \
	X(IRQ_LINE, call_irq_line)               \
	X(PAGE_OUT, call_page_out)               \
	X(PAGE_IN_SEALED, call_page_in_sealed)   \
	X(PAGE_LOST, call_page_lost)             \
	X(SLOT_MOVE, call_slot_move)             \
	X(COLDEST, call_coldest)                 \
	X(POLICY, call_policy)                   \
	X(AUDIT, call_audit)

static int (*const performers[])(struct uv_vm *, const struct call *) = {
#define X(name, function) [ABI_CALL_##name] = function,
	PERFORMERS(X)
#undef X
};

static const struct row rows[] = {
#define X(name, number, args, result, fds, phases, securities) \
	[number] = {#name, sizeof(struct args), sizeof(struct result), fds, phases, securities},
	ABI_CALL_TABLE(X)
#undef X
};

static const struct row *find_row(uint32_t call)
{
	if (call >= sizeof(rows) / sizeof(rows[0]) || rows[call].name == NULL)
		return NULL;
	return &rows[call];
}

void dispatch_answer(
	struct uv_vm *vm, uint32_t call, uint32_t seq, int err, const union call_result *result)
{
	const struct row *row = find_row(call);
	struct abi_answer head = {.magic = ABI_MAGIC, .status = status_of(err), .seq = seq};
	struct iovec iov[2] = {{&head, sizeof(head)}, {(void *)result, 0}};
	bool has_result =
		err == 0 || err == -ECANCELED || err == -EUCLEAN || err == -EPROTONOSUPPORT;

	if (row != NULL && has_result)
		head.size = row->result_size;
	iov[1].iov_len = head.size;
	pthread_mutex_lock(&vm->send_lock);
	/*
	 * A hypervisor that is gone is noticed where it is read from.  One that leaves its
	 * answers unread must not hold up this process, and is as good as gone.
	 */
	if (socket_try_send(vm->socket, iov, 2, NULL, 0) == -EAGAIN)
		(void)shutdown(vm->socket, SHUT_RDWR);
	pthread_mutex_unlock(&vm->send_lock);
}

/* Argument structs have at most one reserved field. */
#define reserved_of(args, type)                                                                 \
	_Generic((struct type *)NULL, struct abi_none *                                         \
		 : (args)->none.reserved, struct abi_hello *                                    \
		 : (args)->hello.reserved, struct abi_vm_create *                               \
		 : (args)->vm_create.reserved, struct abi_slot *                                \
		 : (args)->slot.reserved, struct abi_vcpu_state *                               \
		 : (args)->vcpu_state.reserved, struct abi_mem *                                \
		 : (args)->mem.reserved, struct abi_slot_move *                                 \
		 : (args)->slot_move.reserved, struct abi_policy *                              \
		 : (args)->policy.reserved, struct abi_audit *                                  \
		 : (args)->audit.reserved, struct abi_page_in * : 0, struct abi_irq_line * : 0, \
		 struct abi_page_out * : 0, struct abi_page_in_sealed * : 0,                    \
		 struct abi_page_lost * : 0, struct abi_coldest * : 0)

static bool reserved_is_zero(uint32_t call, const union call_args *args)
{
	switch (call) {
#define X(name, number, type, result, fds, phases, securities) \
	case number:                                           \
		return reserved_of(args, type) == 0;
		ABI_CALL_TABLE(X)
#undef X
	default:
		return false;
	}
}

static int check(struct uv_vm *vm, const struct row *row, const struct abi_request *req,
	const union call_args *args, unsigned int nfds)
{
	if (row == NULL)
		return -ENOTTY;
	if (req->size != row->args_size || nfds != row->fds || !reserved_is_zero(req->call, args))
		return -EINVAL;
	if ((row->phases & vm->state.phase) == 0 || (row->securities & vm->state.security) == 0)
		return -EPROTO;
	return 0;
}

static void perform(struct uv_vm *vm, const struct abi_request *req, const union call_args *args,
	const int *fds, unsigned int nfds)
{
	const struct row *row = find_row(req->call);
	union call_result result;
	struct call c = {
		.number = req->call, .seq = req->seq, .args = args, .fds = fds, .result = &result};
	int ret;

	memset(&result, 0, sizeof(result));
	/* Phases change under the lock on vCPU threads too; performers look again there. */
	pthread_mutex_lock(&vm->lock);
	ret = check(vm, row, req, args, nfds);
	pthread_mutex_unlock(&vm->lock);
	if (ret == 0)
		ret = performers[req->call](vm, &c);
	if (ret != 0) {
		for (unsigned int i = 0; i < nfds; i++)
			close(fds[i]);
	}
	log_debug("%s: %d", row != NULL ? row->name : "?", ret);
	if (ret != CALL_LATER)
		dispatch_answer(vm, req->call, req->seq, ret, &result);
}

bool dispatch_one(struct uv_vm *vm)
{
	struct {
		struct abi_request head;
		union call_args args;
	} packet;
	int fds[SOCKET_MAX_FDS];
	unsigned int nfds = 0;
	ssize_t n;

	memset(&packet, 0, sizeof(packet));
	n = socket_recv(vm->socket, &packet, sizeof(packet), fds, SOCKET_MAX_FDS, &nfds);
	if (n == -EMFILE && packet.head.magic == ABI_MAGIC)
		dispatch_answer(vm, packet.head.call, packet.head.seq, n, NULL);
	if (n == -EMFILE)
		return true;
	if (n == -EMSGSIZE)
		return true; /* dropped; whoever sent it gets no answer to what is no call */
	if (n <= 0)
		return false;
	if ((size_t)n < sizeof(packet.head) || packet.head.magic != ABI_MAGIC ||
		packet.head.size != (size_t)n - sizeof(packet.head)) {
		for (unsigned int i = 0; i < nfds; i++)
			close(fds[i]);
		return true;
	}
	perform(vm, &packet.head, &packet.args, fds, nfds);
	return true;
}
