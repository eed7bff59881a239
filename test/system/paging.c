/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test/system/paging.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "abi/guestcall.h"
#include "guest/kvm_image.h"

void need(bool condition, const char *what, const char *file, int line)
{
	if (condition)
		return;
	fprintf(stderr, "%s:%d: %s (%s)\n", file, line, what, lethe_error());
	abort();
}

/* ---- stores ---- */

static struct test_store *of(struct lethe_page_store *store)
{
	return (struct test_store *)store;
}

/* A call for these pages begins: nothing else is under way for them.  Takes the lock. */
static void enter(struct test_store *s, uint64_t gpa, size_t count)
{
	pthread_mutex_lock(&s->lock);
	NEED(!s->closed && gpa % PAGE == 0 && count > 0 && gpa + count * PAGE <= STORED);
	s->inside++;
	for (size_t i = 0; i < count; i++) {
		NEED(!s->busy[gpa / PAGE + i]);
		s->busy[gpa / PAGE + i] = 1;
	}
}

static void leave(struct test_store *s, uint64_t gpa, size_t count)
{
	memset(&s->busy[gpa / PAGE], 0, count);
	s->inside--;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
}

static bool concerns(const struct test_store *s, uint64_t gpa, size_t count)
{
	return s->at == TEST_STORE_ANY || (s->at >= gpa && s->at < gpa + count * PAGE);
}

static void wait_at(struct test_store *s, const bool *gate, uint64_t gpa, size_t count)
{
	if (!*gate || !concerns(s, gpa, count))
		return;
	s->waiting++;
	pthread_cond_broadcast(&s->changed);
	while (*gate)
		pthread_cond_wait(&s->changed, &s->lock);
	s->waiting--;
}

/* Whether the fault shows now. */
static bool shows(struct test_store *s, enum fault fault, uint64_t gpa, size_t count)
{
	if (s->fault != fault || !concerns(s, gpa, count))
		return false;
	if (s->times > 0 && --s->times == 0)
		s->fault = FAULT_NONE;
	return true;
}

static int put(struct lethe_page_store *store, uint64_t gpa, const void *pages, size_t count)
{
	struct test_store *s = of(store);
	int ret = 0;

	NEED(count <= LETHE_STORE_RUN && (uintptr_t)pages % PAGE == 0);
	enter(s, gpa, count);
	wait_at(s, &s->put_gate, gpa, count);
	if (shows(s, FAULT_PUT, gpa, count))
		ret = -ENOSPC;
	for (size_t i = gpa / PAGE; i < gpa / PAGE + count && ret == 0; i++) {
		const uint8_t *page = (const uint8_t *)pages + i * PAGE - gpa;

		if (s->first[i * PAGE] == 0 &&
			memcmp(s->first + i * PAGE, s->first + i * PAGE + 1, PAGE - 1) == 0)
			memcpy(s->first + i * PAGE, page, PAGE);
		memcpy(s->pages + i * PAGE, page, PAGE);
		s->kept[i] = 1;
	}
	s->puts++;
	leave(s, gpa, count);
	return ret;
}

static void spoil(struct test_store *s, uint64_t gpa, uint8_t *pages, size_t count)
{
	uint8_t *page = pages + (s->at - gpa);

	if (shows(s, FAULT_MODIFIED, gpa, count))
		page[1234] ^= 4;
	if (shows(s, FAULT_OLD, gpa, count))
		memcpy(page, s->first + s->at, PAGE);
	if (shows(s, FAULT_SWAPPED, gpa, count))
		memcpy(page, s->pages + s->at + PAGE, PAGE);
	if (shows(s, FAULT_MISSING, gpa, count))
		memset(page, 0, PAGE);
}

static int get(struct lethe_page_store *store, uint64_t gpa, void *pages, size_t count)
{
	struct test_store *s = of(store);
	int ret = 0;

	NEED((uintptr_t)pages % PAGE == 0);
	enter(s, gpa, count);
	for (size_t i = 0; i < count; i++)
		NEED(s->kept[gpa / PAGE + i]);
	wait_at(s, &s->get_gate, gpa, count);
	memcpy(pages, s->pages + gpa, count * PAGE);
	spoil(s, gpa, pages, count);
	if (shows(s, FAULT_GET, gpa, count))
		ret = -EIO;
	s->gets++;
	leave(s, gpa, count);
	return ret;
}

