/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The KVM executor: registers and exits.
 *
 * Only what a device needs crosses to the hypervisor: port and value, address and value.
 * Registers are read here for guest calls and never leave.
 */
#include <asm/kvm_para.h>
#include <errno.h>
#include <linux/kvm_para.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "os/kvm.h"
#include "uv/exec_kvm.h"
#include "uv/guestcall.h"
#include "uv/pager.h"
#include "uv/vcpu.h"

#ifndef KVM_HC_MAP_GPA_RANGE
#define KVM_HC_MAP_GPA_RANGE 12
#endif
#define MAP_GPA_RANGE_ENCRYPTED (1u << 4)

static struct kvm_segment segment(const struct abi_segment *s)
{
	return (struct kvm_segment){.base = s->base,
		.limit = s->limit,
		.selector = s->selector,
		.type = s->type & 0xf,
		.present = (s->flags & ABI_SEG_PRESENT) != 0,
		.s = (s->flags & ABI_SEG_CODE_OR_DATA) != 0,
		.db = (s->flags & ABI_SEG_DEFAULT_32) != 0,
		.l = (s->flags & ABI_SEG_LONG) != 0,
		.g = (s->flags & ABI_SEG_GRANULAR) != 0,
		.unusable = (s->flags & ABI_SEG_PRESENT) == 0};
}

int kvm_exec_set_registers(int vcpu_fd, const struct abi_vcpu_state *s)
{
	struct kvm_regs regs = {.rip = s->rip,
		.rsp = s->rsp,
		.rflags = s->rflags | 2,
		.rax = s->rax,
		.rbx = s->rbx,
		.rcx = s->rcx,
		.rdx = s->rdx,
		.rsi = s->rsi,
		.rdi = s->rdi};
	struct kvm_sregs sregs;
	int ret = kvm_ioctl(vcpu_fd, KVM_GET_SREGS, &sregs);

	if (ret < 0)
		return ret;
	sregs.cs = segment(&s->cs);
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = segment(&s->data);
	sregs.tr = segment(&s->tr);
	sregs.gdt.base = s->gdt_base;
	sregs.gdt.limit = (uint16_t)s->gdt_limit;
	sregs.cr0 = s->cr0;
	sregs.cr3 = s->cr3;
	sregs.cr4 = s->cr4;
	sregs.efer = s->efer;
	ret = kvm_ioctl(vcpu_fd, KVM_SET_SREGS, &sregs);
	if (ret == 0)
		ret = kvm_ioctl(vcpu_fd, KVM_SET_REGS, &regs);
	return ret;
}

/*
 * Copies between v->buffer and guest memory.  0; -ENOENT outside memory; -ENODATA if a page is
 * sealed: some may have been copied.
 */
static int copy_present(struct uv_vcpu *v, uint64_t at, uint64_t bytes, bool to_guest)
{
	uint64_t done = 0;
	int ret = 0;

	pthread_rwlock_rdlock(&v->vm->memory);
	while (ret == 0 && done < bytes) {
		uint64_t page = PAGE_SIZE - ((at + done) & PAGE_MASK), n;
		enum page_attr attr = attr_get(v->vm->attr, gpa_to_gfn(gpa(at + done)));
		uint8_t *p = NULL;

		if (attr == ATTR_SEALED)
			ret = -ENODATA;
		else if (attr != ATTR_RELEASED)
			p = uv_vm_address(v->vm, gpa(at + done),
				bytes - done < page ? bytes - done : page, &n);
		if (p == NULL)
			ret = ret == 0 ? -ENOENT : ret;
		else if (to_guest)
			memcpy(p, v->buffer + done, n);
		else
			memcpy(v->buffer + done, p, n);
		done += ret == 0 ? n : 0;
	}
	pthread_rwlock_unlock(&v->vm->memory);
	return ret;
}

/*
 * Inside, as above, having fetched what is sealed.  -ERANGE; -ECANCELED: the vCPU must stop,
 * and is outside.
 */
