/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test/unit/vmm/fake_lethe.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "os/clock.h"

struct fake fake;

struct lethe_vm {
	char name[64];
	unsigned int vcpus;
};

static struct lethe_vm the_vm;
static unsigned int script_length[FAKE_VCPUS];

/* Whether a step waits for the test's answer. */
static bool played[FAKE_VCPUS][FAKE_SCRIPT];

void fake_reset(void)
{
	memset(&fake, 0, sizeof(fake));
	memset(script_length, 0, sizeof(script_length));
	memset(played, 0, sizeof(played));
	pthread_mutex_init(&fake.lock, NULL);
	pthread_cond_init(&fake.changed, NULL);
}

struct lethe_exit *fake_exit(unsigned int vcpu, enum lethe_exit_type type)
{
	struct lethe_exit *exit = &fake.script[vcpu][script_length[vcpu]++].exit;

	exit->type = type;
	return exit;
}

void fake_death(unsigned int vcpu)
{
	fake.script[vcpu][script_length[vcpu]++].dies = true;
}

/* Counts a call of @function: 0, or the failure that the test wants. */
static int step(const char *function)
{
	if (!fake.fail_function || strcmp(fake.fail_function, function) != 0)
		return 0;
	if (fake.fail_after) {
		fake.fail_after--;
		return 0;
	}
	return -fake.fail_error;
}

/* The same, and counts a success in *count. */
static int counted_step(const char *function, unsigned int *count)
{
	int err;

	pthread_mutex_lock(&fake.lock);
	err = step(function);
	if (!err)
		++*count;
	pthread_mutex_unlock(&fake.lock);
	return err;
}

int lethe_vm_new(const struct lethe_vm_config *config, struct lethe_vm **ret_vm)
{
	int err = step("vm_new");

	if (err)
		return err;
	if (pipe(fake.death_pipe) != 0)
		return -errno;
	strcpy(the_vm.name, "fake");
	strcpy(fake.folder, "/tmp/lethe-fake-XXXXXX");
	if (!mkdtemp(fake.folder))
		return -errno;
	the_vm.vcpus = config->vcpus;
	fake.open++;
	*ret_vm = &the_vm;
	return 0;
}

const char *lethe_error(void)
{
	return "the fake was told to fail";
}

void lethe_vm_close(struct lethe_vm *vm, bool wait_destroyed)
{
	fake.open--;
	if (fake.store)
		fake.store->close(fake.store);
	fake.store = NULL;
	rmdir(fake.folder);
	close(fake.death_pipe[0]);
	if (!fake.dead)
		close(fake.death_pipe[1]);
}

const char *lethe_vm_name(const struct lethe_vm *vm)
{
	return vm->name;
}

const char *lethe_vm_folder(const struct lethe_vm *vm)
{
	return fake.folder;
}

const char *lethe_vm_executor_reason(const struct lethe_vm *vm)
{
	return "asked for";
}

enum lethe_executor lethe_vm_executor(const struct lethe_vm *vm)
{
	return LETHE_EXECUTOR_SW;
}

pid_t lethe_vm_uv_pid(const struct lethe_vm *vm)
{
	/* No process: nothing to wait for. */
	return -1;
}

int lethe_vm_death_fd(const struct lethe_vm *vm)
{
	return fake.death_pipe[0];
}

int lethe_vm_uv_status(struct lethe_vm *vm, int *ret_status)
{
	*ret_status = 9;
	return 0;
}

int lethe_slot_add(struct lethe_vm *vm, unsigned int id, uint64_t gpa, uint64_t bytes)
{
	return counted_step("slot_add", &fake.added);
}

int lethe_slot_remove(struct lethe_vm *vm, unsigned int id)
{
	return counted_step("slot_remove", &fake.removed);
}

int lethe_vm_set_page_store(struct lethe_vm *vm, struct lethe_page_store *store)
{
	int err = step("set_page_store");

	if (!err)
		fake.store = store;
	return err;
}

int lethe_page_out_cold(struct lethe_vm *vm, uint64_t bytes, uint64_t *ret_bytes)
{
	int err = step("page_out_cold");

	if (!err)
		*ret_bytes = bytes;
	return err;
}

int lethe_vm_audit(struct lethe_vm *vm, unsigned int id, struct lethe_audit *ret)
{
	int err = step("vm_audit");

	if (!err)
		*ret = (struct lethe_audit){.private_bytes = 4096 * (id + 1)};
	return err;
}

bool lethe_vm_is_protected(const struct lethe_vm *vm)
{
	return !fake.not_protected;
}

int lethe_vm_load(struct lethe_vm *vm, uint64_t gpa, const void *data, size_t bytes)
{
	return counted_step("vm_load", &fake.loaded);
}

int lethe_vcpu_set_state(
	struct lethe_vm *vm, unsigned int vcpu, const struct lethe_cpu_state *state)
{
	return step("vcpu_set_state");
}

int lethe_irq_line(struct lethe_vm *vm, unsigned int irq, bool level)
{
	return step("irq_line");
}

static int check_access(uint64_t gpa, size_t bytes)
{
	if (gpa + bytes > FAKE_MEMORY)
		return -ENOENT;
	return gpa + bytes > FAKE_PRIVATE ? -EPERM : 0;
}

int lethe_mem_read(struct lethe_vm *vm, uint64_t gpa, void *data, size_t bytes)
{
	int err = check_access(gpa, bytes);

	if (!err)
		memcpy(data, fake.memory + gpa, bytes);
	return err;
}

