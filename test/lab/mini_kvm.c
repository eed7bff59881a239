/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The smallest VMM around vmm/pc_*: boots a kernel image on /dev/kvm, without Lethe.
 *
 * It proves the PC by itself - boot blobs, ACPI tables, serial port, ways to reset and
 * power off - on a real KVM in the lab.  Memory is an ordinary mapping.
 *
 *   mini_kvm MEMORY_MIB VCPUS KERNEL INITRD CMDLINE
 *
 * Exit status: 0 the guest powered off, 10 it asked for a reset, 1 anything else.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/console.h"
#include "vmm/pc_boot.h"
#include "vmm/pc_bus.h"

#define CPUID_MAX              256
#define IDENTITY_MAP           0xfffbc000ull
#define TSS_ADDR               0xfffbd000ul
#define STATUS_RESET           10
#define CPUID_1_ECX_HYPERVISOR (1u << 31)
#define VCPUS_MAX              64

static struct {
	int kvm, vm;
	struct pc_memory memory;
	uint8_t *ram[PC_SLOTS_MAX];
	struct pc_bus *bus;
	struct console *console;
	int vcpus[VCPUS_MAX];
} m;

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "mini_kvm: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int check(int result, const char *what)
{
	if (result < 0)
		die(what);
	return result;
}

static const void *map_file(const char *path, size_t *ret_bytes)
{
	int fd = check(open(path, O_RDONLY | O_CLOEXEC), path);
	struct stat st;
	void *p;

	check(fstat(fd, &st), path);
	p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (p == MAP_FAILED)
		die(path);
	close(fd);
	*ret_bytes = (size_t)st.st_size;
	return p;
}

static void set_irq(void *ctx, unsigned int irq, bool level)
{
	struct kvm_irq_level line = {.irq = irq, .level = level};

	check(ioctl(m.vm, KVM_IRQ_LINE, &line), "KVM_IRQ_LINE");
}

static void serial_output(void *ctx, uint8_t byte)
{
	console_write(m.console, &byte, 1);
}

static void serial_input_ready(void *ctx)
{
	console_input_ready(m.console);
}

static size_t console_input(void *ctx, const uint8_t *data, size_t bytes)
{
	return pc_bus_input(m.bus, data, bytes);
}

static void console_quit(void *ctx)
{
	exit(1);
}

