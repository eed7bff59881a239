/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test/system/attack_search.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest/workload.h"

#define MASK   0x6d61736b6d61736bull
#define CHUNK  (1u << 20)
#define PAGE   4096u
#define STRIDE (1u << 30) /* that mincore() is asked about at a time */
#define FD_MAX 128

/* Above this a mapping is a sanitizer's shadow, which holds no content. */
#define SHADOW_BYTES ((uint64_t)64 << 30)

/* Read in place of a mapping's start: the last bytes of the chunk before it. */
#define OVERLAP 8

static uint8_t buffer[OVERLAP + CHUNK];

__attribute__((noreturn)) static void open_door(const char *what)
{
	fprintf(stderr, "%s: should have been refused (%s)\n", what, strerror(errno));
	exit(1);
}

/* ---- secrets ---- */

unsigned int search_add(struct search *s, uint64_t gpa, uint64_t seed, uint64_t incarnation)
{
	uint64_t *masked = s->masked[s->count];
	int p[2], status;
	pid_t pid;

	if (s->count == SECRETS_MAX || pipe(p) < 0)
		abort();
	pid = fork();
	if (pid < 0)
		abort();
	if (pid == 0) {
		for (uint64_t i = 0; i < SECRET_WORDS; i++) {
			uint64_t word = workload_pattern(gpa + 8 * i, seed, incarnation) ^ MASK;

			if (write(p[1], &word, 8) != 8)
				_exit(1);
		}
		_exit(0);
	}
	for (int i = 0; i < SECRET_WORDS; i++) {
		if (read(p[0], &masked[i], 8) != 8)
			abort();
		s->filter[(uint16_t)masked[i]] = 1;
	}
	close(p[0]);
	close(p[1]);
	if (waitpid(pid, &status, 0) != pid || status != 0)
		abort();
	return s->count++;
}

void search_plant(const struct search *s, unsigned int number, void *to)
{
	const uint64_t mask = MASK;
	const uint8_t *masked = (const uint8_t *)s->masked[number];
	volatile uint8_t *byte = to;

	/* Byte by byte, so that no word of it stays anywhere else. */
	for (int i = 0; i < SECRET_BYTES; i++)
		byte[i] = masked[i] ^ (uint8_t)(mask >> i % 8 * 8);
}

/* Looks at every byte of @p for the start of any word of any secret. */
static void look(const struct search *s, const uint8_t *p, size_t bytes, enum search_place place,
	unsigned int *found)
{
	for (size_t i = 0; i + 8 <= bytes; i++) {
		uint64_t word;

		memcpy(&word, p + i, 8);
		word ^= MASK;
		if (s->filter[(uint16_t)word] == 0)
			continue;
		for (unsigned int n = 0; n < s->count; n++) {
			const uint64_t *m = s->masked[n];

			if (word == m[0] || word == m[1] || word == m[2] || word == m[3])
				found[n] |= place;
		}
	}
}

/* Reads [at, end) of @fd and looks at it.  What cannot be read is passed over by pages. */
static void look_at_file(const struct search *s, int fd, uint64_t at, uint64_t end,
	enum search_place place, unsigned int *found)
{
	memset(buffer, 0, OVERLAP);
	while (at < end) {
		size_t want = end - at < CHUNK ? end - at : CHUNK;
		ssize_t n = pread(fd, buffer + OVERLAP, want, (off_t)at);

		if (n <= 0) {
			memset(buffer, 0, OVERLAP);
			at = (at | (PAGE - 1)) + 1;
			continue;
		}
		look(s, buffer, OVERLAP + (size_t)n, place, found);
		memmove(buffer, buffer + n, OVERLAP);
		at += (uint64_t)n;
	}
	memset(buffer, 0, sizeof(buffer));
}

/* ---- this process ---- */

/* Only what is resident of a large mapping. */
static void look_at_resident(const struct search *s, int mem, uint64_t start, uint64_t end,
	enum search_place place, unsigned int *found)
{
	static unsigned char vec[STRIDE / PAGE];

	for (uint64_t at = start; at < end; at += STRIDE) {
		uint64_t bytes = end - at < STRIDE ? end - at : STRIDE;

		if (mincore((void *)(uintptr_t)at, bytes, vec) < 0)
			continue;
		for (uint64_t i = 0; i < bytes / PAGE; i++) {
			uint64_t first = i;

			if ((vec[i] & 1) == 0)
				continue;
			while (i + 1 < bytes / PAGE && (vec[i + 1] & 1) != 0)
				i++;
			look_at_file(s, mem, at + first * PAGE, at + (i + 1) * PAGE, place, found);
		}
	}
}

/* All mappings of this process, readable or not: /proc/self/mem does not mind. */
static void search_own_memory(const struct search *s, unsigned int *found)
{
	int mem = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	FILE *maps = fopen("/proc/self/maps", "re");
	char line[512];

	if (mem < 0 || maps == NULL) {
		fprintf(stderr, "cannot search this process: %s\n", strerror(errno));
		exit(1);
	}
	while (fgets(line, sizeof(line), maps) != NULL) {
		enum search_place place =
			strstr(line, "memfd:lethe-slot") != NULL ? FOUND_SLOTS : FOUND_OWN_MEMORY;
		unsigned long start, end;

		if (sscanf(line, "%lx-%lx", &start, &end) != 2 || end - start > SHADOW_BYTES ||
			strstr(line, "[v") != NULL)
			continue;
		look_at_resident(s, mem, start, end, place, found);
	}
	fclose(maps);
	close(mem);
}

