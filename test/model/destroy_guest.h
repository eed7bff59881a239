/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The guest of the model test: real vCPU threads that do what the test tells them, one
 * piece after another, through the software executor's MMU.
 */
#ifndef DESTROY_GUEST_H
#define DESTROY_GUEST_H

#include "uv/vm.h"

#define GUEST_VCPUS 2u
#define GUEST_WATCH 16u /* pages of a guest_watch() */

/* A piece of work ended because the vCPU must stop; otherwise results are 0 or more. */
#define GUEST_ENDED INT64_MIN

/* What a page that was filled with @token holds in its word @index. */
static inline uint64_t guest_word(uint64_t token, uint32_t index)
{
	return token == 0 ? 0 : token << 16 | index;
}

/* Puts the test's guest in place of the interpreter.  After VM_CREATE. */
void guest_install(struct uv_vm *vm);

/* Fills @count pages at GFN @first with the tokens from @token on. */
int64_t guest_write(unsigned int vcpu, uint32_t first, uint32_t count, uint64_t token);

/*
 * Compares @count pages at GFN @first.  @content: of the first, the others @stride bytes
 * apart.  0, or 1 + the index of the first page that differs.
 */
int64_t guest_check(
	unsigned int vcpu, uint32_t first, uint32_t count, const uint64_t *content, size_t stride);

/* Begins to compare pages again and again, until guest_watch_end(), whose result it is. */
void guest_watch(
	unsigned int vcpu, uint32_t first, uint32_t count, const uint64_t *content, size_t stride);
int64_t guest_watch_end(unsigned int vcpu);

/* The same when all vCPUs have stopped: perhaps it never began. */
int64_t guest_watch_stopped(unsigned int vcpu);

/* Begins guest call @nr; @bytes of @data go along.  guest_wait() has its result. */
void guest_call_begin(
	unsigned int vcpu, uint64_t nr, const uint64_t arg[2], const void *data, uint32_t bytes);
int64_t guest_wait(unsigned int vcpu);

#endif