static void create_vm(void)
{
	struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
	uint64_t identity = IDENTITY_MAP;

	m.kvm = check(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
	m.vm = check(ioctl(m.kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
	check(ioctl(m.vm, KVM_SET_IDENTITY_MAP_ADDR, &identity), "KVM_SET_IDENTITY_MAP_ADDR");
	check(ioctl(m.vm, KVM_SET_TSS_ADDR, TSS_ADDR), "KVM_SET_TSS_ADDR");
	check(ioctl(m.vm, KVM_CREATE_IRQCHIP, 0), "KVM_CREATE_IRQCHIP");
	check(ioctl(m.vm, KVM_CREATE_PIT2, &pit), "KVM_CREATE_PIT2");
}

static void add_memory(uint64_t bytes)
{
	if (pc_memory_layout(bytes, &m.memory))
		die("memory size");
	for (size_t i = 0; i < m.memory.slot_count; i++) {
		const struct pc_slot *slot = &m.memory.slots[i];
		struct kvm_userspace_memory_region region = {.slot = (uint32_t)i,
			.guest_phys_addr = slot->gpa,
			.memory_size = slot->bytes};

		m.ram[i] = mmap(NULL, slot->bytes, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (m.ram[i] == MAP_FAILED)
			die("guest memory");
		region.userspace_addr = (uintptr_t)m.ram[i];
		check(ioctl(m.vm, KVM_SET_USER_MEMORY_REGION, &region), "memory slot");
	}
}

/* What KVM supports, with this vCPU's APIC id. */
static void set_cpuid(unsigned int vcpu)
{
	struct kvm_cpuid2 *cpuid =
		calloc(1, sizeof(*cpuid) + CPUID_MAX * sizeof(struct kvm_cpuid_entry2));

	if (!cpuid)
		die("memory");
	cpuid->nent = CPUID_MAX;
	check(ioctl(m.kvm, KVM_GET_SUPPORTED_CPUID, cpuid), "KVM_GET_SUPPORTED_CPUID");
	for (uint32_t i = 0; i < cpuid->nent; i++) {
		struct kvm_cpuid_entry2 *e = &cpuid->entries[i];

		if (e->function == 1) {
			e->ebx = (e->ebx & 0x00ffffff) | vcpu << 24;
			e->ecx |= CPUID_1_ECX_HYPERVISOR;
		} else if (e->function == 0xb || e->function == 0x1f)
			e->edx = vcpu;
	}
	check(ioctl(m.vcpus[vcpu], KVM_SET_CPUID2, cpuid), "KVM_SET_CPUID2");
	free(cpuid);
}

static struct kvm_segment segment(const struct pc_segment *s)
{
	return (struct kvm_segment){.base = s->base,
		.limit = s->limit,
		.selector = s->selector,
		.type = s->type,
		.present = s->present,
		.db = s->db,
		.s = s->s,
		.l = s->l,
		.g = s->g};
}

static void set_registers(const struct pc_cpu_state *cpu)
{
	struct kvm_regs regs = {.rip = cpu->rip,
		.rsp = cpu->rsp,
		.rbx = cpu->rbx,
		.rsi = cpu->rsi,
		.rflags = cpu->rflags};
	struct kvm_sregs sregs;

	check(ioctl(m.vcpus[0], KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
	sregs.cs = segment(&cpu->cs);
	sregs.tr = segment(&cpu->tr);
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = segment(&cpu->data);
	sregs.gdt.base = cpu->gdt_base;
	sregs.gdt.limit = cpu->gdt_limit;
	sregs.idt.base = sregs.idt.limit = 0;
	sregs.cr0 = cpu->cr0;
	sregs.cr3 = cpu->cr3;
	sregs.cr4 = cpu->cr4;
	sregs.efer = cpu->efer;
	check(ioctl(m.vcpus[0], KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
	check(ioctl(m.vcpus[0], KVM_SET_REGS, &regs), "KVM_SET_REGS");
}

static void load(char **argv, unsigned int vcpus)
{
	struct pc_boot_input input = {.cmdline = argv[5], .vcpus = vcpus, .memory = m.memory};
	const struct pc_blob *blobs;
	struct pc_boot *boot;
	char error[256];
	size_t count;

	input.kernel = map_file(argv[3], &input.kernel_bytes);
	input.initrd = map_file(argv[4], &input.initrd_bytes);
	if (pc_boot_prepare(&input, &boot, error, sizeof(error))) {
		fprintf(stderr, "mini_kvm: %s\n", error);
		exit(1);
	}
	blobs = pc_boot_blobs(boot, &count);
	for (size_t i = 0; i < count; i++)
		memcpy(m.ram[0] + blobs[i].gpa, blobs[i].data, blobs[i].bytes);
	for (unsigned int i = 0; i < vcpus; i++) {
		m.vcpus[i] = check(ioctl(m.vm, KVM_CREATE_VCPU, i), "KVM_CREATE_VCPU");
		set_cpuid(i);
	}
	set_registers(pc_boot_cpu(boot));
	pc_boot_free(boot);
}

static void serve_io(struct kvm_run *run)
{
	uint8_t *data = (uint8_t *)run + run->io.data_offset;
	bool is_write = run->io.direction == KVM_EXIT_IO_OUT;

	for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
		uint64_t value = 0;
		enum pc_action action;

		memcpy(&value, data, run->io.size);
		action = pc_bus_access(m.bus, run->io.port, run->io.size, is_write, &value);
		memcpy(data, &value, run->io.size);
		if (action != PC_ACTION_NONE)
			exit(action == PC_ACTION_POWEROFF ? 0 : STATUS_RESET);
	}
}

static void *run_vcpu(void *arg)
{
	int fd = *(int *)arg;
	size_t bytes = (size_t)check(ioctl(m.kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "mmap size");
	struct kvm_run *run = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (run == MAP_FAILED)
		die("vCPU page");
	for (;;) {
		if (ioctl(fd, KVM_RUN, 0) < 0) {
			/* EAGAIN: a processor that waits for its start-up message was woken. */
			if (errno != EINTR && errno != EAGAIN)
				die("KVM_RUN");
			continue;
		}
		if (run->exit_reason == KVM_EXIT_IO)
			serve_io(run);
		else if (run->exit_reason == KVM_EXIT_MMIO && !run->mmio.is_write)
			memset(run->mmio.data, 0xff, sizeof(run->mmio.data));
		else if (run->exit_reason != KVM_EXIT_MMIO) {
			fprintf(stderr, "mini_kvm: exit reason %u\n", run->exit_reason);
			exit(1);
		}
	}
}

int main(int argc, char **argv)
{
	struct pc_serial_ops serial = {
		.set_irq = set_irq, .output = serial_output, .input_ready = serial_input_ready};
	struct console_config console = {
		.in_fd = 0, .out_fd = 1, .input = console_input, .quit = console_quit};
	unsigned int vcpus = argc == 6 ? (unsigned int)atoi(argv[2]) : 0;
	pthread_t thread;

	if (vcpus < 1 || vcpus > VCPUS_MAX) {
		fprintf(stderr, "usage: mini_kvm MEMORY_MIB VCPUS KERNEL INITRD CMDLINE\n");
		return 2;
	}
	create_vm();
	add_memory((uint64_t)atoi(argv[1]) << 20);
	load(argv, vcpus);
	if (pc_bus_new(&serial, &m.bus) || console_new(&console, &m.console))
		die("devices");
	for (unsigned int i = 1; i < vcpus; i++)
		if (pthread_create(&thread, NULL, run_vcpu, &m.vcpus[i]))
			die("thread");
	run_vcpu(&m.vcpus[0]);
}
