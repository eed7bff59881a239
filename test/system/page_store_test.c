/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Paging, from the guest's side and the store's: the guest finds its latest content or is
 * stopped, whatever the store does, and waits for nothing but the pages it needs.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "test/system/paging.h"

static struct test_store *store;
static struct guest guest;

static int setup(void **unused)
{
	store = test_store_new();
	return 0;
}

static int teardown(void **unused)
{
	guest_end(&guest);
	test_store_free(store);
	return 0;
}

static void start(const char *text)
{
	guest_start(&guest, 1, text, LETHE_SHARE_AUTO, &store->ops);
}

static void run_to(const char *text)
{
	guest_run_to(&guest, 0, text);
}

static void assert_states(uint64_t at, uint64_t bytes, enum lethe_gfn_state want)
{
	for (uint64_t end = at + bytes; at < end; at += PAGE)
		assert_int_equal(guest_state(&guest, at), want);
}

/* ---- out and in ---- */

static void test_out_and_in(void **unused)
{
	struct lethe_audit audit;
	struct lethe_info info;

	start("protect\nwrite 2M 8M\nprint written\ncheck 2M 8M\nzero 10M 1M\nprint checked\n"
	      "poweroff\n");
	run_to("written");
	assert_int_equal(guest_out(&guest, 2 * MIB, 8 * MIB), 2048);
	assert_states(2 * MIB, 8 * MIB, LETHE_GFN_PAGED_OUT);
	assert_int_equal(test_store_seen(store).kept, 2048);
	assert_int_equal(lethe_vm_info(guest.vm, &info), 0);
	assert_int_equal(info.paged_out_bytes, 8 * MIB);
	assert_int_equal(lethe_vm_audit(guest.vm, 0, &audit), 0);
	assert_int_equal(audit.paged_out_bytes, 8 * MIB);
	/* Once more: there is nothing to do. */
	assert_int_equal(guest_out(&guest, 2 * MIB, 8 * MIB), 0);
	/* Never touched. */
	assert_int_equal(guest_out(&guest, 10 * MIB, MIB), 0);
	assert_states(10 * MIB, MIB, LETHE_GFN_SECURE);
	run_to("checked");
	assert_states(2 * MIB, 8 * MIB, LETHE_GFN_SECURE);
	/* One after the other: it was read ahead, and not page by page. */
	assert_in_range(test_store_seen(store).gets, 1, 200);
	assert_int_equal(lethe_vm_info(guest.vm, &info), 0);
	assert_int_equal(info.paged_out_bytes, 0);
	assert_int_equal(info.pages_out, 2048);
	assert_int_equal(info.pages_in, 2048);
	/* The space is given back, a little later. */
	pthread_mutex_lock(&store->lock);
	for (size_t i = 0; i < STORED / PAGE; i++) {
		while (store->kept[i])
			pthread_cond_wait(&store->changed, &store->lock);
	}
	pthread_mutex_unlock(&store->lock);
}

static void test_everything_and_the_program_too(void **unused)
{
	start("protect\nwrite 2M 4M\nprint written\ncheck 2M 4M\nwrite 3M 1M 5\nprint again\n"
	      "check 2M 1M\ncheck 3M 1M 5\ncheck 4M 2M\nprint checked\n");
	run_to("written");
	assert_in_range(guest_out(&guest, 0, MEMORY), 1024, 1024 + 512);
	run_to("again");
	assert_in_range(guest_out(&guest, 0, MEMORY), 1024, 1024 + 512);
	run_to("checked");
}

static void test_coldest(void **unused)
{
	uint64_t bytes = 0;

	start("protect\nwrite 2M 8M\nprint written\ncheck 2M 8M\nprint checked\n");
	run_to("written");
	assert_int_equal(lethe_page_out_cold(guest.vm, 3 * MIB, &bytes), 0);
	assert_in_range(bytes, 3 * MIB, 4 * MIB);
	assert_int_equal(lethe_page_out_cold(guest.vm, 64 * MIB, &bytes), 0);
	assert_in_range(bytes, 4 * MIB, 8 * MIB);
	assert_int_equal(lethe_page_out_cold(guest.vm, 64 * MIB, &bytes), 0);
	assert_int_equal(bytes, 0);
	run_to("checked");
}