/* The memfds that this process holds: data that no mapping of it shows, too. */
static void search_own_files(const struct search *s, unsigned int *found)
{
	for (int fd = 0; fd < FD_MAX; fd++) {
		char path[64], target[256] = "";
		off_t at = 0, hole;

		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		if (readlink(path, target, sizeof(target) - 1) < 0 ||
			strncmp(target, "/memfd:", 7) != 0)
			continue;
		while ((at = lseek(fd, at, SEEK_DATA)) >= 0) {
			hole = lseek(fd, at, SEEK_HOLE);
			look_at_file(s, fd, (uint64_t)at, (uint64_t)hole,
				strstr(target, "lethe-slot") != NULL ? FOUND_SLOTS
								     : FOUND_OWN_MEMORY,
				found);
			at = hole;
		}
	}
}

/* ---- what the library hands out ---- */

static void search_copy_calls(const struct search *s, unsigned int *found)
{
	for (uint64_t at = 0; at < s->memory_bytes; at += PAGE) {
		if (lethe_mem_read(s->vm, at, buffer, PAGE) == 0)
			look(s, buffer, PAGE, FOUND_COPY_CALL, found);
	}
	memset(buffer, 0, sizeof(buffer));
}

/* ---- the ultravisor ---- */

/* What /proc tells of a process only to those who may trace it. */
static void try_proc(pid_t uv)
{
	static const char *const files[] = {"mem", "maps", "smaps", "smaps_rollup", "environ",
		"auxv", "pagemap", "stack", "syscall", "io", "personality", "numa_maps"};
	static const char *const links[] = {"exe", "cwd", "root", "fd/0", "fd/3", "fd/4", "ns/mnt"};
	static const char *const folders[] = {"fd", "map_files", "fdinfo"};
	char path[64], text[64];

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		int fd;

		snprintf(path, sizeof(path), "/proc/%d/%s", uv, files[i]);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd >= 0 && read(fd, text, sizeof(text)) > 0)
			open_door(path);
		if (fd >= 0)
			close(fd);
	}
	for (size_t i = 0; i < sizeof(links) / sizeof(links[0]); i++) {
		snprintf(path, sizeof(path), "/proc/%d/%s", uv, links[i]);
		if (readlink(path, text, sizeof(text)) >= 0 || open(path, O_RDONLY) >= 0)
			open_door(path);
	}
	for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
		DIR *dir;

		snprintf(path, sizeof(path), "/proc/%d/%s", uv, folders[i]);
		dir = opendir(path);
		if (dir != NULL && readdir(dir) != NULL)
			open_door(path);
		if (dir != NULL)
			closedir(dir);
	}
}

/* With a writable descriptor one would not even need to read. */
static void try_write(pid_t uv)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/mem", uv);
	if (open(path, O_RDWR | O_CLOEXEC) >= 0 || open(path, O_WRONLY | O_CLOEXEC) >= 0)
		open_door(path);
	snprintf(path, sizeof(path), "/proc/%d/clear_refs", uv);
	if (open(path, O_WRONLY | O_CLOEXEC) >= 0)
		open_door(path);
}

/*
 * The answer must be that it is not allowed: any other would mean that a better address
 * is all that it takes.
 */
static void try_vm_calls(pid_t uv)
{
	static const uint64_t addresses[] = {0x400000, 0x555555554000, 0x7f0000000000};
	uint8_t word[8];
	struct iovec local = {word, sizeof(word)};

	for (size_t i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++) {
		struct iovec remote = {(void *)(uintptr_t)addresses[i], sizeof(word)};

		if (process_vm_readv(uv, &local, 1, &remote, 1, 0) >= 0 || errno != EPERM)
			open_door("process_vm_readv");
		if (process_vm_writev(uv, &local, 1, &remote, 1, 0) >= 0 || errno != EPERM)
			open_door("process_vm_writev");
	}
}

static void try_ptrace(pid_t uv)
{
	if (ptrace(PTRACE_ATTACH, uv, NULL, NULL) >= 0 || errno != EPERM)
		open_door("PTRACE_ATTACH");
	if (ptrace(PTRACE_SEIZE, uv, NULL, NULL) >= 0 || errno != EPERM)
		open_door("PTRACE_SEIZE");
}

static void try_descriptors(pid_t uv)
{
	int pidfd = (int)syscall(SYS_pidfd_open, uv, 0);

	if (pidfd < 0) {
		fprintf(stderr, "pidfd_open: %s\n", strerror(errno));
		exit(1);
	}
	for (int fd = 0; fd < FD_MAX; fd++) {
		if (syscall(SYS_pidfd_getfd, pidfd, fd, 0) >= 0 || errno != EPERM)
			open_door("pidfd_getfd");
	}
	close(pidfd);
}

void search_all(const struct search *s, unsigned int ret_found[SECRETS_MAX])
{
	pid_t uv = lethe_vm_uv_pid(s->vm);

	memset(ret_found, 0, SECRETS_MAX * sizeof(*ret_found));
	try_proc(uv);
	try_write(uv);
	try_vm_calls(uv);
	try_ptrace(uv);
	try_descriptors(uv);
	search_own_memory(s, ret_found);
	search_own_files(s, ret_found);
	search_copy_calls(s, ret_found);
}
