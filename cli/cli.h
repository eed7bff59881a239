/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The command line: one file per subcommand, each a function that takes its own argv
 * (argv[0] is the subcommand) and returns the exit status.
 */
#ifndef CLI_CLI_H
#define CLI_CLI_H

/* Exit statuses that are not those of a VM's run. */
#define CLI_OK     0
#define CLI_FAILED 1
#define CLI_USAGE  2

int cmd_run(int argc, char **argv);
int cmd_ps(int argc, char **argv);
int cmd_top(int argc, char **argv);
int cmd_memory(int argc, char **argv);
int cmd_page_out(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_capabilities(int argc, char **argv);
int cmd_version(int argc, char **argv);

#endif
