/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The VM as a whole: its ultravisor, its entry in the runtime directory, its end. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/failpoint.h"
#include "hv/error.h"
#include "hv/pager.h"
#include "hv/vm.h"
#include "os/clock.h"
#include "os/futex.h"
#include "os/memfd.h"
#include "os/socket.h"
#include "os/launch.h"

/* What starts at once answers in a moment; this is for a machine that thrashes. */
#define HELLO_TIMEOUT_MS 20000

/* How long after its socket closed the process of an ultravisor may take to end. */
#define DEATH_TIMEOUT_MS 1000

/* What an unfinished VM holds. */
struct birth {
	int pages_fd, bulk_fd;
};

int hv_call(struct lethe_vm *vm, enum abi_call call, const void *args, void *result)
{
	return conn_call(vm->conn, call, args, result, NULL, 0);
}

/* ---- the ultravisor process ---- */

/* On the reader's thread: everybody who waits for an exit is told that there are no more. */
static void on_death(void *ctx)
{
	struct lethe_vm *vm = ctx;

	for (unsigned int i = 0; i < vm->vcpus && vm->pages != NULL; i++) {
		struct abi_vcpu_page *page = hv_vcpu_page(vm, i);

		__atomic_store_n(&page->type, ABI_EXIT_CLOSED, __ATOMIC_RELAXED);
		__atomic_fetch_add(&page->exit_seq, 1, __ATOMIC_RELEASE);
		__atomic_fetch_add(&page->bell, 1, __ATOMIC_RELEASE);
		futex_wake(&page->bell, INT32_MAX);
	}
}

/* On the reader's thread. */
static bool on_event(void *ctx, const struct abi_event *event)
{
	struct lethe_vm *vm = ctx;
	struct pager *pager = __atomic_load_n(&vm->pager, __ATOMIC_ACQUIRE);
	struct gfn_range r;

	return event->type == ABI_EVENT_PAGE_WANTED && pager != NULL &&
	       checked_gfn_range(event->gpa, event->bytes, &r) == 0 && pager_want(pager, r);
}

static int find_uv(const struct lethe_vm_config *config, char *path, size_t size)
{
	int ret = 0;

	if (config->uv_path == NULL)
		ret = find_beside("lethe-uv", LETHE_LIBEXECDIR, path, size);
	else if ((size_t)snprintf(path, size, "%s", config->uv_path) >= size)
		ret = -ENAMETOOLONG;
	else if (access(path, X_OK) < 0)
		ret = -errno;
	if (ret < 0)
		return fail(ret, "%s: lethe-uv is not there or cannot be run",
			config->uv_path != NULL ? config->uv_path : path);
	return 0;
}

/* The number that lethe-uv gives is believed once the kernel says that it is a child. */
static bool is_child(pid_t pid)
{
	siginfo_t unused;

	return pid > 0 && waitid(P_PID, (id_t)pid, &unused, WEXITED | WNOHANG | WNOWAIT) == 0;
}

static int greet(struct lethe_vm *vm)
{
	struct abi_hello_ret reply = {0};
	int ret = conn_hello(vm->conn, HELLO_TIMEOUT_MS, &reply);

	if ((ret == 0 || ret == -EPROTONOSUPPORT) && !is_child(reply.pid))
		return fail(-EPROTO, "what answered is not the lethe-uv that was started");
	if (ret == 0 || ret == -EPROTONOSUPPORT)
		process_set_pid(vm->process, reply.pid);
	if (ret == -EPROTONOSUPPORT || (ret == 0 && reply.version != ABI_VERSION))
		return fail(-EPROTONOSUPPORT, "lethe-uv speaks version %u of the interface, not %u",
			reply.version, ABI_VERSION);
	if (ret == -EPIPE)
		return fail(ret, "lethe-uv ended before it answered");
	if (ret < 0)
		return fail(ret, "lethe-uv does not answer: %s", strerror(-ret));
	vm->uv_pid = reply.pid;
	return 0;
}

