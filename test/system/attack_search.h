/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Searching for secrets as a hypervisor that has turned hostile would: everything that
 * this process can map or read, of itself and of its ultravisor.
 *
 * A secret is 32 bytes, four words of the workload's test pattern, which appear nowhere
 * else.  The search itself must not know them, or it would find itself: it keeps them
 * masked, made by another process, and unmasks nothing; memory is masked and compared.
 */
#ifndef ATTACK_SEARCH_H
#define ATTACK_SEARCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "lethe/lethe.h"

#define SECRET_WORDS 4
#define SECRET_BYTES (8 * SECRET_WORDS)
#define SECRETS_MAX  4

struct search {
	uint64_t masked[SECRETS_MAX][SECRET_WORDS];
	unsigned int count;
	uint8_t filter[1 << 16]; /* by the low 16 bits of a masked word: may it be one of them? */
	uint64_t memory_bytes;   /* of the VM */
	struct lethe_vm *vm;
};

/* Where a secret was found: a bit each. */
enum search_place {
	FOUND_OWN_MEMORY = 1, /* mappings of this process but slots */
	FOUND_SLOTS = 2,      /* the slots' shared backing, mapped or read */
	FOUND_COPY_CALL = 4,  /* lethe_mem_read */
	FOUND_UV_MEMORY = 8   /* the ultravisor's own memory: the end of everything */
};

/* Adds the words of the test pattern at @gpa.  Returns the secret's number. */
unsigned int search_add(struct search *s, uint64_t gpa, uint64_t seed, uint64_t incarnation);

/* Writes secret @number, unmasked, to @to: to see that the search finds it. */
void search_plant(const struct search *s, unsigned int number, void *to);

/*
 * Searches everywhere.  ret_found[i] is where secret i was found, or parts of it of 8
 * bytes.  Ends the process with a message if a door that must be shut is open.
 */
void search_all(const struct search *s, unsigned int ret_found[SECRETS_MAX]);

#endif
