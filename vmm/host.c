/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/host.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "os/userfault.h"

/* PAGEMAP_SCAN of linux/fs.h, Linux 6.7. */
struct pagemap_scan {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define PAGEMAP_SCAN_IOCTL   _IOWR('f', 16, struct pagemap_scan)
#define PAGEMAP_SCAN_PRESENT 8u

#define LINE_BYTES HOST_TEXT_MAX

/* Reads the first line of @path without its newline.  False if it cannot be read. */
static bool read_line(const char *path, char *line, size_t size)
{
	FILE *file = fopen(path, "re");
	bool got;

	if (!file)
		return false;
	got = fgets(line, (int)size, file) != NULL;
	fclose(file);
	if (got)
		line[strcspn(line, "\n")] = '\0';
	return got;
}

uint64_t host_memory_available(void)
{
	FILE *file = fopen("/proc/meminfo", "re");
	char line[LINE_BYTES];
	uint64_t kib = 0;

	if (!file)
		return 0;
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "MemAvailable: %" SCNu64, &kib) == 1)
			break;
	}
	fclose(file);
	return kib * 1024;
}

static void set_value(struct host_feature *feature, const char *value)
{
	snprintf(feature->value, sizeof(feature->value), "%s", value);
}

/* @what the lack of it means, after the errno's own words. */
static void set_missing(struct host_feature *feature, int error, const char *what)
{
	feature->available = false;
	snprintf(feature->reason, sizeof(feature->reason), "%s: %s", strerror(error), what);
}

static void probe_kernel(struct host_feature *feature)
{
	struct utsname name;

	feature->available = uname(&name) == 0;
	if (feature->available)
		set_value(feature, name.release);
}

static void probe_memfd(struct host_feature *feature)
{
	int fd = memfd_create("lethe-probe", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	feature->available =
		fd >= 0 && ftruncate(fd, 4096) == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) == 0;
	if (!feature->available)
		set_missing(feature, errno, "no VM can run");
	if (fd >= 0)
		close(fd);
}

/* The chosen word of a line such as "always [madvise] never". */
static void set_chosen(struct host_feature *feature, const char *line)
{
	const char *open = strchr(line, '[');
	const char *shut = open ? strchr(open, ']') : NULL;

	if (shut)
		snprintf(feature->value, sizeof(feature->value), "%.*s", (int)(shut - open - 1),
			open + 1);
	else
		set_value(feature, line);
}

static void probe_thp_file(struct host_feature *feature, const char *path, const char *what)
{
	char line[LINE_BYTES];

	feature->available = read_line(path, line, sizeof(line));
	if (!feature->available) {
		set_missing(feature, errno, what);
		return;
	}
	set_chosen(feature, line);
	if (strcmp(feature->value, "never") == 0 || strcmp(feature->value, "deny") == 0) {
		feature->available = false;
		snprintf(feature->reason, sizeof(feature->reason), "switched off in %s: %s", path,
			what);
	}
}

static void probe_thp(struct host_feature *feature)
{
	probe_thp_file(feature, "/sys/kernel/mm/transparent_hugepage/enabled",
		"private memory is in 4K pages, slower to fill and to wipe");
}

static void probe_shmem_thp(struct host_feature *feature)
{
	probe_thp_file(feature, "/sys/kernel/mm/transparent_hugepage/shmem_enabled",
		"shared memory is in 4K pages");
}

static void probe_userfaultfd(struct host_feature *feature)
{
	struct userfault u;
	char why[HOST_TEXT_MAX - 40];

	feature->available = userfault_open(&u, why, sizeof(why)) == 0;
	if (!feature->available)
		snprintf(feature->reason, sizeof(feature->reason),
			"%s; kvm guests cannot be paged out", why);
	userfault_close(&u);
}

static void probe_psi(struct host_feature *feature)
{
	char line[LINE_BYTES];

	feature->available = read_line("/proc/pressure/memory", line, sizeof(line));
	if (!feature->available)
		set_missing(feature, errno, "memory pressure is judged by MemAvailable alone");
}