static int start_uv(struct lethe_vm *vm, const struct lethe_vm_config *config)
{
	const struct conn_handlers handlers = {vm, on_death, on_event};
	char path[4096];
	int pair[2], ret = find_uv(config, path, sizeof(path));

	if (ret < 0)
		return ret;
	ret = failpoint("hv-socket");
	if (ret == 0)
		ret = socket_pair(pair);
	if (ret < 0)
		return fail(ret, "no socket for lethe-uv: %s", strerror(-ret));
	ret = process_start(path, pair[1], &vm->process);
	close(pair[1]);
	if (ret == 0)
		ret = conn_new(pair[0], &handlers, &vm->conn);
	if (ret < 0) {
		close(pair[0]);
		return fail(ret, "%s: could not be started: %s", path, strerror(-ret));
	}
	return greet(vm);
}

/* ---- creation ---- */

static bool is_name(const char *name)
{
	size_t len = strlen(name);

	if (len < 1 || len > ABI_NAME_MAX || name[0] == '.')
		return false;
	for (size_t i = 0; i < len; i++) {
		if (!isalnum((unsigned char)name[i]) && strchr("._-", name[i]) == NULL)
			return false;
	}
	return true;
}

static int check_config(const struct lethe_vm_config *c)
{
	if (c->vcpus < 1 || c->vcpus > ABI_MAX_VCPUS)
		return fail(-EINVAL, "%u vCPUs: 1 to %u are possible", c->vcpus, ABI_MAX_VCPUS);
	if (c->name != NULL && !is_name(c->name))
		return fail(-EINVAL,
			"'%s' is no name: 1 to %u of A-Z a-z 0-9 . _ -, not starting with a dot",
			c->name, ABI_NAME_MAX);
	return 0;
}

static void choose_name(struct lethe_vm *vm, const char *name)
{
	static unsigned int count;
	unsigned int n = __atomic_add_fetch(&count, 1, __ATOMIC_RELAXED);

	if (name != NULL)
		snprintf(vm->name, sizeof(vm->name), "%s", name);
	else if (n == 1)
		snprintf(vm->name, sizeof(vm->name), "vm-%d", (int)getpid());
	else
		snprintf(vm->name, sizeof(vm->name), "vm-%d-%u", (int)getpid(), n);
}

static int make_pages(struct lethe_vm *vm, struct birth *b)
{
	void *p = NULL;
	int ret = failpoint("hv-pages");

	b->pages_fd = ret < 0 ? ret : memfd_new("lethe-vcpus", ABI_PAGES_BYTES(vm->vcpus));
	if (b->pages_fd < 0)
		return b->pages_fd;
	b->bulk_fd = memfd_new("lethe-bulk", ABI_BULK_SIZE);
	if (b->bulk_fd < 0)
		return b->bulk_fd;
	ret = memfd_map(b->pages_fd, ABI_PAGES_BYTES(vm->vcpus), &p);
	if (ret == 0) {
		vm->pages = p;
		ret = failpoint("hv-bulk");
	}
	if (ret == 0)
		ret = memfd_map(b->bulk_fd, ABI_BULK_SIZE, &p);
	if (ret == 0)
		vm->bulk = p;
	return ret;
}

/* Why there is no entry.  That a path is no good here is one error, whatever is wrong there. */
static int entry_failed(int err)
{
	char path[256];

	(void)rundir_base(path, sizeof(path));
	fail(err, "no entry in the runtime directory %s: %s", path, strerror(-err));
	switch (-err) {
	case ENOENT:
	case EPERM:
	case EACCES:
	case EROFS:
	case ELOOP:
	case ENAMETOOLONG:
		return -ENOTDIR;
	default:
		return err;
	}
}

static int make_entry(struct lethe_vm *vm)
{
	void *p = NULL;
	int ret = rundir_claim(vm->name, ABI_STATUS_PAGE, &vm->entry);

	if (ret == -EEXIST)
		return fail(ret, "a VM named '%s' is there already", vm->name);
	if (ret < 0)
		return entry_failed(ret);
	ret = memfd_map(vm->entry.status, ABI_STATUS_PAGE, &p);
	if (ret < 0)
		return fail(ret, "the status file cannot be mapped: %s", strerror(-ret));
	vm->status = p;
	memcpy(vm->status->name, vm->name, sizeof(vm->status->name));
	vm->status->hv_pid = getpid();
	vm->status->started_ns = clock_realtime_ns();
	return 0;
}

