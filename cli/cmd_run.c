/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* lethe run: one VM from here to the end of its guest. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/cli.h"
#include "cli/options.h"
#include "vmm/linux.h"
#include "vmm/run.h"

#define VCPUS_MAX             64
#define DEFAULT_KERNEL_MEMORY ((uint64_t)512 << 20)

struct run_options {
	struct machine_config config;
	uint64_t memory_bytes;  /* 0: not given */
	unsigned int vcpus;     /* 0: not given */
	const char *workload;   /* NULL: the tour */
	const char *timeline;   /* NULL: none */
	const char *page_store; /* NULL: none */
	struct lethe_page_store *store;
	struct linux_config boot; /* kernel NULL: no kernel */
};

enum run_key {
	KEY_MEMORY = 'm',
	KEY_VCPUS = 'c',
	KEY_WORKLOAD = 'w',
	KEY_NAME = 'n',
	KEY_VERBOSE = 'v',
	KEY_EXECUTOR = 0x100,
	KEY_PROTECT,
	KEY_LAZY,
	KEY_WIPE,
	KEY_DISCARD,
	KEY_SHARE,
	KEY_TIMELINE,
	KEY_KERNEL,
	KEY_INITRD,
	KEY_CMDLINE,
	KEY_PAGE_STORE,
	KEY_WAIT_DESTROYED
};

static const struct argp_option run_argp_options[] = {
	{"memory", KEY_MEMORY, "SIZE", 0, "Memory of the guest, 2M to 256T", 0},
	{"vcpus", KEY_VCPUS, "N", 0, "vCPUs, 1 to 64", 0},
	{"workload", KEY_WORKLOAD, "FILE", 0, "Run this workload, not the built-in tour", 0},
	{"executor", KEY_EXECUTOR, "auto|kvm|sw", 0, "What runs the guest's instructions", 0},
	{"protect", KEY_PROTECT, "boot|guest|off", 0,
		"Secure from the start, when the guest asks (the default), or never", 0},
	{"lazy", KEY_LAZY, "on|off", 0, "off: destroy all memory before a reboot goes on", 0},
	{"wipe", KEY_WIPE, "on|off", 0, "off: free private memory without overwriting it", 0},
	{"discard", KEY_DISCARD, "lazy|eager", 0,
		"eager: free stale shared pages before unshare returns", 0},
	{"share", KEY_SHARE, "auto|copied|mapped", 0, "How shared pages are served", 0},
	{"name", KEY_NAME, "NAME", 0, "Name of the VM, in lethe ps too", 0},
	{"timeline", KEY_TIMELINE, "FILE", 0, "Write what happened, as JSON", 0},
	{"kernel", KEY_KERNEL, "FILE", 0, "Boot this bzImage or ELF vmlinux; Ctrl-a x quits", 0},
	{"initrd", KEY_INITRD, "FILE", 0, "The kernel's initial RAM disk", 0},
	{"cmdline", KEY_CMDLINE, "STRING", 0, "The kernel's command line, else console=ttyS0", 0},
	{"page-store", KEY_PAGE_STORE, "URL", 0,
		"Where private memory may be paged out to, encrypted: a path, or file:PATH", 0},
	{"wait-destroyed", KEY_WAIT_DESTROYED, NULL, 0,
		"End only when all memory of the guest is destroyed", 0},
	{"verbose", KEY_VERBOSE, NULL, 0, "Say more on standard error; twice: still more", 0},
	{0},
};

static const char *const on_off[] = {"on", "off", NULL};

static bool take_switch(const char *option, const char *arg, bool *ret_off)
{
	unsigned int word;

	if (!options_word(option, arg, on_off, &word))
		return false;
	*ret_off = word == 1;
	return true;
}

static bool take_memory(const char *arg, uint64_t *ret)
{
	const char *fault;

	if (!options_size("--memory", arg, ret))
		return false;
	fault = program_memory_fault(*ret);
	if (fault)
		log_error("--memory %s: %s", arg, fault);
	return fault == NULL;
}

