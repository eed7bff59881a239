/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Runs a fuzzer's entry point without libFuzzer: the seed corpus as it is, then a fixed
 * number of inputs made of it.  The inputs are the same in every run, so a failure can be
 * repeated.  Finds what is near the corpus; the real search is -Dfuzzers=true with clang.
 *
 *	PROGRAM CORPUS-FOLDER ITERATIONS
 *
 * The failing input is in PROGRAM.crash in the current folder: it is written before each
 * run, so that it is there whatever way the entry point ends.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "test/xorshift.h"

#define INPUT_MAX 4096 /* bytes */
#define SEEDS_MAX 256
#define EDITS_MAX 8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
	size_t size;
	uint8_t data[INPUT_MAX];
};

static struct input *seeds[SEEDS_MAX];
static size_t seed_count;
static uint64_t random_state = 0x9e3779b97f4a7c15;

/* A number below @limit, which is at least 1. */
static size_t random_below(size_t limit)
{
	return (size_t)(xorshift(&random_state) >> 16) % limit;
}

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static struct input *new_seed(void)
{
	struct input *seed = calloc(1, sizeof(*seed));

	if (!seed || seed_count == SEEDS_MAX)
		fail("too many seeds");
	seeds[seed_count++] = seed;
	return seed;
}

static int is_seed(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

/* Reads the files of @path in the order of their names; none is one empty seed. */
static void read_corpus(const char *path)
{
	struct dirent **entries;
	int dir = open(path, O_RDONLY | O_DIRECTORY);
	int count = dir < 0 ? -1 : scandir(path, &entries, is_seed, alphasort);

	if (count < 0)
		fail(path);
	for (int i = 0; i < count; i++) {
		struct input *seed = new_seed();
		int fd = openat(dir, entries[i]->d_name, O_RDONLY);
		ssize_t got = fd < 0 ? -1 : read(fd, seed->data, sizeof(seed->data));

		if (got < 0)
			fail(entries[i]->d_name);
		seed->size = (size_t)got;
		close(fd);
		free(entries[i]);
	}
	free(entries);
	close(dir);
	if (seed_count == 0)
		new_seed();
}

/* Puts @len random bytes before @at. */
static void insert_bytes(struct input *in, size_t at, size_t len)
{
	if (in->size + len > INPUT_MAX)
		return;
	memmove(in->data + at + len, in->data + at, in->size - at);
	for (size_t i = 0; i < len; i++)
		in->data[at + i] = (uint8_t)random_below(256);
	in->size += len;
}

static void remove_bytes(struct input *in, size_t at, size_t len)
{
	if (len > in->size - at)
		len = in->size - at;
	memmove(in->data + at, in->data + at + len, in->size - at - len);
	in->size -= len;
}

/* Copies a piece of some seed over @in at @at. */
static void splice_seed(struct input *in, size_t at)
{
	const struct input *from = seeds[random_below(seed_count)];
	size_t start = random_below(from->size + 1);
	size_t len = random_below(from->size - start + 1);

	if (at + len > INPUT_MAX)
		return;
	memcpy(in->data + at, from->data + start, len);
	if (at + len > in->size)
		in->size = at + len;
}

static void edit(struct input *in)
{
	static const uint8_t telling[] = {0, 1, 0x7f, 0x80, 0xff, '\n', ' ', '0', '9', '-'};
	size_t at = random_below(in->size + 1);

	switch (random_below(in->size > at ? 6 : 2)) {
	case 0:
		insert_bytes(in, at, 1 + random_below(16));
		break;
	case 1:
		splice_seed(in, at);
		break;
	case 2:
		remove_bytes(in, at, 1 + random_below(16));
		break;
	case 3:
		in->data[at] ^= (uint8_t)(1 << random_below(8));
		break;
	case 4:
		in->data[at] = (uint8_t)random_below(256);
		break;
	default:
		in->data[at] = telling[random_below(sizeof(telling))];
		break;
	}
}

static void keep(int fd, const struct input *in)
{
	if (pwrite(fd, in->data, in->size, 0) != (ssize_t)in->size ||
		ftruncate(fd, (off_t)in->size) < 0)
		fail("keeping the input");
}

/* In a buffer of exactly its size, so that AddressSanitizer sees reads beyond it. */
static void run(int fd, const struct input *in)
{
	uint8_t *data = malloc(in->size ? in->size : 1);

	if (!data)
		fail("malloc");
	memcpy(data, in->data, in->size);
	keep(fd, in);
	LLVMFuzzerTestOneInput(data, in->size);
	free(data);
}

int main(int argc, char **argv)
{
	static struct input in;
	char kept[NAME_MAX + 1];
	long iterations = argc == 3 ? strtol(argv[2], NULL, 10) : 0;
	int fd;

	if (iterations <= 0) {
		fprintf(stderr, "usage: %s CORPUS-FOLDER ITERATIONS\n", argv[0]);
		return 2;
	}
	read_corpus(argv[1]);
	snprintf(kept, sizeof(kept), "%s.crash", program_invocation_short_name);
	fd = open(kept, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		fail(kept);
	for (size_t i = 0; i < seed_count; i++)
		run(fd, seeds[i]);
	for (long i = 0; i < iterations; i++) {
		in = *seeds[random_below(seed_count)];
		for (size_t edits = 1 + random_below(EDITS_MAX); edits > 0; edits--)
			edit(&in);
		run(fd, &in);
	}
	unlink(kept);
	for (size_t i = 0; i < seed_count; i++)
		free(seeds[i]);
	return 0;
}
