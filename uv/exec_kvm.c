/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The KVM executor: VMs, vCPUs and memslots.  A slot's window is KVM's userspace_addr,
 * so KVM maps private and shared pages alike from what the window shows.
 *
 * A kick sets immediate_exit, then signals: whichever way the vCPU's thread runs into
 * KVM_RUN, it comes out.  The thread clears immediate_exit before it looks at
 * vm->attention, never after.
 */
#include "uv/exec_kvm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/failpoint.h"
#include "base/log.h"
#include "os/kvm.h"
#include "uv/executor.h"
#include "uv/guest_stop.h"
#include "uv/measure.h"
#include "uv/vcpu.h"

/* Below the top of 4G, where a PC has its firmware and no memory. */
#define IDENTITY_MAP_GPA 0xfffbc000ull
#define TSS_GPA          0xfffbd000ull

#define CPUID_1_ECX_HYPERVISOR (1u << 31)

static void *machine_retire(struct uv_vm *vm)
{
	struct kvm_exec *e = vm->exec;
	struct kvm_machine *m = e->machine;

	kvm_faults_forget_all(e->faults);
	e->machine = NULL;
	memset(e->has_state, 0, sizeof(e->has_state));
	return m;
}

static void machine_bury(void *remains)
{
	struct kvm_machine *m = remains;

	if (m == NULL)
		return;
	for (unsigned int i = 0; i < m->vcpus; i++) {
		munmap(m->run[i], m->run_size);
		close(m->vcpu_fd[i]);
	}
	close(m->vm_fd);
	free(m);
}

/* Interrupt controllers and timer, for a guest that expects a PC. */
static int make_pc(int vm_fd)
{
	struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
	uint64_t identity = IDENTITY_MAP_GPA;
	int ret = kvm_ioctl(vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity);

	if (ret >= 0)
		ret = kvm_ioctl_value(vm_fd, KVM_SET_TSS_ADDR, TSS_GPA);
	if (ret >= 0)
		ret = kvm_ioctl_value(vm_fd, KVM_CREATE_IRQCHIP, 0);
	if (ret >= 0)
		ret = kvm_ioctl(vm_fd, KVM_CREATE_PIT2, &pit);
	return ret < 0 ? ret : 0;
}

/* Asks for the standard way to convert, where KVM forwards it. */
static void enable_map_gpa_range(int vm_fd)
{
	struct kvm_enable_cap cap = {
		.cap = KVM_CAP_EXIT_HYPERCALL, .args = {1ull << 12 /* KVM_HC_MAP_GPA_RANGE */}};

	(void)kvm_ioctl(vm_fd, KVM_ENABLE_CAP, &cap);
}