static void drop(struct lethe_page_store *store, uint64_t gpa, size_t count)
{
	struct test_store *s = of(store);

	enter(s, gpa, count);
	memset(&s->kept[gpa / PAGE], 0, count);
	s->drops++;
	leave(s, gpa, count);
}

static void drop_all(struct lethe_page_store *store)
{
	struct test_store *s = of(store);

	pthread_mutex_lock(&s->lock);
	NEED(!s->closed && s->inside == 0);
	memset(s->kept, 0, sizeof(s->kept));
	s->drop_alls++;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
}

static void close_store(struct lethe_page_store *store)
{
	struct test_store *s = of(store);

	pthread_mutex_lock(&s->lock);
	NEED(!s->closed && s->inside == 0);
	s->closed = true;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
}

static uint8_t *new_memory(void)
{
	void *p = mmap(NULL, STORED, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	NEED(p != MAP_FAILED);
	return p;
}

struct test_store *test_store_new(void)
{
	struct test_store *s = calloc(1, sizeof(*s));

	NEED(s != NULL);
	s->ops = (struct lethe_page_store){"test", put, get, drop, drop_all, close_store};
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->changed, NULL);
	s->pages = new_memory();
	s->first = new_memory();
	return s;
}

void test_store_free(struct test_store *s)
{
	NEED(s->closed);
	munmap(s->pages, STORED);
	munmap(s->first, STORED);
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->changed);
	free(s);
}

void test_store_fault(struct test_store *s, enum fault fault, uint64_t at, unsigned int times)
{
	pthread_mutex_lock(&s->lock);
	s->fault = fault;
	s->at = at;
	s->times = times;
	pthread_mutex_unlock(&s->lock);
}

void test_store_gates(struct test_store *s, uint64_t at, bool get_gate, bool put_gate)
{
	pthread_mutex_lock(&s->lock);
	s->at = at;
	s->get_gate = get_gate;
	s->put_gate = put_gate;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
}

void test_store_await(struct test_store *s, unsigned int count)
{
	pthread_mutex_lock(&s->lock);
	while (s->waiting != count)
		pthread_cond_wait(&s->changed, &s->lock);
	pthread_mutex_unlock(&s->lock);
}

struct test_store_seen test_store_seen(struct test_store *s)
{
	struct test_store_seen seen;

	pthread_mutex_lock(&s->lock);
	seen = (struct test_store_seen){.puts = s->puts,
		.gets = s->gets,
		.drops = s->drops,
		.drop_alls = s->drop_alls,
		.fault = s->fault};
	for (size_t i = 0; i < STORED / PAGE; i++)
		seen.kept += s->kept[i];
	pthread_mutex_unlock(&s->lock);
	return seen;
}

/* ---- guests ---- */

enum lethe_executor guest_executor = LETHE_EXECUTOR_SW;
uint64_t guest_memory = MEMORY;

_Static_assert(sizeof(struct lethe_cpu_state) == sizeof(struct abi_vcpu_state),
	"the registers of guest/kvm_image.h are the public ones");

/* The interpreter itself, which is a guest program of KVM. */
static void load_interpreter(struct guest *g)
{
	uint8_t *tables = malloc(GUEST_KVM_TABLES_MAX);
	size_t bytes = 0;

	NEED(tables != NULL && guest_kvm_tables(STORED, tables, &bytes) == 0);
	NEED(lethe_vm_load(g->vm, GUEST_KVM_TABLES_GPA, tables, bytes) == 0);
	free(tables);
	NEED(lethe_vm_load(g->vm, GUEST_KVM_IMAGE_GPA, guest_kvm_image, guest_kvm_image_size) == 0);
	for (unsigned int i = 0; i < g->vcpus; i++) {
		struct abi_vcpu_state from;
		struct lethe_cpu_state to;

		guest_kvm_state(i, &from);
		memcpy(&to, &from, sizeof(to));
		memset(to.reserved, 0, sizeof(to.reserved));
		NEED(lethe_vcpu_set_state(g->vm, i, &to) == 0);
	}
}

