/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Every uv call in every situation of a VM, well and badly formed: the answer is the
 * documented one, a refused call changes nothing, and one that is allowed leads where it
 * should.
 *
 * What is expected comes from ABI_CALL_TABLE (who may call what when) and expect(), which
 * says for the calls that the table lets through what the rest of the documentation says.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/memfd.h"
#include "test/system/uv_client.h"

#define MEMORY (4 * MIB)
#define NAMED  (2 * MIB) /* a page that the guest names in PROTECT */

/* ---- situations ---- */

static void reach_new(struct uvc *c)
{
	uvc_spawn(c);
}

static void reach_greeted(struct uvc *c)
{
	uvc_spawn(c);
	assert_int_equal(uvc_hello(c), ABI_ST_OK);
}

static void reach_setup_normal(struct uvc *c)
{
	uvc_begin(c, 1, 0, MEMORY);
	uvc_load(c, "print here\n");
}

static void reach_setup_transient(struct uvc *c)
{
	reach_setup_normal(c);
	assert_int_equal(uvc_call0(c, ABI_CALL_INIT_START, NULL, 0), ABI_ST_OK);
}

static void reach_setup_secure(struct uvc *c)
{
	reach_setup_normal(c);
	uvc_protect(c, LOW);
}

/* Starts @text and waits for its exit of @type, which stays unanswered. */
static void start(struct uvc *c, const char *text, uint32_t type, struct abi_vcpu_page *ret)
{
	uvc_begin(c, 1, 0, MEMORY);
	uvc_load(c, text);
	uvc_start(c);
	uvc_run_until(c, type, ret);
}

static void reach_running_normal(struct uvc *c)
{
	struct abi_vcpu_page page;

	reach_setup_normal(c);
	uvc_start(c);
	uvc_exit(c, 0, &page);
	assert_int_equal(page.type, ABI_EXIT_PRINT);
}

static void reach_running_asked(struct uvc *c)
{
	struct abi_vcpu_page page;

	start(c, "protect 2M 4K\nprint here\n", ABI_EXIT_PROTECT, &page);
}

static void reach_running_transient(struct uvc *c)
{
	reach_running_asked(c);
	assert_int_equal(uvc_call0(c, ABI_CALL_INIT_START, NULL, 0), ABI_ST_OK);
}

static void reach_running_secure(struct uvc *c)
{
	struct abi_vcpu_page page;

	start(c, "protect 2M 4K\nprint here\n", ABI_EXIT_PROTECT, &page);
	uvc_protect_asked(c, &page);
	uvc_exit(c, 0, &page);
	assert_int_equal(page.type, ABI_EXIT_PRINT);
}

static void reach_stopped_normal(struct uvc *c)
{
	struct abi_vcpu_page page;

	start(c, "poweroff\n", ABI_EXIT_POWEROFF, &page);
}

static void reach_stopped_secure(struct uvc *c)
{
	struct abi_vcpu_page page;

	start(c, "protect 2M 4K\npoweroff\n", ABI_EXIT_PROTECT, &page);
	uvc_protect_asked(c, &page);
	uvc_run_until(c, ABI_EXIT_POWEROFF, &page);
}

static void reach_set_aside(struct uvc *c)
{
	reach_stopped_secure(c);
	assert_int_equal(uvc_call0(c, ABI_CALL_PREPARE, NULL, 0), ABI_ST_OK);
	uvc_slots_drop(c);
}

static void reach_set_aside_secure(struct uvc *c)
{
	reach_set_aside(c);
	assert_int_equal(uvc_slot_add(c, 0, 0, MEMORY), ABI_ST_OK);
	uvc_load(c, "print here\n");
	uvc_protect(c, LOW);
}

struct situation {
	const char *name;
	void (*reach)(struct uvc *c);
	uint32_t phase, security;
	bool memory;    /* slot 0 is there */
	bool asked;     /* the guest waits for the answer to PROTECT */
	bool set_aside; /* an incarnation whose destruction has not begun */
};

