/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * lethe-uv: the ultravisor, one process per VM.
 *
 * It owns guest memory and vCPUs and serves uv calls from the one socket that it is born
 * with.  When the other end closes, for whatever reason, it destroys all memory and
 * exits; nobody waits for it.
 *
 * Trusted: the kernel, root, this process.  Everything that arrives is checked.
 */
#include <errno.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/log.h"
#include "os/clock.h"
#include "os/sandbox.h"
#include "uv/dispatch.h"
#include "uv/measure.h"
#include "uv/publish.h"
#include "uv/seal.h"
#include "uv/vm_life.h"

/* How often `lethe ps` gets new figures. */
#define PUBLISH_SECONDS 1

static volatile sig_atomic_t told_to_end;

static void on_end(int sig)
{
	told_to_end = 1;
}

/* Only interrupts a wait. */
static void on_kick(int sig)
{
}

/* The hypervisor's terminal and its keys are not ours; a kick must not end us. */
static void setup_signals(void)
{
	struct sigaction end = {.sa_handler = on_end}, kick = {.sa_handler = on_kick};
	sigset_t blocked;

	sigaction(SIGTERM, &end, NULL);
	sigaction(SIGUSR1, &kick, NULL);
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	/* A limit on the size of files is no reason to die of a status that is not shown. */
	signal(SIGXFSZ, SIG_IGN);
	/*
	 * All were blocked by whoever started this, so that a key in the first moments is not
	 * ours.  SIGTERM stays so, in all threads, but where serve() waits: it can neither be
	 * missed before the wait nor come to a thread that does not look.
	 */
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGTERM);
	sigprocmask(SIG_SETMASK, &blocked, NULL);
}

static int check_socket(void)
{
	int type = 0;
	socklen_t len = sizeof(type);

	if (getsockopt(ABI_SOCKET_FD, SOL_SOCKET, SO_TYPE, &type, &len) < 0 ||
		type != SOCK_SEQPACKET) {
		fprintf(stderr,
			"lethe-uv: no socket on descriptor %d: "
			"this program is started by lethe (see lethe-uv(8))\n",
			ABI_SOCKET_FD);
		return -EINVAL;
	}
	return 0;
}

static void serve(struct uv_vm *vm)
{
	struct pollfd p = {.fd = vm->socket, .events = POLLIN};
	const struct timespec period = {.tv_sec = PUBLISH_SECONDS};
	uint64_t due = clock_ns();
	bool open = true;
	sigset_t none;

	sigemptyset(&none);
	while (open && !told_to_end) {
		int n = ppoll(&p, 1, &period, &none);

		if (n > 0)
			open = dispatch_one(vm);
		if (clock_ns() >= due) {
			publish_refresh(vm);
			due = clock_ns() + PUBLISH_SECONDS * NS_PER_SEC;
		}
		/* Not before the call is answered: a file system may take its time. */
		publish_flush(vm);
	}
}

int main(int argc, char **argv)
{
	static struct uv_vm vm;
	int ret;

	if (check_socket() < 0)
		return 2;
	if (sandbox_reborn() < 0)
		return 1;
	log_setup("lethe-uv", LOG_ERROR, NULL);
	setup_signals();
	/*
	 * More arenas than one would make malloc count CPUs, from a file, in the sandbox.
	 * The malloc of a sanitizer, which knows no sandbox, refuses.
	 */
	(void)mallopt(M_ARENA_MAX, 1);
	if (measure_setup() < 0 || seal_setup() < 0)
		return 1;
	if (uv_vm_init(&vm, ABI_SOCKET_FD) < 0)
		return 1;
	if (sandbox_drop_capabilities() < 0)
		return 1;
	ret = sandbox_seccomp();
	if (ret < 0 && ret != -EOPNOTSUPP)
		return 1;
	serve(&vm);
	uv_vm_finish(&vm);
	return 0;
}