int lethe_mem_write(struct lethe_vm *vm, uint64_t gpa, const void *data, size_t bytes)
{
	int err = check_access(gpa, bytes);

	if (!err)
		memcpy(fake.memory + gpa, data, bytes);
	return err;
}

int lethe_mem_copy(struct lethe_vm *vm, const struct lethe_copy *piece, size_t count)
{
	int err = 0;

	for (size_t i = 0; i < count && !err; i++)
		err = piece[i].to_guest
			      ? lethe_mem_write(vm, piece[i].gpa, piece[i].data, piece[i].bytes)
			      : lethe_mem_read(vm, piece[i].gpa, piece[i].data, piece[i].bytes);
	return err;
}

int lethe_vm_set_policy(struct lethe_vm *vm, const struct lethe_range *ranges, size_t count,
	uint64_t max_shared_bytes)
{
	return 0;
}

int lethe_vm_protect(struct lethe_vm *vm, const struct lethe_range *necessary, size_t count,
	struct lethe_protect_result *ret)
{
	int err = counted_step("vm_protect", &fake.protected);

	if (!err)
		*ret = (struct lethe_protect_result){.duration_ns = 1000,
			.pages_copied = 2,
			.pages_secured = 30,
			.measurement = {0xab, 0x01}};
	return err;
}

int lethe_vm_start(struct lethe_vm *vm, uint64_t *ret_first_ns)
{
	int err = counted_step("vm_start", &fake.started);

	if (!err && ret_first_ns)
		*ret_first_ns = clock_ns();
	return err;
}

int lethe_vm_stop(struct lethe_vm *vm)
{
	pthread_mutex_lock(&fake.lock);
	fake.stopped = true;
	pthread_cond_broadcast(&fake.changed);
	pthread_mutex_unlock(&fake.lock);
	return 0;
}

static void die_locked(void)
{
	fake.dead = true;
	close(fake.death_pipe[1]);
	pthread_cond_broadcast(&fake.changed);
}

/* Keeps the answer to the exit before, if there was one. */
static void take_reply(unsigned int vcpu, const struct lethe_exit *exit)
{
	unsigned int at = fake.script_at[vcpu];

	if (at == 0 || !played[vcpu][at - 1])
		return;
	fake.reply[vcpu][at - 1] = exit->reply;
	fake.reply_value[vcpu][at - 1] = exit->reply_value;
}

int lethe_vcpu_run(struct lethe_vm *vm, unsigned int vcpu, struct lethe_exit *exit)
{
	unsigned int at;

	pthread_mutex_lock(&fake.lock);
	if (exit->reply == 0 && exit->then_count > 0)
		exit->reply = lethe_mem_copy(vm, exit->then, exit->then_count);
	take_reply(vcpu, exit);
	at = fake.script_at[vcpu];
	if (at < script_length[vcpu] && fake.script[vcpu][at].dies)
		die_locked();
	while (!fake.stopped && !fake.dead && at >= script_length[vcpu])
		pthread_cond_wait(&fake.changed, &fake.lock);
	if (fake.stopped || fake.dead) {
		exit->type = LETHE_EXIT_CLOSED;
	} else {
		*exit = fake.script[vcpu][at].exit;
		if (exit->time_ns == 0)
			exit->time_ns = clock_ns();
		played[vcpu][at] = true;
		fake.script_at[vcpu]++;
	}
	pthread_mutex_unlock(&fake.lock);
	return 0;
}

int lethe_destroy_prepare(struct lethe_vm *vm, uint64_t *ret_incarnation, uint64_t *ret_resident)
{
	int err = counted_step("destroy_prepare", &fake.prepared);

	if (!err) {
		*ret_incarnation = fake.prepared - 1;
		*ret_resident = 4096;
	}
	return err;
}

int lethe_destroy_perform(struct lethe_vm *vm, struct lethe_destroy_result *ret)
{
	int err = counted_step("destroy_perform", &fake.performed);

	if (err)
		return err;
	*ret = (struct lethe_destroy_result){.bytes = 4096, .duration_ns = 500};
	pthread_mutex_lock(&fake.lock);
	while (fake.hold_perform && !fake.cancelled)
		pthread_cond_wait(&fake.changed, &fake.lock);
	if (fake.cancelled)
		err = -ECANCELED;
	pthread_mutex_unlock(&fake.lock);
	return err;
}

int lethe_destroy_cancel(struct lethe_vm *vm)
{
	pthread_mutex_lock(&fake.lock);
	fake.cancelled = true;
	pthread_cond_broadcast(&fake.changed);
	pthread_mutex_unlock(&fake.lock);
	return 0;
}

int lethe_vm_reset(struct lethe_vm *vm, struct lethe_destroy_result *ret)
{
	int err = counted_step("vm_reset", &fake.resets);

	if (!err)
		*ret = (struct lethe_destroy_result){.bytes = 8192, .duration_ns = 700};
	return err;
}

int lethe_vm_info(struct lethe_vm *vm, struct lethe_info *ret)
{
	*ret = (struct lethe_info){.incarnation = 0};
	return 0;
}

/* There is no runtime directory. */
int lethe_ps(struct lethe_ps_entry **ret_entries, size_t *ret_count)
{
	*ret_entries = NULL;
	*ret_count = 0;
	return 0;
}
