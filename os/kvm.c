/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "os/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "os/clock.h"

#define CPUID_ENTRIES_MAX 256

static const struct {
	int number;
	const char *name;
} needed[] = {
	{KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
	{KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
	{KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
	{KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE"},
	{KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR"},
	{KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP"},
	{KVM_CAP_PIT2, "KVM_CAP_PIT2"},
};

int kvm_ioctl(int fd, unsigned long request, void *arg)
{
	int ret = ioctl(fd, request, arg);

	return ret < 0 ? -errno : ret;
}

int kvm_ioctl_value(int fd, unsigned long request, unsigned long arg)
{
	int ret = ioctl(fd, request, arg);

	return ret < 0 ? -errno : ret;
}

static int check(int fd, char *why, size_t size)
{
	int version = kvm_ioctl_value(fd, KVM_GET_API_VERSION, 0);

	if (version != KVM_API_VERSION) {
		snprintf(why, size, "/dev/kvm speaks version %d, not %d", version, KVM_API_VERSION);
		return -EOPNOTSUPP;
	}
	for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++) {
		if (kvm_ioctl_value(fd, KVM_CHECK_EXTENSION, (unsigned long)needed[i].number) <=
			0) {
			snprintf(why, size, "this KVM has no %s", needed[i].name);
			return -EOPNOTSUPP;
		}
	}
	return 0;
}

int kvm_open(char *why, size_t size)
{
	int ret, fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (fd < 0) {
		ret = -errno;
		snprintf(why, size, "/dev/kvm: %s", strerror(-ret));
		return ret;
	}
	ret = check(fd, why, size);
	if (ret < 0) {
		close(fd);
		return ret;
	}
	return fd;
}

/* A VM with one page of memory at 0 and one vCPU in real mode. */
struct probe {
	int vm, vcpu;
	uint8_t *page;
	struct kvm_run *run;
	size_t run_size;
};

#define PROBE_PAGE  4096
#define PROBE_LOOPS 500

/* mov cx, PROBE_LOOPS; again: dec cx; jnz again; hlt */
static const uint8_t probe_code[] = {
	0xb9, PROBE_LOOPS & 0xff, PROBE_LOOPS >> 8, 0x49, 0x75, 0xfd, 0xf4};

static void probe_close(struct probe *p)
{
	if (p->run != MAP_FAILED)
		munmap(p->run, p->run_size);
	if (p->page != MAP_FAILED)
		munmap(p->page, PROBE_PAGE);
	if (p->vcpu >= 0)
		close(p->vcpu);
	if (p->vm >= 0)
		close(p->vm);
}

static int probe_open(int kvm, struct probe *p)
{
	struct kvm_userspace_memory_region region = {.memory_size = PROBE_PAGE};
	int size = kvm_ioctl_value(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	int ret;

	*p = (struct probe){.vm = -1, .vcpu = -1, .page = MAP_FAILED, .run = MAP_FAILED};
	p->vm = kvm_ioctl_value(kvm, KVM_CREATE_VM, 0);
	if (p->vm < 0 || size < 0)
		return p->vm < 0 ? p->vm : size;
	p->page = mmap(NULL, PROBE_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (p->page == MAP_FAILED)
		return -errno;
	memcpy(p->page, probe_code, sizeof(probe_code));
	region.userspace_addr = (uintptr_t)p->page;
	(void)kvm_ioctl_value(p->vm, KVM_SET_TSS_ADDR, 0xfffbd000ul);
	ret = kvm_ioctl(p->vm, KVM_SET_USER_MEMORY_REGION, &region);
	if (ret < 0)
		return ret;
	p->vcpu = kvm_ioctl_value(p->vm, KVM_CREATE_VCPU, 0);
	if (p->vcpu < 0)
		return p->vcpu;
	p->run_size = (size_t)size;
	p->run = mmap(NULL, p->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, p->vcpu, 0);
	return p->run == MAP_FAILED ? -errno : 0;
}

/* From address 0 to the HLT. */
static int probe_run(const struct probe *p, uint64_t *ret_ns)
{
	struct kvm_regs regs = {.rflags = 2};
	struct kvm_sregs sregs;
	uint64_t start;
	int ret = kvm_ioctl(p->vcpu, KVM_GET_SREGS, &sregs);

	if (ret < 0)
		return ret;
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	ret = kvm_ioctl(p->vcpu, KVM_SET_SREGS, &sregs);
	if (ret == 0)
		ret = kvm_ioctl(p->vcpu, KVM_SET_REGS, &regs);
	start = clock_ns();
	if (ret == 0)
		ret = kvm_ioctl_value(p->vcpu, KVM_RUN, 0);
	*ret_ns = clock_ns() - start;
	if (ret == 0 && p->run->exit_reason != KVM_EXIT_HLT)
		ret = -EIO;
	return ret;
}

int kvm_instruction_ns(int kvm, double *ret_ns)
{
	struct probe p;
	uint64_t ns;
	int ret = probe_open(kvm, &p);

	/* The first run pays for faults; the second tells. */
	if (ret == 0)
		ret = probe_run(&p, &ns);
	if (ret == 0)
		ret = probe_run(&p, &ns);
	probe_close(&p);
	if (ret == 0)
		*ret_ns = (double)ns / (2.0 * PROBE_LOOPS);
	return ret;
}

int kvm_supported_cpuid(int kvm, struct kvm_cpuid2 **ret)
{
	struct kvm_cpuid2 *cpuid;
	int err;

	cpuid = calloc(1, sizeof(*cpuid) + CPUID_ENTRIES_MAX * sizeof(cpuid->entries[0]));
	if (cpuid == NULL)
		return -ENOMEM;
	cpuid->nent = CPUID_ENTRIES_MAX;
	err = kvm_ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid);
	if (err < 0) {
		free(cpuid);
		return err;
	}
	*ret = cpuid;
	return 0;
}
