/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * shutdown: how long who supervises a hypervisor waits for it (waitpid), and how long until
 * the guest's memory is back (-freed).  Lethe's hypervisor just exits (lazy), or destroys its
 * guest first (eager); QEMU is killed, without and with -async-teardown.
 *
 * Memory is back when the process that held it is gone: the kernel frees a process's memory
 * before it tells anybody of its end.
 */
#include "bench/bench.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/types.h"
#include "bench/life.h"

#define QEMU            "qemu-system-x86_64"
#define READY_TRIES     3000 /* of READY_PAUSE_US */
#define READY_PAUSE_US  20000
#define SETTLE_PAUSE_US 200000

/* A hypervisor with its memory filled, about to be ended. */
struct victim {
	pid_t pid;
	int holder; /* pidfd of the process that outlives it with the memory, or -1 */
	int tell;   /* write a byte: end yourself; -1: it is to be killed */
};

struct times {
	uint64_t waited_ns, freed_ns;
};

static int open_process(pid_t pid)
{
	return (int)syscall(SYS_pidfd_open, pid, 0);
}

/* Ends @victim and waits for it, and for its memory. */
static void end(struct victim *victim, struct times *ret)
{
	struct pollfd gone = {.fd = victim->holder, .events = POLLIN};
	uint64_t start = clock_ns();

	if (victim->tell < 0)
		kill(victim->pid, SIGKILL);
	else
		close(victim->tell);
	waitpid(victim->pid, NULL, 0);
	ret->waited_ns = clock_ns() - start;
	if (victim->holder >= 0) {
		while (poll(&gone, 1, -1) < 0)
			;
		close(victim->holder);
	}
	ret->freed_ns = clock_ns() - start;
}

/* ---- Lethe ---- */

/* The hypervisor: fills a guest, says so by its ultravisor's pid, ends when told to. */
static void hypervisor(const struct life_config *config, int ready, int told)
{
	struct lethe_destroy_result result;
	struct guest guest;
	const char *why;
	pid_t uv;
	char byte;

	if (life_begin(config, &guest, &why) != 0)
		_exit(1);
	uv = lethe_vm_uv_pid(guest.vm);
	if (write(ready, &uv, sizeof(uv)) != sizeof(uv))
		_exit(1);
	while (read(told, &byte, 1) < 0)
		;
	if (config->eager) {
		lethe_vm_stop(guest.vm);
		lethe_vm_reset(guest.vm, &result);
	}
	_exit(0);
}

static int start_lethe(const struct life_config *config, struct victim *ret)
{
	int ready[2], told[2];
	pid_t uv = 0;

	if (pipe2(ready, O_CLOEXEC) < 0)
		return -errno;
	if (pipe2(told, O_CLOEXEC) < 0) {
		close(ready[0]);
		close(ready[1]);
		return -errno;
	}
	ret->pid = fork();
	if (ret->pid == 0) {
		close(told[1]);
		hypervisor(config, ready[1], told[0]);
	}
	close(ready[1]);
	close(told[0]);
	if (ret->pid < 0 || read(ready[0], &uv, sizeof(uv)) != sizeof(uv)) {
		close(told[1]);
		if (ret->pid > 0)
			waitpid(ret->pid, NULL, 0);
		close(ready[0]);
		return -EPIPE;
	}
	close(ready[0]);
	ret->tell = told[1];
	ret->holder = open_process(uv);
	return 0;
}

/* ---- QEMU ---- */

static bool find_qemu(void)
{
	char *path = strdup(getenv("PATH") ? getenv("PATH") : ""), *rest = path, *folder;
	char file[4096];
	bool found = false;

	while (path && !found && (folder = strsep(&rest, ":")) != NULL) {
		snprintf(file, sizeof(file), "%s/" QEMU, folder);
		found = access(file, X_OK) == 0;
	}
	free(path);
	return found;
}

static void exec_qemu(uint64_t bytes, bool async)
{
	int nowhere = open("/dev/null", O_RDWR);
	char object[128], memory[32];

	snprintf(
		object, sizeof(object), "memory-backend-ram,id=m,prealloc=on,size=%" PRIu64, bytes);
	snprintf(memory, sizeof(memory), "%" PRIu64 "M", bytes / MIB);
	dup2(nowhere, 0);
	dup2(nowhere, 1);
	dup2(nowhere, 2);
	execlp(QEMU, QEMU, "-nodefaults", "-display", "none", "-S", "-m", memory, "-object", object,
		"-machine", "pc,accel=tcg,memory-backend=m", async ? "-async-teardown" : NULL,
		(char *)NULL);
	_exit(1);
}

