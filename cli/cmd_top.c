/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* lethe top: ps, redrawn every second until q or a signal. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/cli.h"
#include "cli/options.h"
#include "cli/vm_list.h"

#define REDRAW_MS 1000

/* Cursor home, clear what is below. */
#define CLEAR_SCREEN "\033[H\033[J"

static bool draw(bool clear)
{
	struct lethe_ps_entry *entries;
	size_t count;

	if (!vm_list_get(&entries, &count))
		return false;
	if (clear)
		fputs(CLEAR_SCREEN, stdout);
	vm_list_print(stdout, entries, count);
	if (clear)
		fputs("\nq quits\n", stdout);
	fflush(stdout);
	free(entries);
	return true;
}

/* Waits until the next redraw.  False: the user has had enough. */
static bool wait_for_user(int signal_fd)
{
	struct pollfd fds[] = {
		{.fd = signal_fd, .events = POLLIN},
		{.fd = isatty(STDIN_FILENO) ? STDIN_FILENO : -1, .events = POLLIN},
	};
	char key;

	if (poll(fds, 2, REDRAW_MS) <= 0)
		return true;
	if (fds[0].revents)
		return false;
	return read(STDIN_FILENO, &key, 1) == 1 && key != 'q' && key != 'Q';
}

/* Keys come one by one and unseen; *ret_old is for restoring.  False: no terminal. */
static bool set_terminal(struct termios *ret_old)
{
	struct termios now;

	if (tcgetattr(STDIN_FILENO, ret_old) != 0)
		return false;
	now = *ret_old;
	now.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
	return tcsetattr(STDIN_FILENO, TCSANOW, &now) == 0;
}

static int show_live(void)
{
	struct termios old;
	sigset_t set;
	bool restore, fine;
	int signal_fd;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal_fd = signalfd(-1, &set, SFD_CLOEXEC);
	if (signal_fd < 0) {
		log_error("signalfd: %s (raise the limit of open files)", strerror(errno));
		return CLI_FAILED;
	}
	restore = set_terminal(&old);
	do
		fine = draw(true);
	while (fine && wait_for_user(signal_fd));
	if (restore)
		tcsetattr(STDIN_FILENO, TCSANOW, &old);
	close(signal_fd);
	return fine ? CLI_OK : CLI_FAILED;
}

int cmd_top(int argc, char **argv)
{
	static const struct options_spec spec = {
		.name = "lethe top",
		.doc = "Show the VMs that run, and those still being forgotten, live.\v"
		       "Where standard output is no terminal, they are printed once.",
	};
	int status;

	if (!options_parse(&spec, argc, argv, NULL, &status))
		return status;
	if (isatty(STDOUT_FILENO))
		return show_live();
	return draw(false) ? CLI_OK : CLI_FAILED;
}
