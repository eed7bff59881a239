/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A stand-in for the hypervisor, for tests of lethe-uv: it starts the real program, speaks
 * abi/ to it packet by packet, and believes nothing that it answers.
 *
 * LETHE_UV names the program.  What cannot go wrong but through a bug of the test or of
 * the host fails the cmocka test at once; what lethe-uv answers is returned.
 */
#ifndef UV_CLIENT_H
#define UV_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "abi/exit.h"
#include "abi/status.h"
#include "abi/uvcall.h"

/* What guests of the tests are made of; a protected one has its workload below LOW. */
#define KIB  ((uint64_t)1 << 10)
#define MIB  ((uint64_t)1 << 20)
#define TOP  ((uint64_t)1 << 48) /* the end of all addresses */
#define PAGE 4096u
#define LOW  MIB

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* A packet's answer did not come because the connection has ended. */
#define UVC_GONE 0xffffffffu

#define UVC_LATER_MAX  8
#define UVC_EVENTS_MAX 256

/* An answer that came while another was waited for. */
struct uvc_answer {
	struct abi_answer head;
	uint8_t result[ABI_MAX_PACKET];
};

struct uvc_slot {
	int memfd; /* -1: none */
	uint8_t *base;
	uint64_t gpa, bytes;
};

struct uvc {
	int socket;
	pid_t pid; /* 0 until the answer to HELLO */
	int pidfd; /* -1 until then */
	uint32_t seq;
	unsigned int vcpus;
	char dir[64];    /* the runtime directory of this test */
	char folder[80]; /* the VM's in it */
	int pages_fd, bulk_fd, status_fd, folder_fd;
	struct abi_vcpu_page *pages;
	uint8_t *bulk;
	struct abi_status_page *status;
	uint32_t exit_seen[ABI_MAX_VCPUS];
	struct uvc_slot slot[ABI_MAX_SLOTS];
	struct uvc_answer later[UVC_LATER_MAX];
	unsigned int later_count;
	struct abi_event event[UVC_EVENTS_MAX]; /* that have come and were not asked for yet */
	unsigned int event_count;
};

/* Starts lethe-uv.  Nothing is said yet. */
void uvc_spawn(struct uvc *c);

/* Starts one that fails at @failpoint, which this process does not; says hello. */
void uvc_spawn_failing(struct uvc *c, const char *failpoint);

/* Closes the socket: the hypervisor is gone. */
void uvc_hang_up(struct uvc *c);

/*
 * Waits until lethe-uv has ended, and frees everything.  Fails the test if its status as of
 * waitpid() is not @expected (and says how it ended), or if it left anything in the runtime
 * directory but what it never took over.
 */
void uvc_reap(struct uvc *c, int expected);

/* Hangs up and checks that lethe-uv ends by itself with status 0. */
void uvc_end(struct uvc *c);

/* ---- calls ---- */

/* Sends a request; returns its seq. */
uint32_t uvc_send(struct uvc *c, uint32_t nr, const void *args, size_t size, const int *fds,
	unsigned int nfds);

/* Waits for the answer to @seq.  Returns its status with *ret_answer, or UVC_GONE. */
uint32_t uvc_answer(struct uvc *c, uint32_t seq, struct uvc_answer *ret_answer);

/* Waits for the next event. */
struct abi_event uvc_event(struct uvc *c);

/* Both; @ret (or NULL) takes @ret_size bytes of the result if there is one. */
uint32_t uvc_call(struct uvc *c, uint32_t nr, const void *args, size_t size, const int *fds,
	unsigned int nfds, void *ret, size_t ret_size);

/* A call without arguments and descriptors. */
uint32_t uvc_call0(struct uvc *c, uint32_t nr, void *ret, size_t ret_size);

uint32_t uvc_hello(struct uvc *c);

/* Makes the exit pages, bulk buffer, status file and folder; the descriptors VM_CREATE takes. */
void uvc_make_shared(struct uvc *c, unsigned int vcpus, int ret_fds[4]);

uint32_t uvc_create(struct uvc *c, unsigned int vcpus, uint32_t flags);

/* A new memfd as slot @id. */
uint32_t uvc_slot_add(struct uvc *c, unsigned int id, uint64_t gpa, uint64_t bytes);

uint32_t uvc_slot_remove(struct uvc *c, uint32_t id);

uint32_t uvc_slot_move(struct uvc *c, uint32_t id, uint64_t gpa);

/* Forgets the slots, as PREPARE and RESET do on the other side. */
void uvc_slots_drop(struct uvc *c);

/* spawn, hello, create, and @bytes of memory in slot 0 at GPA 0. */
void uvc_begin(struct uvc *c, unsigned int vcpus, uint32_t flags, uint64_t bytes);

/* The same, in a lethe-uv that fails at @failpoint; this process does not. */
void uvc_begin_failing(
	struct uvc *c, const char *failpoint, unsigned int vcpus, uint32_t flags, uint64_t bytes);

/* Puts a workload where the guest looks for it. */
void uvc_load(struct uvc *c, const char *text);

uint32_t uvc_page_in(struct uvc *c, uint64_t gpa, uint64_t bytes);

/* The switch before start; [0, @bytes) keeps its content. */
void uvc_protect(struct uvc *c, uint64_t bytes);

void uvc_start(struct uvc *c);

/* Loads @text and starts it in a VM that is protected from the start. */
void uvc_start_protected(struct uvc *c, const char *text);

uint32_t uvc_mem(struct uvc *c, uint32_t nr, uint64_t gpa, uint32_t bytes);

struct abi_info_ret uvc_info(struct uvc *c);

/* What a guest's `write` of @seed leaves in [@gpa, @gpa + @bytes): puts it there, or looks. */
void uvc_fill(uint8_t *to, uint64_t gpa, uint64_t bytes, uint64_t seed);
void uvc_assert_filled(const uint8_t *at, uint64_t gpa, uint64_t bytes, uint64_t seed);

/* ---- vCPUs ---- */

/* Waits for the next exit of @vcpu, and copies the page. */
void uvc_exit(struct uvc *c, unsigned int vcpu, struct abi_vcpu_page *ret);

/* Answers the last exit of @vcpu. */
void uvc_reply(struct uvc *c, unsigned int vcpu, uint32_t status);

/*
 * Accepts conversions and prints of vCPU 0 until an exit of @type, which is not answered.
 * Fails the test if the guest was stopped instead.
 */
void uvc_run_until(struct uvc *c, uint32_t type, struct abi_vcpu_page *ret);

/* Waits for the next exit of vCPU 0, which must be that it was stopped, for @reason at @gpa. */
void uvc_expect_stopped(struct uvc *c, uint64_t reason, uint64_t gpa);

/* Answers a PROTECT exit in *@page with the switch it asks for. */
void uvc_protect_asked(struct uvc *c, const struct abi_vcpu_page *page);

#endif