static int copy_buffer(struct uv_vcpu *v, uint64_t at, uint64_t bytes, bool to_guest)
{
	uint64_t end;
	struct gfn_range r;
	int ret;

	if (bytes == 0)
		return 0;
	if (!checked_add(at, bytes, &end) || end > GPA_END)
		return -ERANGE;
	r.start = gpa_to_gfn(gpa(at));
	r.count = ((end - 1) >> PAGE_SHIFT) - r.start.v + 1;
	while ((ret = copy_present(v, at, bytes, to_guest)) == -ENODATA) {
		vcpu_leave(v);
		if (!pager_fetch(v, r) || !vcpu_enter(v))
			return -ECANCELED;
	}
	return ret;
}

/* A call through the port: number and arguments from registers, buffers from memory. */
static int64_t perform_call(struct uv_vcpu *v, const struct kvm_regs *regs)
{
	const uint64_t arg[4] = {regs->rdi, regs->rsi, regs->rcx, regs->r8};
	const struct guest_call_info *info = guest_call_info(regs->rax);
	uint64_t bytes = 0;
	int64_t ret;
	int err;

	if (info->name != NULL && info->buffer >= 0) {
		if (!checked_mul(arg[info->count], info->element, &bytes) ||
			bytes > sizeof(v->buffer))
			return -(int64_t)ABI_ST_INVALID;
		err = copy_buffer(v, arg[info->buffer], bytes, false);
		if (err < 0)
			return err == -ECANCELED ? GUEST_CALL_ENDED : -(int64_t)ABI_ST_NOT_FOUND;
	}
	ret = guest_call(v, regs->rax, arg, (uint32_t)bytes);
	if (ret != 0 || regs->rax != GUEST_CALL_BOOTINFO)
		return ret;
	err = copy_buffer(v, arg[0], sizeof(struct guest_bootinfo), true);
	if (err < 0)
		return err == -ECANCELED ? GUEST_CALL_ENDED : -(int64_t)ABI_ST_NOT_FOUND;
	return 0;
}

static bool serve_call(struct uv_vcpu *v, int vcpu_fd)
{
	struct kvm_regs regs;
	int64_t result;
	int ret = kvm_ioctl(vcpu_fd, KVM_GET_REGS, &regs);

	if (ret == 0) {
		result = perform_call(v, &regs);
		if (result == GUEST_CALL_ENDED)
			return false;
		regs.rax = (uint64_t)result;
		ret = kvm_ioctl(vcpu_fd, KVM_SET_REGS, &regs);
	}
	if (ret == 0)
		return true;
	guest_stop(v, ABI_STOP_HOST, 0, "KVM did not give or take registers");
	return false;
}

/* What the device says of a write.  False if the VM ended by it. */
static bool obey(struct uv_vcpu *v, uint64_t action)
{
	const uint64_t none[4] = {0};

	if (action == ABI_DEVICE_RESET)
		(void)guest_call(v, GUEST_CALL_REBOOT, none, 0);
	else if (action == ABI_DEVICE_POWEROFF)
		(void)guest_call(v, GUEST_CALL_POWEROFF, none, 0);
	return action != ABI_DEVICE_RESET && action != ABI_DEVICE_POWEROFF;
}

/* Asks the hypervisor's device.  False if the vCPU must stop. */
static bool ask_device(
	struct uv_vcpu *v, enum abi_exit_type type, const uint64_t arg[6], uint64_t *ret_value)
{
	bool write = arg[2] != 0;
	struct exit_reply reply;
	bool answered;

	vcpu_leave(v);
	vcpu_exit_post(v, type, arg, 0);
	answered = vcpu_exit_wait(v, &reply);
	if (!answered || !vcpu_enter(v))
		return false;
	*ret_value = reply.value;
	return !write || obey(v, reply.value);
}

static bool serve_pio(struct uv_vcpu *v, struct kvm_run *run)
{
	bool out = run->io.direction == KVM_EXIT_IO_OUT;
	uint8_t *data = (uint8_t *)run + run->io.data_offset;

	for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
		uint64_t value = 0;

		if (out)
			memcpy(&value, data, run->io.size);
		if (!ask_device(v, ABI_EXIT_PIO,
			    (uint64_t[6]){run->io.port, run->io.size, out, value}, &value))
			return false;
		if (!out)
			memcpy(data, &value, run->io.size);
	}
	return true;
}

