/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "uv/vm_life.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/failpoint.h"
#include "base/log.h"
#include "os/crew.h"
#include "os/kvm.h"
#include "os/memfd.h"
#include "uv/executor.h"
#include "uv/publish.h"
#include "uv/seal.h"
#include "uv/share_auto.h"
#include "uv/slot.h"
#include "uv/sweeper.h"
#include "uv/switch.h"
#include "uv/vcpu.h"

static const struct executor *const executors[] = {&executor_sw, &executor_kvm};

static void init_locks(struct uv_vm *vm)
{
	pthread_rwlockattr_t rw;
	pthread_condattr_t cond;

	pthread_mutex_init(&vm->send_lock, NULL);
	pthread_mutex_init(&vm->lock, NULL);
	pthread_mutex_init(&vm->stale_lock, NULL);
	pthread_mutex_init(&vm->run_lock, NULL);
	pthread_mutex_init(&vm->status_lock, NULL);
	/* Without this, vCPUs that read all the time would starve a conversion. */
	pthread_rwlockattr_init(&rw);
	pthread_rwlockattr_setkind_np(&rw, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&vm->memory, &rw);
	pthread_rwlockattr_destroy(&rw);
	pthread_condattr_init(&cond);
	pthread_condattr_setclock(&cond, CLOCK_MONOTONIC);
	pthread_cond_init(&vm->run_changed, &cond);
	pthread_cond_init(&vm->discard.ended, &cond);
	pthread_condattr_destroy(&cond);
}

int uv_vm_init(struct uv_vm *vm, int socket)
{
	char why[128];
	int ret;

	memset(vm, 0, sizeof(*vm));
	vm->socket = socket;
	vm->state = vm_state_initial();
	vm->kvm_fd = kvm_open(why, sizeof(why));
	(void)userfault_open(&vm->userfault, why, sizeof(why));
	vm->statm = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
	meminfo_open(&vm->meminfo, "");
	for (unsigned int i = 0; i < SLOTS_MAX; i++)
		vm->memory_of[i].memfd = -1;
	ret = seal_random(vm->id, sizeof(vm->id));
	if (ret < 0)
		return ret;
	vm->attr = attr_map_new();
	if (vm->attr == NULL)
		return -ENOMEM;
	init_locks(vm);
	return 0;
}

static const struct executor *find_executor(uint32_t id)
{
	for (size_t i = 0; i < sizeof(executors) / sizeof(executors[0]); i++) {
		if (executors[i]->id == (enum abi_executor)id)
			return executors[i];
	}
	return NULL;
}

static int check_create(const struct abi_vm_create *a, const int fds[4])
{
	const uint32_t known = ABI_VM_LAZY_OFF | ABI_VM_WIPE_OFF | ABI_VM_SHARE_MAPPED |
			       ABI_VM_DISCARD_EAGER | ABI_VM_PC | ABI_VM_SHARE_AUTO;
	const uint32_t ways = ABI_VM_SHARE_MAPPED | ABI_VM_SHARE_AUTO;
	struct stat st;
	int ret;

	if (a->vcpus < 1 || a->vcpus > ABI_MAX_VCPUS || (a->flags & ~known) != 0 ||
		(a->flags & ways) == ways)
		return -EINVAL;
	if (find_executor(a->executor) == NULL)
		return -EOPNOTSUPP;
	if ((a->flags & ABI_VM_PC) != 0 && a->executor != ABI_EXEC_KVM)
		return -EINVAL;
	ret = memfd_check(fds[0], ABI_PAGES_BYTES(a->vcpus));
	if (ret == 0)
		ret = memfd_check(fds[1], ABI_BULK_SIZE);
	if (ret == 0 && (fstat(fds[2], &st) < 0 || !S_ISREG(st.st_mode) ||
				st.st_size < (off_t)ABI_STATUS_PAGE))
		ret = -EINVAL;
	if (ret == 0 && (fstat(fds[3], &st) < 0 || !S_ISDIR(st.st_mode)))
		ret = -EINVAL;
	return ret;
}

static void unmap_shared(struct uv_vm *vm)
{
	if (vm->pages != NULL)
		munmap(vm->pages, ABI_PAGES_BYTES(vm->vcpu_count));
	if (vm->bulk != NULL)
		munmap(vm->bulk, ABI_BULK_SIZE);
	publish_close(vm);
	vm->pages = NULL;
	vm->bulk = NULL;
}

static int map_shared(struct uv_vm *vm, const int fds[4])
{
	void *p = NULL;
	int ret = failpoint("uv-map-shared");

	if (ret == 0)
		ret = memfd_map(fds[0], ABI_PAGES_BYTES(vm->vcpu_count), &p);
	if (ret == 0) {
		vm->pages = p;
		vm->mapped_shown = (void *)((uint8_t *)p + ABI_SHARE_OFFSET(vm->vcpu_count));
		ret = memfd_map(fds[1], ABI_BULK_SIZE, &p);
	}
	if (ret == 0) {
		vm->bulk = p;
		ret = publish_open(vm, fds[2]);
	}
	return ret;
}