static int make_vcpu(struct uv_vm *vm, struct kvm_machine *m, unsigned int id)
{
	struct kvm_exec *e = vm->exec;
	int fd = kvm_ioctl_value(m->vm_fd, KVM_CREATE_VCPU, id);
	int ret;

	if (fd < 0)
		return fd;
	/* Before the registers: newer kernels check EFER against it. */
	for (uint32_t i = 0; i < e->cpuid->nent; i++) {
		struct kvm_cpuid_entry2 *leaf = &e->cpuid->entries[i];

		if (leaf->function == 1) {
			leaf->ebx = (leaf->ebx & 0x00ffffff) | id << 24;
			leaf->ecx |= CPUID_1_ECX_HYPERVISOR;
		} else if (leaf->function == 0xb || leaf->function == 0x1f) {
			leaf->edx = id;
		}
	}
	ret = kvm_ioctl(fd, KVM_SET_CPUID2, e->cpuid);
	m->run[id] = ret < 0 ? MAP_FAILED
			     : mmap(NULL, m->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (m->run[id] == MAP_FAILED) {
		ret = ret < 0 ? ret : -errno;
		close(fd);
		return ret;
	}
	m->vcpu_fd[id] = fd;
	m->vcpus = id + 1;
	return 0;
}

static int machine_make(struct uv_vm *vm, struct kvm_machine **ret_machine)
{
	struct kvm_exec *e = vm->exec;
	struct kvm_machine *m = calloc(1, sizeof(*m));
	int ret = failpoint("uv-kvm-machine");

	if (m == NULL || ret < 0) {
		free(m);
		return -ENOMEM;
	}
	m->vm_fd = kvm_ioctl_value(e->kvm_fd, KVM_CREATE_VM, 0);
	if (m->vm_fd < 0) {
		ret = m->vm_fd;
		free(m);
		return ret;
	}
	m->run_size = (size_t)kvm_ioctl_value(e->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	if ((vm->flags & ABI_VM_PC) != 0)
		ret = make_pc(m->vm_fd);
	enable_map_gpa_range(m->vm_fd);
	for (unsigned int i = 0; i < vm->vcpu_count && ret == 0; i++)
		ret = make_vcpu(vm, m, i);
	if (ret < 0) {
		machine_bury(m);
		return ret;
	}
	kvm_faults_begin(e->faults);
	*ret_machine = m;
	return 0;
}

static int set_region(
	const struct kvm_machine *m, unsigned int id, struct gfn_range r, const struct window *w)
{
	struct kvm_userspace_memory_region region = {.slot = id,
		.guest_phys_addr = gfn_to_gpa(r.start).v,
		.memory_size = w == NULL ? 0 : w->bytes,
		.userspace_addr = w == NULL ? 0 : (uintptr_t)w->base};
	int ret = kvm_ioctl(m->vm_fd, KVM_SET_USER_MEMORY_REGION, &region);

	return ret < 0 ? ret : 0;
}

/* KVM knows no change of address: a slot is taken away and put back. */
static int slot_changed(struct uv_vm *vm, unsigned int id)
{
	struct kvm_exec *e = vm->exec;
	struct gfn_range r = vm->slots.slot[id].range;
	bool made = e->machine == NULL;
	int ret;

	/* What was sealed in it before is not there any more. */
	kvm_faults_forget(e->faults, id);
	if (!vm->slots.slot[id].used)
		return e->machine == NULL ? 0 : set_region(e->machine, id, r, NULL);
	if (made) {
		ret = machine_make(vm, &e->machine);
		if (ret < 0)
			return ret;
	} else {
		(void)set_region(e->machine, id, r, NULL);
	}
	ret = set_region(e->machine, id, r, &vm->memory_of[id].window);
	if (ret < 0 && made)
		machine_bury(machine_retire(vm));
	return ret;
}

static int vm_init(struct uv_vm *vm)
{
	struct kvm_exec *e = calloc(1, sizeof(*e));
	int ret;

	if (e == NULL)
		return -ENOMEM;
	e->kvm_fd = vm->kvm_fd;
	ret = e->kvm_fd < 0 ? -EOPNOTSUPP : kvm_supported_cpuid(e->kvm_fd, &e->cpuid);
	if (ret == 0 && userfault_is_open(&vm->userfault))
		ret = kvm_faults_new(vm, &e->faults);
	if (ret < 0) {
		free(e->cpuid);
		free(e);
		return ret;
	}
	vm->exec = e;
	return 0;
}

static void vm_fini(struct uv_vm *vm)
{
	struct kvm_exec *e = vm->exec;

	machine_bury(machine_retire(vm));
	kvm_faults_free(e->faults);
	free(e->cpuid);
	free(e);
	vm->exec = NULL;
}

static int set_state(struct uv_vm *vm, const struct abi_vcpu_state *state)
{
	struct kvm_exec *e = vm->exec;

	e->state[state->vcpu] = *state;
	e->has_state[state->vcpu] = true;
	return 0;
}

static int measure(struct uv_vm *vm, struct measure *m)
{
	struct kvm_exec *e = vm->exec;
	int ret = 0;

	for (unsigned int i = 0; i < vm->vcpu_count && ret == 0; i++) {
		if (!e->has_state[i])
			continue;
		ret = measure_add(m, MEASURE_REGISTERS, i, sizeof(e->state[i]));
		if (ret == 0)
			ret = measure_content(m, &e->state[i], sizeof(e->state[i]));
	}
	return ret;
}

static int irq_line(struct uv_vm *vm, unsigned int irq, bool level)
{
	struct kvm_exec *e = vm->exec;
	struct kvm_irq_level line = {.irq = irq, .level = level};
	int ret;

	if (e->machine == NULL || (vm->flags & ABI_VM_PC) == 0)
		return -ENOENT;
	ret = kvm_ioctl(e->machine->vm_fd, KVM_IRQ_LINE, &line);
	return ret < 0 ? ret : 0;
}

/* vCPUs are as new as their machine; only those with a state of their own differ. */
static int reset(struct uv_vm *vm)
{
	struct kvm_exec *e = vm->exec;
	int ret = e->machine == NULL ? -ENOENT : 0;

	for (unsigned int i = 0; i < vm->vcpu_count && ret == 0; i++) {
		if (e->has_state[i])
			ret = kvm_exec_set_registers(e->machine->vcpu_fd[i], &e->state[i]);
	}
	return ret;
}

static int vcpu_init(struct uv_vcpu *v)
{
	return 0;
}

static void vcpu_fini(struct uv_vcpu *v)
{
}

/* What KVM_RUN returned other than 0.  True to try again. */
static bool survive_error(struct uv_vcpu *v, int err)
{
	if (err == -EINTR || err == -EAGAIN)
		return true;
	if (err == -EFAULT)
		guest_stop(v, ABI_STOP_VIOLATION, 0, "KVM could not reach a page of the guest");
	else
		guest_stop(v, ABI_STOP_HOST, 0, "KVM_RUN failed");
	return false;
}

static void run(struct uv_vcpu *v)
{
	struct kvm_exec *e = v->vm->exec;
	struct kvm_run *r = e->machine->run[v->id];
	int fd = e->machine->vcpu_fd[v->id];

	__atomic_store_n((struct kvm_run **)&v->exec, r, __ATOMIC_RELEASE);
	for (;;) {
		int ret;

		__atomic_store_n(&r->immediate_exit, 0, __ATOMIC_SEQ_CST);
		if (!vcpu_checkpoint(v))
			break;
		ret = kvm_ioctl_value(fd, KVM_RUN, 0);
		/* What an exit says may come from memory that is not the guest's any more. */
		if (kvm_faults_given_up(e->faults))
			break;
		if (ret < 0 ? !survive_error(v, ret) : !kvm_exec_serve(v, fd, r))
			break;
	}
	__atomic_store_n((struct kvm_run **)&v->exec, NULL, __ATOMIC_RELEASE);
}

static void kick(struct uv_vcpu *v)
{
	struct kvm_run *r = __atomic_load_n((struct kvm_run **)&v->exec, __ATOMIC_ACQUIRE);

	if (r != NULL)
		__atomic_store_n(&r->immediate_exit, 1, __ATOMIC_SEQ_CST);
}

const struct executor executor_kvm = {
	.id = ABI_EXEC_KVM,
	.vm_init = vm_init,
	.vm_fini = vm_fini,
	.vcpu_init = vcpu_init,
	.vcpu_fini = vcpu_fini,
	.slot_changed = slot_changed,
	.range_end = kvm_range_end,
	.seal_begin = kvm_seal_begin,
	.page_put = kvm_page_put,
	.settle = kvm_settle,
	.may_wait = kvm_may_wait,
	.waits = kvm_waits,
	.give_up = kvm_give_up,
	.set_state = set_state,
	.measure = measure,
	.irq_line = irq_line,
	.reset = reset,
	.retire = machine_retire,
	.bury = machine_bury,
	.run = run,
	.kick = kick,
};
