/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Searches all that one process may read of another one for secrets.
 *
 *	search_memory PID NEEDLE...
 *
 * Each NEEDLE is hexadecimal, every byte of it XORed with 0x5a, so that no command line
 * and no environment holds what is searched for.  One line for each way to read:
 * "WAY found N, K KiB read", "WAY absent, K KiB read" or "WAY denied".  Exit status:
 * 0 nothing found, 1 something found, 2 bad usage or a way that could not be tried.
 *
 * Ways that read addresses look at every page that the process has mapped and that the
 * page tables hold or swap has: a page that neither holds has no content of its own.
 * Memory files are read wherever they have data, mapped or not.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define MASK        0x5a
#define NEEDLES_MAX 4
#define NEEDLE_MAX  128
#define CHUNK       ((size_t)1 << 20)
#define PAGE        ((size_t)4096)
#define FD_MAX      1024

/* Bits of /proc/PID/pagemap. */
#define PAGEMAP_PRESENT (UINT64_C(1) << 63)
#define PAGEMAP_SWAPPED (UINT64_C(1) << 62)

struct needle {
	uint8_t bytes[NEEDLE_MAX];
	size_t size;
};

static struct needle needles[NEEDLES_MAX];
static size_t needle_count;

/* What one way brought. */
struct tally {
	uint64_t found, bytes;
};

/* A source of bytes: returns how many of @size at @at came, or -errno. */
typedef ssize_t (*read_fn)(int handle, uint64_t at, void *to, size_t size);

static bool parse_needle(const char *text, struct needle *needle)
{
	size_t digits = strlen(text);

	if (digits == 0 || digits % 2 != 0 || digits / 2 > NEEDLE_MAX)
		return false;
	for (needle->size = 0; needle->size < digits / 2; needle->size++) {
		unsigned int byte;

		if (sscanf(text + 2 * needle->size, "%2x", &byte) != 1)
			return false;
		needle->bytes[needle->size] = (uint8_t)(byte ^ MASK);
	}
	return true;
}

static uint64_t count_needles(const uint8_t *p, size_t size, size_t overlap)
{
	uint64_t found = 0;

	for (size_t i = 0; i < needle_count; i++) {
		const struct needle *needle = &needles[i];
		/* What lies in the overlap alone was counted with the chunk before. */
		const uint8_t *at = overlap >= needle->size ? p + overlap - needle->size + 1 : p;

		while ((at = memmem(at, size - (size_t)(at - p), needle->bytes, needle->size)) !=
			NULL) {
			found++;
			at++;
		}
	}
	return found;
}

/* Looks at [start, end) of a source.  Pages that vanish or refuse are passed over. */
static void scan(read_fn fn, int handle, uint64_t start, uint64_t end, struct tally *tally)
{
	static uint8_t buffer[NEEDLE_MAX + CHUNK];
	size_t overlap = 0;

	while (start < end) {
		size_t want = end - start < CHUNK ? end - start : CHUNK;
		ssize_t n = fn(handle, start, buffer + overlap, want);
		size_t size;

		if (n <= 0) {
			overlap = 0;
			start = (start | (PAGE - 1)) + 1;
			continue;
		}
		size = overlap + (size_t)n;
		tally->found += count_needles(buffer, size, overlap);
		tally->bytes += (uint64_t)n;
		overlap = size < NEEDLE_MAX ? size : NEEDLE_MAX;
		memmove(buffer, buffer + size - overlap, overlap);
		start += (uint64_t)n;
	}
}

static ssize_t read_file(int fd, uint64_t at, void *to, size_t size)
{
	ssize_t n = pread(fd, to, size, (off_t)at);

	return n < 0 ? -errno : n;
}

static ssize_t read_process(int pid, uint64_t at, void *to, size_t size)
{
	struct iovec local = {to, size}, remote = {(void *)(uintptr_t)at, size};
	ssize_t n = process_vm_readv(pid, &local, 1, &remote, 1, 0);

	return n < 0 ? -errno : n;
}

static int open_of(pid_t pid, const char *name)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* Scans the pages of the mapping [start, end) that the page map says are somewhere. */
static void scan_mapping(
	read_fn fn, int handle, int pagemap, uint64_t start, uint64_t end, struct tally *tally)
{
	static uint64_t entries[CHUNK / PAGE * 64];
	size_t most = sizeof(entries) / sizeof(entries[0]);

	while (start < end) {
		size_t pages = (end - start) / PAGE < most ? (end - start) / PAGE : most;
		ssize_t n = pread(pagemap, entries, pages * sizeof(entries[0]),
			(off_t)(start / PAGE * sizeof(entries[0])));

		if (n <= 0)
			return; /* no user memory: the vsyscall page */
		pages = (size_t)n / sizeof(entries[0]);
		for (size_t i = 0; i < pages; i++) {
			size_t first = i;

			while (i < pages && (entries[i] & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED)) != 0)
				i++;
			scan(fn, handle, start + first * PAGE, start + i * PAGE, tally);
		}
		start += pages * PAGE;
	}
}

