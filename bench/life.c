/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bench/life.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/prctl.h>

#include "base/size.h"
#include "base/types.h"
#include "vmm/host.h"

/* The guest says where it is by printing; what it prints does not matter. */
#define LIFE_TEXT                            \
	"loop 1000\n"                        \
	"protect\n"                          \
	"touch 2M %" PRIu64 " %" PRIu64 "\n" \
	"print filled\n"                     \
	"reboot\n"                           \
	"print born\n"                       \
	"end\n"                              \
	"poweroff\n"

#define SPARE_BYTES (GIB / 2)

bool life_fits(struct bench *bench, const struct bench_row *row, uint64_t resident_bytes)
{
	uint64_t available = host_memory_available();
	char text[32];

	if (resident_bytes + SPARE_BYTES <= available)
		return true;
	bench_missing(bench, row, "only %s of memory available",
		size_format(align_down(available, MIB), text, sizeof(text)));
	return false;
}

int life_begin(const struct life_config *config, struct guest *ret, const char **ret_why)
{
	const struct lethe_vm_config vm = {.lazy_off = config->eager, .wipe_off = config->wipe_off};
	char text[256];
	int err;

	snprintf(text, sizeof(text), LIFE_TEXT, config->resident_bytes - 2 * MIB,
		config->small_pages ? PAGE_SIZE : 2 * MIB);
	/* The ultravisor inherits it. */
	if (config->small_pages && prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) != 0) {
		*ret_why = "prctl(PR_SET_THP_DISABLE) does not work here";
		return -errno;
	}
	err = guest_new(text, config->resident_bytes, &vm, ret, ret_why);
	if (config->small_pages)
		prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
	if (err)
		return err;
	err = lethe_vm_start(ret->vm, NULL);
	if (!err)
		err = guest_run(ret);
	if (err) {
		*ret_why = "the guest did not fill its memory";
		guest_free(ret);
	}
	return err;
}

static int leave(struct guest *guest, bool eager, struct lethe_destroy_result *result)
{
	uint64_t unused;

	return eager ? lethe_vm_reset(guest->vm, result)
		     : lethe_destroy_prepare(guest->vm, &unused, &unused);
}

int life_reboot(
	const struct life_config *config, struct guest *guest, bool last, struct life_times *ret)
{
	struct lethe_destroy_result result = {0};
	uint64_t asked_ns, first_ns;
	int err = guest_run(guest);

	if (!err && guest->exit.type != LETHE_EXIT_REBOOT)
		err = -EPROTO;
	asked_ns = guest->exit.time_ns;
	if (!err)
		err = leave(guest, config->eager, &result);
	if (!err)
		err = guest_populate(guest);
	if (!err)
		err = lethe_vm_start(guest->vm, &first_ns);
	if (!err && !config->eager)
		err = lethe_destroy_perform(guest->vm, &result);
	if (!err)
		err = guest_run(guest);
	if (!err && !last)
		err = guest_run(guest);
	if (err)
		return err;
	*ret = (struct life_times){.guest_ns = first_ns - asked_ns,
		.destroy_ns = result.duration_ns,
		.destroy_bytes = result.bytes};
	return 0;
}
