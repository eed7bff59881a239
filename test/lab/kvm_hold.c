/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Keeps virtual machines in existence until the lab ends, so that no other is the first
 * or the last.
 *
 * Linux patches its own code when the first VM comes and the last one goes (preemption
 * notifiers), and with the first and last vCPU without a local APIC or with one that is
 * switched off.  The emulator of QEMU before 8.1 may miss that: while one processor
 * writes code that another is just translating, the other keeps the breakpoint which the
 * patch had put there for a moment, and is caught in it for good.
 *
 * The first is this program's, so it runs before the lab has a second processor.  It returns
 * when the machines are there, and stays in the background.
 */
#include <err.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define APIC_BASE_ENABLE (1ull << 11)

static int do_ioctl(int fd, unsigned long request, const char *name, void *arg)
{
	int ret = ioctl(fd, request, arg);

	if (ret < 0)
		err(1, "%s", name);
	return ret;
}

static void hold_without_apic(int kvm)
{
	int vm = do_ioctl(kvm, KVM_CREATE_VM, "KVM_CREATE_VM", NULL);

	do_ioctl(vm, KVM_CREATE_VCPU, "KVM_CREATE_VCPU", NULL);
}

/* A new APIC is off until its guest says so by software; this one also by its base register. */
static void hold_with_apic_off(int kvm)
{
	int vm = do_ioctl(kvm, KVM_CREATE_VM, "KVM_CREATE_VM", NULL);
	struct kvm_sregs sregs;
	int vcpu;

	do_ioctl(vm, KVM_CREATE_IRQCHIP, "KVM_CREATE_IRQCHIP", NULL);
	vcpu = do_ioctl(vm, KVM_CREATE_VCPU, "KVM_CREATE_VCPU", NULL);
	do_ioctl(vcpu, KVM_GET_SREGS, "KVM_GET_SREGS", &sregs);
	sregs.apic_base &= ~APIC_BASE_ENABLE;
	do_ioctl(vcpu, KVM_SET_SREGS, "KVM_SET_SREGS", &sregs);
}

int main(void)
{
	int kvm = open("/dev/kvm", O_RDWR);

	if (kvm < 0)
		err(1, "/dev/kvm");
	hold_without_apic(kvm);
	hold_with_apic_off(kvm);
	switch (fork()) {
	case -1:
		err(1, "fork");
	case 0:
		pause();
	}
	return 0;
}
