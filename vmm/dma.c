/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/dma.h"

#include <errno.h>
#include <stdlib.h>

#define CHUNK_BYTES ((uint64_t)64 << 10)

static int complement_chunk(struct lethe_vm *vm, uint64_t gpa, uint8_t *buffer, size_t bytes)
{
	int err = lethe_mem_read(vm, gpa, buffer, bytes);

	if (err)
		return err;
	for (size_t i = 0; i < bytes; i++)
		buffer[i] = (uint8_t)~buffer[i];
	return lethe_mem_write(vm, gpa, buffer, bytes);
}

int dma_complement(struct lethe_vm *vm, uint64_t gpa, uint64_t bytes)
{
	uint8_t *buffer;
	int err = 0;

	if (bytes == 0)
		return -EINVAL;
	buffer = malloc(bytes < CHUNK_BYTES ? bytes : CHUNK_BYTES);
	if (!buffer)
		return -ENOMEM;
	for (uint64_t done = 0; done < bytes && !err; done += CHUNK_BYTES) {
		uint64_t left = bytes - done;

		err = complement_chunk(
			vm, gpa + done, buffer, left < CHUNK_BYTES ? left : CHUNK_BYTES);
	}
	free(buffer);
	return err;
}
