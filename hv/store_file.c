/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The page store in a sparse file (docs/decisions/0010-page-store.md).
 *
 * The page at GPA g lies at offset g, so nothing has to be looked up, and a run of pages is one
 * read or write.  What is not stored is a hole.
 *
 * A file that is made here loses its name before anything is written to it: the kernel frees it
 * with the process, however that ends.  An empty file that somebody put there is used and left,
 * under a lock (flock) from before the first write until after the last: two VMs never write to
 * one file.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/failpoint.h"
#include "base/log.h"
#include "hv/error.h"
#include "lethe/lethe.h"

struct store_file {
	struct lethe_page_store ops; /* first */
	int fd;
	char *path; /* as it was given, for messages */
};

static struct store_file *of(struct lethe_page_store *store)
{
	return (struct store_file *)store;
}

/* All of it, or a negative errno. */
static int write_all(int fd, const void *from, size_t bytes, off_t at)
{
	while (bytes > 0) {
		ssize_t n = pwrite(fd, from, bytes, at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		from = (const char *)from + n;
		at += n;
		bytes -= (size_t)n;
	}
	return 0;
}

/* A write beyond the limit would be answered by a signal that ends the process. */
static bool is_above_limit(off_t end)
{
	struct rlimit limit;

	return getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
	       (rlim_t)end > limit.rlim_cur;
}

static int put(struct lethe_page_store *store, uint64_t gpa, const void *pages, size_t count)
{
	size_t bytes = count * LETHE_PAGE_SIZE;
	int ret = failpoint("store-put");

	if (ret == 0 && is_above_limit((off_t)(gpa + bytes)))
		ret = -EFBIG;
	return ret == 0 ? write_all(of(store)->fd, pages, bytes, (off_t)gpa) : ret;
}

static int get(struct lethe_page_store *store, uint64_t gpa, void *pages, size_t count)
{
	size_t bytes = count * LETHE_PAGE_SIZE;
	off_t at = (off_t)gpa;
	int ret = failpoint("store-get");

	while (ret == 0 && bytes > 0) {
		ssize_t n = pread(of(store)->fd, pages, bytes, at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -ENODATA;
		pages = (char *)pages + n;
		at += n;
		bytes -= (size_t)n;
	}
	return ret;
}

static void drop(struct lethe_page_store *store, uint64_t gpa, size_t count)
{
	if (fallocate(of(store)->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)gpa,
		    (off_t)(count * LETHE_PAGE_SIZE)) < 0)
		log_debug("%s: space is not given back: %s", store->name, strerror(errno));
}

static void drop_all(struct lethe_page_store *store)
{
	if (ftruncate(of(store)->fd, 0) < 0)
		log_warn("%s: space is not given back: %s", store->name, strerror(errno));
}

static void free_store(struct store_file *s)
{
	if (s->fd >= 0)
		close(s->fd);
	free(s->path);
	free(s);
}

static void close_store(struct lethe_page_store *store)
{
	drop_all(store);
	free_store(of(store));
}

/* ---- opening ---- */

static const char *path_of(const char *url)
{
	const char *scheme_end = strstr(url, "://");

	if (strncmp(url, "file://", 7) == 0)
		return url + 7;
	if (strncmp(url, "file:", 5) == 0)
		return url + 5;
	return scheme_end == NULL ? url : "";
}

/* A file of somebody else's is locked and used if there is nothing in it.  0 or -errno. */
static int claim(int fd)
{
	struct stat st;

	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK ? -EBUSY : -errno;
	if (fstat(fd, &st) < 0)
		return -errno;
	return S_ISREG(st.st_mode) && st.st_size == 0 ? 0 : -EEXIST;
}

/* A new file, without a name, or an empty one.  0 and *ret_fd or a negative errno. */
static int open_file(const char *path, int *ret_fd)
{
	int err = failpoint("store-open");
	int fd = err < 0 ? -1 : open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (err < 0)
		return err;
	if (fd >= 0) {
		err = unlink(path) < 0 ? -errno : 0;
	} else if (errno == EEXIST) {
		fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
		err = fd < 0 ? -errno : claim(fd);
	} else {
		err = -errno;
	}
	if (err < 0) {
		if (fd >= 0)
			close(fd);
		return err;
	}
	*ret_fd = fd;
	return 0;
}

/*
 * Writes a page and takes it away again: past the page cache if that works here, as what is
 * paged out would otherwise stay in memory until the kernel has written it.
 */
static int try_write(int fd)
{
	int flags = fcntl(fd, F_GETFL) & ~O_NONBLOCK, ret = failpoint("store-write");
	void *page = NULL;
	bool direct;

	if (ret < 0)
		return ret;
	if (is_above_limit(LETHE_PAGE_SIZE))
		return -EFBIG;
	if (posix_memalign(&page, LETHE_PAGE_SIZE, LETHE_PAGE_SIZE) != 0)
		return -ENOMEM;
	memset(page, 0, LETHE_PAGE_SIZE);
	direct = fcntl(fd, F_SETFL, flags | O_DIRECT) == 0;
	ret = direct ? write_all(fd, page, LETHE_PAGE_SIZE, 0) : -EINVAL;
	if (ret == -EINVAL && fcntl(fd, F_SETFL, flags) == 0)
		ret = write_all(fd, page, LETHE_PAGE_SIZE, 0);
	if (ftruncate(fd, 0) < 0 && ret == 0)
		ret = -errno;
	free(page);
	return ret;
}

static int new_store(const char *path, struct store_file **ret)
{
	struct store_file *s = failpoint("store-new") < 0 ? NULL : calloc(1, sizeof(*s));
	int err;

	if (s == NULL)
		return -ENOMEM;
	s->fd = -1;
	s->path = strdup(path);
	err = s->path == NULL ? -ENOMEM : open_file(path, &s->fd);
	if (err == 0)
		err = try_write(s->fd);
	if (err < 0) {
		free_store(s);
		return err;
	}
	s->ops = (struct lethe_page_store){s->path, put, get, drop, drop_all, close_store};
	*ret = s;
	return 0;
}

static const char *why(int err)
{
	switch (-err) {
	case EBUSY:
		return "another VM uses it";
	case EEXIST:
		return "it is there already, and not an empty file";
	default:
		return strerror(-err);
	}
}

int lethe_page_store_file(const char *url, struct lethe_page_store **ret_store)
{
	const char *path = path_of(url);
	struct store_file *s = NULL;
	int ret;

	if (path[0] == '\0')
		return fail(-EINVAL, "%s: not a file: \"PATH\" or \"file:PATH\"", url);
	ret = new_store(path, &s);
	if (ret < 0)
		return fail(ret, "%s: no page store there: %s", path, why(ret));
	*ret_store = &s->ops;
	return 0;
}
