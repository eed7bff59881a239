/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Changes of a guest's memory that fail in the middle: nothing has changed, or the VM stops,
 * but no page is lost without a word.
 *
 * The host is the test's, as far as it fails: mappings that go without the new one coming, no
 * memory for an attribute or for a table of the MMU.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "guest/workload.h"
#include "mmu/mmu.h"
#include "os/memfd.h"
#include "test/model/convert_model.h"
#include "uv/convert.h"
#include "uv/dispatch.h"
#include "uv/executor.h"
#include "uv/guestcall.h"
#include "uv/seal.h"

#define ALL    ((uint64_t)CM_PAGES << PAGE_SHIFT)
#define MIB    ((uint64_t)1 << 20)
#define EXTRA  4 /* a slot with whole 2M blocks in it */
#define PLACE  (4 * MIB)
#define BYTES  (4 * MIB)
#define FRAME  ((uint64_t)40) /* a page in the middle of slot 2 */
#define FRAMES ((uint64_t)8)

/* What fails, and how often. */
static struct {
	unsigned int attr_set, mremap, overlay, mend, forbid, slot_delete, vacate;
	uint64_t overlay_bytes; /* of overlays this long */
} host;

static bool fails(unsigned int *count)
{
	if (*count == 0)
		return false;
	--*count;
	return true;
}

int __wrap_attr_set(struct attr_map *map, struct gfn_range range, enum page_attr attr);
int __real_attr_set(struct attr_map *map, struct gfn_range range, enum page_attr attr);
void *__wrap_mremap(void *from, size_t old_size, size_t size, int flags, void *to);
void *__real_mremap(void *from, size_t old_size, size_t size, int flags, void *to);
void *__wrap_mmap64(void *at, size_t bytes, int prot, int flags, int fd, off_t offset);
void *__real_mmap64(void *at, size_t bytes, int prot, int flags, int fd, off_t offset);
int __wrap_window_forbid(const struct window *w, uint64_t offset, uint64_t bytes);
int __real_window_forbid(const struct window *w, uint64_t offset, uint64_t bytes);
int __wrap_window_vacate(const struct window *w, uint64_t offset, uint64_t bytes);
int __real_window_vacate(const struct window *w, uint64_t offset, uint64_t bytes);
int __wrap_mmu_slot_delete(struct mmu *mmu, unsigned int id);
int __real_mmu_slot_delete(struct mmu *mmu, unsigned int id);

int __wrap_attr_set(struct attr_map *map, struct gfn_range range, enum page_attr attr)
{
	return fails(&host.attr_set) ? -ENOMEM : __real_attr_set(map, range, attr);
}

/* As the kernel does when it has no memory for the new mapping. */
static void *take_away(void *at, size_t bytes)
{
	munmap(at, bytes);
	errno = ENOMEM;
	return MAP_FAILED;
}

void *__wrap_mremap(void *from, size_t old_size, size_t size, int flags, void *to)
{
	return fails(&host.mremap) ? take_away(to, size)
				   : __real_mremap(from, old_size, size, flags, to);
}

void *__wrap_mmap64(void *at, size_t bytes, int prot, int flags, int fd, off_t offset)
{
	bool over =
		fd >= 0 && at != NULL && (flags & MAP_FIXED) != 0 && bytes == host.overlay_bytes;
	bool mend = fd >= 0 && (flags & MAP_FIXED_NOREPLACE) == MAP_FIXED_NOREPLACE;

	if ((over && fails(&host.overlay)) || (mend && fails(&host.mend)))
		return take_away(at, bytes);
	return __real_mmap64(at, bytes, prot, flags, fd, offset);
}

int __wrap_window_forbid(const struct window *w, uint64_t offset, uint64_t bytes)
{
	return fails(&host.forbid) ? -ENOMEM : __real_window_forbid(w, offset, bytes);
}

/* As a kernel does that goes from mapping to mapping. */
int __wrap_window_vacate(const struct window *w, uint64_t offset, uint64_t bytes)
{
	if (!fails(&host.vacate))
		return __real_window_vacate(w, offset, bytes);
	assert_int_equal(__real_window_vacate(w, offset, PAGE_SIZE), 0);
	return -EINVAL;
}

