/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/linux.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "vmm/console.h"
#include "vmm/machine_state.h"
#include "vmm/pc_boot.h"
#include "vmm/pc_bus.h"

#define DEFAULT_CMDLINE "console=ttyS0"

struct file {
	void *data;
	size_t bytes;
};

struct linux_guest {
	struct file kernel, initrd;
	struct pc_memory memory;
	struct pc_boot *boot;
	struct pc_bus *bus;
	struct console *console; /* NULL: none yet */
	struct machine *machine; /* NULL: no VM yet */
	struct lethe_range pages[PC_BLOBS_MAX];
	size_t page_count;
};

/* ---- files ---- */

static int map_open_file(const char *path, int fd, struct file *ret)
{
	struct stat st;
	void *p;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_size == 0) {
		log_error("%s: not a file with content (give a kernel image or an initrd)", path);
		return -EINVAL;
	}
	p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	*ret = (struct file){.data = p, .bytes = (size_t)st.st_size};
	return 0;
}

static int map_file(const char *path, struct file *ret)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int err = fd < 0 ? -errno : map_open_file(path, fd, ret);

	if (fd >= 0)
		close(fd);
	if (err && err != -EINVAL)
		log_error("%s: %s (give a file that can be read)", path, strerror(-err));
	return err;
}

/* ---- the console ---- */

static void set_irq(void *ctx, unsigned int irq, bool level)
{
	struct linux_guest *g = ctx;

	/* Between two incarnations there is nobody to interrupt. */
	if (g->machine)
		(void)lethe_irq_line(g->machine->vm, irq, level);
}

static void serial_output(void *ctx, uint8_t byte)
{
	struct linux_guest *g = ctx;

	if (g->console)
		console_write(g->console, &byte, 1);
}

static void serial_input_ready(void *ctx)
{
	struct linux_guest *g = ctx;

	if (g->console)
		console_input_ready(g->console);
}

static size_t console_input(void *ctx, const uint8_t *data, size_t bytes)
{
	struct linux_guest *g = ctx;

	return pc_bus_input(g->bus, data, bytes);
}

static void console_quit(void *ctx)
{
	struct linux_guest *g = ctx;

	machine_end(g->machine, MACHINE_POWEROFF);
}

int linux_attach(struct linux_guest *g, struct machine *machine)
{
	const struct console_config config = {.in_fd = STDIN_FILENO,
		.out_fd = STDOUT_FILENO,
		.ctx = g,
		.input = console_input,
		.quit = console_quit};
	int err;

	g->machine = machine;
	err = console_new(&config, &g->console);
	if (err)
		log_error("no console: %s (free some memory)", strerror(-err));
	return err;
}

void linux_hang_up(struct linux_guest *g)
{
	if (g->console)
		console_stop(g->console);
}

void linux_detach(struct linux_guest *g)
{
	if (!g->console)
		return;
	linux_hang_up(g);
	console_free(g->console);
	g->console = NULL;
	g->machine = NULL;
}

/* ---- the guest ---- */

static int prepare_boot(struct linux_guest *g, const struct linux_config *config)
{
	const struct pc_boot_input input = {.kernel = g->kernel.data,
		.kernel_bytes = g->kernel.bytes,
		.initrd = g->initrd.data,
		.initrd_bytes = g->initrd.bytes,
		.cmdline = config->cmdline ? config->cmdline : DEFAULT_CMDLINE,
		.vcpus = config->vcpus,
		.memory = g->memory};
	struct pc_slot pages[PC_BLOBS_MAX];
	char error[256];
	int err = pc_boot_prepare(&input, &g->boot, error, sizeof(error));

	if (err) {
		log_error("%s: %s", config->kernel, error);
		return err;
	}
	g->page_count = pc_boot_pages(g->boot, pages);
	for (size_t i = 0; i < g->page_count; i++)
		g->pages[i] = (struct lethe_range){.gpa = pages[i].gpa, .bytes = pages[i].bytes};
	return 0;
}

static int fill(struct linux_guest *g, const struct linux_config *config)
{
	const struct pc_serial_ops serial = {.ctx = g,
		.set_irq = set_irq,
		.output = serial_output,
		.input_ready = serial_input_ready};
	int err = pc_memory_layout(config->memory_bytes, &g->memory);

	if (err) {
		log_error("--memory: not a size that a PC can have (give 2M or more)");
		return err;
	}
	err = map_file(config->kernel, &g->kernel);
	if (!err && config->initrd)
		err = map_file(config->initrd, &g->initrd);
	if (!err)
		err = prepare_boot(g, config);
	if (err)
		return err;
	err = pc_bus_new(&serial, &g->bus);
	if (err)
		log_error("no memory for devices (free some)");
	return err;
}

