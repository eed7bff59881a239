/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Wait-free readers beside a writer.  Each of a few pages in the middle of what changes
 * keeps one attribute for ever; ranges around them change between two that are theirs.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/attr.h"

#define READERS 3
#define ROUNDS  20000
#define PARTS   6

/* Within a leaf, across leaves, across nodes, and so far up that the root grows. */
static const struct part {
	uint64_t start, end;
	enum page_attr attr[2];
} parts[PARTS] = {
	{10, 11, {ATTR_COPIED, ATTR_PRIVATE}},
	{12, 4000, {ATTR_MAPPED, ATTR_PRIVATE}},
	{4001, 9000, {ATTR_RELEASED, ATTR_COPIED}},
	{9001, 70000, {ATTR_SEALED, ATTR_PRIVATE}},
	{70001, 70002, {ATTR_COPIED, ATTR_MAPPED}},
	{70003, 1u << 21, {ATTR_COPIED, ATTR_PRIVATE}},
};

static struct {
	struct attr_map *map;
	pthread_rwlock_t reclaim; /* held for reading around many reads */
	_Atomic bool done;
	_Atomic uint64_t wrong, reads;
} shared;

/* The pages between the parts. */
static const uint64_t kept[] = {11, 4000, 9000, 70000, 70002};

static bool may_be(const struct part *p, enum page_attr attr)
{
	return attr == p->attr[0] || attr == p->attr[1];
}

static uint64_t count_wrong(unsigned int round)
{
	uint64_t wrong = 0;

	for (unsigned int i = 0; i < PARTS; i++) {
		const struct part *p = &parts[i];
		uint64_t length = p->end - p->start;

		wrong += !may_be(p, attr_get(shared.map, gfn(p->start + round * 977 % length)));
		wrong += !may_be(p, attr_get(shared.map, gfn(p->end - 1)));
		wrong += !may_be(p, attr_run_at(shared.map, p->start, p->end).attr);
	}
	for (unsigned int i = 0; i < sizeof(kept) / sizeof(kept[0]); i++) {
		wrong += attr_get(shared.map, gfn(kept[i])) != ATTR_RELEASED;
		wrong += attr_none(
			shared.map, (struct gfn_range){gfn(kept[i] - 1), 3}, ATTR_RELEASED);
	}
	wrong += attr_get(shared.map, gfn((1u << 21) + 1)) != ATTR_PRIVATE;
	return wrong;
}

static void *reader(void *arg)
{
	unsigned int round = 0;

	while (!atomic_load(&shared.done)) {
		pthread_rwlock_rdlock(&shared.reclaim);
		for (unsigned int i = 0; i < 50; i++)
			atomic_fetch_add(&shared.wrong, count_wrong(round++));
		pthread_rwlock_unlock(&shared.reclaim);
		atomic_fetch_add(&shared.reads, 1);
	}
	return NULL;
}

static void set(uint64_t start, uint64_t end, enum page_attr attr)
{
	assert_int_equal(
		attr_set(shared.map, (struct gfn_range){gfn(start), end - start}, attr), 0);
}

static void write_all(void)
{
	for (unsigned int round = 0; round < ROUNDS || atomic_load(&shared.reads) < 10; round++) {
		const struct part *p = &parts[round * 7 % PARTS];
		uint64_t middle = p->start + (p->end - p->start) * (round % 13) / 13;

		set(p->start, p->end, p->attr[round / PARTS % 2]);
		/* Into pieces, up to planes. */
		for (unsigned int i = 0; i < 5 && middle + 2 * i < p->end; i++)
			set(middle + 2 * i, middle + 2 * i + 1, p->attr[i % 2]);
		if (round % 16 == 0) {
			pthread_rwlock_wrlock(&shared.reclaim);
			attr_map_reclaim(shared.map);
			pthread_rwlock_unlock(&shared.reclaim);
		}
	}
}

static void test_readers_beside_a_writer(void **state)
{
	pthread_t thread[READERS];
	pthread_rwlockattr_t rw;

	shared.map = attr_map_new();
	assert_non_null(shared.map);
	/* Else readers that read all the time would let nobody reclaim. */
	pthread_rwlockattr_init(&rw);
	pthread_rwlockattr_setkind_np(&rw, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&shared.reclaim, &rw);
	pthread_rwlockattr_destroy(&rw);
	for (unsigned int i = 0; i < PARTS; i++)
		set(parts[i].start, parts[i].end, parts[i].attr[0]);
	for (unsigned int i = 0; i < sizeof(kept) / sizeof(kept[0]); i++)
		set(kept[i], kept[i] + 1, ATTR_RELEASED);
	for (unsigned int i = 0; i < READERS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, reader, NULL), 0);
	write_all();
	atomic_store(&shared.done, true);
	for (unsigned int i = 0; i < READERS; i++)
		pthread_join(thread[i], NULL);
	assert_int_equal(shared.wrong, 0);
	pthread_rwlock_destroy(&shared.reclaim);
	attr_map_free(shared.map);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_readers_beside_a_writer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