static bool take_verbose(void)
{
	static enum log_level level = LOG_WARN;

	if (level < LOG_DEBUG)
		level++;
	log_setup("lethe", level, NULL);
	return true;
}

static bool take_executor(const char *arg, enum lethe_executor *ret)
{
	static const char *const words[] = {"auto", "kvm", "sw", NULL};
	unsigned int word;

	if (!options_word("--executor", arg, words, &word))
		return false;
	*ret = (enum lethe_executor)word;
	return true;
}

static bool take_protect(const char *arg, enum machine_protect *ret)
{
	static const char *const words[] = {"guest", "boot", "off", NULL};
	unsigned int word;

	if (!options_word("--protect", arg, words, &word))
		return false;
	*ret = (enum machine_protect)word;
	return true;
}

static bool take_share(const char *arg, enum lethe_share *ret)
{
	static const char *const words[] = {"auto", "copied", "mapped", NULL};
	unsigned int word;

	if (!options_word("--share", arg, words, &word))
		return false;
	*ret = (enum lethe_share)word;
	return true;
}

static bool take_discard(const char *arg, bool *ret_eager)
{
	static const char *const words[] = {"lazy", "eager", NULL};
	unsigned int word;

	if (!options_word("--discard", arg, words, &word))
		return false;
	*ret_eager = word == 1;
	return true;
}

static bool take_run_option(int key, const char *arg, void *input)
{
	struct run_options *options = input;
	struct machine_config *config = &options->config;

	switch ((enum run_key)key) {
	case KEY_MEMORY:
		return take_memory(arg, &options->memory_bytes);
	case KEY_VCPUS:
		return options_number("--vcpus", arg, 1, VCPUS_MAX, &options->vcpus);
	case KEY_WORKLOAD:
		options->workload = arg;
		return true;
	case KEY_EXECUTOR:
		return take_executor(arg, &config->executor);
	case KEY_PROTECT:
		return take_protect(arg, &config->protect);
	case KEY_LAZY:
		return take_switch("--lazy", arg, &config->lazy_off);
	case KEY_WIPE:
		return take_switch("--wipe", arg, &config->wipe_off);
	case KEY_DISCARD:
		return take_discard(arg, &config->discard_eager);
	case KEY_SHARE:
		return take_share(arg, &config->share);
	case KEY_NAME:
		return options_name("--name", arg, &config->name);
	case KEY_TIMELINE:
		options->timeline = arg;
		return true;
	case KEY_WAIT_DESTROYED:
		config->see_it_out = true;
		return true;
	case KEY_VERBOSE:
		return take_verbose();
	case KEY_KERNEL:
		options->boot.kernel = arg;
		return true;
	case KEY_INITRD:
		options->boot.initrd = arg;
		return true;
	case KEY_CMDLINE:
		options->boot.cmdline = arg;
		return true;
	case KEY_PAGE_STORE:
		options->page_store = arg;
		return true;
	}
	return false;
}

static const struct options_spec run_spec = {
	.name = "lethe run",
	.doc = "Run a virtual machine.\v"
	       "Without a workload, a built-in tour shows every operation on a whole VM and what "
	       "it costs.\n\nExit status: 0 the guest powered off; 1 failure; 2 bad usage; 3 the "
	       "ultravisor stopped the guest; 4 the ultravisor died; 128 + N ended by signal N.",
	.options = run_argp_options,
	.take = take_run_option,
};

/* A kernel is a program without text; it needs real vCPUs. */
static bool load_kernel(struct run_options *options, struct program *ret)
{
	struct machine_config *config = &options->config;

	if (options->workload) {
		log_error("--kernel and --workload: one of them only (leave one away)");
		return false;
	}
	if (config->executor == LETHE_EXECUTOR_SW) {
		log_error("--executor sw: cannot run a kernel (use --executor kvm)");
		return false;
	}
	config->executor = LETHE_EXECUTOR_KVM;
	options->boot.vcpus = options->vcpus ? options->vcpus : 1;
	options->boot.memory_bytes =
		options->memory_bytes ? options->memory_bytes : DEFAULT_KERNEL_MEMORY;
	ret->vcpus = options->boot.vcpus;
	ret->memory_bytes = options->boot.memory_bytes;
	return linux_read(&options->boot, &config->linux_guest) == 0;
}

