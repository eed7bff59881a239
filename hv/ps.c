/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who is there: the status pages of the runtime directory. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "abi/status.h"
#include "abi/uvcall.h"
#include "hv/error.h"
#include "lethe/lethe.h"
#include "os/rundir.h"

struct list {
	struct lethe_ps_entry *entries;
	size_t count;
	int err;
};

static const char *state_name(uint32_t state)
{
	static const char *const names[] = {
		"starting", "normal", "secure", "stopped", "forgetting", "gone"};

	return state < sizeof(names) / sizeof(names[0]) ? names[state] : "?";
}

static const char *pressure_name(uint32_t pressure)
{
	return pressure == 0 ? "none" : pressure == 1 ? "raised" : "high";
}

static void fill(struct lethe_ps_entry *e, const char *name, const struct abi_status_page *st)
{
	memset(e, 0, sizeof(*e));
	strncpy(e->name, name, sizeof(e->name) - 1);
	e->uv_pid = st->uv_pid;
	e->hv_pid = st->hv_pid;
	e->hv_alive = st->hv_pid > 0 && st->state < ABI_VM_FORGETTING &&
		      (kill(st->hv_pid, 0) == 0 || errno == EPERM);
	e->state = state_name(st->state);
	e->executor = st->executor == ABI_EXEC_KVM ? "kvm" : "sw";
	e->pressure = pressure_name(st->pressure);
	e->vcpus = st->vcpus;
	e->memory_bytes = st->memory_bytes;
	e->resident_bytes = st->resident_bytes;
	e->forget_bytes = st->forget_bytes;
	e->forgotten_bytes = st->forgotten_bytes;
	e->forget_rate = st->forget_rate;
	e->stale_bytes = st->stale_bytes;
	e->quarantined_bytes = st->quarantined_bytes;
	e->incarnation = st->incarnation;
	e->started_ns = st->started_ns;
}

static void visit(void *ctx, const char *name, int status_fd)
{
	struct list *l = ctx;
	struct abi_status_page st;
	struct lethe_ps_entry *more;

	if (pread(status_fd, &st, sizeof(st), 0) != (ssize_t)sizeof(st) ||
		st.magic != ABI_STATUS_MAGIC || l->err < 0)
		return;
	more = reallocarray(l->entries, l->count + 1, sizeof(*more));
	if (more == NULL) {
		l->err = -ENOMEM;
		return;
	}
	l->entries = more;
	fill(&l->entries[l->count++], name, &st);
}

static int by_name(const void *a, const void *b)
{
	const struct lethe_ps_entry *x = a, *y = b;

	return strcmp(x->name, y->name);
}

int lethe_ps(struct lethe_ps_entry **ret_entries, size_t *ret_count)
{
	struct list l = {0};
	int ret = rundir_list(visit, &l);

	if (ret == 0)
		ret = l.err;
	if (ret < 0) {
		char path[256];

		free(l.entries);
		(void)rundir_base(path, sizeof(path));
		return fail(
			ret, "the runtime directory %s cannot be read: %s", path, strerror(-ret));
	}
	/* A folder has no order of its own to rely on. */
	if (l.count > 1)
		qsort(l.entries, l.count, sizeof(*l.entries), by_name);
	*ret_entries = l.entries;
	*ret_count = l.count;
	return 0;
}

int lethe_vm_find(const char *name, struct lethe_ps_entry *ret, char *ret_folder, size_t size)
{
	struct lethe_ps_entry *entries = NULL;
	size_t i = 0, count;
	int err = lethe_ps(&entries, &count);

	if (err < 0)
		return err;
	while (i < count && strcmp(entries[i].name, name) != 0)
		i++;
	err = i < count ? rundir_path(name, ret_folder, size) : -ENOENT;
	if (err == 0)
		*ret = entries[i];
	free(entries);
	if (err == -ENOENT)
		return fail(err, "there is no VM of that name");
	return err < 0 ? fail(err, "no path to the VM's folder: %s", strerror(-err)) : 0;
}