static void test_refusals(void **unused)
{
	struct lethe_page_store incomplete = store->ops;
	uint64_t pages = 77;

	start("print normal\nprotect\nprint secure\npoweroff\n");
	incomplete.drop = NULL;
	assert_int_equal(lethe_vm_set_page_store(guest.vm, &incomplete), -EINVAL);
	assert_int_equal(lethe_vm_set_page_store(guest.vm, &store->ops), -EEXIST);
	run_to("normal");
	assert_int_equal(lethe_page_out(guest.vm, 2 * MIB, MIB, &pages), -EPROTO);
	assert_int_equal(lethe_page_out_cold(guest.vm, MIB, &pages), -EPROTO);
	run_to("secure");
	assert_int_equal(lethe_page_out(guest.vm, 1, PAGE, &pages), -EINVAL);
	assert_int_equal(lethe_page_out(guest.vm, 0, 0, &pages), -EINVAL);
	assert_int_equal(lethe_page_out(guest.vm, UINT64_MAX - PAGE + 1, PAGE, &pages), -ERANGE);
	assert_int_equal(lethe_page_out(guest.vm, MEMORY - PAGE, 2 * PAGE, &pages), -ENOENT);
	assert_int_equal(lethe_page_out(guest.vm, MEMORY, PAGE, &pages), -ENOENT);
	assert_int_equal(lethe_page_out_cold(guest.vm, 0, &pages), -EINVAL);
	assert_int_equal(lethe_page_out_cold(guest.vm, UINT64_MAX, &pages), -EINVAL);
	assert_int_equal(pages, 77);
	assert_int_equal(test_store_seen(store).puts, 0);
}

/* Without a store nothing goes out. */
static void test_no_store(void **unused)
{
	uint64_t pages;

	guest_start(&guest, 1, "protect\nwrite 2M 4K\nprint written\n", LETHE_SHARE_AUTO, NULL);
	run_to("written");
	assert_int_equal(lethe_page_out(guest.vm, 2 * MIB, PAGE, &pages), -ENODEV);
	assert_int_equal(lethe_page_out_cold(guest.vm, PAGE, &pages), -ENODEV);
	store->closed = true;
}

/* What is shared stays; what is out is brought before it is shared, and keeps its content. */
static void test_conversions(void **unused)
{
	uint8_t page[PAGE], again[PAGE];

	for (int mapped = 0; mapped < 2; mapped++) {
		guest_start(&guest, 1,
			"protect\nwrite 2M 1M\nprint written\nshare 2M 512K\nprint shared\n"
			"check 2M 1M\nunshare 2M 256K\nprint unshared\ncheck 2M 1M\nprint checked\n",
			mapped ? LETHE_SHARE_MAPPED : LETHE_SHARE_COPIED, &store->ops);
		run_to("written");
		assert_int_equal(guest_out(&guest, 2 * MIB, MIB), 256);
		run_to("shared");
		assert_states(2 * MIB, MIB / 2, LETHE_GFN_SHARED);
		assert_int_equal(lethe_mem_read(guest.vm, 2 * MIB + PAGE, page, PAGE), 0);
		guest_out(&guest, 2 * MIB, MIB);
		assert_states(2 * MIB, MIB / 2, LETHE_GFN_SHARED);
		assert_states(2 * MIB + MIB / 2, MIB / 2, LETHE_GFN_PAGED_OUT);
		assert_int_equal(lethe_mem_read(guest.vm, 2 * MIB + PAGE, again, PAGE), 0);
		assert_memory_equal(page, again, PAGE);
		run_to("unshared");
		assert_int_equal(guest_out(&guest, 2 * MIB, MIB / 4), 64);
		assert_int_equal(lethe_mem_read(guest.vm, 2 * MIB + PAGE, page, PAGE), -EPERM);
		run_to("checked");
		if (mapped == 0) {
			guest_end(&guest);
			test_store_free(store);
			store = test_store_new();
		}
	}
}

/* Keys die with the incarnation; the store's content goes after them, before anything new. */
static void test_reboot_drops_everything(void **unused)
{
	start("protect\nwrite 2M 4M\nprint written\nreboot\nprotect\nzero 2M 4M\nwrite 2M 4M\n"
	      "print again\ncheck 2M 4M\nprint checked\npoweroff\n");
	run_to("written");
	assert_int_equal(guest_out(&guest, 2 * MIB, 4 * MIB), 1024);
	assert_int_equal(guest_run(&guest, 0), LETHE_EXIT_REBOOT);
	guest_reboot(&guest);
	run_to("again");
	assert_int_equal(guest_out(&guest, 3 * MIB, MIB), 256);
	assert_int_equal(test_store_seen(store).drop_alls, 1);
	assert_int_equal(test_store_seen(store).kept, 256);
	run_to("checked");
}