/* Where there is memory no device answers: the guest touched what it had released. */
static bool is_memory(struct uv_vm *vm, uint64_t at)
{
	bool yes;

	pthread_rwlock_rdlock(&vm->memory);
	yes = slots_find(&vm->slots, gpa_to_gfn(gpa(at))) >= 0;
	pthread_rwlock_unlock(&vm->memory);
	return yes;
}

static bool serve_mmio(struct uv_vcpu *v, struct kvm_run *run)
{
	uint64_t value = 0;

	if (is_memory(v->vm, run->mmio.phys_addr)) {
		guest_stop(v, ABI_STOP_VIOLATION, run->mmio.phys_addr,
			"a vCPU accessed a page that it had released");
		return false;
	}

	if (run->mmio.len > sizeof(value))
		run->mmio.len = sizeof(value);
	if (run->mmio.is_write)
		memcpy(&value, run->mmio.data, run->mmio.len);
	if (!ask_device(v, ABI_EXIT_MMIO,
		    (uint64_t[6]){run->mmio.phys_addr, run->mmio.len, run->mmio.is_write, value},
		    &value))
		return false;
	if (!run->mmio.is_write)
		memcpy(run->mmio.data, &value, run->mmio.len);
	return true;
}

/* KVM_HC_MAP_GPA_RANGE(gpa, pages, attributes): the standard way to convert. */
static bool serve_hypercall(struct uv_vcpu *v, struct kvm_run *run)
{
	uint64_t bytes;
	int64_t result = -(int64_t)ABI_ST_INVALID;

	if (run->hypercall.nr == KVM_HC_MAP_GPA_RANGE &&
		checked_mul(run->hypercall.args[1], PAGE_SIZE, &bytes)) {
		bool private = (run->hypercall.args[2] & MAP_GPA_RANGE_ENCRYPTED) != 0;
		const uint64_t arg[4] = {run->hypercall.args[0], bytes};

		result = guest_call(v, private ? GUEST_CALL_UNSHARE : GUEST_CALL_SHARE, arg, 0);
		if (result == GUEST_CALL_ENDED)
			return false;
	}
	run->hypercall.ret = result == 0 ? 0 : (uint64_t)-KVM_EINVAL;
	return true;
}

/* Ends the VM with a reason that names no register. */
static bool serve_fatal(struct uv_vcpu *v, struct kvm_run *run)
{
	char text[96];

	switch (run->exit_reason) {
	case KVM_EXIT_SHUTDOWN:
		guest_stop(v, ABI_STOP_GUEST, 0, "triple fault");
		break;
	case KVM_EXIT_INTERNAL_ERROR:
		snprintf(text, sizeof(text), "KVM internal error %u", run->internal.suberror);
		guest_stop(v, ABI_STOP_HOST, 0, text);
		break;
	case KVM_EXIT_FAIL_ENTRY:
		guest_stop(v, ABI_STOP_HOST, 0, "the CPU refused to enter the guest");
		break;
	default:
		snprintf(
			text, sizeof(text), "KVM exit %u, which nothing handles", run->exit_reason);
		guest_stop(v, ABI_STOP_HOST, 0, text);
	}
	return false;
}

bool kvm_exec_serve(struct uv_vcpu *v, int vcpu_fd, struct kvm_run *run)
{
	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		if (run->io.port == GUEST_CALL_PORT && run->io.direction == KVM_EXIT_IO_OUT)
			return serve_call(v, vcpu_fd);
		return serve_pio(v, run);
	case KVM_EXIT_MMIO:
		return serve_mmio(v, run);
	case KVM_EXIT_HYPERCALL:
		return serve_hypercall(v, run);
	case KVM_EXIT_INTR:
		return true;
	case KVM_EXIT_HLT:
		(void)guest_call(v, GUEST_CALL_HALT, (uint64_t[4]){0}, 0);
		return false;
	default:
		return serve_fatal(v, run);
	}
}
