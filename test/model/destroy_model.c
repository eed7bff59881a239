/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The life of VMs against a reference model: random sequences of adding and deleting memory,
 * protecting, sharing, releasing, rebooting, setting aside, destroying and cancelling.
 *
 * Each answer must be the one that the model (destroy_ref.h) gives.  Each page that the guest
 * or the hypervisor can read must hold what was written there last in this incarnation, else
 * zeros.  Nothing that was written to private memory ever shows in the hypervisor's memory
 * unless the guest shared that page with this content.  destroy_watch.h checks what is given
 * back to the kernel.  The ultravisor's own code runs in this process: dispatch, vCPU threads
 * with the software executor's MMU, the sweeper; only the guest's program is the test's.
 *
 *	destroy_model [SEQUENCES [SEED [BLOCK]]]
 *
 * A block of sequences has one VM, in a process of its own.  A failure says how to run its
 * block again and what its sequence was.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "test/model/destroy_model.h"
#include "test/model/destroy_watch.h"
#include "test/model/destroy_world.h"

#define SEQUENCES_DEFAULT 20000u

/* How often each comes, in SETUP, RUNNING and STOPPED. */
static const struct {
	void (*function)(void);
	uint8_t weight[3];
} table[] = {
	{do_slot_add, {10, 3, 2}},
	{do_slot_delete, {2, 4, 3}},
	{do_scribble, {5, 2, 1}},
	{do_copy_out, {2, 3, 1}},
	{do_copy_in, {2, 2, 1}},
	{do_switch, {8, 0, 0}},
	{do_switch_step, {3, 0, 1}},
	{do_protect, {0, 6, 0}},
	{do_start, {12, 1, 1}},
	{do_stop, {1, 1, 1}},
	{do_guest_write, {0, 14, 0}},
	{do_guest_check, {0, 5, 0}},
	{do_guest_watch, {0, 1, 0}},
	{do_convert, {0, 14, 0}},
	{do_release, {0, 4, 0}},
	{do_unplug, {0, 2, 0}},
	{do_guest_end, {0, 6, 0}},
	{do_prepare, {3, 1, 14}},
	{do_perform, {5, 3, 5}},
	{do_cancel, {2, 1, 2}},
	{do_reset, {2, 1, 5}},
	{do_info, {1, 1, 1}},
	{do_check_hypervisor, {1, 1, 1}},
};

static void some_operation(void)
{
	uint32_t sum = 0, roll;
	size_t i;

	for (i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		sum += table[i].weight[ref.phase];
	roll = dice(sum);
	for (i = 0; roll >= table[i].weight[ref.phase]; i++)
		roll -= table[i].weight[ref.phase];
	table[i].function();
}

/* Until the sweeper has nothing left: the windows of all that was set aside are gone. */
static void wait_until_forgotten(void)
{
	const struct timespec pause = {.tv_nsec = 50000};
	unsigned int rounds = 0;

	while (watch_windows() != 0) {
		if (rounds++ == 1200000)
			model_die("%u windows are never destroyed", watch_windows());
		nanosleep(&pause, NULL);
	}
}

/* Leaves the VM as a new one: nothing is set aside, and nothing is remembered. */
static void settle(void)
{
	if (ref.phase == REF_RUNNING)
		do_guest_check();
	check_hypervisor();
	if (ref.phase == REF_RUNNING)
		stop();
	do_reset();
	finish_forgetting();
	wait_until_forgotten();
	check_hypervisor();
	world_recycle();
}

static void run_sequence(uint64_t number, bool last)
{
	begin_sequence(number);
	do_slot_add();
	for (uint32_t n = 8 + dice(32); n > 0; n--) {
		some_operation();
		take_answers(false);
	}
	if (!last)
		settle();
}

/* The last sequence is cut off: the hypervisor is gone, whatever is under way. */
static void run_block(uint32_t sequences)
{
	static const uint32_t all_flags[] = {0, ABI_VM_SHARE_MAPPED, ABI_VM_LAZY_OFF,
		ABI_VM_WIPE_OFF, ABI_VM_SHARE_MAPPED | ABI_VM_DISCARD_EAGER, ABI_VM_SHARE_MAPPED, 0,
		ABI_VM_SHARE_MAPPED | ABI_VM_WIPE_OFF};

	vm_flags = all_flags[block % (sizeof(all_flags) / sizeof(all_flags[0]))];
	ref = (struct ref){.lazy_off = (vm_flags & ABI_VM_LAZY_OFF) != 0};
	watch_expect_wiping((vm_flags & ABI_VM_WIPE_OFF) == 0);
	world_begin(vm_flags);
	for (uint32_t i = 0; i < sequences; i++)
		run_sequence(i, i + 1 == sequences);
	world_end();
}

static void on_kick(int sig)
{
}

static int run_child(uint32_t sequences)
{
	const struct sigaction kick = {.sa_handler = on_kick};
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		log_setup("destroy_model", LOG_ERROR, NULL);
		sigaction(SIGUSR1, &kick, NULL);
		run_block(sequences);
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid) {
		perror("destroy_model");
		return 1;
	}
	if (status != 0)
		fprintf(stderr, "destroy_model: block %llu of seed %llu failed\n",
			(unsigned long long)block, (unsigned long long)seed);
	return status == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
	uint64_t sequences = argc > 1 ? strtoull(argv[1], NULL, 0) : SEQUENCES_DEFAULT;
	int ret = 0;

	seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
	if (argc > 3) {
		block = strtoull(argv[3], NULL, 0);
		return run_child((uint32_t)sequences);
	}
	for (block = 0; block * BLOCK < sequences && ret == 0; block++)
		ret = run_child(BLOCK);
	if (ret == 0)
		printf("%llu sequences, seed %llu\n", (unsigned long long)(block * BLOCK),
			(unsigned long long)seed);
	return ret;
}
