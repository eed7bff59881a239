/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "uv/vm.h"

#include <stdio.h>
#include <unistd.h>

#include "uv/executor.h"
#include "uv/dying.h"

uint8_t *uv_vm_address(struct uv_vm *vm, gpa_t a, uint64_t want, uint64_t *ret_len)
{
	int id = slots_find(&vm->slots, gpa_to_gfn(a));
	struct slot_memory *m;
	uint64_t offset;

	if (id < 0)
		return NULL;
	m = &vm->memory_of[id];
	offset = a.v - gfn_to_gpa(vm->slots.slot[id].range.start).v;
	*ret_len = m->window.bytes - offset < want ? m->window.bytes - offset : want;
	if (vm->executor->settle != NULL)
		vm->executor->settle(vm, (unsigned int)id, offset, *ret_len);
	return m->window.base + offset;
}

uint64_t uv_vm_resident(const struct uv_vm *vm)
{
	unsigned long long size, resident, shared;
	uint64_t bytes;
	char text[128];
	ssize_t n = pread(vm->statm, text, sizeof(text) - 1, 0);

	if (n <= 0)
		return 0;
	text[n] = '\0';
	/* Anonymous memory: resident pages without those of files and memfds. */
	if (sscanf(text, "%llu %llu %llu", &size, &resident, &shared) != 3 || resident < shared)
		return 0;
	bytes = (resident - shared) * PAGE_SIZE;
	return bytes > vm->own_bytes ? bytes - vm->own_bytes : 0;
}

uint64_t uv_vm_current(const struct uv_vm *vm)
{
	uint64_t left = dying_bytes(vm), resident = uv_vm_resident(vm);

	return resident > left ? resident - left : 0;
}
