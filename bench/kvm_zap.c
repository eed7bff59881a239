/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bench/kvm_zap.h"

#ifdef __x86_64__
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/types.h"
#include "os/clock.h"

/*
 * The guest, in 32-bit mode without paging: a byte into each page from edi on, ecx pages,
 * then HLT.   again: mov [edi], al; add edi, 4096; dec ecx; jnz again; hlt
 */
static const uint8_t code[] = {
	0x88, 0x07, 0x81, 0xc7, 0x00, 0x10, 0x00, 0x00, 0x49, 0x75, 0xf5, 0xf4};

#define CODE_GPA      0x1000u
#define DATA_GPA      0x200000u
#define ENTRIES_MAX   ((uint64_t)700 << 10) /* 32 bits, below the devices of a PC */
#define TIMEOUT_NS    (8 * NS_PER_SEC)
#define LOOK_AGAIN_NS (20 * NS_PER_MS)

struct machine {
	int kvm, vm, vcpu;
	struct kvm_run *run;
	size_t run_bytes;
	uint8_t *code, *data;
	uint64_t data_bytes;
};

static int set_slot(
	const struct machine *m, unsigned int slot, uint64_t at, void *host, uint64_t bytes)
{
	struct kvm_userspace_memory_region region = {.slot = slot,
		.guest_phys_addr = at,
		.memory_size = bytes,
		.userspace_addr = (uintptr_t)host};

	return ioctl(m->vm, KVM_SET_USER_MEMORY_REGION, &region);
}

static void *anonymous(uint64_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p != MAP_FAILED)
		(void)madvise(p, bytes, MADV_NOHUGEPAGE);
	return p == MAP_FAILED ? NULL : p;
}

static int open_machine(struct machine *m)
{
	int bytes;

	m->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (m->kvm < 0)
		return -1;
	m->vm = ioctl(m->kvm, KVM_CREATE_VM, 0);
	if (m->vm < 0)
		return -1;
	m->code = anonymous(PAGE_SIZE);
	m->data = anonymous(m->data_bytes);
	if (!m->code || !m->data || set_slot(m, 0, CODE_GPA, m->code, PAGE_SIZE) < 0 ||
		set_slot(m, 1, DATA_GPA, m->data, m->data_bytes) < 0)
		return -1;
	memcpy(m->code, code, sizeof(code));
	m->vcpu = ioctl(m->vm, KVM_CREATE_VCPU, 0);
	bytes = ioctl(m->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (m->vcpu < 0 || bytes <= 0)
		return -1;
	m->run = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED, m->vcpu, 0);
	if (m->run == MAP_FAILED) {
		m->run = NULL;
		return -1;
	}
	m->run_bytes = (size_t)bytes;
	return 0;
}

static void close_machine(struct machine *m)
{
	if (m->run)
		munmap(m->run, m->run_bytes);
	if (m->vcpu >= 0)
		close(m->vcpu);
	if (m->vm >= 0)
		close(m->vm);
	if (m->kvm >= 0)
		close(m->kvm);
	if (m->code)
		munmap(m->code, PAGE_SIZE);
	if (m->data)
		munmap(m->data, m->data_bytes);
}

static int set_registers(const struct machine *m, uint64_t entries)
{
	const struct kvm_segment flat = {.limit = UINT32_MAX,
		.present = 1,
		.s = 1,
		.db = 1,
		.g = 1,
		.type = 3,
		.selector = 16};
	struct kvm_regs regs = {.rip = CODE_GPA, .rflags = 2, .rdi = DATA_GPA, .rcx = entries};
	struct kvm_sregs sregs;

	if (ioctl(m->vcpu, KVM_GET_SREGS, &sregs) < 0)
		return -1;
	sregs.cs = flat;
	sregs.cs.type = 11;
	sregs.cs.selector = 8;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = flat;
	sregs.cr0 |= 1;
	if (ioctl(m->vcpu, KVM_SET_SREGS, &sregs) < 0)
		return -1;
	return ioctl(m->vcpu, KVM_SET_REGS, &regs);
}

/* ---- a guest that must not run for ever ---- */

struct alarm {
	pthread_t target, thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool done; /* guarded by lock */
};

static void on_alarm(int sig)
{
}

/* After the deadline, interrupts the target again and again until it is done. */
static void *alarm_main(void *arg)
{
	struct alarm *a = arg;
	uint64_t wait = TIMEOUT_NS;

	pthread_mutex_lock(&a->lock);
	while (!a->done) {
		struct timespec deadline = clock_deadline(wait);

		if (pthread_cond_timedwait(&a->changed, &a->lock, &deadline) == ETIMEDOUT) {
			pthread_kill(a->target, SIGUSR1);
			wait = LOOK_AGAIN_NS;
		}
	}
	pthread_mutex_unlock(&a->lock);
	return NULL;
}

static int alarm_start(struct alarm *a)
{
	struct sigaction action = {.sa_handler = on_alarm};
	pthread_condattr_t monotonic;

	sigaction(SIGUSR1, &action, NULL);
	a->target = pthread_self();
	pthread_mutex_init(&a->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&a->changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	return pthread_create(&a->thread, NULL, alarm_main, a);
}

static void alarm_stop(struct alarm *a)
{
	pthread_mutex_lock(&a->lock);
	a->done = true;
	pthread_cond_signal(&a->changed);
	pthread_mutex_unlock(&a->lock);
	pthread_join(a->thread, NULL);
	pthread_cond_destroy(&a->changed);
	pthread_mutex_destroy(&a->lock);
}

static int run_guest(const struct machine *m, const char **ret_why)
{
	struct alarm alarm = {0};
	int err;

	*ret_why = "no thread";
	if (alarm_start(&alarm) != 0)
		return -1;
	err = ioctl(m->vcpu, KVM_RUN, 0);
	alarm_stop(&alarm);
	*ret_why = err < 0 && errno == EINTR ? "KVM runs guests too slowly here: not within 8 s"
					     : "KVM does not run the guest";
	return err < 0 || m->run->exit_reason != KVM_EXIT_HLT ? -1 : 0;
}

int kvm_zap_measure(uint64_t entries, uint64_t *ret_ns, const char **ret_why)
{
	struct machine m = {.kvm = -1, .vm = -1, .vcpu = -1, .data_bytes = entries * PAGE_SIZE};
	uint64_t start;
	int err = -1;

	*ret_why = "more than a 32-bit guest can reach";
	if (entries > ENTRIES_MAX)
		return -1;
	*ret_why = "KVM does not work here";
	if (open_machine(&m) == 0 && set_registers(&m, entries) == 0)
		err = run_guest(&m, ret_why);
	if (!err) {
		start = clock_ns();
		err = set_slot(&m, 1, DATA_GPA, m.data, 0);
		*ret_ns = clock_ns() - start;
	}
	close_machine(&m);
	return err;
}
#else
int kvm_zap_measure(uint64_t entries, uint64_t *ret_ns, const char **ret_why)
{
	*ret_why = "not known on this architecture";
	return -1;
}
#endif