/* Reads and checks what is to run, before anything starts. */
static bool load_program(struct run_options *options, struct program *ret)
{
	if (options->boot.kernel)
		return load_kernel(options, ret);
	if (options->boot.initrd || options->boot.cmdline) {
		log_error("--initrd, --cmdline: of no use without a kernel (add --kernel FILE)");
		return false;
	}
	if (options->workload)
		return program_read(
			       options->workload, options->memory_bytes, options->vcpus, ret) == 0;
	if (options->memory_bytes && options->memory_bytes < TOUR_MEMORY_MIN) {
		log_error("--memory: too small for the tour (give it at least 64M)");
		return false;
	}
	if (options->config.protect == MACHINE_PROTECT_OFF) {
		log_error("--protect off: not for the tour (give a --workload too)");
		return false;
	}
	return true;
}

/* Opens the page store, if one is wanted, before anything starts. */
static bool open_page_store(struct run_options *options)
{
	int err;

	if (!options->page_store)
		return true;
	err = lethe_page_store_file(options->page_store, &options->store);
	if (err)
		log_error("--page-store: %s (%s)", lethe_error(),
			err == -EBUSY    ? "give each VM its own"
			: err == -EEXIST ? "name a new or empty file"
					 : "name a file that can be made, as PATH or file:PATH");
	options->config.page_store = &options->store;
	return err == 0;
}

/* Closes it if no VM has taken it over. */
static void close_page_store(struct run_options *options)
{
	if (options->store)
		options->store->close(options->store);
}

/* From here on the signals that end a run are read from the descriptor returned. */
static int open_signals(void)
{
	sigset_t set;

	/* A closed standard output loses text, not the VM. */
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static int run(struct run_options *options, struct program *program, struct timeline *timeline)
{
	int signal_fd = open_signals();
	int status;

	if (signal_fd < 0) {
		log_error("signalfd: %s (raise the limit of open files)", strerror(errno));
		return CLI_FAILED;
	}
	options->config.program = program;
	options->config.console = stdout;
	/* A guest with a console of its own has the terminal for itself. */
	if (!options->boot.kernel && isatty(STDERR_FILENO))
		options->config.progress = stderr;
	if (options->workload || options->boot.kernel)
		status = run_program(&options->config, timeline, signal_fd,
			options->workload && isatty(STDOUT_FILENO) ? stdout : NULL);
	else
		status = tour_run(&options->config, options->memory_bytes, options->vcpus, timeline,
			signal_fd);
	close(signal_fd);
	return status;
}

/* Writes the timeline; a run that went well fails if that fails. */
static int end_timeline(struct timeline *timeline, const char *path, int status)
{
	int err;

	timeline_event(timeline, 0, "exit", "{s:i}", "status", status);
	err = timeline_write(timeline);
	timeline_free(timeline);
	if (!err)
		return status;
	log_error("%s: %s (name another --timeline file)", path, strerror(-err));
	return status == CLI_OK ? CLI_FAILED : status;
}

int cmd_run(int argc, char **argv)
{
	struct run_options options = {0};
	struct program program = {0};
	struct timeline *timeline;
	int status, err;

	if (!options_parse(&run_spec, argc, argv, &options, &status))
		return status;
	if (!load_program(&options, &program))
		return CLI_USAGE;
	if (!open_page_store(&options)) {
		program_free(&program);
		return CLI_USAGE;
	}
	err = timeline_open(options.timeline, &timeline);
	if (err) {
		log_error("%s: %s (name another --timeline file)",
			options.timeline ? options.timeline : "timeline", strerror(-err));
		close_page_store(&options);
		program_free(&program);
		return CLI_USAGE;
	}
	status = run(&options, &program, timeline);
	close_page_store(&options);
	linux_free(options.config.linux_guest);
	status = end_timeline(timeline, options.timeline, status);
	program_free(&program);
	return status;
}
