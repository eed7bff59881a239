/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The page store in a sparse file (docs/decisions/0010-page-store.md).
 *
 * The file begins with a header page, by which a store that was left behind is told from a
 * file with something of value in it.  The page at GPA g lies at offset LETHE_PAGE_SIZE + g, so
 * nothing has to be looked up, and a run of pages is one read or write.  What is not stored is
 * a hole.
 *
 * The lock (flock) is held from before the first write until after the last: two VMs never
 * write to one file.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
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

static const char magic[] = "lethe page store 1\n";

struct store_file {
	struct lethe_page_store ops; /* first */
	int fd;
	bool remove_at_end;
	char *path; /* absolute, so that a change of folder does not matter */
};

static struct store_file *of(struct lethe_page_store *store)
{
	return (struct store_file *)store;
}

static off_t place_of(uint64_t gpa)
{
	return (off_t)(LETHE_PAGE_SIZE + gpa);
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

	if (ret == 0 && is_above_limit(place_of(gpa) + (off_t)bytes))
		ret = -EFBIG;
	return ret == 0 ? write_all(of(store)->fd, pages, bytes, place_of(gpa)) : ret;
}

static int get(struct lethe_page_store *store, uint64_t gpa, void *pages, size_t count)
{
	size_t bytes = count * LETHE_PAGE_SIZE;
	off_t at = place_of(gpa);
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
	if (fallocate(of(store)->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, place_of(gpa),
		    (off_t)(count * LETHE_PAGE_SIZE)) < 0)
		log_debug("%s: space is not given back: %s", store->name, strerror(errno));
}

static void drop_all(struct lethe_page_store *store)
{
	if (ftruncate(of(store)->fd, LETHE_PAGE_SIZE) < 0)
		log_warn("%s: space is not given back: %s", store->name, strerror(errno));
}

/* True if the name still leads to this file and not to another that took its place. */
static bool is_still_there(const struct store_file *s)
{
	struct stat named, open;

	return stat(s->path, &named) == 0 && fstat(s->fd, &open) == 0 &&
	       named.st_dev == open.st_dev && named.st_ino == open.st_ino;
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
	struct store_file *s = of(store);

	if (s->remove_at_end && is_still_there(s) && unlink(s->path) < 0)
		log_warn("%s: the page store is left behind, empty: %s", s->path, strerror(errno));
	if (ftruncate(s->fd, 0) < 0)
		log_warn("%s: space is not given back: %s", s->path, strerror(errno));
	free_store(s);
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

/* Whether what is in @fd may be overwritten, and whose file it is then.  0 or -errno. */
static int check_content(int fd, bool *ret_ours)
{
	char head[sizeof(magic) - 1];
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EEXIST;
	*ret_ours = false;
	if (st.st_size == 0)
		return 0;
	*ret_ours = true;
	if (pread(fd, head, sizeof(head), 0) == (ssize_t)sizeof(head) &&
		memcmp(head, magic, sizeof(head)) == 0)
		return 0;
	return -EEXIST;
}

/* A new file, or one that may be taken.  Locked.  0 and *ret_fd or a negative errno. */
static int open_file(const char *path, int *ret_fd, bool *ret_ours)
{
	bool ours = true;
	int err = failpoint("store-open");
	int fd = err < 0 ? -1 : open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (err < 0)
		return err;
	if (fd < 0 && errno == EEXIST) {
		ours = false;
		fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	}
	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		err = errno == EWOULDBLOCK ? -EBUSY : -errno;
	if (err == 0 && !ours)
		err = check_content(fd, &ours);
	if (err < 0) {
		close(fd);
		return err;
	}
	*ret_fd = fd;
	*ret_ours = ours;
	return 0;
}

/*
 * Empties the file and writes its header, past the page cache if that works here: what is
 * paged out would otherwise stay in memory until the kernel has written it.
 */
static int format(int fd)
{
	void *page = NULL;
	int ret = failpoint("store-format");

	if (ret < 0)
		return ret;
	if (posix_memalign(&page, LETHE_PAGE_SIZE, LETHE_PAGE_SIZE) != 0)
		return -ENOMEM;
	memset(page, 0, LETHE_PAGE_SIZE);
	memcpy(page, magic, sizeof(magic) - 1);
	ret = ftruncate(fd, 0) < 0 ? -errno : is_above_limit(LETHE_PAGE_SIZE) ? -EFBIG : 0;
	if (ret == 0) {
		int flags = fcntl(fd, F_GETFL);
		bool direct = fcntl(fd, F_SETFL, (flags | O_DIRECT) & ~O_NONBLOCK) == 0;

		ret = write_all(fd, page, LETHE_PAGE_SIZE, 0);
		if (ret == -EINVAL && direct && fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) == 0)
			ret = write_all(fd, page, LETHE_PAGE_SIZE, 0);
	}
	free(page);
	return ret;
}

static int new_store(const char *path, struct store_file **ret)
{
	struct store_file *s = failpoint("store-new") < 0 ? NULL : calloc(1, sizeof(*s));
	int err;

	if (s == NULL)
		return -ENOMEM;
	err = open_file(path, &s->fd, &s->remove_at_end);
	if (err < 0) {
		free(s);
		return err;
	}
	err = format(s->fd);
	if (err == 0) {
		s->path = realpath(path, NULL);
		err = s->path == NULL ? -errno : 0;
	}
	if (err < 0) {
		if (s->remove_at_end ? unlink(path) < 0 : ftruncate(s->fd, 0) < 0)
			log_warn("%s: a file is left behind: %s", path, strerror(errno));
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
		return "it is there already, and no page store";
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
