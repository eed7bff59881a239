/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Conversions against a model, in lockstep: what each page is, and what it holds.
 *
 * The guest writes, converts - good ranges and bad ones, asked for or by policy - and
 * releases; the hypervisor copies, reads and writes its own mapping where it is shown that
 * pages are mapped, and scribbles over its mapping where it is not.  After each sequence
 * every page of the guest must be what the model says, and nothing else.
 *
 *	convert_model_test [SEQUENCES [SEED]]
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "os/futex.h"
#include "test/model/convert_model.h"
#include "test/xorshift.h"
#include "uv/convert.h"

#define OPERATIONS 8
#define TOP        ((uint64_t)1 << 48)
#define WORDS      (PAGE_SIZE / sizeof(uint64_t))

enum state { PRIVATE, SHARED, RELEASED };

static struct {
	enum state state;
	uint64_t tag; /* every word of it */
} model[CM_PAGES];

static struct cm cm;
static struct abi_policy policy;
static uint64_t seed, sequence, next_tag;

/* The answers of the hypervisor's thread. */
static _Atomic uint32_t verdict, asked;
static _Atomic bool done;

static uint64_t dice(uint64_t sides)
{
	return xorshift(&seed) % sides;
}

static void check(bool ok, const char *what, uint64_t page)
{
	if (ok)
		return;
	fprintf(stderr, "convert_model_test: %s at page %llu in sequence %llu\n", what,
		(unsigned long long)page, (unsigned long long)sequence);
	abort();
}

static void fill(uint64_t *words, uint64_t tag)
{
	for (uint64_t i = 0; i < WORDS; i++)
		words[i] = tag;
}

static void check_words(const uint64_t *words, uint64_t tag, const char *what, uint64_t page)
{
	for (uint64_t i = 0; i < WORDS; i++)
		check(words[i] == tag, what, page);
}

/* ---- ranges ---- */

static struct gfn_range some_range(void)
{
	uint64_t start = dice(CM_PAGES);
	uint64_t count = 1 + dice(dice(4) != 0 ? 6 : dice(4) != 0 ? 80 : CM_PAGES);

	/* Often where slots meet. */
	if (dice(4) == 0)
		start = 20 + dice(14);
	if (start + count > CM_PAGES)
		count = CM_PAGES - start;
	return (struct gfn_range){gfn(start), count};
}

static bool is_memory(struct gfn_range r)
{
	for (uint64_t p = r.start.v; p < range_end(r); p++) {
		if (p >= CM_PAGES || cm_slot_of(p) < 0)
			return false;
	}
	return true;
}

static uint64_t count_in(struct gfn_range r, enum state state)
{
	uint64_t n = 0;

	for (uint64_t p = r.start.v; p < range_end(r); p++)
		n += cm_slot_of(p) >= 0 && model[p].state == state;
	return n;
}

static const struct gfn_range everything = {{0}, CM_PAGES};

/* ---- conversions ---- */

static bool by_policy(struct gfn_range r, bool to_shared)
{
	uint64_t pages = count_in(everything, SHARED) + r.count - count_in(r, SHARED);

	for (uint32_t i = 0; i < policy.count; i++) {
		uint64_t from = policy.range[i].gpa >> PAGE_SHIFT;
		uint64_t to = from + (policy.range[i].bytes >> PAGE_SHIFT);

		if (r.start.v >= from && range_end(r) <= to)
			return !to_shared || pages <= policy.max_shared_bytes >> PAGE_SHIFT;
	}
	return false;
}

/* The status that a good or bad range must get; *ret_asks: after an exit. */
static uint32_t expected(uint64_t gpa, uint64_t bytes, bool to_shared, bool *ret_asks)
{
	struct gfn_range r = {gfn(gpa >> PAGE_SHIFT), bytes >> PAGE_SHIFT};

	*ret_asks = false;
	if (bytes == 0 || ((gpa | bytes) & PAGE_MASK) != 0)
		return ABI_ST_INVALID;
	if (gpa + bytes < gpa || gpa + bytes > TOP)
		return ABI_ST_RANGE;
	if (!is_memory(r))
		return ABI_ST_NOT_FOUND;
	if (count_in(r, RELEASED) > 0)
		return ABI_ST_DENIED;
	if (count_in(r, to_shared ? SHARED : PRIVATE) == r.count || by_policy(r, to_shared))
		return ABI_ST_OK;
	*ret_asks = true;
	return verdict;
}

static void convert(uint64_t gpa, uint64_t bytes, bool to_shared)
{
	uint32_t before = asked, want;
	int64_t got;
	bool asks;

	verdict = dice(4) == 0 ? ABI_ST_DENIED : ABI_ST_OK;
	want = expected(gpa, bytes, to_shared, &asks);
	got = convert_by_guest(&cm.vm.vcpu[0], gpa, bytes, to_shared);
	check(got == -(int64_t)want, "a conversion was answered wrongly", gpa >> PAGE_SHIFT);
	check(asked - before == asks, "the hypervisor was asked, or not", gpa >> PAGE_SHIFT);
	if (want != ABI_ST_OK)
		return;
	for (uint64_t p = gpa >> PAGE_SHIFT; p < (gpa + bytes) >> PAGE_SHIFT; p++)
		model[p].state = to_shared ? SHARED : PRIVATE;
}

