/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "os/memfd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/types.h"

/* Newer than some headers; the number is the same on every architecture. */
#ifndef SYS_cachestat
#define SYS_cachestat 451
#endif

int memfd_new(const char *name, uint64_t bytes)
{
	int fd, err;

	if (bytes == 0 || bytes > INT64_MAX)
		return -EINVAL;
	fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)bytes) < 0 ||
		fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
		err = -errno;
		close(fd);
		return err;
	}
	return fd;
}

int memfd_check(int fd, uint64_t bytes)
{
	struct statfs fs;
	struct stat st;
	int seals = fcntl(fd, F_GET_SEALS);

	/* A write seal would make mapping it writable fail later, at a worse moment. */
	if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 ||
		(seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) != 0)
		return -EINVAL;
	if ((fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDWR)
		return -EINVAL;
	/*
	 * Of huge pages (hugetlbfs) mmap() maps whole ones, however short the length: at a
	 * fixed address that would reach beyond the window, over the caller's own memory.
	 */
	if (fstatfs(fd, &fs) < 0 || fs.f_type != TMPFS_MAGIC)
		return -EINVAL;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size < bytes)
		return -EINVAL;
	return 0;
}

int memfd_map(int fd, uint64_t bytes, void **ret)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);

	if (p == MAP_FAILED)
		return -errno;
	(void)madvise(p, bytes, MADV_DONTDUMP);
	*ret = p;
	return 0;
}

int memfd_read(int fd, uint64_t offset, void *to, uint64_t bytes)
{
	while (bytes > 0) {
		ssize_t n = pread(fd, to, bytes, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		to = (uint8_t *)to + n;
		offset += (uint64_t)n;
		bytes -= (uint64_t)n;
	}
	return 0;
}

int memfd_discard(int fd, uint64_t offset, uint64_t bytes)
{
	int rc;

	do {
		rc = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
			(off_t)bytes);
	} while (rc < 0 && errno == EINTR);
	return rc < 0 ? -errno : 0;
}

int memfd_resident(int fd, uint64_t *ret_bytes)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	*ret_bytes = (uint64_t)st.st_blocks * 512;
	return 0;
}

int memfd_held(int fd, uint64_t offset, uint64_t bytes, uint64_t *ret_bytes)
{
	const struct {
		uint64_t offset, bytes;
	} range = {offset, bytes};
	struct {
		uint64_t cached, dirty, writeback, swapped, recently_swapped;
	} pages;

	if (syscall(SYS_cachestat, fd, &range, &pages, 0) < 0)
		return -errno;
	*ret_bytes = (pages.cached + pages.swapped) * PAGE_SIZE;
	return 0;
}

int memfd_next_data(int fd, uint64_t offset, uint64_t end, uint64_t *ret_start, uint64_t *ret_end)
{
	off_t start = lseek(fd, (off_t)offset, SEEK_DATA), hole;

	if (start < 0)
		return -errno;
	if ((uint64_t)start >= end)
		return -ENXIO;
	hole = lseek(fd, start, SEEK_HOLE);
	if (hole < 0)
		return -errno;
	*ret_start = (uint64_t)start;
	*ret_end = (uint64_t)hole < end ? (uint64_t)hole : end;
	return 0;
}
