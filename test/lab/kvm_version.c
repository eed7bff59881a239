/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Asks /dev/kvm for its version: the lab's own test that it offers a KVM. */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <sys/ioctl.h>

int main(void)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int version = fd < 0 ? -1 : ioctl(fd, KVM_GET_API_VERSION, 0);

	if (version < 0) {
		perror("/dev/kvm");
		return 1;
	}
	printf("KVM API version %d\n", version);
	return 0;
}