static int start_threads(struct uv_vm *vm)
{
	int ret;

	vm->vcpu = calloc(vm->vcpu_count, sizeof(*vm->vcpu));
	if (vm->vcpu == NULL)
		return -ENOMEM;
	ret = vm->executor->vm_init != NULL ? vm->executor->vm_init(vm) : 0;
	if (ret < 0)
		return ret;
	ret = crew_new(crew_threads(), &vm->crew);
	if (ret < 0)
		goto no_crew;
	ret = sweeper_new(vm, &vm->sweeper);
	if (ret < 0)
		goto no_sweeper;
	if ((vm->flags & ABI_VM_SHARE_AUTO) != 0)
		ret = share_auto_new(vm, &vm->share_auto);
	if (ret == 0)
		ret = vcpus_create(vm);
	if (ret == 0)
		return 0;
	share_auto_free(vm->share_auto);
	vm->share_auto = NULL;
	sweeper_stop(vm->sweeper);
	sweeper_free(vm->sweeper);
no_sweeper:
	crew_free(vm->crew);
no_crew:
	if (vm->executor->vm_fini != NULL)
		vm->executor->vm_fini(vm);
	return ret;
}

/* The name is copied once: it becomes a part of a path later. */
static int take_name(struct uv_vm *vm)
{
	memcpy(vm->name, vm->status->name, sizeof(vm->name));
	vm->name[ABI_NAME_MAX] = '\0';
	if (vm->name[0] == '\0' || vm->name[0] == '.' || strchr(vm->name, '/') != NULL)
		return -EINVAL;
	return 0;
}

/* Nobody sees the VM any more.  Errors do not matter: others clean up what is stale. */
static void remove_folder(struct uv_vm *vm)
{
	char path[ABI_NAME_MAX + 8];

	snprintf(path, sizeof(path), "../%s", vm->name);
	(void)unlinkat(vm->folder, "control", 0);
	(void)unlinkat(vm->folder, "status", 0);
	(void)unlinkat(vm->folder, path, AT_REMOVEDIR);
	close(vm->folder);
}

int uv_vm_create(struct uv_vm *vm, const struct abi_vm_create *args, const int fds[4])
{
	int ret = check_create(args, fds);

	if (ret < 0)
		return ret;
	vm->vcpu_count = args->vcpus;
	vm->flags = args->flags;
	vm->executor = find_executor(args->executor);
	ret = map_shared(vm, fds);
	if (ret == 0)
		ret = take_name(vm);
	if (ret == 0)
		ret = start_threads(vm);
	if (ret < 0) {
		unmap_shared(vm);
		free(vm->vcpu);
		vm->vcpu = NULL;
		return ret;
	}
	publish_born(vm);
	vm->own_bytes = uv_vm_resident(vm);
	pthread_mutex_lock(&vm->lock);
	vm->exists = true;
	if (!vm_state_set_phase(&vm->state, PHASE_SETUP))
		log_error("a new VM was not new");
	publish_vm(vm);
	pthread_mutex_unlock(&vm->lock);
	publish_flush(vm);
	/* The mappings hold the memory; the status descriptor stays open for its lock. */
	close(fds[0]);
	close(fds[1]);
	vm->folder = fds[3];
	return 0;
}

/* All memory of the current incarnation leaves with @d.  Caller holds vm->lock. */
static void leave_everything(struct uv_vm *vm, struct dying *d)
{
	switch_abandon(vm);
	dying_take_all(vm, d);
	dying_leave(vm, d, false);
}

void uv_vm_finish(struct uv_vm *vm)
{
	struct sweeper *sweeper = vm->sweeper;
	struct abi_perform_ret unused = {0};
	struct dying *d;
	uint64_t left;

	if (!vm->exists)
		return;
	vcpus_stop(vm, NULL);
	vcpus_destroy(vm);
	share_auto_free(vm->share_auto);
	vm->share_auto = NULL;
	pthread_mutex_lock(&vm->lock);
	d = dying_new(vm->incarnation);
	if (d != NULL)
		leave_everything(vm, d);
	/* Without memory for the list, the kernel takes all of it back at exit. */
	left = dying_bytes(vm);
	pthread_mutex_unlock(&vm->lock);
	publish_end(vm, ABI_VM_FORGETTING, left);
	(void)failpoint("uv-end");
	sweeper_stop(sweeper);
	vm->sweeper = NULL;
	crew_free(vm->crew);
	(void)destroy_all_waiting(vm, &unused);
	publish_end(vm, ABI_VM_GONE, 0);
	(void)failpoint("uv-ended");
	if (vm->executor->vm_fini != NULL)
		vm->executor->vm_fini(vm);
	seal_free(vm->seal);
	(void)window_unmap(&vm->scratch);
	unmap_shared(vm);
	remove_folder(vm);
	free(vm->vcpu);
	attr_map_free(vm->attr);
	/* Its idle thread may wait long for a processor, even to end. */
	sweeper_free(sweeper);
}