int __wrap_mmu_slot_delete(struct mmu *mmu, unsigned int id)
{
	return fails(&host.slot_delete) ? -ENOMEM : __real_mmu_slot_delete(mmu, id);
}

/* ---- the VM ---- */

static struct cm cm;

static void begin(uint32_t flags)
{
	const struct abi_policy all = {
		.max_shared_bytes = ALL, .count = 1, .range = {{0, 2 * PLACE}}};

	memset(&host, 0, sizeof(host));
	host.overlay_bytes = FRAMES << PAGE_SHIFT;
	cm_begin(&cm, 1, flags);
	assert_int_equal(cm_policy(&cm, &all), ABI_ST_OK);
}

static void end(void)
{
	memset(&host, 0, sizeof(host));
	cm_end(&cm);
}

static struct uv_vcpu *vcpu(void)
{
	return &cm.vm.vcpu[0];
}

static void fill(uint64_t frame, uint64_t count)
{
	for (uint64_t p = frame; p < frame + count; p++) {
		for (unsigned int i = 0; i < PAGE_SIZE / 8; i++)
			cm_guest(&cm, p)[i] = workload_pattern(p, i, 0);
	}
}

static void assert_filled(const uint64_t *words, uint64_t frame)
{
	for (unsigned int i = 0; i < PAGE_SIZE / 8; i++)
		assert_int_equal(words[i], workload_pattern(frame, i, 0));
}

static void assert_kept(uint64_t frame, uint64_t count)
{
	for (uint64_t p = frame; p < frame + count; p++)
		assert_filled(cm_guest(&cm, p), p);
}

static int64_t convert(bool to_shared)
{
	return convert_by_guest(vcpu(), FRAME << PAGE_SHIFT, FRAMES << PAGE_SHIFT, to_shared);
}

static bool are(enum page_attr attr)
{
	return attr_all(cm.vm.attr, (struct gfn_range){gfn(FRAME), FRAMES}, attr);
}

static void assert_stopped_by_host(void)
{
	assert_int_equal(cm.vm.state.phase, PHASE_STOPPED);
	assert_int_equal(vcpu()->page->type, ABI_EXIT_STOPPED);
	assert_int_equal(vcpu()->page->arg[0], ABI_STOP_HOST);
}

static int slot_call(int (*call)(struct uv_vm *, const struct call *), unsigned int id,
	uint64_t gpa, uint64_t bytes, const int *fds)
{
	const union call_args args = {.slot = {.id = id, .gpa = gpa, .bytes = bytes}};
	const struct call c = {.args = &args, .fds = fds};

	return call(&cm.vm, &c);
}

static void add_extra(void)
{
	int fd = memfd_new("slot", BYTES);

	assert_int_equal(slot_call(call_slot_register, EXTRA, PLACE, BYTES, &fd), 0);
}

static int page_out(uint64_t gpa, uint64_t pages, uint64_t *ret_pages)
{
	const union call_args args = {.page_out = {gpa, pages << PAGE_SHIFT}};
	union call_result result = {.page_out = {0}};
	const struct call c = {.args = &args, .result = &result};
	int ret = call_page_out(&cm.vm, &c);

	*ret_pages = result.page_out.pages;
	return ret;
}

/* What the guest finds at @gpa: 0, or why nothing. */
static int touch(uint64_t gpa_to_touch)
{
	struct mmu_vcpu *m = vcpu()->exec;
	uint64_t unused;
	int ret = 0;

	mmu_vcpu_attach(m);
	mmu_vcpu_enter(m);
	if (mmu_vcpu_translate(m, gpa(gpa_to_touch), false, &unused) == NULL)
		ret = mmu_vcpu_error(m);
	mmu_vcpu_leave(m);
	mmu_vcpu_detach(m);
	return ret;
}

/* ---- releases ---- */

/* The sealed page in the middle stays one that has to be brought. */
static void test_release_that_finds_no_memory(void **state)
{
	const uint64_t sealed = PLACE + 5 * PAGE_SIZE;
	uint64_t pages;

	begin(0);
	add_extra();
	fill(PLACE >> PAGE_SHIFT, 16);
	assert_int_equal(page_out(sealed, 1, &pages), 0);
	assert_int_equal(pages, 1);
	assert_int_equal(touch(sealed), -ENODATA);
	host.attr_set = 1;
	assert_int_equal(convert_release(&cm.vm, PLACE, BYTES), -ENOMEM);
	assert_int_equal(touch(sealed + PAGE_SIZE), 0);
	assert_int_equal(touch(sealed), -ENODATA);
	assert_filled(cm_guest(&cm, PLACE >> PAGE_SHIFT), PLACE >> PAGE_SHIFT);
	end();
}

