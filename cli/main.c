/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* lethe: finds the subcommand and hands over. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/cli.h"

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *summary;
} commands[] = {
	{"run", cmd_run, "run a virtual machine; without a workload, the built-in tour"},
	{"ps", cmd_ps, "list the VMs that run, and those still being forgotten"},
	{"top", cmd_top, "the same, live"},
	{"memory", cmd_memory, "add, remove, list and audit the memory of a VM that runs"},
	{"page-out", cmd_page_out, "encrypt memory of a VM that runs, to its page store"},
	{"bench", cmd_bench, "measure this machine, each question beside a baseline"},
	{"capabilities", cmd_capabilities, "what this machine offers, what is missing and why"},
	{"version", cmd_version, "print the version"},
};

#define COMMAND_COUNT (sizeof(commands) / sizeof(commands[0]))

static int print_help(void)
{
	printf("Usage: lethe COMMAND [OPTION...]\n"
	       "Run protected virtual machines, and forget them quickly.\n\n");
	for (size_t i = 0; i < COMMAND_COUNT; i++)
		printf("  %-14s %s\n", commands[i].name, commands[i].summary);
	printf("\nEach command takes --help.\n");
	return CLI_OK;
}

static int run(const char *name, int argc, char **argv)
{
	for (size_t i = 0; i < COMMAND_COUNT; i++) {
		if (strcmp(name, commands[i].name) == 0)
			return commands[i].run(argc, argv);
	}
	log_error("%s: no such command (see lethe --help)", name);
	return CLI_USAGE;
}

static int help_for(char *name)
{
	char *argv[] = {name, "--help", NULL};

	return run(name, 2, argv);
}

static int dispatch(int argc, char **argv)
{
	static const char *const help[] = {"--help", "-h", "help"};
	static const char *const version[] = {"--version", "-V"};

	if (argc < 2) {
		log_error("command line: no command given (see lethe --help)");
		return CLI_USAGE;
	}
	for (size_t i = 0; i < sizeof(help) / sizeof(help[0]); i++) {
		if (strcmp(argv[1], help[i]) == 0)
			return argc == 2 ? print_help() : help_for(argv[2]);
	}
	for (size_t i = 0; i < sizeof(version) / sizeof(version[0]); i++) {
		if (strcmp(argv[1], version[i]) == 0)
			return cmd_version(argc - 1, argv + 1);
	}
	return run(argv[1], argc - 1, argv + 1);
}

/*
 * A standard descriptor that is closed would be given to the next file that is opened, and
 * printed to.  One that cannot be used takes its place.
 */
static void occupy_standard_descriptors(void)
{
	for (int fd = 0; fd <= STDERR_FILENO; fd++) {
		/* The lowest free one is given out; if that fails, so will all that follows. */
		if (fcntl(fd, F_GETFD) < 0)
			(void)open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
	}
}

int main(int argc, char **argv)
{
	const char *why = NULL;
	int status;

	occupy_standard_descriptors();
	/* A limit of file sizes, which memory counts against too, is an error like others. */
	signal(SIGXFSZ, SIG_IGN);
	log_setup("lethe", LOG_WARN, NULL);
	status = dispatch(argc, argv);
	/* What was printed may be still to write, and the disk full. */
	if (fflush(stdout) != 0)
		why = strerror(errno);
	else if (ferror(stdout))
		why = "it was closed, or is full";
	if (why && status == CLI_OK) {
		log_error("standard output: %s (part of the output is lost)", why);
		status = CLI_FAILED;
	}
	return status;
}