static uint32_t flags_of(const struct lethe_vm_config *c)
{
	return (c->lazy_off ? ABI_VM_LAZY_OFF : 0) | (c->wipe_off ? ABI_VM_WIPE_OFF : 0) |
	       (c->share == LETHE_SHARE_MAPPED ? ABI_VM_SHARE_MAPPED : 0) |
	       (c->share == LETHE_SHARE_AUTO ? ABI_VM_SHARE_AUTO : 0) |
	       (c->discard_eager ? ABI_VM_DISCARD_EAGER : 0) | (c->pc ? ABI_VM_PC : 0);
}

static int create_in_uv(
	struct lethe_vm *vm, const struct lethe_vm_config *config, const struct birth *b)
{
	const int fds[4] = {b->pages_fd, b->bulk_fd, vm->entry.status, vm->entry.folder};
	struct abi_vm_create args = {.vcpus = vm->vcpus,
		.executor = vm->executor == LETHE_EXECUTOR_KVM ? ABI_EXEC_KVM : ABI_EXEC_SW,
		.flags = flags_of(config)};
	int ret = conn_call(vm->conn, ABI_CALL_VM_CREATE, &args, NULL, fds, 4);

	/* What works in this process may not in the other. */
	if (ret == -EOPNOTSUPP && config->executor == LETHE_EXECUTOR_AUTO && !config->pc &&
		vm->executor == LETHE_EXECUTOR_KVM) {
		vm->executor = LETHE_EXECUTOR_SW;
		args.executor = ABI_EXEC_SW;
		ret = conn_call(vm->conn, ABI_CALL_VM_CREATE, &args, NULL, fds, 4);
	}
	return ret < 0 ? fail(ret, "lethe-uv could not make the VM: %s", strerror(-ret)) : 0;
}

static int be_born(struct lethe_vm *vm, const struct lethe_vm_config *config, struct birth *b)
{
	int ret = make_pages(vm, b);

	if (ret < 0)
		return fail(ret, "no memory to share with lethe-uv: %s", strerror(-ret));
	ret = make_entry(vm);
	if (ret == 0)
		ret = start_uv(vm, config);
	if (ret == 0)
		ret = create_in_uv(vm, config, b);
	return ret;
}

static void unmap_all(struct lethe_vm *vm)
{
	if (vm->pages != NULL)
		munmap(vm->pages, ABI_PAGES_BYTES(vm->vcpus));
	if (vm->bulk != NULL)
		munmap(vm->bulk, ABI_BULK_SIZE);
	if (vm->status != NULL)
		munmap(vm->status, ABI_STATUS_PAGE);
}

static void close_if_open(int fd)
{
	if (fd >= 0)
		close(fd);
}

/* Everything of a VM that did not come to be, its processes included. */
static void unwind(struct lethe_vm *vm)
{
	if (vm->conn != NULL) {
		conn_stop(vm->conn);
		conn_free(vm->conn);
	}
	if (vm->process != NULL) {
		process_kill(vm->process);
		process_leave(vm->process, true);
	}
	unmap_all(vm);
	rundir_drop(&vm->entry);
	pthread_mutex_destroy(&vm->lock);
	pthread_mutex_destroy(&vm->bulk_lock);
	free(vm);
}

static uint64_t last_id;

int lethe_vm_new(const struct lethe_vm_config *config, struct lethe_vm **ret_vm)
{
	struct birth b = {.pages_fd = -1, .bulk_fd = -1};
	struct lethe_vm *vm;
	int ret = check_config(config);

	if (ret < 0)
		return ret;
	vm = failpoint("hv-vm") < 0 ? NULL : calloc(1, sizeof(*vm));
	if (vm == NULL)
		return fail(-ENOMEM, "no memory for a VM");
	vm->id = __atomic_add_fetch(&last_id, 1, __ATOMIC_RELAXED);
	vm->references = 1;
	vm->vcpus = config->vcpus;
	vm->entry.folder = vm->entry.status = -1;
	for (unsigned int i = 0; i < ABI_MAX_SLOTS; i++)
		vm->slot[i].memfd = -1;
	pthread_mutex_init(&vm->lock, NULL);
	pthread_mutex_init(&vm->bulk_lock, NULL);
	choose_name(vm, config->name);
	ret = hv_choose_executor(config, vm);
	if (ret == 0)
		ret = be_born(vm, config, &b);
	close_if_open(b.pages_fd);
	close_if_open(b.bulk_fd);
	if (ret < 0) {
		unwind(vm);
		return ret;
	}
	*ret_vm = vm;
	return 0;
}