static uint64_t resident_bytes(pid_t pid)
{
	unsigned long long pages = 0;
	char path[64];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/statm", (int)pid);
	file = fopen(path, "r");
	if (file && fscanf(file, "%*u %llu", &pages) != 1)
		pages = 0;
	if (file)
		fclose(file);
	return (uint64_t)pages * PAGE_SIZE;
}

static pid_t parent_of(const char *pid)
{
	char path[300], line[512] = "", *after;
	FILE *file;
	int parent = 0;

	snprintf(path, sizeof(path), "/proc/%s/stat", pid);
	file = fopen(path, "r");
	if (file && fgets(line, sizeof(line), file) && (after = strrchr(line, ')')) != NULL &&
		sscanf(after + 1, " %*c %d", &parent) != 1)
		parent = 0;
	if (file)
		fclose(file);
	return parent;
}

/* The process that QEMU leaves its memory to is its child; a pidfd of it, or -1. */
static int open_child_of(pid_t pid)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;
	int fd = -1;

	while (proc && fd < 0 && (entry = readdir(proc)) != NULL) {
		if (strspn(entry->d_name, "0123456789") == strlen(entry->d_name) &&
			parent_of(entry->d_name) == pid)
			fd = open_process(atoi(entry->d_name));
	}
	if (proc)
		closedir(proc);
	return fd;
}

static int start_qemu(uint64_t bytes, bool async, struct victim *ret)
{
	*ret = (struct victim){.pid = fork(), .holder = -1, .tell = -1};
	if (ret->pid == 0)
		exec_qemu(bytes, async);
	for (int i = 0; ret->pid > 0 && i < READY_TRIES; i++) {
		if (waitpid(ret->pid, NULL, WNOHANG) != 0)
			return -ECHILD;
		if (resident_bytes(ret->pid) >= bytes) {
			usleep(SETTLE_PAUSE_US);
			ret->holder = async ? open_child_of(ret->pid) : -1;
			return 0;
		}
		usleep(READY_PAUSE_US);
	}
	if (ret->pid > 0) {
		kill(ret->pid, SIGKILL);
		waitpid(ret->pid, NULL, 0);
	}
	return -ETIMEDOUT;
}

/* ---- both ---- */

enum peer { LAZY, EAGER, PEER_QEMU, PEER_QEMU_ASYNC, PEERS };

static const char *const peer_names[PEERS] = {
	[LAZY] = "lazy", [EAGER] = "eager", [PEER_QEMU] = "qemu", [PEER_QEMU_ASYNC] = "qemu-async"};

static int start_peer(enum peer peer, uint64_t bytes, struct victim *ret)
{
	if (peer == PEER_QEMU || peer == PEER_QEMU_ASYNC)
		return start_qemu(bytes, peer == PEER_QEMU_ASYNC, ret);
	return start_lethe(
		&(struct life_config){.resident_bytes = bytes, .eager = peer == EAGER}, ret);
}

static const char *why_missing(enum peer peer)
{
	if (peer != PEER_QEMU && peer != PEER_QEMU_ASYNC)
		return "the VM could not be started";
	return find_qemu() ? QEMU " does not run so here" : QEMU " is not installed";
}

static void measure(struct bench *bench, enum peer peer, uint64_t bytes)
{
	struct bench_row row = {.unit = "ns", .memory_bytes = bytes, .resident_bytes = bytes};
	struct bench_samples waited = {0}, freed = {0};
	unsigned int runs = bench->quick || bytes > 4 * GIB ? 2 : 3;
	struct victim victim = {.holder = -1, .tell = -1};
	struct times times;

	snprintf(row.name, sizeof(row.name), "%s", peer_names[peer]);
	if (!life_fits(bench, &row, bytes))
		return;
	for (unsigned int run = 0; run < runs; run++) {
		if (start_peer(peer, bytes, &victim) != 0) {
			bench_missing(bench, &row, "%s", why_missing(peer));
			return;
		}
		end(&victim, &times);
		bench_sample(&waited, (double)times.waited_ns);
		bench_sample(&freed, (double)times.freed_ns);
	}
	bench_add(bench, &row, &waited);
	snprintf(row.name, sizeof(row.name), "%s-freed", peer_names[peer]);
	bench_add(bench, &row, &freed);
}

void bench_shutdown(struct bench *bench)
{
	static const uint64_t full[] = {1 * GIB, 4 * GIB, 16 * GIB, 0};
	static const uint64_t quick[] = {256 * MIB, 1 * GIB, 0};

	for (enum peer peer = LAZY; peer < PEERS; peer++) {
		for (const uint64_t *size = bench->quick ? quick : full; *size; size++)
			measure(bench, peer, *size);
	}
}
