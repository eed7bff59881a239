/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A guest keeps a secret; the hypervisor process searches for it everywhere.
 *
 * The guest plants 32 bytes in private memory.  They are found nowhere: after planting,
 * while the incarnation is set aside and swept, after the reboot.  Planted again and
 * shared, they are found, where the way of sharing says; overwritten, unshared and
 * discarded, they are not found any more.
 *
 * What the hypervisor read while the page was shared is its own to keep, so before the
 * last search the copy in the bulk buffer is overwritten by reading another page.
 *
 * Two runs for each way of sharing: the hypervisor gave up root before the start, so that
 * the ultravisor is root's; and both processes are one ordinary user's.  Either way this
 * process makes itself dumpable, as an attacker would, to search itself.
 *
 * Each run is a process of its own, because it gives up ids and never gets them back.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "abi/guestcall.h"
#include "test/system/attack_search.h"

#define NOBODY 65534
#define MIB    ((uint64_t)1 << 20)
#define MEMORY (128 * MIB)
#define SECRET (3 * MIB + 1024)
#define SEED   20231

/* Reading this page overwrites what the bulk buffer held of the secret's page. */
#define OTHER_PAGE (8 * MIB)

static const char text[] = "write 8M 4K 1\n"
			   "print nothing yet\n"
			   "protect\n"
			   "touch 16M 112M\n"
			   "write 3146752 32 20231\n"
			   "print planted\n"
			   "reboot\n"
			   "protect\n"
			   "print rebooted\n"
			   "write 3146752 32 20231\n"
			   "print planted\n"
			   "share 8M 4K\n"
			   "share 3M 4K\n"
			   "print shared\n"
			   "write 3M 4K 5\n"
			   "unshare 3M 4K\n"
			   "print unshared\n"
			   "write 3146752 32 20231\n"
			   "print planted\n"
			   "poweroff\n";

struct run {
	struct search search;
	unsigned int decoy, first, second; /* secrets: none of the guest's, and its two lives' */
	enum lethe_share share;
	struct lethe_vm *vm;
	struct lethe_exit exit;
	_Atomic bool destroyed;
};

#define NEED(condition) need(condition, #condition, __LINE__)

static void need(bool condition, const char *what, int line)
{
	if (condition)
		return;
	fprintf(stderr, "%s:%d: %s (errno %s; %s)\n", __FILE__, line, what, strerror(errno),
		lethe_error());
	exit(1);
}

/* ---- the machine ---- */

static void populate(struct run *r)
{
	struct guest_text head = {.magic = GUEST_TEXT_MAGIC, .bytes = sizeof(text) - 1};

	NEED(lethe_slot_add(r->vm, 0, 0, MEMORY) == 0);
	NEED(lethe_vm_load(r->vm, GUEST_TEXT_GPA, &head, sizeof(head)) == 0);
	NEED(lethe_vm_load(r->vm, GUEST_TEXT_GPA + sizeof(head), text, head.bytes) == 0);
}

/* Serves the guest until an exit of @type, which waits for its answer. */
static void run_until(struct run *r, enum lethe_exit_type type)
{
	struct lethe_exit *e = &r->exit;

	while (true) {
		struct lethe_protect_result result;

		NEED(lethe_vcpu_run(r->vm, 0, e) == 0);
		if (e->type == type)
			return;
		if (e->type == LETHE_EXIT_STOPPED)
			fprintf(stderr, "the guest was stopped: %s\n", e->text);
		NEED(e->type == LETHE_EXIT_PROTECT || e->type == LETHE_EXIT_CONVERT);
		if (e->type == LETHE_EXIT_PROTECT)
			NEED(lethe_vm_protect(r->vm, e->ranges, e->count, &result) == 0);
		e->reply = 0;
	}
}

static void run_until_print(struct run *r, const char *what)
{
	run_until(r, LETHE_EXIT_PRINT);
	NEED(strcmp(r->exit.text, what) == 0);
}

/* ---- expectations ---- */

