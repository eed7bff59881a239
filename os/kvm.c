/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "os/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

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
