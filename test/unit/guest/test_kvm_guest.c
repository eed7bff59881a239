/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The workload guest on a real /dev/kvm, without the rest of Lethe: this program is VMM and
 * ultravisor at once.  Each workload runs here and on the fake machine, which must agree
 * about everything that it printed and left in memory.
 *
 * One thread: vCPUs run in turn, each until it ends or waits at a barrier.
 *
 * Skips where KVM is missing.  Workloads are tiny, because a KVM that emulates runs some
 * hundred thousand instructions a second.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/types.h"
#include "guest/kvm_image.h"
#include "test/unit/guest/fake_machine.h"

#define VCPUS     2
#define SKIPPED   77
#define CPUID_MAX 256
#define SPARE     512

enum vcpu_state { VCPU_RUNS, VCPU_WAITS, VCPU_ENDED };

struct vcpu {
	int fd;
	struct kvm_run *run;
	enum vcpu_state state;
	uint64_t barrier;
};

struct machine {
	int vm;
	uint8_t *memory;
	const char *text;
	struct vcpu vcpu[VCPUS];
	struct guest_bootinfo boot;
	bool rebooting, over;
	char printed[1024];
	enum abi_stop stop;
	uint64_t stop_gpa;
	char stop_text[512];
	struct abi_range ranges[2];
};

static int kvm = -1;
static size_t run_size;

static void set_segment(struct kvm_segment *to, const struct abi_segment *from)
{
	*to = (struct kvm_segment){
		.base = from->base,
		.limit = from->limit,
		.selector = from->selector,
		.type = from->type & 15,
		.present = (from->flags & ABI_SEG_PRESENT) != 0,
		.s = (from->flags & ABI_SEG_CODE_OR_DATA) != 0,
		.db = (from->flags & ABI_SEG_DEFAULT_32) != 0,
		.l = (from->flags & ABI_SEG_LONG) != 0,
		.g = (from->flags & ABI_SEG_GRANULAR) != 0,
	};
}

static void set_registers(int fd, unsigned int id)
{
	struct abi_vcpu_state s;
	struct kvm_sregs sregs;
	struct kvm_regs regs;

	guest_kvm_state(id, &s);
	assert_int_equal(ioctl(fd, KVM_GET_SREGS, &sregs), 0);
	set_segment(&sregs.cs, &s.cs);
	set_segment(&sregs.ds, &s.data);
	sregs.es = sregs.fs = sregs.gs = sregs.ss = sregs.ds;
	set_segment(&sregs.tr, &s.tr);
	sregs.ldt = (struct kvm_segment){.unusable = 1};
	sregs.gdt.base = s.gdt_base;
	sregs.gdt.limit = (uint16_t)s.gdt_limit;
	sregs.idt.limit = 0;
	sregs.cr0 = s.cr0;
	sregs.cr3 = s.cr3;
	sregs.cr4 = s.cr4;
	sregs.efer = s.efer;
	assert_int_equal(ioctl(fd, KVM_SET_SREGS, &sregs), 0);
	regs = (struct kvm_regs){.rip = s.rip, .rsp = s.rsp, .rflags = s.rflags, .rdi = s.rdi};
	assert_int_equal(ioctl(fd, KVM_SET_REGS, &regs), 0);
}

static void load(struct machine *m)
{
	struct guest_text header = {GUEST_TEXT_MAGIC, strlen(m->text)};
	size_t bytes;

	memset(m->memory, 0, FAKE_MEMORY);
	memcpy(m->memory + GUEST_KVM_IMAGE_GPA, guest_kvm_image, guest_kvm_image_size);
	assert_int_equal(
		guest_kvm_tables(FAKE_MEMORY, m->memory + GUEST_KVM_TABLES_GPA, &bytes), 0);
	memcpy(m->memory + GUEST_TEXT_GPA, &header, sizeof(header));
	memcpy(m->memory + GUEST_TEXT_GPA + sizeof(header), m->text, header.bytes);
}