static void expect(struct run *r, const char *when, unsigned int decoy, unsigned int first,
	unsigned int second)
{
	unsigned int found[SECRETS_MAX];

	search_all(&r->search, found);
	if (found[r->decoy] == decoy && found[r->first] == first && found[r->second] == second)
		return;
	fprintf(stderr, "%s: found in %u, %u, %u, expected %u, %u, %u\n", when, found[r->decoy],
		found[r->first], found[r->second], decoy, first, second);
	exit(1);
}

static void expect_nothing(struct run *r, const char *when)
{
	expect(r, when, 0, 0, 0);
}

/* The search finds what there is to find in this process's memory. */
static void check_the_search(struct run *r)
{
	uint8_t *page = calloc(1, 4096);

	NEED(page != NULL);
	expect_nothing(r, "before planting");
	search_plant(&r->search, r->decoy, page + 77);
	expect(r, "a decoy", FOUND_OWN_MEMORY, 0, 0);
	memset(page, 0, 4096);
	__asm__ volatile("" : : "r"(page) : "memory");
	free(page);
	expect_nothing(r, "the decoy wiped");
}

/* ---- phases ---- */

static void *destroy(void *arg)
{
	struct run *r = arg;
	struct lethe_destroy_result result;

	NEED(lethe_destroy_perform(r->vm, &result) == 0);
	NEED(result.bytes >= 112 * MIB);
	atomic_store(&r->destroyed, true);
	return NULL;
}

/* Searches all the while that the old incarnation is set aside, swept and gone. */
static void reboot(struct run *r)
{
	uint64_t incarnation, resident;
	pthread_t thread;

	run_until(r, LETHE_EXIT_REBOOT);
	expect_nothing(r, "stopped for reboot");
	NEED(lethe_destroy_prepare(r->vm, &incarnation, &resident) == 0);
	NEED(resident >= 112 * MIB);
	expect_nothing(r, "set aside");
	NEED(pthread_create(&thread, NULL, destroy, r) == 0);
	do
		expect_nothing(r, "while it is swept");
	while (!atomic_load(&r->destroyed));
	pthread_join(thread, NULL);
	expect_nothing(r, "after the sweep");
	populate(r);
	NEED(lethe_vm_start(r->vm, NULL) == 0);
	run_until_print(r, "rebooted");
	expect_nothing(r, "rebooted");
}

static void wait_for_discard(struct run *r)
{
	struct lethe_info info;

	do {
		usleep(1000);
		NEED(lethe_vm_info(r->vm, &info) == 0);
	} while (info.stale_bytes > 0);
}

static void share_and_unshare(struct run *r)
{
	static uint8_t page[4096];
	unsigned int places = FOUND_COPY_CALL | (r->share == LETHE_SHARE_MAPPED ? FOUND_SLOTS : 0);
	unsigned int found[SECRETS_MAX];

	run_until_print(r, "planted");
	expect_nothing(r, "planted in the second life");
	run_until_print(r, "shared");
	/* Searching reads the page: what is in the bulk buffer from then on does not count. */
	search_all(&r->search, found);
	NEED((found[r->second] & ~(unsigned int)FOUND_OWN_MEMORY) == places);
	NEED(found[r->first] == 0);
	run_until_print(r, "unshared");
	wait_for_discard(r);
	NEED(lethe_mem_read(r->vm, 3 * MIB, page, sizeof(page)) == -EPERM);
	NEED(lethe_mem_read(r->vm, OTHER_PAGE, page, sizeof(page)) == 0);
	expect_nothing(r, "overwritten, unshared, discarded");
	/* In a page that was shared before. */
	run_until_print(r, "planted");
	expect_nothing(r, "planted again");
}

/* ---- runs ---- */

static void become_nobody(void)
{
	if (geteuid() == 0)
		NEED(setgroups(0, NULL) == 0 && setresgid(NOBODY, NOBODY, NOBODY) == 0 &&
			setresuid(NOBODY, NOBODY, NOBODY) == 0);
	NEED(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0);
}