/* ---- stores that do what they should not ---- */

static const char attacked[] = "protect\nwrite 2M 1M 1\nprint first\nwrite 2M 1M 2\n"
			       "print second\ncheck 2M 1M 2\nprint not reached\n";

/* Out twice, so that there is something old; then in, with @fault. */
static void attack(enum fault fault)
{
	const uint64_t at = 2 * MIB + 37 * PAGE;

	start(attacked);
	run_to("first");
	assert_int_equal(guest_out(&guest, 2 * MIB, MIB), 256);
	run_to("second");
	assert_int_equal(guest_out(&guest, 2 * MIB, MIB), 256);
	test_store_fault(store, fault, at, 0);
	assert_int_equal(guest_run(&guest, 0), LETHE_EXIT_STOPPED);
	assert_int_equal(guest.exit[0].stop, LETHE_STOP_LOST_PAGE);
	assert_int_equal(guest.exit[0].gpa, at);
	assert_true(guest.exit[0].text[0] != '\0');
}

static void test_modified(void **unused)
{
	attack(FAULT_MODIFIED);
}

static void test_old(void **unused)
{
	attack(FAULT_OLD);
}

static void test_swapped(void **unused)
{
	attack(FAULT_SWAPPED);
}

static void test_missing(void **unused)
{
	attack(FAULT_MISSING);
}

static void test_unreadable(void **unused)
{
	attack(FAULT_GET);
}

/* ---- stores that have a bad day ---- */

static void test_unreadable_for_a_while(void **unused)
{
	start("protect\nwrite 2M 1M\nprint written\ncheck 2M 1M\nprint checked\n");
	run_to("written");
	guest_out(&guest, 2 * MIB, MIB);
	test_store_fault(store, FAULT_GET, 2 * MIB + 5 * PAGE, 3);
	run_to("checked");
	assert_int_equal(test_store_seen(store).fault, FAULT_NONE);
}

static void test_full(void **unused)
{
	uint64_t pages = 77;

	start("protect\nwrite 2M 4M\nprint written\ncheck 2M 4M\nprint checked\n"
	      "check 2M 4M\nprint again\n");
	run_to("written");
	test_store_fault(store, FAULT_PUT, 3 * MIB + 5 * PAGE, 0);
	assert_int_equal(lethe_page_out(guest.vm, 2 * MIB, 4 * MIB, &pages), -ENOSPC);
	assert_int_equal(pages, 77);
	/* What was put before is out, the rest is where it was. */
	assert_states(2 * MIB, MIB, LETHE_GFN_PAGED_OUT);
	assert_states(3 * MIB, 3 * MIB, LETHE_GFN_SECURE);
	run_to("checked");
	test_store_fault(store, FAULT_NONE, 0, 0);
	assert_int_equal(guest_out(&guest, 2 * MIB, 4 * MIB), 1024);
	run_to("again");
}

struct run {
	pthread_t thread;
	unsigned int vcpu;
	const char *text;
};

static void *run_vcpu(void *arg)
{
	struct run *r = arg;

	guest_run_to(&guest, r->vcpu, r->text);
	return NULL;
}

static void begin(struct run *r, unsigned int vcpu, const char *text)
{
	*r = (struct run){.vcpu = vcpu, .text = text};
	assert_int_equal(pthread_create(&r->thread, NULL, run_vcpu, r), 0);
}

/* A vCPU that waits for a slow page holds up nobody who wants another. */
static void test_slow_page(void **unused)
{
	struct run slow, quick;

	guest_start(&guest, 2,
		"vcpu 0\nprotect\nwrite 2M 4M\nprint written\ncheck 2M 4K\nprint slow\n"
		"vcpu 1\nprint there\ncheck 3M 2M\nwrite 3M 1M 3\nprint quick\n",
		LETHE_SHARE_AUTO, &store->ops);
	begin(&quick, 1, "there");
	run_to("written");
	pthread_join(quick.thread, NULL);
	assert_int_equal(guest_out(&guest, 2 * MIB, 4 * MIB), 1024);
	test_store_gates(store, 2 * MIB, true, false);
	begin(&slow, 0, "slow");
	test_store_await(store, 1);
	begin(&quick, 1, "quick");
	pthread_join(quick.thread, NULL);
	/* Nor does it hold up the hypervisor. */
	assert_in_range(guest_out(&guest, 3 * MIB, 2 * MIB), 512, 512);
	test_store_gates(store, 2 * MIB, false, false);
	pthread_join(slow.thread, NULL);
}