static void probe_cgroup(struct host_feature *feature)
{
	feature->available = true;
	if (access("/sys/fs/cgroup/cgroup.controllers", R_OK) == 0) {
		set_value(feature, "v2");
	} else if (access("/sys/fs/cgroup/memory/memory.limit_in_bytes", R_OK) == 0) {
		set_value(feature, "v1");
	} else {
		feature->available = false;
		snprintf(feature->reason, sizeof(feature->reason),
			"no memory controller under /sys/fs/cgroup: its limits are not seen");
	}
}

static void probe_pagemap_scan(struct host_feature *feature)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	struct pagemap_scan scan = {.size = sizeof(scan),
		.category_mask = PAGEMAP_SCAN_PRESENT,
		.return_mask = PAGEMAP_SCAN_PRESENT};

	feature->available = fd >= 0 && ioctl(fd, PAGEMAP_SCAN_IOCTL, &scan) >= 0;
	if (!feature->available)
		set_missing(feature, errno, "resident memory is found through mincore");
	if (fd >= 0)
		close(fd);
}

static void probe_mincore(struct host_feature *feature)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	void *memory = mmap(NULL, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned char vec;

	feature->available = memory != MAP_FAILED && mincore(memory, page, &vec) == 0;
	if (!feature->available)
		set_missing(feature, errno, "resident memory cannot be told from absent");
	if (memory != MAP_FAILED)
		munmap(memory, page);
}

static void probe_seccomp(struct host_feature *feature)
{
	uint32_t action = SECCOMP_RET_KILL_PROCESS;

	feature->available = syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
	if (!feature->available)
		set_missing(feature, errno, "the ultravisor cannot be confined");
}

static void probe_overcommit(struct host_feature *feature)
{
	static const char *const modes[] = {"heuristic", "always", "never"};
	char line[LINE_BYTES];

	feature->available = read_line("/proc/sys/vm/overcommit_memory", line, sizeof(line)) &&
			     line[0] >= '0' && line[0] <= '2';
	if (!feature->available)
		return;
	set_value(feature, modes[line[0] - '0']);
	if (line[0] == '2') {
		feature->available = false;
		snprintf(feature->reason, sizeof(feature->reason),
			"vm.overcommit_memory is 2: a VM needs commit charge for all of its memory");
	}
}

static void probe_map_count(struct host_feature *feature)
{
	char line[LINE_BYTES];

	feature->available = read_line("/proc/sys/vm/max_map_count", line, sizeof(line));
	if (feature->available)
		set_value(feature, line);
	else
		set_missing(feature, errno, "how many ranges can be mapped shared is unknown");
}

static void probe_memlock(struct host_feature *feature)
{
	struct rlimit limit;

	feature->available = getrlimit(RLIMIT_MEMLOCK, &limit) == 0;
	if (limit.rlim_cur == RLIM_INFINITY)
		set_value(feature, "unlimited");
	else
		snprintf(feature->value, sizeof(feature->value), "%" PRIu64,
			(uint64_t)limit.rlim_cur);
	if (limit.rlim_cur != RLIM_INFINITY)
		snprintf(feature->reason, sizeof(feature->reason),
			"private memory beyond this many bytes can be swapped out: raise ulimit -l");
}

static const struct {
	const char *name;
	void (*probe)(struct host_feature *feature);
} probes[] = {
	{"kernel", probe_kernel},
	{"memfd-sealing", probe_memfd},
	{"seccomp", probe_seccomp},
	{"thp", probe_thp},
	{"shmem-thp", probe_shmem_thp},
	{"mincore", probe_mincore},
	{"pagemap-scan", probe_pagemap_scan},
	{"userfaultfd", probe_userfaultfd},
	{"psi", probe_psi},
	{"cgroup", probe_cgroup},
	{"overcommit", probe_overcommit},
	{"max-map-count", probe_map_count},
	{"memlock", probe_memlock},
};

bool host_feature_probe(size_t index, struct host_feature *ret)
{
	if (index >= sizeof(probes) / sizeof(probes[0]))
		return false;
	*ret = (struct host_feature){.name = probes[index].name};
	probes[index].probe(ret);
	return true;
}