static const struct situation situations[] = {
	{"new", reach_new, ABI_PHASE_NEW, ABI_SEC_NORMAL, .memory = false},
	{"greeted", reach_greeted, ABI_PHASE_GREETED, ABI_SEC_NORMAL, .memory = false},
	{"setup, normal", reach_setup_normal, ABI_PHASE_SETUP, ABI_SEC_NORMAL, .memory = true},
	{"setup, transient", reach_setup_transient, ABI_PHASE_SETUP, ABI_SEC_TRANSIENT,
		.memory = true},
	{"setup, secure", reach_setup_secure, ABI_PHASE_SETUP, ABI_SEC_SECURE, .memory = true},
	{"running, normal", reach_running_normal, ABI_PHASE_RUNNING, ABI_SEC_NORMAL,
		.memory = true},
	{"running, asked to protect", reach_running_asked, ABI_PHASE_RUNNING, ABI_SEC_NORMAL,
		.memory = true, .asked = true},
	{"running, transient", reach_running_transient, ABI_PHASE_RUNNING, ABI_SEC_TRANSIENT,
		.memory = true, .asked = true},
	{"running, secure", reach_running_secure, ABI_PHASE_RUNNING, ABI_SEC_SECURE,
		.memory = true},
	{"stopped, normal", reach_stopped_normal, ABI_PHASE_STOPPED, ABI_SEC_NORMAL,
		.memory = true},
	{"stopped, secure", reach_stopped_secure, ABI_PHASE_STOPPED, ABI_SEC_SECURE,
		.memory = true},
	{"one set aside", reach_set_aside, ABI_PHASE_SETUP, ABI_SEC_NORMAL, .set_aside = true},
	{"one set aside, the next secure", reach_set_aside_secure, ABI_PHASE_SETUP, ABI_SEC_SECURE,
		.memory = true, .set_aside = true},
};

/* ---- calls ---- */

struct row {
	const char *name;
	uint32_t nr, phases, securities;
	size_t args_size, result_size;
	unsigned int fds;
};

