/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/kvm_guest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "guest/kvm_image.h"

/* The wire's state without the vCPU's number is the library's. */
static void to_public(const struct abi_vcpu_state *from, struct lethe_cpu_state *ret)
{
	_Static_assert(sizeof(*from) == sizeof(*ret), "the same registers in the same order");
	memcpy(ret, from, sizeof(*ret));
	memset(ret->reserved, 0, sizeof(ret->reserved));
}

static int load_tables(struct lethe_vm *vm, const struct program *program)
{
	uint8_t *tables = malloc(GUEST_KVM_TABLES_MAX);
	size_t bytes;
	int err;

	if (!tables)
		return -ENOMEM;
	err = guest_kvm_tables(program->address_end, tables, &bytes);
	if (!err)
		err = lethe_vm_load(vm, GUEST_KVM_TABLES_GPA, tables, bytes);
	free(tables);
	return err;
}

int kvm_guest_load(struct lethe_vm *vm, const struct program *program)
{
	int err = lethe_vm_load(vm, GUEST_KVM_IMAGE_GPA, guest_kvm_image, guest_kvm_image_size);

	if (!err)
		err = load_tables(vm, program);
	for (unsigned int i = 0; i < program->vcpus && !err; i++) {
		struct abi_vcpu_state wire;
		struct lethe_cpu_state state;

		guest_kvm_state(i, &wire);
		to_public(&wire, &state);
		err = lethe_vcpu_set_state(vm, i, &state);
	}
	return err;
}