/* KVM's CPUID, before the registers: KVM checks EFER against it. */
static void set_cpuid(int fd)
{
	struct kvm_cpuid2 *cpuid =
		calloc(1, sizeof(*cpuid) + CPUID_MAX * sizeof(struct kvm_cpuid_entry2));

	assert_non_null(cpuid);
	cpuid->nent = CPUID_MAX;
	assert_int_equal(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid), 0);
	assert_int_equal(ioctl(fd, KVM_SET_CPUID2, cpuid), 0);
	free(cpuid);
}

static void make_vcpu(struct machine *m, unsigned int id)
{
	struct vcpu *v = &m->vcpu[id];

	v->fd = ioctl(m->vm, KVM_CREATE_VCPU, id);
	assert_true(v->fd >= 0);
	set_cpuid(v->fd);
	v->run = mmap(NULL, run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	assert_ptr_not_equal(v->run, MAP_FAILED);
}

static void machine_init(struct machine *m, const char *text)
{
	struct kvm_userspace_memory_region region = {.memory_size = FAKE_MEMORY};

	memset(m, 0, sizeof(*m));
	m->text = text;
	m->boot.vcpus = VCPUS;
	m->boot.memory_end = FAKE_MEMORY;
	m->vm = ioctl(kvm, KVM_CREATE_VM, 0);
	assert_true(m->vm >= 0);
	m->memory =
		mmap(NULL, FAKE_MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(m->memory, MAP_FAILED);
	region.userspace_addr = (uintptr_t)m->memory;
	assert_int_equal(ioctl(m->vm, KVM_SET_USER_MEMORY_REGION, &region), 0);
	for (unsigned int i = 0; i < VCPUS; i++)
		make_vcpu(m, i);
}

static void machine_fini(struct machine *m)
{
	for (unsigned int i = 0; i < VCPUS; i++) {
		munmap(m->vcpu[i].run, run_size);
		close(m->vcpu[i].fd);
	}
	close(m->vm);
	munmap(m->memory, FAKE_MEMORY);
}

static const uint8_t *buffer(const struct machine *m, uint64_t at, uint64_t bytes)
{
	assert_true(at < GUEST_TEXT_GPA && bytes <= GUEST_TEXT_GPA - at);
	return m->memory + at;
}

/* Lets vCPUs go on when @participants wait at @key. */
static void meet(struct machine *m, struct vcpu *v, uint64_t key, uint64_t participants)
{
	uint64_t waiting = 0;

	v->state = VCPU_WAITS;
	v->barrier = key;
	for (unsigned int i = 0; i < VCPUS; i++)
		waiting += m->vcpu[i].state == VCPU_WAITS && m->vcpu[i].barrier == key;
	for (unsigned int i = 0; i < VCPUS && waiting == participants; i++)
		if (m->vcpu[i].state == VCPU_WAITS && m->vcpu[i].barrier == key)
			m->vcpu[i].state = VCPU_RUNS;
}

static void begin_reboot(struct machine *m, const struct vcpu *v, uint64_t words, uint64_t count)
{
	assert_in_range(count, 3, GUEST_RESUME_WORDS);
	memcpy(m->boot.resume, buffer(m, words, count * 8), count * 8);
	m->boot.resume_size = (uint32_t)count;
	m->boot.caller = (uint32_t)(v - m->vcpu);
	m->boot.incarnation++;
	m->rebooting = true;
}

static void take_stop(struct machine *m, const struct kvm_regs *r)
{
	assert_in_range(r->r8, 1, sizeof(m->stop_text) - 1);
	m->stop = (enum abi_stop)r->rdi;
	m->stop_gpa = r->rsi;
	memcpy(m->stop_text, buffer(m, r->rcx, r->r8), r->r8);
	m->over = true;
}

static void take_bootinfo(struct machine *m, const struct vcpu *v, uint64_t at)
{
	struct guest_bootinfo boot = m->boot;

	boot.vcpu = (uint32_t)(v - m->vcpu);
	boot.caller = boot.resume_size && m->boot.caller == boot.vcpu;
	buffer(m, at, sizeof(boot));
	memcpy(m->memory + at, &boot, sizeof(boot));
}

static void serve(struct machine *m, struct vcpu *v, const struct kvm_regs *r)
{
	switch (r->rax) {
	case GUEST_CALL_BOOTINFO:
		take_bootinfo(m, v, r->rdi);
		break;
	case GUEST_CALL_PROTECT:
		assert_int_equal(r->rsi, 2);
		memcpy(m->ranges, buffer(m, r->rdi, sizeof(m->ranges)), sizeof(m->ranges));
		break;
	case GUEST_CALL_DMA:
		for (uint64_t i = 0; i < r->rsi; i++)
			m->memory[r->rdi + i] ^= 0xff;
		break;
	case GUEST_CALL_PRINT:
		strncat(m->printed, (const char *)buffer(m, r->rdi, r->rsi), r->rsi);
		strcat(m->printed, "\n");
		break;
	case GUEST_CALL_BARRIER:
		meet(m, v, r->rdi, r->rsi);
		break;
	case GUEST_CALL_REBOOT:
		begin_reboot(m, v, r->rdi, r->rsi);
		break;
	case GUEST_CALL_STOP:
		take_stop(m, r);
		break;
	case GUEST_CALL_POWEROFF:
		m->over = true;
		break;
	case GUEST_CALL_HALT:
		v->state = VCPU_ENDED;
		break;
	default:
		break;
	}
}

/* Finishes the OUT whose exit came last, so that registers may be set anew. */
static void complete_io(struct vcpu *v)
{
	v->run->immediate_exit = 1;
	assert_int_equal(ioctl(v->fd, KVM_RUN, 0), -1);
	assert_int_equal(errno, EINTR);
	v->run->immediate_exit = 0;
}

/* Runs @v to its next guest call and serves it. */
static void step(struct machine *m, struct vcpu *v)
{
	struct kvm_regs regs;

	while (ioctl(v->fd, KVM_RUN, 0) < 0)
		assert_true(errno == EINTR || errno == EAGAIN);
	if (v->run->exit_reason != KVM_EXIT_IO) {
		ioctl(v->fd, KVM_GET_REGS, &regs);
		fail_msg("exit %u at 0x%llx", v->run->exit_reason, regs.rip);
	}
	assert_int_equal(v->run->io.port, GUEST_CALL_PORT);
	assert_int_equal(v->run->io.size, 4);
	assert_int_equal(v->run->io.direction, KVM_EXIT_IO_OUT);
	assert_int_equal(ioctl(v->fd, KVM_GET_REGS, &regs), 0);
	serve(m, v, &regs);
	regs.rax = 0;
	assert_int_equal(ioctl(v->fd, KVM_SET_REGS, &regs), 0);
	complete_io(v);
}

static void boot(struct machine *m)
{
	m->rebooting = false;
	load(m);
	for (unsigned int i = 0; i < VCPUS; i++) {
		set_registers(m->vcpu[i].fd, i);
		m->vcpu[i].state = VCPU_RUNS;
	}
}

static void machine_run(struct machine *m)
{
	bool progress = true;

	boot(m);
	while (!m->over && progress) {
		progress = false;
		for (unsigned int i = 0; i < VCPUS && !m->over; i++) {
			while (m->vcpu[i].state == VCPU_RUNS && !m->over && !m->rebooting) {
				step(m, &m->vcpu[i]);
				progress = true;
			}
		}
		if (m->rebooting)
			boot(m);
	}
}

static void assert_same(const struct machine *m, const struct fake_machine *fake)
{
	assert_string_equal(m->printed, fake->printed);
	assert_int_equal(m->stop, fake->stop);
	assert_int_equal(m->stop_gpa, fake->stop_gpa);
	assert_string_equal(m->stop_text, fake->stop_text);
	assert_memory_equal(m->memory + GUEST_LOW_END, fake->memory + GUEST_LOW_END,
		FAKE_MEMORY - GUEST_LOW_END);
}

/* The image is as it was loaded, and vCPU 0's stack has kept SPARE bytes unused. */
static void assert_low_memory(const struct machine *m)
{
	size_t end = GUEST_KVM_STACKS_GPA + SPARE;

	assert_memory_equal(m->memory + GUEST_KVM_IMAGE_GPA, guest_kvm_image, guest_kvm_image_size);
	for (size_t at = GUEST_KVM_IMAGE_GPA + guest_kvm_image_size; at < end; at++)
		assert_int_equal(m->memory[at], 0);
}

/* vCPU 0 alone, on both machines. */
static void run_both(const char *text)
{
	struct machine m;
	struct fake_machine fake;

	machine_init(&m, text);
	machine_run(&m);
	fake_init(&fake, text);
	fake.boot.vcpus = VCPUS;
	fake_run(&fake);
	assert_same(&m, &fake);
	assert_low_memory(&m);
	if (m.ranges[0].bytes)
		assert_memory_equal(m.ranges, fake.ranges, sizeof(m.ranges));
	fake_free(&fake);
	machine_fini(&m);
}

static void test_memory_operations(void **state)
{
	run_both("print hello, world\n"
		 "write 1M 4K 7\ncheck 1M 4K 7\nzero 0x101000 4K\ntouch 2M 16K\n"
		 "write 0x1ffff8 16\nrandom 3M 64K 30 2\nloop 3\nprint pass\nend\n"
		 "write 0x7ffff8 8\npoweroff\nprint not reached\n");
}

static void test_calls(void **state)
{
	run_both("protect 1M 4K\nshare 1M 4K\nunshare 1M 4K\ndma 2M 4K 2\nrelease 3M 4K\n"
		 "sleep 1\nbarrier alone\nprint done\n");
}

static void test_stops(void **state)
{
	run_both("write 1M 64\ncheck 1M 72\n");
	run_both("dma 1M 4K 1\nwrite 0x100008 8\nzero 0x100008 8\n");
	run_both("print a\nwrit\n");
	run_both("write 0x7ffff8 16\n");
}

static void test_two_vcpus(void **state)
{
	static const char text[] = "vcpu 0\nwrite 1M 512 1\nbarrier a\ncheck 2M 512 2\nbarrier b\n"
				   "print zero\npoweroff\n"
				   "vcpu 1\nwrite 2M 512 2\nbarrier a\ncheck 1M 512 1\nprint one\n"
				   "barrier b\n";
	struct machine m;

	machine_init(&m, text);
	machine_run(&m);
	assert_true(m.over);
	assert_string_equal(m.stop_text, "");
	assert_string_equal(m.printed, "one\nzero\n");
	machine_fini(&m);
}

static void test_reboots(void **state)
{
	static const char text[] =
		"vcpu 0\nprint cold\nloop 2\nwrite 1M 256\ncheck 1M 256\nreboot\n"
		"zero 1M 256\nprint warm\nend\nbarrier x\nprint off\npoweroff\n"
		"vcpu 1\nbarrier x\n";
	struct machine m;

	machine_init(&m, text);
	machine_run(&m);
	assert_true(m.over);
	assert_string_equal(m.stop_text, "");
	assert_int_equal(m.boot.incarnation, 2);
	assert_string_equal(m.printed, "cold\nwarm\nwarm\noff\n");
	machine_fini(&m);
}

/* Opens /dev/kvm as far as the tests need it; returns why it will not do, or NULL. */
static const char *open_kvm(void)
{
	int size;

	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0)
		return strerror(errno);
	if (ioctl(kvm, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
		return "another version of KVM's interface";
	if (ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_IMMEDIATE_EXIT) <= 0)
		return "no immediate exit";
	size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (size < (int)sizeof(struct kvm_run))
		return "no vCPU area";
	run_size = (size_t)size;
	return NULL;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_memory_operations),
		cmocka_unit_test(test_calls),
		cmocka_unit_test(test_stops),
		cmocka_unit_test(test_two_vcpus),
		cmocka_unit_test(test_reboots),
	};
	const char *missing = open_kvm();

	if (missing) {
		fprintf(stderr, "skipped: /dev/kvm: %s\n", missing);
		return SKIPPED;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
