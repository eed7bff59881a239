/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Guests whose pages go out and come back, and stores that keep them, more or less well.  Real
 * VMs through liblethe; LETHE_UV names lethe-uv.  What must not happen ends the test.
 */
#ifndef TEST_PAGING_H
#define TEST_PAGING_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "lethe/lethe.h"

#define PAGE   ((uint64_t)4096)
#define MIB    ((uint64_t)1 << 20)
#define MEMORY (16 * MIB) /* of a guest, in slot 0 */
#define STORED (64 * MIB) /* a store has room up to here */

#define NEED(condition) need(condition, #condition, __FILE__, __LINE__)
void need(bool condition, const char *what, const char *file, int line);

/* ---- stores ---- */

enum fault {
	FAULT_NONE,
	FAULT_MODIFIED, /* get: one bit is another */
	FAULT_OLD,      /* get: what was put first */
	FAULT_SWAPPED,  /* get: what was put for the next page */
	FAULT_MISSING,  /* get: zeros */
	FAULT_GET,      /* get: -EIO */
	FAULT_PUT       /* put: -ENOSPC */
};

/* For test_store.at: any page. */
#define TEST_STORE_ANY UINT64_MAX

/* In memory.  It aborts if liblethe does not keep to what lethe/page_store.h promises. */
struct test_store {
	struct lethe_page_store ops; /* first */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	uint8_t *pages, *first; /* of STORED bytes: what was put last, and first */
	uint8_t kept[STORED / PAGE], busy[STORED / PAGE];
	unsigned int inside, waiting; /* calls under way; those that wait at a gate */
	unsigned int puts, gets, drops, drop_alls;
	bool closed;

	/* Set by the test, under lock. */
	enum fault fault;
	uint64_t at;             /* the page that it is about */
	unsigned int times;      /* 0: always */
	bool get_gate, put_gate; /* calls for `at` wait until it is false */
};

/* A new store, for lethe_vm_set_page_store(), and its end, after that of the VM. */
struct test_store *test_store_new(void);
void test_store_free(struct test_store *s);

void test_store_fault(struct test_store *s, enum fault fault, uint64_t at, unsigned int times);
void test_store_gates(struct test_store *s, uint64_t at, bool get, bool put);

/* Waits until @count calls stand at a gate. */
void test_store_await(struct test_store *s, unsigned int count);

/* What has happened so far. */
struct test_store_seen {
	unsigned int puts, gets, drops, drop_alls;
	unsigned int kept; /* pages */
	enum fault fault;
};
struct test_store_seen test_store_seen(struct test_store *s);

/* ---- guests ---- */

/* What guests run on: LETHE_EXECUTOR_SW unless a test says otherwise. */
extern enum lethe_executor guest_executor;

/* How much memory they have: MEMORY, likewise. */
extern uint64_t guest_memory;

struct guest {
	struct lethe_vm *vm;
	unsigned int vcpus;
	const char *text;
	struct lethe_exit exit[4]; /* the last of each vCPU */
};

/* Starts a guest of @vcpus that runs @text, with @store (NULL: none). */
void guest_start(struct guest *g, unsigned int vcpus, const char *text, enum lethe_share share,
	struct lethe_page_store *store);

/*
 * Goes on until the vCPU prints, reboots, has been stopped or has ended; that exit is in
 * g->exit[vcpu].  Switches are made, conversions and releases allowed.
 */
enum lethe_exit_type guest_run(struct guest *g, unsigned int vcpu);

/* Goes on until @text is printed. */
void guest_run_to(struct guest *g, unsigned int vcpu, const char *text);

/* The next life, after LETHE_EXIT_REBOOT. */
void guest_reboot(struct guest *g);

void guest_end(struct guest *g);

/* Pages out [@at, @at + @bytes); returns how many pages went. */
uint64_t guest_out(struct guest *g, uint64_t at, uint64_t bytes);

enum lethe_gfn_state guest_state(struct guest *g, uint64_t at);

#endif
