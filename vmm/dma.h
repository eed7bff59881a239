/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The DMA device: complements every byte of a range of guest memory. */
#ifndef VMM_DMA_H
#define VMM_DMA_H

#include <stdint.h>

#include "lethe/lethe.h"

/*
 * Replaces every byte of [@gpa, @gpa + @bytes) by its complement, the way a device
 * reaches memory: through shared access only.
 * Returns 0; -EPERM a page is private; -ENOENT outside memory; -EINVAL no bytes; -ENOMEM;
 * -EPIPE.  Like any device it may have changed what lies before the page that refused.
 */
int dma_complement(struct lethe_vm *vm, uint64_t gpa, uint64_t bytes);

/* Of each vCPU: what a transfer is served with.  Zero at first. */
struct dma {
	uint8_t *buffer;
	struct lethe_copy then;
};

/*
 * Serves *exit, a LETHE_EXIT_DMA, as dma_complement() does.  What it writes goes with the
 * answer where it is not too much.  The reply.
 */
int dma_serve(struct dma *dma, struct lethe_vm *vm, struct lethe_exit *exit);

void dma_free(struct dma *dma);

#endif