static int scan_mappings(read_fn fn, int handle, pid_t pid, struct tally *tally)
{
	int maps_fd = open_of(pid, "maps"), pagemap = open_of(pid, "pagemap");
	FILE *maps = maps_fd < 0 ? NULL : fdopen(maps_fd, "r");
	uint64_t start, end;
	char line[512];

	if (maps == NULL || pagemap < 0)
		return -EIO; /* not "denied": whoever guesses an address can read */
	while (fgets(line, sizeof(line), maps) != NULL) {
		if (sscanf(line, "%" SCNx64 "-%" SCNx64, &start, &end) == 2)
			scan_mapping(fn, handle, pagemap, start, end, tally);
	}
	fclose(maps);
	close(pagemap);
	return 0;
}

/* ---- the ways: each returns 0 or -errno ---- */

static int by_mem(pid_t pid, struct tally *tally)
{
	int mem = open_of(pid, "mem"), ret;

	if (mem < 0)
		return mem;
	ret = scan_mappings(read_file, mem, pid, tally);
	close(mem);
	return ret;
}

/* Asks for one address first: the maps may be denied where the call is not. */
static int by_readv(pid_t pid, struct tally *tally)
{
	uint8_t byte;
	ssize_t n = read_process(pid, PAGE, &byte, 1);

	return n < 0 && n != -EFAULT ? (int)n : scan_mappings(read_process, pid, pid, tally);
}

/* As a tracer, who may open more than others may. */
static int by_ptrace(pid_t pid, struct tally *tally)
{
	int ret, status;

	if (ptrace(PTRACE_SEIZE, pid, NULL, NULL) < 0)
		return -errno;
	if (ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) < 0 || waitpid(pid, &status, 0) != pid)
		return -errno;
	ret = by_mem(pid, tally);
	ptrace(PTRACE_DETACH, pid, NULL, NULL);
	return ret;
}

/* Reads @fd where it has data if it is a memory file. */
static void scan_memory_file(int fd, struct tally *tally)
{
	char path[64], target[256] = "";
	off_t at = 0, hole;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (readlink(path, target, sizeof(target) - 1) < 0 || strncmp(target, "/memfd:", 7) != 0)
		return;
	while ((at = lseek(fd, at, SEEK_DATA)) >= 0 && (hole = lseek(fd, at, SEEK_HOLE)) > at) {
		scan(read_file, fd, (uint64_t)at, (uint64_t)hole, tally);
		at = hole;
	}
}

static int by_fd(pid_t pid, struct tally *tally)
{
	int folder = open_of(pid, "fd");
	DIR *dir = folder < 0 ? NULL : fdopendir(folder);
	struct dirent *entry;

	if (dir == NULL)
		return folder < 0 ? folder : -ENOMEM;
	while ((entry = readdir(dir)) != NULL) {
		char target[256] = "";
		int fd;

		/* Opening a pipe or a device is not reading memory, and may wait. */
		if (readlinkat(folder, entry->d_name, target, sizeof(target) - 1) < 0 ||
			strncmp(target, "/memfd:", 7) != 0)
			continue;
		fd = openat(folder, entry->d_name, O_RDONLY | O_CLOEXEC);
		if (fd < 0) {
			closedir(dir);
			return -errno;
		}
		scan_memory_file(fd, tally);
		close(fd);
	}
	closedir(dir);
	return 0;
}

static int by_pidfd(pid_t pid, struct tally *tally)
{
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);

	if (pidfd < 0)
		return -errno;
	for (int number = 0; number < FD_MAX; number++) {
		int fd = (int)syscall(SYS_pidfd_getfd, pidfd, number, 0);

		if (fd >= 0) {
			scan_memory_file(fd, tally);
			close(fd);
		} else if (errno != EBADF) {
			close(pidfd);
			return -errno;
		}
	}
	close(pidfd);
	return 0;
}

static const struct way {
	const char *name;
	int (*search)(pid_t pid, struct tally *tally);
} ways[] = {
	{"mem", by_mem},
	{"process_vm_readv", by_readv},
	{"ptrace", by_ptrace},
	{"fd", by_fd},
	{"pidfd_getfd", by_pidfd},
};

int main(int argc, char **argv)
{
	bool found = false, failed = false;
	pid_t pid = argc < 3 ? 0 : atoi(argv[1]);

	for (int i = 2; i < argc && needle_count < NEEDLES_MAX; i++) {
		if (parse_needle(argv[i], &needles[needle_count]))
			needle_count++;
	}
	if (pid <= 0 || needle_count != (size_t)argc - 2) {
		fprintf(stderr, "usage: search_memory PID NEEDLE...\n");
		return 2;
	}
	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		struct tally tally = {0};
		int ret = ways[i].search(pid, &tally);

		printf("%s ", ways[i].name);
		if (ret == -EPERM || ret == -EACCES)
			printf("denied\n");
		else if (ret < 0)
			printf("failed: %s\n", strerror(-ret));
		else if (tally.found > 0)
			printf("found %" PRIu64 ", %" PRIu64 " KiB read\n", tally.found,
				tally.bytes >> 10);
		else
			printf("absent, %" PRIu64 " KiB read\n", tally.bytes >> 10);
		found |= tally.found > 0;
		failed |= ret < 0 && ret != -EPERM && ret != -EACCES;
	}
	return failed ? 2 : found ? 1 : 0;
}
