/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who sleeps for a page that is sealed no more, in memory of several slots.  Needs no KVM. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/socket.h"
#include "uv/exec_kvm.h"
#include "uv/executor.h"
#include "uv/seal.h"
#include "uv/vm_life.h"

#define SLOT_PAGES ((uint64_t)16)

static struct uv_vm vm;
static struct kvm_exec exec;
static int hypervisor;

static void add_slot(unsigned int id)
{
	struct slot_memory *m = &vm.memory_of[id];

	slots_add(&vm.slots, id, (struct gfn_range){gfn(id * SLOT_PAGES), SLOT_PAGES});
	assert_int_equal(window_private(SLOT_PAGES << PAGE_SHIFT, &m->window), 0);
	assert_int_equal(seal_table_new(SLOT_PAGES, &m->sealed), 0);
}

static void begin(void)
{
	int pair[2];

	assert_int_equal(socket_pair(pair), 0);
	hypervisor = pair[1];
	assert_int_equal(uv_vm_init(&vm, pair[0]), 0);
	if (!userfault_is_open(&vm.userfault)) {
		print_message("skipped: no userfaultfd for faults in the kernel\n");
		_exit(77);
	}
	vm.executor = &executor_kvm;
	vm.exec = &exec;
	assert_int_equal(kvm_faults_new(&vm, &exec.faults), 0);
	add_slot(0);
	add_slot(1);
}

static void end(void)
{
	kvm_faults_free(exec.faults);
	for (unsigned int i = 0; i < 2; i++) {
		assert_int_equal(window_unmap(&vm.memory_of[i].window), 0);
		while (seal_table_free_some(vm.memory_of[i].sealed))
			;
	}
	userfault_close(&vm.userfault);
	attr_map_free(vm.attr);
	close(vm.socket);
	close(hypervisor);
}

static void seal(uint64_t frame)
{
	struct gfn_range r = {gfn(frame), 1};

	assert_int_equal(kvm_seal_begin(&vm, (unsigned int)(frame / SLOT_PAGES), r), 0);
	assert_int_equal(attr_set(vm.attr, r, ATTR_SEALED), 0);
}

/* A vCPU in the kernel does this. */
static void *touch(void *at)
{
	(void)*(volatile uint8_t *)at;
	return NULL;
}

static void test_change_across_slots(void **state)
{
	const struct gfn_range across = {gfn(SLOT_PAGES - 1), 2};
	struct abi_event event;
	pthread_t sleeper;

	begin();
	seal(SLOT_PAGES - 1);
	seal(SLOT_PAGES);
	assert_int_equal(pthread_create(&sleeper, NULL, touch, vm.memory_of[1].window.base), 0);
	assert_int_equal(recv(hypervisor, &event, sizeof(event), 0), sizeof(event));
	assert_int_equal(event.gpa, SLOT_PAGES << PAGE_SHIFT);
	assert_true(kvm_waits(&vm));

	pthread_mutex_lock(&vm.lock);
	pthread_rwlock_wrlock(&vm.memory);
	assert_int_equal(attr_set(vm.attr, across, ATTR_PRIVATE), 0);
	pthread_rwlock_unlock(&vm.memory);
	kvm_range_end(&vm, across);
	pthread_mutex_unlock(&vm.lock);
	assert_int_equal(pthread_join(sleeper, NULL), 0);
	assert_false(kvm_waits(&vm));
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_change_across_slots)};

	/* Who is not woken would sleep for ever. */
	alarm(30);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