struct out {
	pthread_t thread;
	int err;
	uint64_t pages;
};

static void *out_one(void *arg)
{
	struct out *o = arg;

	o->err = lethe_page_out(guest.vm, 2 * MIB, MIB, &o->pages);
	return NULL;
}

/* Pages out one batch, and returns when it waits in the store. */
static void begin_out(struct out *o, enum fault fault)
{
	*o = (struct out){.err = 1};
	test_store_fault(store, fault, 2 * MIB, 0);
	test_store_gates(store, 2 * MIB, false, true);
	assert_int_equal(pthread_create(&o->thread, NULL, out_one, o), 0);
	test_store_await(store, 1);
}

static int end_out(struct out *o)
{
	test_store_gates(store, 2 * MIB, false, false);
	pthread_join(o->thread, NULL);
	return o->err;
}

/* Pages that are still being written are had from memory. */
static void test_slow_put(void **unused)
{
	struct out out;

	start("protect\nwrite 2M 1M\nprint written\ncheck 2M 1M\nwrite 2M 512K 3\nprint checked\n"
	      "check 2M 512K 3\ncheck 2560K 512K\nprint again\n");
	run_to("written");
	begin_out(&out, FAULT_NONE);
	assert_states(2 * MIB, MIB, LETHE_GFN_PAGED_OUT);
	run_to("checked");
	assert_int_equal(test_store_seen(store).gets, 0);
	assert_states(2 * MIB, MIB, LETHE_GFN_SECURE);
	assert_int_equal(end_out(&out), 0);
	assert_int_equal(out.pages, 256);
	/* What was put too late is not what comes back. */
	assert_int_equal(guest_out(&guest, 2 * MIB, MIB), 256);
	run_to("again");
}

/* Half of a batch came back while it was written, and then the store was full. */
static void test_slow_and_full(void **unused)
{
	struct out out;

	start("protect\nwrite 2M 1M\nprint written\nwrite 2M 512K 3\nprint half\n"
	      "check 2M 512K 3\ncheck 2560K 512K\nprint again\n");
	run_to("written");
	begin_out(&out, FAULT_PUT);
	run_to("half");
	assert_int_equal(end_out(&out), -ENOSPC);
	assert_states(2 * MIB, MIB, LETHE_GFN_SECURE);
	run_to("again");
}

/* A reboot does not wait for a store, nor does the next life meet what is still under way. */
static void test_reboot_during_a_put(void **unused)
{
	struct out out;

	start("protect\nwrite 2M 1M\nprint written\nreboot\nprotect\nwrite 2M 1M\nprint again\n"
	      "check 2M 1M\nprint checked\n");
	run_to("written");
	begin_out(&out, FAULT_NONE);
	assert_int_equal(guest_run(&guest, 0), LETHE_EXIT_REBOOT);
	guest_reboot(&guest);
	run_to("again");
	assert_int_equal(end_out(&out), -EPROTO);
	assert_int_equal(guest_out(&guest, 2 * MIB, MIB), 256);
	assert_int_equal(test_store_seen(store).drop_alls, 1);
	assert_int_equal(test_store_seen(store).kept, 256);
	run_to("checked");
}

static void *run_to_the_end(void *unused)
{
	assert_int_equal(guest_run(&guest, 0), LETHE_EXIT_CLOSED);
	return NULL;
}