static void test_release_half_way(void **state)
{
	const uint64_t arg[4] = {FRAME << PAGE_SHIFT, FRAMES << PAGE_SHIFT};

	begin(0);
	fill(FRAME, FRAMES);
	host.forbid = 1;
	assert_true(guest_call(vcpu(), GUEST_CALL_RELEASE, arg, 0) == GUEST_CALL_ENDED);
	assert_stopped_by_host();
	end();
}

/* ---- conversions ---- */

static void test_share_over_a_hole(void **state)
{
	begin(ABI_VM_SHARE_MAPPED);
	fill(FRAME, FRAMES);
	host.overlay = 1;
	assert_int_equal(convert(true), 0);
	assert_int_equal(host.overlay, 0);
	assert_true(are(ATTR_MAPPED));
	assert_kept(FRAME, FRAMES);
	assert_filled(cm_shared(&cm, FRAME), FRAME);
	end();
}

/* The memfd as the content is copied to it: nothing of the guest's is gone then. */
static void test_share_without_a_view(void **state)
{
	begin(ABI_VM_SHARE_MAPPED);
	fill(FRAME, FRAMES);
	host.overlay = 1;
	host.overlay_bytes = range_bytes(cm_slot[2]);
	assert_int_equal(convert(true), -ABI_ST_NO_MEMORY);
	assert_int_equal(host.overlay, 0);
	assert_true(are(ATTR_PRIVATE));
	assert_kept(FRAME, FRAMES);
	end();
}

static void test_unshare_over_a_hole(void **state)
{
	begin(ABI_VM_SHARE_MAPPED);
	fill(FRAME, FRAMES);
	assert_int_equal(convert(true), 0);
	host.mremap = 1;
	assert_int_equal(convert(false), -ABI_ST_NO_MEMORY);
	assert_true(are(ATTR_MAPPED));
	assert_kept(FRAME, FRAMES);
	cm_shared(&cm, FRAME)[0] = 7;
	assert_int_equal(cm_guest(&cm, FRAME)[0], 7);
	assert_int_equal(cm.vm.mapped.count, 1);
	assert_int_equal(convert(false), 0);
	assert_true(are(ATTR_PRIVATE));
	assert_kept(FRAME + 1, FRAMES - 1);
	end();
}

static void test_hole_that_stays(void **state)
{
	for (int unshare = 0; unshare < 2; unshare++) {
		begin(ABI_VM_SHARE_MAPPED);
		fill(FRAME, FRAMES);
		if (unshare)
			assert_int_equal(convert(true), 0);
		host.overlay = !unshare;
		host.mremap = unshare;
		host.mend = 1;
		assert_true(convert(!unshare) == GUEST_CALL_ENDED);
		assert_stopped_by_host();
		end();
	}
}

/* ---- sealing ---- */

static bool was_locked;

static int look_at_lock(struct uv_vm *vm, unsigned int slot, struct gfn_range range)
{
	was_locked = pthread_rwlock_tryrdlock(&vm->memory) != 0;
	return -EOPNOTSUPP;
}

/* Or who has just settled a page would wait for the fault thread, which waits for a writer. */
static void test_no_reader_when_sealing_begins(void **state)
{
	struct executor x = executor_sw;
	uint64_t pages;

	begin(0);
	x.seal_begin = look_at_lock;
	cm.vm.executor = &x;
	assert_int_equal(page_out(0, 1, &pages), -EOPNOTSUPP);
	assert_true(was_locked);
	cm.vm.executor = &executor_sw;
	end();
}

/* The first of the pages is gone, in the clear as well as in the store. */
static void test_page_out_half_way(void **state)
{
	uint64_t pages;

	begin(0);
	fill(FRAME, FRAMES);
	host.vacate = 1;
	assert_int_equal(page_out(FRAME << PAGE_SHIFT, FRAMES, &pages), -ENOTRECOVERABLE);
	assert_int_equal(pages, 0);
	assert_stopped_by_host();
	end();
}