/* ---- the end ---- */

void hv_get(struct lethe_vm *vm)
{
	__atomic_add_fetch(&vm->references, 1, __ATOMIC_RELAXED);
}

void hv_put(struct lethe_vm *vm)
{
	if (__atomic_sub_fetch(&vm->references, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	if (vm->pager != NULL)
		pager_free(vm->pager);
	conn_free(vm->conn);
	pthread_mutex_destroy(&vm->lock);
	pthread_mutex_destroy(&vm->bulk_lock);
	free(vm);
}

void lethe_vm_close(struct lethe_vm *vm, bool wait_destroyed)
{
	int unused;

	/* Its threads make calls, and the connection's gives it events. */
	if (vm->pager != NULL)
		pager_stop(vm->pager);
	conn_stop(vm->conn);
	pthread_mutex_lock(&vm->lock);
	hv_drop_slots(vm);
	pthread_mutex_unlock(&vm->lock);
	/* The ultravisor removes the entry when it is done; one that was killed cannot. */
	if (!wait_destroyed && process_status(vm->process, 0, &unused) == -EAGAIN) {
		close(vm->entry.folder);
		close(vm->entry.status);
		process_leave(vm->process, false);
	} else {
		process_leave(vm->process, true);
		rundir_drop(&vm->entry);
	}
	for (unsigned int i = 0; i < vm->vcpus; i++)
		hv_forget_saved(&vm->local[i]);
	unmap_all(vm);
	hv_put(vm);
}

int lethe_vm_uv_status(struct lethe_vm *vm, int *ret_status)
{
	unsigned int wait_ms = conn_is_dead(vm->conn) ? DEATH_TIMEOUT_MS : 0;
	int ret = process_status(vm->process, wait_ms, ret_status);

	if (ret == -EAGAIN)
		return fail(ret, "lethe-uv runs");
	return ret < 0 ? fail(ret, "lethe-uv was reaped by somebody else") : 0;
}

const char *lethe_vm_name(const struct lethe_vm *vm)
{
	return vm->name;
}

const char *lethe_vm_folder(const struct lethe_vm *vm)
{
	return vm->entry.path;
}

enum lethe_executor lethe_vm_executor(const struct lethe_vm *vm)
{
	return vm->executor;
}

pid_t lethe_vm_uv_pid(const struct lethe_vm *vm)
{
	return vm->uv_pid;
}

int lethe_vm_death_fd(const struct lethe_vm *vm)
{
	return conn_death_fd(vm->conn);
}

int lethe_vm_info(struct lethe_vm *vm, struct lethe_info *ret)
{
	struct abi_info_ret info;
	int err = hv_call(vm, ABI_CALL_INFO, NULL, &info);

	if (err < 0)
		return fail(err, "lethe-uv gave no figures: %s", strerror(-err));
	*ret = (struct lethe_info){.incarnation = info.incarnation,
		.shared_bytes = info.shared_pages << PAGE_SHIFT,
		.set_aside_bytes = info.set_aside_bytes,
		.stale_bytes = info.stale_bytes,
		.quarantined_bytes = info.quarantined_bytes,
		.mapped_bytes = info.mapped_pages << PAGE_SHIFT,
		.policy_shares = info.policy_shares,
		.policy_shared_bytes = info.policy_shared_bytes,
		.policy_unshares = info.policy_unshares,
		.policy_unshared_bytes = info.policy_unshared_bytes,
		.auto_maps = info.auto_maps,
		.auto_unmaps = info.auto_unmaps,
		.paged_out_bytes = info.sealed_pages << PAGE_SHIFT,
		.resident_bytes = info.resident_bytes,
		.forgotten_bytes = info.forgotten_bytes,
		.forget_rate = info.forget_rate,
		.pressure = info.pressure};
	pthread_mutex_lock(&vm->lock);
	if (vm->pager != NULL)
		pager_counters(vm->pager, &ret->pages_out, &ret->pages_in);
	pthread_mutex_unlock(&vm->lock);
	return 0;
}