int linux_read(const struct linux_config *config, struct linux_guest **ret)
{
	struct linux_guest *g = calloc(1, sizeof(*g));
	int err;

	if (!g) {
		log_error("no memory for a guest (free some)");
		return -ENOMEM;
	}
	err = fill(g, config);
	if (err) {
		linux_free(g);
		return err;
	}
	*ret = g;
	return 0;
}

void linux_free(struct linux_guest *g)
{
	if (!g)
		return;
	linux_detach(g);
	if (g->bus)
		pc_bus_free(g->bus);
	if (g->boot)
		pc_boot_free(g->boot);
	if (g->kernel.data)
		munmap(g->kernel.data, g->kernel.bytes);
	if (g->initrd.data)
		munmap(g->initrd.data, g->initrd.bytes);
	free(g);
}

static struct lethe_segment segment(const struct pc_segment *s)
{
	return (struct lethe_segment){.base = s->base,
		.limit = s->limit,
		.selector = s->selector,
		.type = s->type,
		.flags = (uint8_t)((s->present ? LETHE_SEG_PRESENT : 0) |
				   (s->s ? LETHE_SEG_CODE_OR_DATA : 0) |
				   (s->db ? LETHE_SEG_DEFAULT_32 : 0) |
				   (s->l ? LETHE_SEG_LONG : 0) | (s->g ? LETHE_SEG_GRANULAR : 0))};
}

static int set_registers(const struct linux_guest *g, struct lethe_vm *vm)
{
	const struct pc_cpu_state *cpu = pc_boot_cpu(g->boot);
	const struct lethe_cpu_state state = {.rip = cpu->rip,
		.rsp = cpu->rsp,
		.rbx = cpu->rbx,
		.rsi = cpu->rsi,
		.rflags = cpu->rflags,
		.cr0 = cpu->cr0,
		.cr3 = cpu->cr3,
		.cr4 = cpu->cr4,
		.efer = cpu->efer,
		.gdt_base = cpu->gdt_base,
		.gdt_limit = cpu->gdt_limit,
		.cs = segment(&cpu->cs),
		.data = segment(&cpu->data),
		.tr = segment(&cpu->tr)};

	return lethe_vcpu_set_state(vm, 0, &state);
}

uint64_t linux_hotplug_gpa(void)
{
	return PC_HOLE_END;
}

bool linux_may_be_memory(uint64_t gpa, uint64_t bytes)
{
	return gpa + bytes <= PC_HOLE_GPA || gpa >= PC_HOLE_END;
}

int linux_populate(struct linux_guest *g, struct machine *machine, const char **ret_what)
{
	const struct pc_blob *blobs;
	size_t count;
	int err = 0;

	pc_bus_reset(g->bus);
	*ret_what = "cannot give the VM its memory";
	for (size_t i = 0; i < g->memory.slot_count && !err; i++)
		err = memory_add_slot(machine, (unsigned int)i, g->memory.slots[i].gpa,
			g->memory.slots[i].bytes, false);
	if (err)
		return err;
	*ret_what = "cannot load the kernel";
	blobs = pc_boot_blobs(g->boot, &count);
	for (size_t i = 0; i < count && !err; i++)
		err = lethe_vm_load(machine->vm, blobs[i].gpa, blobs[i].data, blobs[i].bytes);
	if (!err)
		err = set_registers(g, machine->vm);
	return err;
}

const struct lethe_range *linux_pages(const struct linux_guest *g, size_t *ret_count)
{
	*ret_count = g->page_count;
	return g->pages;
}

void linux_port(struct linux_guest *g, struct lethe_exit *exit)
{
	uint64_t value = exit->value;
	enum pc_action action = pc_bus_access(
		g->bus, (uint16_t)exit->gpa, (unsigned int)exit->bytes, exit->is_write, &value);

	if (!exit->is_write)
		exit->reply_value = value;
	else if (action == PC_ACTION_RESET)
		exit->reply_value = LETHE_ACTION_RESET;
	else if (action == PC_ACTION_POWEROFF)
		exit->reply_value = LETHE_ACTION_POWEROFF;
}