/* Even an ultravisor that crashes leaves no core. */
static void crash_it(struct run *r)
{
	const struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};
	int status;

	(void)prlimit(lethe_vm_uv_pid(r->vm), RLIMIT_CORE, &all, NULL);
	NEED(kill(lethe_vm_uv_pid(r->vm), SIGSEGV) == 0);
	while (lethe_vm_uv_status(r->vm, &status) == -EAGAIN)
		usleep(1000);
	if (WIFSIGNALED(status))
		NEED(!WCOREDUMP(status));
}

static void attack(enum lethe_share share, bool one_user, const char *uv)
{
	struct lethe_vm_config config = {.name = "attack",
		.vcpus = 1,
		.executor = LETHE_EXECUTOR_SW,
		.share = share,
		.uv_path = uv};
	static struct run r = {.search = {.memory_bytes = MEMORY}};

	r.share = share;

	r.decoy = search_add(&r.search, SECRET, SEED + 1, 0);
	r.first = search_add(&r.search, SECRET, SEED, 0);
	r.second = search_add(&r.search, SECRET, SEED, 1);
	if (one_user)
		become_nobody();
	NEED(lethe_vm_new(&config, &r.vm) == 0);
	r.search.vm = r.vm;
	populate(&r);
	if (!one_user) {
		NEED(lethe_drop_root() == 0);
		NEED(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0);
	}
	NEED(lethe_vm_start(r.vm, NULL) == 0);
	run_until_print(&r, "nothing yet");
	check_the_search(&r);
	run_until_print(&r, "planted");
	expect_nothing(&r, "planted");
	reboot(&r);
	share_and_unshare(&r);
	if (one_user) {
		crash_it(&r);
	} else {
		run_until(&r, LETHE_EXIT_POWEROFF);
		NEED(lethe_vm_stop(r.vm) == 0);
	}
	lethe_vm_close(r.vm, true);
}

/* A folder of this run with the runtime directory and lethe-uv, where nobody may look too. */
static void make_folder(char *dir, bool one_user)
{
	char path[128], command[512];
	uid_t uid = one_user && geteuid() == 0 ? NOBODY : geteuid();

	NEED(mkdtemp(dir) != NULL && chmod(dir, 0755) == 0);
	snprintf(path, sizeof(path), "%s/run", dir);
	NEED(mkdir(path, 0700) == 0 && chown(path, uid, (gid_t)-1) == 0);
	NEED(setenv("LETHE_RUNTIME_DIR", path, 1) == 0);
	snprintf(command, sizeof(command), "cp '%s' '%s/lethe-uv' && chmod 755 '%s/lethe-uv'",
		getenv("LETHE_UV"), dir, dir);
	NEED(system(command) == 0);
}

static void remove_folder(const char *dir)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf '%s'", dir);
	NEED(system(command) == 0);
}

static bool run(enum lethe_share share, bool one_user)
{
	char dir[] = "/tmp/lethe-attack-XXXXXX", uv[128];
	int status;
	pid_t pid;

	printf("%s, %s\n", share == LETHE_SHARE_MAPPED ? "mapped" : "copied",
		one_user ? "both processes one user's" : "root given up");
	fflush(stdout);
	make_folder(dir, one_user);
	snprintf(uv, sizeof(uv), "%s/lethe-uv", dir);
	pid = fork();
	NEED(pid >= 0);
	if (pid == 0) {
		NEED(chdir(dir) == 0);
		attack(share, one_user, uv);
		exit(0);
	}
	NEED(waitpid(pid, &status, 0) == pid);
	remove_folder(dir);
	if (status != 0)
		fprintf(stderr, "failed: status 0x%x\n", status);
	return status == 0;
}

int main(void)
{
	bool ok = true;

	if (getenv("LETHE_UV") == NULL) {
		fprintf(stderr, "LETHE_UV must name lethe-uv\n");
		return 2;
	}
	unsetenv("SUDO_UID");
	unsetenv("SUDO_GID");
	for (enum lethe_share share = LETHE_SHARE_COPIED; share <= LETHE_SHARE_MAPPED; share++) {
		ok = run(share, true) && ok;
		if (geteuid() == 0)
			ok = run(share, false) && ok;
	}
	if (geteuid() != 0)
		fprintf(stderr, "not root: giving up root was not tried\n");
	return ok ? 0 : 1;
}
