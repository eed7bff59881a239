/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A small VMM on liblethe: runs a workload (lethe-workload(5)) of one vCPU in 64 MiB on the
 * software executor, prints what the guest prints, lets it turn secure and share pages.
 *
 *	cc minimal-vmm.c -o minimal-vmm $(pkg-config --cflags --libs liblethe)
 *	./minimal-vmm FILE [PATH-OF-LETHE-UV]
 */
#include <errno.h>
#include <lethe/lethe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MEMORY_BYTES (64u << 20)

/* Where the guest's interpreter looks for its program: this header, then the text. */
#define PROGRAM_GPA   0x80000
#define PROGRAM_MAX   0x80000
#define PROGRAM_MAGIC 0x7478657468746cull

struct program {
	uint64_t magic;
	uint64_t bytes;
	char text[PROGRAM_MAX - 16];
};

/* Every call returns 0 or a negative errno; lethe_error() has the story. */
static void must(int ret, const char *what)
{
	if (ret == 0)
		return;
	fprintf(stderr, "%s: %s: %s\n", what, strerror(-ret), lethe_error());
	exit(1);
}

static void load(struct lethe_vm *vm, const char *path)
{
	static struct program program = {.magic = PROGRAM_MAGIC};
	FILE *file = fopen(path, "r");

	must(file ? 0 : -errno, path);
	program.bytes = fread(program.text, 1, sizeof(program.text), file);
	must(ferror(file) || !feof(file) ? -EFBIG : 0, path);
	fclose(file);
	must(lethe_vm_load(vm, PROGRAM_GPA, &program, 16 + program.bytes), "loading");
}

/* Serves the guest until it is done.  Returns the program's exit status. */
static int serve(struct lethe_vm *vm)
{
	struct lethe_exit exit = {0};

	for (;;) {
		must(lethe_vcpu_run(vm, 0, &exit), "running");
		exit.reply = 0;
		switch (exit.type) {
		case LETHE_EXIT_PRINT:
			printf("guest: %s\n", exit.text);
			break;
		case LETHE_EXIT_PROTECT: /* from here on, private memory is out of reach */
			exit.reply = lethe_vm_protect(vm, exit.ranges, exit.count, NULL);
			break;
		case LETHE_EXIT_CONVERT: /* this VMM lets the guest share what it likes */
			break;
		case LETHE_EXIT_POWEROFF:
		case LETHE_EXIT_HALTED:
			return 0;
		case LETHE_EXIT_STOPPED:
			fprintf(stderr, "stopped at 0x%llx: %s\n", (unsigned long long)exit.gpa,
				exit.text);
			return 3;
		default: /* no devices, no reboots */
			exit.reply = -EOPNOTSUPP;
			break;
		}
		if (exit.type == LETHE_EXIT_CLOSED || exit.type == LETHE_EXIT_REBOOT)
			return 1;
	}
}

int main(int argc, char **argv)
{
	struct lethe_vm_config config = {.vcpus = 1, .executor = LETHE_EXECUTOR_SW};
	struct lethe_vm *vm;
	int status;

	if (argc < 2)
		must(-EINVAL, "usage: minimal-vmm FILE [PATH-OF-LETHE-UV]");
	config.uv_path = argv[2];
	must(lethe_vm_new(&config, &vm), "creating the VM");
	must(lethe_slot_add(vm, 0, 0, MEMORY_BYTES), "adding memory");
	load(vm, argv[1]);
	must(lethe_vm_start(vm, NULL), "starting");
	status = serve(vm);
	lethe_vm_stop(vm);
	lethe_vm_close(vm, false);
	return status;
}
