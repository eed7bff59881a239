/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/program.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "abi/guestcall.h"
#include "base/log.h"
#include "base/types.h"
#include "guest/workload.h"

#define TEXT_MAX (GUEST_TEXT_MAX - sizeof(struct guest_text))

const char *program_memory_fault(uint64_t bytes)
{
	if (bytes < SIZE_2M)
		return "too small (give at least 2M)";
	if (bytes & PAGE_MASK)
		return "not whole pages (give a multiple of 4K)";
	if (bytes > GPA_END)
		return "larger than the guest's address space (give at most 256T)";
	return NULL;
}

/* Logs what workload_check() found: a line of the text, or the text as a whole. */
static void log_text_fault(const char *name, const char *fault, const struct workload_info *info)
{
	if (info->error_line)
		log_error("%s:%zu: expected %s", name, info->error_line, fault);
	else
		log_error("%s: expected %s", name, fault);
}

static int check_text(const char *name, const char *text, size_t len, struct program *program)
{
	struct workload_info info = {0};
	const char *fault = workload_check(text, len, program->memory_bytes, program->vcpus, &info);

	if (fault) {
		log_text_fault(name, fault, &info);
		return -EINVAL;
	}
	if (program->memory_bytes == 0)
		program->memory_bytes = info.memory ? info.memory : PROGRAM_DEFAULT_MEMORY;
	if (program->vcpus == 0)
		program->vcpus = (unsigned int)info.vcpus;
	program->address_end = info.address_end;
	fault = program_memory_fault(program->memory_bytes);
	if (fault) {
		log_error("%s: memory %" PRIu64 ": %s", name, program->memory_bytes, fault);
		return -EINVAL;
	}
	return 0;
}

int program_from_text(const char *name, const char *text, size_t len, uint64_t memory_bytes,
	unsigned int vcpus, struct program *ret)
{
	struct program program = {.memory_bytes = memory_bytes, .vcpus = vcpus};
	struct guest_text head = {.magic = GUEST_TEXT_MAGIC, .bytes = len};
	int err;

	err = check_text(name, text, len, &program);
	if (err)
		return err;
	program.image_bytes = sizeof(head) + len;
	program.image = malloc(program.image_bytes);
	if (!program.image) {
		log_error("%s: no memory to load it (free some memory)", name);
		return -ENOMEM;
	}
	memcpy(program.image, &head, sizeof(head));
	memcpy((char *)program.image + sizeof(head), text, len);
	*ret = program;
	return 0;
}

/* Reads until the end or until @max bytes.  Returns how many, or a negative errno. */
static ssize_t read_up_to(int fd, char *buffer, size_t max)
{
	size_t done = 0;

	while (done < max) {
		ssize_t n = read(fd, buffer + done, max - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

/* Reads a file of at most TEXT_MAX bytes, and one more so that longer ones show. */
static ssize_t read_file(const char *path, char *buffer)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read_up_to(fd, buffer, TEXT_MAX + 1);
	close(fd);
	return n;
}

int program_read(const char *path, uint64_t memory_bytes, unsigned int vcpus, struct program *ret)
{
	char *text = malloc(TEXT_MAX + 1);
	ssize_t n;
	int err;

	if (!text) {
		log_error("%s: no memory to load it (free some memory)", path);
		return -ENOMEM;
	}
	n = read_file(path, text);
	if (n < 0) {
		err = (int)n;
		log_error("%s: %s (name a workload file that can be read)", path, strerror(-err));
	} else {
		err = program_from_text(path, text, (size_t)n, memory_bytes, vcpus, ret);
	}
	free(text);
	return err;
}

void program_free(struct program *program)
{
	free(program->image);
	*program = (struct program){0};
}
