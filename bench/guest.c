/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bench/guest.h"

#include <errno.h>
#include <string.h>

#include "abi/guestcall.h"
#include "base/log.h"
#include "vmm/kvm_guest.h"

int guest_populate(struct guest *guest)
{
	int err = lethe_slot_add(guest->vm, 0, 0, guest->program.memory_bytes);

	if (!err)
		err = lethe_vm_load(guest->vm, GUEST_TEXT_GPA, guest->program.image,
			guest->program.image_bytes);
	if (!err && lethe_vm_executor(guest->vm) == LETHE_EXECUTOR_KVM)
		err = kvm_guest_load(guest->vm, &guest->program);
	return err;
}

int guest_new(const char *text, uint64_t memory_bytes, const struct lethe_vm_config *config,
	struct guest *ret, const char **ret_why)
{
	struct lethe_vm_config full = *config;
	struct guest guest = {0};
	int err;

	if (full.vcpus == 0)
		full.vcpus = 1;
	*ret_why = "the workload is bad";
	err = program_from_text(
		"bench", text, strlen(text), memory_bytes, full.vcpus, &guest.program);
	if (err)
		return err;
	if (full.executor == LETHE_EXECUTOR_AUTO)
		full.executor = LETHE_EXECUTOR_SW;
	err = lethe_vm_new(&full, &guest.vm);
	if (!err) {
		err = guest_populate(&guest);
		if (err)
			guest_free(&guest);
	} else {
		program_free(&guest.program);
	}
	if (err) {
		*ret_why = lethe_error();
		return err;
	}
	*ret = guest;
	return 0;
}

int guest_run(struct guest *guest)
{
	return guest_run_vcpu(guest, 0, &guest->exit);
}

int guest_run_vcpu(struct guest *guest, unsigned int vcpu, struct lethe_exit *exit)
{
	for (;;) {
		int err = lethe_vcpu_run(guest->vm, vcpu, exit);

		if (err)
			return err;
		switch (exit->type) {
		case LETHE_EXIT_PROTECT:
			exit->reply = lethe_vm_protect(
				guest->vm, exit->ranges, exit->count, &guest->protected_);
			break;
		case LETHE_EXIT_DMA:
			exit->reply = dma_serve(&guest->dma, guest->vm, exit);
			break;
		case LETHE_EXIT_CONVERT:
		case LETHE_EXIT_RELEASE:
			break;
		case LETHE_EXIT_STOPPED:
			log_error("the guest was stopped: %s (this is a bug in a benchmark)",
				exit->text);
			return -EPIPE;
		case LETHE_EXIT_CLOSED:
			return -EPIPE;
		default:
			return 0;
		}
	}
}

void guest_free(struct guest *guest)
{
	if (!guest->vm)
		return;
	lethe_vm_stop(guest->vm);
	lethe_vm_close(guest->vm, true);
	program_free(&guest->program);
	dma_free(&guest->dma);
	guest->vm = NULL;
}