/* A store that does not come back holds up the end of the VM for a moment only. */
static void test_hung_store(void **unused)
{
	pthread_t vcpu;

	start("protect\nwrite 2M 1M\nprint written\ncheck 2M 1M\nprint never\n");
	run_to("written");
	assert_int_equal(guest_out(&guest, 2 * MIB, MIB), 256);
	test_store_gates(store, TEST_STORE_ANY, true, false);
	assert_int_equal(pthread_create(&vcpu, NULL, run_to_the_end, NULL), 0);
	test_store_await(store, 1);
	assert_int_equal(lethe_vm_stop(guest.vm), 0);
	pthread_join(vcpu, NULL);
	lethe_vm_close(guest.vm, true);
	pthread_mutex_lock(&store->lock);
	assert_false(store->closed);
	assert_int_equal(store->waiting, 1);
	pthread_mutex_unlock(&store->lock);
	/* When it does, it is closed. */
	test_store_gates(store, TEST_STORE_ANY, false, false);
	pthread_mutex_lock(&store->lock);
	while (!store->closed)
		pthread_cond_wait(&store->changed, &store->lock);
	pthread_mutex_unlock(&store->lock);
	/* For teardown. */
	guest_start(&guest, 1, "poweroff\n", LETHE_SHARE_AUTO, NULL);
}

/* ---- the file store, for real ---- */

static void test_file(void **unused)
{
	char path[64] = "/tmp/lethe-store-XXXXXX";
	struct lethe_page_store *file;
	struct stat st;
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(lethe_page_store_file(path, &file), 0);
	guest_start(&guest, 1,
		"protect\nwrite 2M 8M\nprint written\ncheck 2M 8M\nprint checked\n"
		"check 2M 8M\nprint again\n",
		LETHE_SHARE_AUTO, file);
	run_to("written");
	assert_int_equal(guest_out(&guest, 2 * MIB, 8 * MIB), 2048);
	assert_int_equal(stat(path, &st), 0);
	assert_in_range((uint64_t)st.st_blocks * 512, 8 * MIB, 9 * MIB);
	run_to("checked");
	assert_int_equal(guest_out(&guest, 2 * MIB, 8 * MIB), 2048);
	/* Gone: what was cut off cannot be had any more. */
	assert_int_equal(truncate(path, (off_t)(5 * MIB)), 0);
	assert_int_equal(guest_run(&guest, 0), LETHE_EXIT_STOPPED);
	assert_int_equal(guest.exit[0].stop, LETHE_STOP_LOST_PAGE);
	assert_int_equal(guest.exit[0].gpa, 5 * MIB);
	guest_end(&guest);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, 0);
	assert_int_equal(unlink(path), 0);
	/* For teardown. */
	start("poweroff\n");
}

/* ---- hotplug ---- */

#define PLUGGED (16 * MIB)
#define MOVED   (32 * MIB)

/* Refused, and it is as it was. */
static void assert_stays(void)
{
	enum lethe_gfn_state state;

	assert_int_equal(lethe_slot_remove(guest.vm, 1), -EBUSY);
	assert_int_equal(lethe_slot_move(guest.vm, 1, MOVED), -EBUSY);
	assert_int_equal(lethe_gfn_state(guest.vm, MOVED, &state), -ENOENT);
}

/* What this process has of the slot never shows what the guest does there. */
static void assert_mapping_is_empty(void)
{
	static const uint8_t zeros[PAGE];
	uint64_t bytes;
	void *hva;

	assert_int_equal(lethe_slot_mapping(guest.vm, 1, &hva, &bytes), 0);
	assert_int_equal(bytes, MIB);
	for (uint64_t o = 0; o < bytes; o += PAGE)
		assert_memory_equal((uint8_t *)hva + o, zeros, PAGE);
}