/* ---- slots ---- */

static void test_slot_that_cannot_be_taken(void **state)
{
	begin(0);
	add_extra();
	assert_int_equal(convert_release(&cm.vm, PLACE, BYTES), 0);
	host.slot_delete = 1;
	assert_int_equal(slot_call(call_slot_unregister, EXTRA, 0, 0, NULL), -ENOMEM);
	assert_true(cm.vm.slots.slot[EXTRA].used);
	assert_non_null(cm.vm.memory_of[EXTRA].window.base);
	assert_int_equal(touch(PLACE), -EACCES);

	host.attr_set = 1;
	assert_int_equal(slot_call(call_slot_unregister, EXTRA, 0, 0, NULL), -ENOMEM);
	assert_int_equal(touch(PLACE), -EACCES);

	assert_int_equal(slot_call(call_slot_unregister, EXTRA, 0, 0, NULL), 0);
	assert_int_equal(touch(PLACE), -ENOENT);
	end();
}

/* A conversion that the hypervisor keeps waiting is not done to the next slot there. */
static void test_slot_with_a_conversion_under_way(void **state)
{
	const struct gfn_range r = {gfn(PLACE >> PAGE_SHIFT), 1};

	begin(0);
	add_extra();
	assert_int_equal(pending_begin(&cm.vm.pending, 0, r), 0);
	assert_int_equal(convert_release(&cm.vm, PLACE, BYTES), 0);
	assert_int_equal(slot_call(call_slot_unregister, EXTRA, 0, 0, NULL), -EAGAIN);
	pending_end(&cm.vm.pending, 0);
	assert_int_equal(slot_call(call_slot_unregister, EXTRA, 0, 0, NULL), 0);
	end();
}

static int reset(void)
{
	union call_result result = {.perform = {0}};
	const struct call c = {.result = &result};

	return call_reset(&cm.vm, &c);
}

/* Nothing runs before the last incarnation's slot has gone. */
static void test_slot_that_stays_for_a_while(void **state)
{
	begin(0);
	add_extra();
	assert_int_equal(touch(PLACE), 0);
	host.slot_delete = CM_SLOTS + 1;
	assert_int_equal(reset(), 0);
	assert_int_equal(host.slot_delete, 0);
	host.slot_delete = 1;
	assert_int_equal(cm.vm.executor->reset(&cm.vm), -ENOMEM);
	assert_int_equal(cm.vm.executor->reset(&cm.vm), 0);
	assert_int_equal(touch(PLACE), -ENOENT);
	end();
}

/* ---- the switch ---- */

/* A guest that has been refused must not find its memory gone. */
static void test_switch_after_the_refusal(void **state)
{
	union call_result result = {.init_done = {0}};
	const struct call c = {.result = &result};

	begin(0);
	assert_int_equal(reset(), 0);
	add_extra();
	assert_int_equal(call_init_start(&cm.vm, &c), 0);
	/* As call_protect() leaves it when the hypervisor has refused. */
	cm.vm.state.phase = PHASE_RUNNING;
	assert_int_equal(call_init_done(&cm.vm, &c), -EPROTO);
	assert_int_equal(cm.vm.state.security, SECURITY_TRANSIENT);
	assert_int_equal(call_init_abort(&cm.vm, &c), 0);
	cm.vm.state.phase = PHASE_SETUP;
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_release_that_finds_no_memory),
		cmocka_unit_test(test_release_half_way),
		cmocka_unit_test(test_share_over_a_hole),
		cmocka_unit_test(test_share_without_a_view),
		cmocka_unit_test(test_unshare_over_a_hole),
		cmocka_unit_test(test_hole_that_stays),
		cmocka_unit_test(test_no_reader_when_sealing_begins),
		cmocka_unit_test(test_page_out_half_way),
		cmocka_unit_test(test_slot_that_cannot_be_taken),
		cmocka_unit_test(test_slot_with_a_conversion_under_way),
		cmocka_unit_test(test_slot_that_stays_for_a_while),
		cmocka_unit_test(test_switch_after_the_refusal),
	};

	if (seal_setup() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