static void populate(struct guest *g)
{
	struct guest_text head = {.magic = GUEST_TEXT_MAGIC, .bytes = (uint32_t)strlen(g->text)};

	NEED(lethe_slot_add(g->vm, 0, 0, guest_memory) == 0);
	NEED(lethe_vm_load(g->vm, GUEST_TEXT_GPA, &head, sizeof(head)) == 0);
	NEED(lethe_vm_load(g->vm, GUEST_TEXT_GPA + sizeof(head), g->text, head.bytes) == 0);
	if (guest_executor == LETHE_EXECUTOR_KVM)
		load_interpreter(g);
	NEED(lethe_vm_start(g->vm, NULL) == 0);
}

void guest_start(struct guest *g, unsigned int vcpus, const char *text, enum lethe_share share,
	struct lethe_page_store *store)
{
	const struct lethe_vm_config config = {.vcpus = vcpus,
		.executor = guest_executor,
		.share = share,
		.uv_path = getenv("LETHE_UV")};

	memset(g, 0, sizeof(*g));
	g->text = text;
	g->vcpus = vcpus;
	NEED(vcpus <= sizeof(g->exit) / sizeof(g->exit[0]));
	NEED(lethe_vm_new(&config, &g->vm) == 0);
	if (store != NULL)
		NEED(lethe_vm_set_page_store(g->vm, store) == 0);
	populate(g);
}

enum lethe_exit_type guest_run(struct guest *g, unsigned int vcpu)
{
	struct lethe_exit *e = &g->exit[vcpu];

	for (;;) {
		NEED(lethe_vcpu_run(g->vm, vcpu, e) == 0);
		switch (e->type) {
		case LETHE_EXIT_PROTECT:
			NEED(lethe_vm_protect(g->vm, e->ranges, e->count, NULL) == 0);
			break;
		case LETHE_EXIT_CONVERT:
		case LETHE_EXIT_RELEASE:
			break;
		default:
			return e->type;
		}
	}
}

void guest_run_to(struct guest *g, unsigned int vcpu, const char *text)
{
	enum lethe_exit_type type = guest_run(g, vcpu);
	int status;

	if (type == LETHE_EXIT_CLOSED && lethe_vm_uv_status(g->vm, &status) == 0)
		fprintf(stderr, "lethe-uv ended, status %#x\n", (unsigned int)status);
	if (type != LETHE_EXIT_PRINT || strcmp(g->exit[vcpu].text, text) != 0)
		fprintf(stderr, "vCPU %u: exit %d, 0x%llx, '%s', not '%s'\n", vcpu, (int)type,
			(unsigned long long)g->exit[vcpu].gpa, g->exit[vcpu].text, text);
	NEED(type == LETHE_EXIT_PRINT && strcmp(g->exit[vcpu].text, text) == 0);
}

void guest_reboot(struct guest *g)
{
	struct lethe_destroy_result result;
	uint64_t incarnation, resident;

	NEED(lethe_destroy_prepare(g->vm, &incarnation, &resident) == 0);
	populate(g);
	NEED(lethe_destroy_perform(g->vm, &result) == 0);
}

void guest_end(struct guest *g)
{
	NEED(lethe_vm_stop(g->vm) == 0);
	lethe_vm_close(g->vm, true);
}

uint64_t guest_out(struct guest *g, uint64_t at, uint64_t bytes)
{
	uint64_t pages = 0;

	NEED(lethe_page_out(g->vm, at, bytes, &pages) == 0);
	return pages;
}

enum lethe_gfn_state guest_state(struct guest *g, uint64_t at)
{
	enum lethe_gfn_state state;

	NEED(lethe_gfn_state(g->vm, at, &state) == 0);
	return state;
}