static const struct row rows[] = {
#define X(name, number, args, result, fds, phases, securities) \
	{#name, number, phases, securities, sizeof(struct args), sizeof(struct result), fds},
	ABI_CALL_TABLE(X)
#undef X
};

union args {
	struct abi_none none;
	struct abi_hello hello;
	struct abi_vm_create vm_create;
	struct abi_slot slot;
	struct abi_page_in page_in;
	struct abi_mem mem;
	struct abi_vcpu_state vcpu_state;
	struct abi_irq_line irq_line;
	struct abi_page_out page_out;
	struct abi_page_in_sealed page_in_sealed;
	struct abi_page_lost page_lost;
	struct abi_slot_move slot_move;
	struct abi_coldest coldest;
	struct abi_policy policy;
	struct abi_audit audit;
	uint8_t bytes[1024]; /* room for an argument struct that is too long */
};

/* Well-formed arguments of call @nr. */
static union args valid_args(uint32_t nr)
{
	union args a = {.bytes = {0}};

	switch (nr) {
	case ABI_CALL_HELLO:
		a.hello.version = ABI_VERSION;
		break;
	case ABI_CALL_VM_CREATE:
		a.vm_create = (struct abi_vm_create){.vcpus = 1, .executor = ABI_EXEC_SW};
		break;
	case ABI_CALL_SLOT_REGISTER:
		a.slot = (struct abi_slot){.id = 1, .gpa = 16 * MIB, .bytes = MIB};
		break;
	case ABI_CALL_PAGE_IN:
		a.page_in = (struct abi_page_in){.gpa = NAMED, .bytes = 4096};
		break;
	case ABI_CALL_MEM_READ:
	case ABI_CALL_MEM_WRITE:
		a.mem = (struct abi_mem){.gpa = NAMED + 5, .bytes = 100};
		break;
	case ABI_CALL_PAGE_OUT:
		a.page_out = (struct abi_page_out){.gpa = NAMED, .bytes = 4096};
		break;
	case ABI_CALL_PAGE_IN_SEALED:
		a.page_in_sealed =
			(struct abi_page_in_sealed){.gpa = NAMED, .bytes = 4096, .present = {1}};
		break;
	case ABI_CALL_PAGE_LOST:
		a.page_lost.gpa = NAMED;
		break;
	case ABI_CALL_SLOT_MOVE:
		a.slot_move.gpa = 64 * MIB;
		break;
	case ABI_CALL_COLDEST:
		a.coldest.bytes = 4096;
		break;
	default:
		break;
	}
	return a;
}

/* Where in the arguments of call @nr the reserved field is; -1: none. */
static int reserved_at(uint32_t nr)
{
	switch (nr) {
	case ABI_CALL_HELLO:
		return offsetof(struct abi_hello, reserved);
	case ABI_CALL_VM_CREATE:
		return offsetof(struct abi_vm_create, reserved);
	case ABI_CALL_SLOT_REGISTER:
	case ABI_CALL_SLOT_UNREGISTER:
		return offsetof(struct abi_slot, reserved);
	case ABI_CALL_MEM_READ:
	case ABI_CALL_MEM_WRITE:
		return offsetof(struct abi_mem, reserved);
	case ABI_CALL_VCPU_STATE:
		return offsetof(struct abi_vcpu_state, reserved);
	case ABI_CALL_SLOT_MOVE:
		return offsetof(struct abi_slot_move, reserved);
	case ABI_CALL_POLICY:
		return offsetof(struct abi_policy, reserved);
	case ABI_CALL_AUDIT:
		return offsetof(struct abi_audit, reserved);
	case ABI_CALL_PAGE_IN:
	case ABI_CALL_IRQ_LINE:
	case ABI_CALL_PAGE_OUT:
	case ABI_CALL_PAGE_IN_SEALED:
	case ABI_CALL_PAGE_LOST:
	case ABI_CALL_COLDEST:
		return -1;
	default:
		return offsetof(struct abi_none, reserved);
	}
}

/* The status of well-formed call @nr, which the table allows in @s. */
static uint32_t expect(const struct situation *s, uint32_t nr)
{
	bool running = s->phase == ABI_PHASE_RUNNING;
	bool secure = s->security == ABI_SEC_SECURE;

	switch (nr) {
	case ABI_CALL_SLOT_UNREGISTER:
	case ABI_CALL_SLOT_MOVE:
		/* Nothing was released, and memory never vanishes under a running guest. */
		return !s->memory ? ABI_ST_NOT_FOUND : running || secure ? ABI_ST_BUSY : ABI_ST_OK;
	case ABI_CALL_INIT_START:
		if (running && !s->asked)
			return ABI_ST_WRONG_STATE;
		return s->memory ? ABI_ST_OK : ABI_ST_NOT_FOUND;
	case ABI_CALL_INIT_DONE:
		/* The guest named pages that were not taken in. */
		return running ? ABI_ST_NOT_FOUND : ABI_ST_OK;
	case ABI_CALL_PREPARE:
		if (running)
			return ABI_ST_BUSY;
		if (!secure)
			return ABI_ST_NOTHING;
		return s->set_aside ? ABI_ST_PENDING : ABI_ST_OK;
	case ABI_CALL_PERFORM:
		return s->set_aside ? ABI_ST_OK : ABI_ST_NOTHING;
	case ABI_CALL_CANCEL:
		return ABI_ST_NOTHING;
	case ABI_CALL_RESET:
		return running ? ABI_ST_BUSY : ABI_ST_OK;
	case ABI_CALL_MEM_READ:
	case ABI_CALL_MEM_WRITE:
		return !s->memory ? ABI_ST_NOT_FOUND : secure ? ABI_ST_DENIED : ABI_ST_OK;
	case ABI_CALL_AUDIT:
		return s->memory ? ABI_ST_OK : ABI_ST_NOT_FOUND;
	case ABI_CALL_PAGE_LOST:
		return ABI_ST_NOTHING; /* is sealed */
	case ABI_CALL_VCPU_STATE:
	case ABI_CALL_IRQ_LINE:
		return ABI_ST_NOT_SUPPORTED; /* by the software executor */
	default:
		return ABI_ST_OK;
	}
}

/* Where call @nr, having succeeded in @s, leads. */
static void expect_next(
	const struct situation *s, uint32_t nr, uint32_t *ret_phase, uint32_t *ret_security)
{
	*ret_phase = s->phase;
	*ret_security = s->security;
	switch (nr) {
	case ABI_CALL_VM_CREATE:
		*ret_phase = ABI_PHASE_SETUP;
		break;
	case ABI_CALL_INIT_START:
		*ret_security = ABI_SEC_TRANSIENT;
		break;
	case ABI_CALL_INIT_DONE:
		*ret_security = ABI_SEC_SECURE;
		break;
	case ABI_CALL_INIT_ABORT:
		*ret_security = ABI_SEC_NORMAL;
		break;
	case ABI_CALL_VM_START:
		*ret_phase = ABI_PHASE_RUNNING;
		break;
	case ABI_CALL_VM_STOP:
		*ret_phase = ABI_PHASE_STOPPED;
		if (s->security == ABI_SEC_TRANSIENT)
			*ret_security = ABI_SEC_NORMAL;
		break;
	case ABI_CALL_PREPARE:
	case ABI_CALL_RESET:
		*ret_phase = ABI_PHASE_SETUP;
		*ret_security = ABI_SEC_NORMAL;
		break;
	default:
		break;
	}
}

/* ---- sending one ---- */

/* Descriptors that call @nr accepts, of a VM that is yet to be made if @c has none. */
static unsigned int make_fds(struct uvc *c, const struct row *row, int fds[4])
{
	if (row->nr == ABI_CALL_VM_CREATE && c->folder_fd < 0) {
		uvc_make_shared(c, 1, fds);
	} else {
		for (unsigned int i = 0; i < row->fds; i++)
			fds[i] = memfd_new("any", MIB);
	}
	return row->fds;
}

static uint32_t call(struct uvc *c, const struct row *row, const union args *args, size_t size,
	const int *fds, unsigned int nfds)
{
	struct uvc_answer a = {0};
	uint32_t status = uvc_answer(c, uvc_send(c, row->nr, args, size, fds, nfds), &a);

	assert_int_not_equal(status, UVC_GONE);
	assert_int_equal(a.head.size, status == ABI_ST_OK ? row->result_size : 0);
	return status;
}

static void assert_state(struct uvc *c, uint32_t phase, uint32_t security)
{
	struct abi_info_ret info;

	if ((phase & ABI_PHASE_VM) == 0) {
		assert_int_equal(
			uvc_call0(c, ABI_CALL_INFO, &info, sizeof(info)), ABI_ST_WRONG_STATE);
		return;
	}
	info = uvc_info(c);
	assert_int_equal(info.phase, phase);
	assert_int_equal(info.security, security);
}

/* All that is malformed about call @row, one at a time. */
static void send_malformed(struct uvc *c, const struct row *row)
{
	const union args args = valid_args(row->nr);
	union args bad = args;
	int fds[5] = {-1, -1, -1, -1, -1};

	for (unsigned int i = 0; i < 5; i++)
		fds[i] = memfd_new("any", MIB);
	assert_int_equal(call(c, row, &args, row->args_size - 8, fds, row->fds), ABI_ST_INVALID);
	assert_int_equal(call(c, row, &args, 0, fds, row->fds), ABI_ST_INVALID);
	/* What is longer than any call's arguments is no packet: uv_life_test.c. */
	if (row->nr != ABI_CALL_POLICY)
		assert_int_equal(
			call(c, row, &args, row->args_size + 8, fds, row->fds), ABI_ST_INVALID);
	assert_int_equal(call(c, row, &args, row->args_size, fds, row->fds + 1), ABI_ST_INVALID);
	if (row->fds > 0)
		assert_int_equal(
			call(c, row, &args, row->args_size, fds, row->fds - 1), ABI_ST_INVALID);
	if (reserved_at(row->nr) >= 0) {
		bad.bytes[reserved_at(row->nr)] = 1;
		assert_int_equal(call(c, row, &bad, row->args_size, fds, row->fds), ABI_ST_INVALID);
	}
	for (unsigned int i = 0; i < 5; i++)
		close(fds[i]);
}

static bool table_allows(const struct situation *s, const struct row *row)
{
	return (row->phases & s->phase) != 0 && (row->securities & s->security) != 0;
}

/* Sends @row well-formed and returns the answer. */
static uint32_t send_valid(struct uvc *c, const struct row *row)
{
	const union args args = valid_args(row->nr);
	bool keep = row->nr == ABI_CALL_VM_CREATE && c->folder_fd < 0;
	unsigned int nfds;
	uint32_t status;
	int fds[4];

	nfds = make_fds(c, row, fds);
	status = call(c, row, &args, row->args_size, fds, nfds);
	for (unsigned int i = 0; i < nfds && !keep; i++)
		close(fds[i]);
	return status;
}

static bool changes_something(const struct situation *s, const struct row *row)
{
	return table_allows(s, row) && expect(s, row->nr) == ABI_ST_OK;
}

/* ---- tests ---- */

/* One VM per situation: nothing that is refused changes it. */
static void test_refusals(void **state)
{
	for (size_t i = 0; i < COUNT(situations); i++) {
		const struct situation *s = &situations[i];
		struct uvc c;

		s->reach(&c);
		for (size_t r = 0; r < COUNT(rows); r++) {
			send_malformed(&c, &rows[r]);
			if (changes_something(s, &rows[r]))
				continue;
			print_message("%s: %s\n", s->name, rows[r].name);
			assert_int_equal(send_valid(&c, &rows[r]), table_allows(s, &rows[r])
									   ? expect(s, rows[r].nr)
									   : ABI_ST_WRONG_STATE);
		}
		assert_int_equal(uvc_call0(&c, 0, NULL, 0), ABI_ST_UNKNOWN_CALL);
		assert_int_equal(uvc_call0(&c, 25, NULL, 0), ABI_ST_UNKNOWN_CALL);
		assert_int_equal(uvc_call0(&c, UINT32_MAX, NULL, 0), ABI_ST_UNKNOWN_CALL);
		assert_state(&c, s->phase, s->security);
		uvc_end(&c);
	}
}

/* A guest without memory does not come far. */
static void assert_stops(struct uvc *c)
{
	struct abi_vcpu_page page;

	uvc_exit(c, 0, &page);
	assert_int_equal(page.type, ABI_EXIT_STOPPED);
	assert_int_equal(page.arg[0], ABI_STOP_VIOLATION);
}

/* A VM for each call that is allowed. */
static void test_effects(void **state)
{
	for (size_t i = 0; i < COUNT(situations); i++) {
		const struct situation *s = &situations[i];

		for (size_t r = 0; r < COUNT(rows); r++) {
			uint32_t phase, security;
			struct uvc c;

			if (!changes_something(s, &rows[r]))
				continue;
			print_message("%s: %s\n", s->name, rows[r].name);
			s->reach(&c);
			assert_int_equal(send_valid(&c, &rows[r]), ABI_ST_OK);
			expect_next(s, rows[r].nr, &phase, &security);
			if (rows[r].nr == ABI_CALL_VM_START && !s->memory) {
				assert_stops(&c);
				phase = ABI_PHASE_STOPPED;
			}
			if (rows[r].nr != ABI_CALL_HELLO)
				assert_state(&c, phase, security);
			uvc_end(&c);
		}
	}
}

static void test_another_version(void **state)
{
	static const uint32_t others[] = {0, ABI_VERSION + 1, UINT32_MAX};
	struct uvc c;

	uvc_spawn(&c);
	for (size_t i = 0; i < COUNT(others); i++) {
		const struct abi_hello hello = {.version = others[i]};
		struct abi_hello_ret ret = {0};

		assert_int_equal(uvc_call(&c, ABI_CALL_HELLO, &hello, sizeof(hello), NULL, 0, &ret,
					 sizeof(ret)),
			ABI_ST_VERSION);
		assert_int_equal(ret.version, ABI_VERSION);
		assert_true(ret.pid > 0);
	}
	assert_int_equal(uvc_hello(&c), ABI_ST_OK);
	assert_int_equal(uvc_hello(&c), ABI_ST_WRONG_STATE);
	uvc_end(&c);
}

static uint32_t create(struct uvc *c, uint32_t vcpus, uint32_t executor, uint32_t flags, int *fds)
{
	const struct abi_vm_create args = {.vcpus = vcpus, .executor = executor, .flags = flags};

	return uvc_call(c, ABI_CALL_VM_CREATE, &args, sizeof(args), fds, 4, NULL, 0);
}

/* Refused creations leave a connection in which a good one succeeds. */
static void test_create(void **state)
{
	static const char *const names[] = {"", ".", "..", ".hidden", "a/b", "/"};
	struct uvc c;
	int fds[4];

	reach_greeted(&c);
	uvc_make_shared(&c, 2, fds);
	assert_int_equal(create(&c, 0, ABI_EXEC_SW, 0, fds), ABI_ST_INVALID);
	assert_int_equal(create(&c, ABI_MAX_VCPUS + 1, ABI_EXEC_SW, 0, fds), ABI_ST_INVALID);
	assert_int_equal(create(&c, 2, 0, 0, fds), ABI_ST_NOT_SUPPORTED);
	assert_int_equal(create(&c, 2, 3, 0, fds), ABI_ST_NOT_SUPPORTED);
	assert_int_equal(create(&c, 2, ABI_EXEC_SW, 64, fds), ABI_ST_INVALID);
	assert_int_equal(create(&c, 2, ABI_EXEC_SW, ABI_VM_SHARE_MAPPED | ABI_VM_SHARE_AUTO, fds),
		ABI_ST_INVALID);
	assert_int_equal(create(&c, 2, ABI_EXEC_SW, 1u << 31, fds), ABI_ST_INVALID);
	assert_int_equal(create(&c, 2, ABI_EXEC_SW, ABI_VM_PC, fds), ABI_ST_INVALID);
	/* Fewer exit pages than vCPUs. */
	assert_int_equal(create(&c, 3, ABI_EXEC_SW, 0, fds), ABI_ST_INVALID);
	for (size_t i = 0; i < COUNT(names); i++) {
		snprintf(c.status->name, sizeof(c.status->name), "%s", names[i]);
		assert_int_equal(create(&c, 2, ABI_EXEC_SW, 0, fds), ABI_ST_INVALID);
	}
	snprintf(c.status->name, sizeof(c.status->name), "test");
	/* Each descriptor in the place of another: a folder is no memfd, and so on. */
	for (unsigned int i = 0; i < 4; i++) {
		int wrong[4];

		memcpy(wrong, fds, sizeof(wrong));
		wrong[i] = i == 3 ? c.status_fd : c.folder_fd;
		assert_int_equal(create(&c, 2, ABI_EXEC_SW, 0, wrong), ABI_ST_INVALID);
	}
	assert_int_equal(create(&c, 2, ABI_EXEC_SW, 0, fds), ABI_ST_OK);
	assert_int_equal(c.status->magic, ABI_STATUS_MAGIC);
	assert_int_equal(c.status->uv_pid, c.pid);
	assert_int_equal(c.status->vcpus, 2);
	uvc_end(&c);
}

static void test_vcpu_numbers(void **state)
{
	struct abi_vcpu_state args = {.vcpu = 1};
	struct abi_irq_line line = {.irq = 24};
	struct uvc c;

	reach_setup_normal(&c);
	assert_int_equal(uvc_call(&c, ABI_CALL_VCPU_STATE, &args, sizeof(args), NULL, 0, NULL, 0),
		ABI_ST_INVALID);
	assert_int_equal(uvc_call(&c, ABI_CALL_IRQ_LINE, &line, sizeof(line), NULL, 0, NULL, 0),
		ABI_ST_INVALID);
	line = (struct abi_irq_line){.irq = 1, .level = 2};
	assert_int_equal(uvc_call(&c, ABI_CALL_IRQ_LINE, &line, sizeof(line), NULL, 0, NULL, 0),
		ABI_ST_INVALID);
	uvc_end(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_effects),
		cmocka_unit_test(test_another_version),
		cmocka_unit_test(test_create),
		cmocka_unit_test(test_vcpu_numbers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
