/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Many vCPUs that convert, and a device that copies meanwhile.
 *
 * Each vCPU has pages of its own, which it writes, shares, and takes back; the device writes
 * them whole when it finds them shared.  When a page is private again it is whole: the
 * vCPU's last word or the device's, and the device gets no more of it.  Other pages, which
 * nobody writes, are converted by all vCPUs in ranges that overlap, by policy and by asking;
 * what they hold never changes.
 *
 *	convert_stress [ROUNDS]
 */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "os/futex.h"
#include "test/model/convert_model.h"
#include "test/xorshift.h"
#include "uv/convert.h"

#define VCPUS     3
#define OWN       8 /* pages of each vCPU, in slot 0 */
#define COMMON    40
#define ASKED     128 /* from here on the policy says nothing */
#define END       320
#define WORDS     (PAGE_SIZE / sizeof(uint64_t))
#define BY_DEVICE ((uint64_t)1 << 63)

static struct cm cm;
static uint64_t rounds;
static _Atomic bool done;

/* Of each own page: odd while it is private and stays so. */
static _Atomic uint64_t phase[VCPUS * OWN];
static _Atomic uint64_t device_copies, device_refusals, overlaps;

static void check(bool ok, const char *what, uint64_t page)
{
	if (ok)
		return;
	fprintf(stderr, "convert_stress: %s at page %llu\n", what, (unsigned long long)page);
	abort();
}

static uint64_t dice(uint64_t *state, uint64_t sides)
{
	return xorshift(state) % sides;
}

static uint64_t uniform(const uint64_t *words, uint64_t page)
{
	for (uint64_t i = 1; i < WORDS; i++)
		check(words[i] == words[0], "a page is torn", page);
	return words[0];
}

static void guest_fill(uint64_t page, uint64_t tag)
{
	uint64_t *words;

	pthread_rwlock_rdlock(&cm.vm.memory);
	words = cm_guest(&cm, page);
	for (uint64_t i = 0; i < WORDS; i++)
		words[i] = tag;
	pthread_rwlock_unlock(&cm.vm.memory);
}

static uint64_t guest_tag(uint64_t page)
{
	uint64_t tag;

	pthread_rwlock_rdlock(&cm.vm.memory);
	tag = uniform(cm_guest(&cm, page), page);
	pthread_rwlock_unlock(&cm.vm.memory);
	return tag;
}

static int64_t convert(unsigned int vcpu, uint64_t page, uint64_t count, bool to_shared)
{
	return convert_by_guest(
		&cm.vm.vcpu[vcpu], page << PAGE_SHIFT, count << PAGE_SHIFT, to_shared);
}

static void use_own(unsigned int vcpu, uint64_t page, uint64_t round)
{
	uint64_t tag;

	guest_fill(page, round);
	phase[page]++;
	check(convert(vcpu, page, 1, true) == 0, "a page could not be shared", page);
	for (uint64_t i = 0; i < round % 4; i++)
		sched_yield();
	check(convert(vcpu, page, 1, false) == 0, "a page could not be taken back", page);
	phase[page]++;
	tag = guest_tag(page);
	check(tag == round || (tag & BY_DEVICE) != 0, "a page holds something else", page);
}

static void use_common(unsigned int vcpu, uint64_t *state)
{
	uint64_t page = COMMON + dice(state, END - COMMON), count = 1 + dice(state, 24);
	int64_t ret;

	/* Between the slots there is nothing. */
	if (cm_slot_of(page) < 0 || cm_slot_of(page + count - 1) != cm_slot_of(page))
		return;
	ret = convert(vcpu, page, count, dice(state, 2));
	check(ret == 0 || ret == -(int64_t)ABI_ST_AGAIN, "a conversion failed", page);
	overlaps += ret != 0;
	check(guest_tag(page) == page, "content was lost", page);
}

static void *vcpu_main(void *arg)
{
	unsigned int vcpu = (unsigned int)(uintptr_t)arg;
	uint64_t state = 7 + vcpu;

	for (uint64_t round = 1; round <= rounds; round++) {
		use_own(vcpu, vcpu * OWN + dice(&state, OWN), round);
		use_common(vcpu, &state);
	}
	return NULL;
}

/* A copy of a page of a vCPU: refused if it was private all the while. */
static bool device_copy(uint64_t page, bool to_guest)
{
	uint64_t before = phase[page];
	uint32_t status = cm_copy(&cm, VCPUS, page << PAGE_SHIFT, PAGE_SIZE, to_guest);

	check(status == ABI_ST_OK || status == ABI_ST_DENIED, "a copy failed", page);
	if ((before & 1) != 0 && phase[page] == before)
		check(status == ABI_ST_DENIED, "a private page was copied", page);
	device_copies += status == ABI_ST_OK;
	device_refusals += status != ABI_ST_OK;
	return status == ABI_ST_OK;
}