static void convert_good(void)
{
	struct gfn_range r = some_range();

	convert(gfn_to_gpa(r.start).v, range_bytes(r), dice(2));
}

static void convert_bad(void)
{
	const uint64_t p = PAGE_SIZE;
	const uint64_t bad[][2] = {{1, p}, {p, 1}, {p, 0}, {p + 8, p + 8}, {TOP, p},
		{TOP - p, 2 * p}, {-p, p}, {-p, 2 * p}, {p, -p}, {p, TOP}, {UINT64_MAX, 1},
		{100 * p, p}, {95 * p, 2 * p}, {127 * p, 2 * p}, {0, CM_PAGES * p},
		{CM_PAGES * p, p}, {(CM_PAGES - 1) * p, 2 * p}, {0, TOP}};
	uint64_t i = dice(sizeof(bad) / sizeof(bad[0]));

	convert(bad[i][0], bad[i][1], dice(2));
}

static void release(void)
{
	struct gfn_range r = some_range();
	bool good = is_memory(r) && count_in(r, SHARED) == 0;
	int ret;

	if (dice(8) != 0 || r.count > 8)
		return;
	ret = convert_release(&cm.vm, gfn_to_gpa(r.start).v, range_bytes(r));
	check((ret == 0) == good, "a release was answered wrongly", r.start.v);
	for (uint64_t p = r.start.v; good && p < range_end(r); p++)
		model[p].state = RELEASED;
}

static void change_policy(void)
{
	struct gfn_range r = some_range();

	policy = (struct abi_policy){.max_shared_bytes = dice(2) ? UINT64_MAX : dice(200) << 12,
		.count = (uint32_t)dice(3),
		.range = {{gfn_to_gpa(r.start).v, range_bytes(r)}, {0, TOP}}};
	check(cm_policy(&cm, &policy) == ABI_ST_OK, "a policy was refused", 0);
}

/* ---- accesses ---- */

static void guest_write(void)
{
	struct gfn_range r = some_range();

	for (uint64_t p = r.start.v; p < range_end(r) && p < r.start.v + 16; p++) {
		if (cm_slot_of(p) < 0 || model[p].state == RELEASED)
			continue;
		model[p].tag = ++next_tag;
		fill(cm_guest(&cm, p), model[p].tag);
	}
}

static void copy(void)
{
	struct gfn_range r = some_range();
	bool to_guest = dice(2);
	uint64_t *data = (uint64_t *)(void *)cm.vm.vcpu[0].copy_data;
	uint32_t want, got;

	if (r.count > 16)
		r.count = 16;
	want = !is_memory(r)                    ? ABI_ST_NOT_FOUND
	       : count_in(r, SHARED) != r.count ? ABI_ST_DENIED
						: ABI_ST_OK;
	for (uint64_t i = 0; i < r.count; i++)
		fill(data + i * WORDS, to_guest ? next_tag + 1 + i : UINT64_MAX);
	got = cm_copy(&cm, 0, gfn_to_gpa(r.start).v, (uint32_t)range_bytes(r), to_guest);
	check(got == want, "a copy was answered wrongly", r.start.v);
	for (uint64_t i = 0; i < r.count; i++) {
		if (want == ABI_ST_OK && to_guest)
			model[r.start.v + i].tag = ++next_tag;
		else if (!to_guest)
			check_words(data + i * WORDS,
				want == ABI_ST_OK ? model[r.start.v + i].tag : UINT64_MAX,
				"a copy read something else", r.start.v + i);
	}
}

static bool has_mapped(uint64_t before)
{
	bool more;

	pthread_mutex_lock(&cm.vm.lock);
	more = cm.vm.shares.auto_maps > before;
	pthread_mutex_unlock(&cm.vm.lock);
	return more;
}

/* So much that auto maps what is shared, if it may. */
static void use_much(void)
{
	struct gfn_range r = some_range();
	uint64_t before;

	if (cm.vm.share_auto == NULL || r.count < 64 || !is_memory(r) || dice(4) != 0)
		return;
	convert(gfn_to_gpa(r.start).v, range_bytes(r), true);
	pthread_mutex_lock(&cm.vm.lock);
	before = cm.vm.shares.auto_maps;
	pthread_mutex_unlock(&cm.vm.lock);
	for (int i = 0; i < 4000 && count_in(r, SHARED) == r.count && !has_mapped(before); i++)
		check(cm_copy(&cm, 0, gfn_to_gpa(r.start).v, ABI_COPY_DATA, false) == ABI_ST_OK,
			"a shared page is refused", r.start.v);
}

