/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/dma.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES ((uint64_t)64 << 10)

/* By words: compilers that do not vectorise would take a byte at a time. */
static void complement(uint8_t *buffer, size_t bytes)
{
	size_t i = 0;

	for (; i + sizeof(uint64_t) <= bytes; i += sizeof(uint64_t)) {
		uint64_t word;

		memcpy(&word, buffer + i, sizeof(word));
		word = ~word;
		memcpy(buffer + i, &word, sizeof(word));
	}
	for (; i < bytes; i++)
		buffer[i] = (uint8_t)~buffer[i];
}

static int complement_chunk(struct lethe_vm *vm, uint64_t gpa, uint8_t *buffer, size_t bytes)
{
	int err = lethe_mem_read(vm, gpa, buffer, bytes);

	if (err)
		return err;
	complement(buffer, bytes);
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

int dma_serve(struct dma *dma, struct lethe_vm *vm, struct lethe_exit *exit)
{
	int err;

	if (exit->bytes == 0 || exit->bytes > CHUNK_BYTES)
		return dma_complement(vm, exit->gpa, exit->bytes);
	if (!dma->buffer)
		dma->buffer = malloc(CHUNK_BYTES);
	if (!dma->buffer)
		return -ENOMEM;
	err = lethe_mem_read(vm, exit->gpa, dma->buffer, exit->bytes);
	if (err)
		return err;
	complement(dma->buffer, exit->bytes);
	dma->then = (struct lethe_copy){
		.gpa = exit->gpa, .data = dma->buffer, .bytes = exit->bytes, .to_guest = true};
	exit->then = &dma->then;
	exit->then_count = 1;
	return 0;
}

void dma_free(struct dma *dma)
{
	free(dma->buffer);
	dma->buffer = NULL;
}