/* Added, used, out and in, given up bit by bit, moved, used again, removed. */
static void test_hotplug(void **unused)
{
	enum lethe_gfn_state state;
	uint8_t byte;

	start("protect\nprint add\nzero 16M 1M\nwrite 16M 1M 5\nprint written\ncheck 16M 1M 5\n"
	      "print checked\nrelease 16M 512K\nprint half\ncheck 16896K 512K 5\n"
	      "print still\nrelease 16896K 512K\nprint released\nzero 32M 1M\n"
	      "write 32M 1M 6\nprint moved\ncheck 32M 1M 6\nrelease 32M 1M\nprint done\n");
	run_to("add");
	assert_int_equal(lethe_slot_add(guest.vm, 1, PLUGGED, MIB), 0);
	assert_states(PLUGGED, MIB, LETHE_GFN_SECURE);
	assert_int_equal(lethe_slot_add(guest.vm, 2, PLUGGED, MIB), -EEXIST);
	run_to("written");
	assert_mapping_is_empty();
	assert_int_equal(lethe_mem_read(guest.vm, PLUGGED, &byte, 1), -EPERM);
	assert_int_equal(guest_out(&guest, PLUGGED, MIB), 256);
	assert_stays();
	assert_states(PLUGGED, MIB, LETHE_GFN_PAGED_OUT);
	run_to("checked");
	assert_int_equal(guest_out(&guest, PLUGGED, MIB), 256);
	run_to("half");
	assert_stays();
	assert_states(PLUGGED, MIB / 2, LETHE_GFN_NORMAL);
	assert_states(PLUGGED + MIB / 2, MIB / 2, LETHE_GFN_PAGED_OUT);
	run_to("still");
	assert_states(PLUGGED + MIB / 2, MIB / 2, LETHE_GFN_SECURE);
	run_to("released");
	assert_int_equal(lethe_slot_move(guest.vm, 1, MEMORY - PAGE), -EEXIST);
	assert_int_equal(lethe_slot_move(guest.vm, 1, 1), -EINVAL);
	assert_int_equal(lethe_slot_move(guest.vm, 1, (uint64_t)1 << 48), -ERANGE);
	assert_int_equal(lethe_slot_move(guest.vm, 2, MOVED), -ENOENT);
	assert_int_equal(lethe_slot_move(guest.vm, 32, MOVED), -ENOENT);
	assert_int_equal(lethe_slot_move(guest.vm, 1, MOVED), 0);
	assert_int_equal(lethe_gfn_state(guest.vm, PLUGGED, &state), -ENOENT);
	assert_states(MOVED, MIB, LETHE_GFN_SECURE);
	run_to("moved");
	assert_mapping_is_empty();
	assert_int_equal(guest_out(&guest, MOVED, MIB), 256);
	assert_int_equal(lethe_slot_remove(guest.vm, 1), -EBUSY);
	run_to("done");
	assert_int_equal(lethe_slot_remove(guest.vm, 1), 0);
	assert_int_equal(lethe_slot_remove(guest.vm, 1), -ENOENT);
	assert_int_equal(lethe_gfn_state(guest.vm, MOVED, &state), -ENOENT);
}

/* Memory comes and goes, and goes out, while another vCPU works on the rest. */
static void test_hotplug_beside_a_vcpu(void **unused)
{
	struct run other;

	guest_start(&guest, 2,
		"vcpu 0\nprotect\nprint secure\nloop 20\nprint add\nzero 16M 256K\n"
		"write 16M 256K 5\nprint written\ncheck 16M 256K 5\nrelease 16M 256K\n"
		"print released\nend\nprint done\n"
		"vcpu 1\nprint there\nwrite 2M 2M 7\nloop 200\ncheck 2M 2M 7\nend\n"
		"print done\n",
		LETHE_SHARE_AUTO, &store->ops);
	begin(&other, 1, "there");
	run_to("secure");
	pthread_join(other.thread, NULL);
	begin(&other, 1, "done");
	for (int round = 0; round < 20; round++) {
		run_to("add");
		assert_int_equal(lethe_slot_add(guest.vm, 1, PLUGGED, MIB / 4), 0);
		run_to("written");
		guest_out(&guest, 2 * MIB, MIB);
		assert_int_equal(guest_out(&guest, PLUGGED, MIB / 4), 64);
		assert_int_equal(lethe_slot_remove(guest.vm, 1), -EBUSY);
		run_to("released");
		assert_int_equal(lethe_slot_remove(guest.vm, 1), 0);
	}
	run_to("done");
	pthread_join(other.thread, NULL);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_out_and_in),
		TEST(test_everything_and_the_program_too),
		TEST(test_coldest),
		TEST(test_refusals),
		TEST(test_no_store),
		TEST(test_conversions),
		TEST(test_reboot_drops_everything),
		TEST(test_modified),
		TEST(test_old),
		TEST(test_swapped),
		TEST(test_missing),
		TEST(test_unreadable),
		TEST(test_unreadable_for_a_while),
		TEST(test_full),
		TEST(test_slow_page),
		TEST(test_slow_put),
		TEST(test_slow_and_full),
		TEST(test_reboot_during_a_put),
		TEST(test_hung_store),
		TEST(test_file),
		TEST(test_hotplug),
		TEST(test_hotplug_beside_a_vcpu),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
