/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * /dev/kvm: what Lethe needs of it, checked once, and its ioctls with errno returns.
 */
#ifndef OS_KVM_H
#define OS_KVM_H

#include <linux/kvm.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Opens /dev/kvm and checks version and capabilities.  Returns a descriptor or a negative
 * errno, with one line in @why (@size bytes) that says what is missing.
 */
int kvm_open(char *why, size_t size);

/* ioctl() with a negative errno on failure. */
int kvm_ioctl(int fd, unsigned long request, void *arg);
int kvm_ioctl_value(int fd, unsigned long request, unsigned long arg);

/*
 * How long a guest instruction takes, measured with a short loop in real mode: well under
 * a nanosecond on hardware, microseconds where KVM interprets.  0 or a negative errno.
 */
int kvm_instruction_ns(int kvm, double *ret_ns);

/* The CPUID leaves that KVM supports.  The caller frees *ret.  0 or a negative errno. */
int kvm_supported_cpuid(int kvm, struct kvm_cpuid2 **ret);

#endif
