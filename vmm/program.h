/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A guest's program: workload text, checked as a whole, in the form in which it is loaded
 * into guest memory.  It is loaded again at every reboot, so it lives as long as the VM.
 */
#ifndef VMM_PROGRAM_H
#define VMM_PROGRAM_H

#include <stddef.h>
#include <stdint.h>

#define PROGRAM_DEFAULT_MEMORY ((uint64_t)64 << 20)

struct program {
	void *image; /* struct guest_text and the text: goes to GUEST_TEXT_GPA */
	size_t image_bytes;
	uint64_t memory_bytes; /* what to give the guest: the flag, else the text, else 64M */
	uint64_t address_end;  /* no operation ends above this: memory may be added up to it */
	unsigned int vcpus;    /* likewise: the flag, else the text */
};

/*
 * Reads the workload at @path (any readable file, a pipe too) and checks it for a machine
 * of @memory_bytes and @vcpus; 0 takes them from the text.
 * Returns 0; -EINVAL the text or the memory size is bad; any errno of opening and reading;
 * -ENOMEM.  A failure has been logged in one line; *ret is then untouched.
 */
int program_read(const char *path, uint64_t memory_bytes, unsigned int vcpus, struct program *ret);

/* The same from @len bytes of @text, called @name in messages. */
int program_from_text(const char *name, const char *text, size_t len, uint64_t memory_bytes,
	unsigned int vcpus, struct program *ret);

/* Frees what *program holds. */
void program_free(struct program *program);

/* Why a VM cannot have @bytes of memory: "WHY (what to do)", or NULL if it can. */
const char *program_memory_fault(uint64_t bytes);

#endif