static void *device_main(void *arg)
{
	uint64_t *data = (uint64_t *)(void *)cm.vm.vcpu[VCPUS].copy_data;
	uint64_t state = 99, tag = BY_DEVICE, page;

	while (!done) {
		page = dice(&state, VCPUS * OWN);
		if (device_copy(page, false))
			(void)uniform(data, page);
		tag++;
		for (uint64_t i = 0; i < WORDS; i++)
			data[i] = tag;
		(void)device_copy(page, true);
		page = COMMON + dice(&state, END - COMMON);
		if (cm_copy(&cm, VCPUS, page << PAGE_SHIFT, PAGE_SIZE, false) == ABI_ST_OK)
			check(uniform(data, page) == page, "the device read something else", page);
		sched_yield();
	}
	return NULL;
}

/* Allows what one vCPU asks for. */
static void *hypervisor_main(void *arg)
{
	struct abi_vcpu_page *page = cm.vm.vcpu[(uintptr_t)arg].page;
	uint32_t seen = 0;

	while (!done) {
		uint32_t bell = __atomic_load_n(&page->bell, __ATOMIC_ACQUIRE);
		uint32_t seq = __atomic_load_n(&page->exit_seq, __ATOMIC_ACQUIRE);

		if (seq == seen) {
			futex_sleep(&page->bell, bell, &page->reply_sleeps);
			continue;
		}
		seen = seq;
		page->reply_status = ABI_ST_OK;
		__atomic_store_n(&page->reply_seq, seq, __ATOMIC_RELEASE);
		futex_ring(&page->reply_bell, &page->sleeps);
	}
	return NULL;
}

static void start(pthread_t *thread, void *(*main_fn)(void *), uintptr_t arg)
{
	check(pthread_create(thread, NULL, main_fn, (void *)arg) == 0, "no thread", 0);
}

static void prepare(uint32_t flags)
{
	const struct abi_policy policy = {.max_shared_bytes = UINT64_MAX,
		.count = 1,
		.range = {{0, (uint64_t)ASKED << PAGE_SHIFT}}};

	cm_begin(&cm, VCPUS + 1, flags);
	check(cm_policy(&cm, &policy) == ABI_ST_OK, "no policy", 0);
	for (uint64_t page = COMMON; page < END; page++) {
		if (cm_slot_of(page) >= 0)
			guest_fill(page, page);
	}
	for (uint64_t i = 0; i < VCPUS * OWN; i++)
		phase[i] = 1;
	done = false;
}

static void run(uint32_t flags)
{
	pthread_t vcpu[VCPUS], hypervisor[VCPUS], device;

	prepare(flags);
	start(&device, device_main, 0);
	for (unsigned int i = 0; i < VCPUS; i++) {
		start(&hypervisor[i], hypervisor_main, i);
		start(&vcpu[i], vcpu_main, i);
	}
	for (unsigned int i = 0; i < VCPUS; i++)
		pthread_join(vcpu[i], NULL);
	done = true;
	pthread_join(device, NULL);
	for (unsigned int i = 0; i < VCPUS; i++) {
		(void)__atomic_fetch_add(&cm.vm.vcpu[i].page->bell, 1, __ATOMIC_SEQ_CST);
		futex_wake(&cm.vm.vcpu[i].page->bell, 1);
		pthread_join(hypervisor[i], NULL);
	}
	for (uint64_t page = COMMON; page < END; page++) {
		if (cm_slot_of(page) >= 0)
			check(guest_tag(page) == page, "content was lost in the end", page);
	}
	cm_end(&cm);
}

int main(int argc, char **argv)
{
	static const uint32_t ways[] = {0, ABI_VM_SHARE_MAPPED, ABI_VM_SHARE_AUTO,
		ABI_VM_SHARE_MAPPED | ABI_VM_DISCARD_EAGER};

	rounds = argc > 1 ? strtoull(argv[1], NULL, 0) : 4000;
	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++)
		run(ways[i]);
	printf("%llu copies, %llu refused; %llu conversions overlapped another\n",
		(unsigned long long)device_copies, (unsigned long long)device_refusals,
		(unsigned long long)overlaps);
	check(device_copies > 0 && device_refusals > 0, "nothing was tested", 0);
	return 0;
}