/* Whether the hypervisor is shown that it may use its own mapping. */
static bool is_listed(uint64_t page)
{
	const struct abi_share_page *list = cm.vm.mapped_shown;

	for (uint32_t i = 0; i < list->count; i++) {
		if (page << PAGE_SHIFT >= list->range[i].gpa &&
			page << PAGE_SHIFT < list->range[i].gpa + list->range[i].bytes)
			return true;
	}
	return false;
}

/* The hypervisor's own mapping: what it writes counts where it is shown to, else never. */
static void use_mapping(void)
{
	struct gfn_range r = some_range();

	/* Auto changes the list when it likes. */
	if (cm.vm.share_auto != NULL)
		return;
	for (uint64_t p = r.start.v; p < range_end(r) && p < r.start.v + 16; p++) {
		uint64_t *words = cm_slot_of(p) < 0 ? NULL : cm_shared(&cm, p);

		if (words == NULL)
			continue;
		if (!is_listed(p)) {
			fill(words, UINT64_MAX);
			continue;
		}
		check(model[p].state == SHARED, "a page is listed that is not shared", p);
		check_words(words, model[p].tag, "a mapped page holds something else", p);
		model[p].tag = ++next_tag;
		fill(words, model[p].tag);
	}
}

static void (*const operations[])(void) = {convert_good, convert_good, convert_good, guest_write,
	guest_write, copy, copy, use_much, use_mapping, convert_bad, release, change_policy};

static void verify(void)
{
	pthread_rwlock_rdlock(&cm.vm.memory);
	for (uint64_t p = 0; p < CM_PAGES; p++) {
		if (cm_slot_of(p) >= 0 && model[p].state != RELEASED)
			check_words(cm_guest(&cm, p), model[p].tag, "content was lost", p);
	}
	pthread_rwlock_unlock(&cm.vm.memory);
	pthread_mutex_lock(&cm.vm.lock);
	for (uint64_t p = 0; p < CM_PAGES; p++) {
		enum page_attr attr = attr_get(cm.vm.attr, gfn(p));

		if (cm_slot_of(p) >= 0)
			check(model[p].state == (attr_is_shared(attr)           ? SHARED
							: attr == ATTR_RELEASED ? RELEASED
										: PRIVATE),
				"a page is something else", p);
	}
	pthread_mutex_unlock(&cm.vm.lock);
}

/* ---- the hypervisor's answers ---- */

static void *hypervisor(void *arg)
{
	struct abi_vcpu_page *page = cm.vm.pages;
	uint32_t seen = 0;

	while (!done) {
		uint32_t bell = __atomic_load_n(&page->bell, __ATOMIC_ACQUIRE);
		uint32_t seq = __atomic_load_n(&page->exit_seq, __ATOMIC_ACQUIRE);

		if (seq == seen) {
			futex_sleep(&page->bell, bell, &page->reply_sleeps);
			continue;
		}
		seen = seq;
		asked++;
		page->reply_status = verdict;
		__atomic_store_n(&page->reply_seq, seq, __ATOMIC_RELEASE);
		futex_ring(&page->reply_bell, &page->sleeps);
	}
	return NULL;
}

static void start_anew(void)
{
	memset(model, 0, sizeof(model));
	policy = (struct abi_policy){0};
}

static void run(uint32_t flags, uint64_t sequences)
{
	struct abi_vcpu_page *page;
	pthread_t thread;

	cm_begin(&cm, 1, flags);
	page = cm.vm.pages;
	done = false;
	check(pthread_create(&thread, NULL, hypervisor, NULL) == 0, "no thread", 0);
	start_anew();
	for (sequence = 0; sequence < sequences; sequence++) {
		if (sequence % 64 == 63) {
			cm_reset(&cm);
			start_anew();
		}
		for (int i = 0; i < OPERATIONS; i++)
			operations[dice(sizeof(operations) / sizeof(operations[0]))]();
		verify();
	}
	pthread_mutex_lock(&cm.vm.lock);
	printf("%llu sequences, %llu ranges mapped and %llu copied again by auto\n",
		(unsigned long long)sequences, (unsigned long long)cm.vm.shares.auto_maps,
		(unsigned long long)cm.vm.shares.auto_unmaps);
	pthread_mutex_unlock(&cm.vm.lock);
	done = true;
	(void)__atomic_fetch_add(&page->bell, 1, __ATOMIC_SEQ_CST);
	futex_wake(&page->bell, 1);
	pthread_join(thread, NULL);
	cm_end(&cm);
}

int main(int argc, char **argv)
{
	static const uint32_t ways[] = {0, ABI_VM_SHARE_MAPPED, ABI_VM_SHARE_AUTO,
		ABI_VM_SHARE_MAPPED | ABI_VM_DISCARD_EAGER};
	uint64_t sequences = argc > 1 ? strtoull(argv[1], NULL, 0) : 20000;

	seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 7;
	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++)
		run(ways[i], sequences / 4);
	return 0;
}
