/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The end of incarnations: set aside and destroy later, or destroy at once. */
#include <errno.h>
#include <string.h>

#include "base/failpoint.h"
#include "hv/error.h"
#include "hv/vm.h"

static const char *why(int err)
{
	switch (-err) {
	case EBUSY:
		return "vCPUs run";
	case ENODATA:
		return "nothing is protected or set aside";
	case EALREADY:
		return "one is set aside whose destruction has not begun";
	case EOPNOTSUPP:
		return "the kill switch is thrown";
	case EUCLEAN:
		return "some memory could not be destroyed and is quarantined";
	default:
		return strerror(-err);
	}
}

static void copy_result(const struct abi_perform_ret *from, struct lethe_destroy_result *ret)
{
	*ret = (struct lethe_destroy_result){.incarnation = from->incarnation,
		.bytes = from->bytes,
		.left = from->left,
		.quarantined = from->quarantined,
		.duration_ns = from->duration_ns};
}

int lethe_destroy_prepare(struct lethe_vm *vm, uint64_t *ret_incarnation, uint64_t *ret_resident)
{
	struct abi_prepare_ret result;
	int ret;

	pthread_mutex_lock(&vm->lock);
	ret = failpoint("destroy-prepare");
	if (ret == 0)
		ret = hv_call(vm, ABI_CALL_PREPARE, NULL, &result);
	if (ret == 0) {
		(void)failpoint("destroy-prepared");
		vm->is_protected = false;
		hv_drop_slots(vm);
	}
	pthread_mutex_unlock(&vm->lock);
	if (ret < 0)
		return fail(ret, "cannot set aside: %s", why(ret));
	*ret_incarnation = result.incarnation;
	*ret_resident = result.resident;
	return 0;
}

int lethe_destroy_perform(struct lethe_vm *vm, struct lethe_destroy_result *ret)
{
	struct abi_perform_ret result = {0};
	int err = failpoint("destroy-perform");

	if (err == 0)
		err = hv_call(vm, ABI_CALL_PERFORM, NULL, &result);
	(void)failpoint("destroy-performed");
	if (err == 0 || err == -ECANCELED || err == -EUCLEAN)
		copy_result(&result, ret);
	return err < 0 ? fail(err, "not destroyed: %s", why(err)) : 0;
}

int lethe_destroy_cancel(struct lethe_vm *vm)
{
	int ret = failpoint("destroy-cancel");

	if (ret == 0)
		ret = hv_call(vm, ABI_CALL_CANCEL, NULL, NULL);
	return ret < 0 ? fail(ret, "cannot cancel: %s", why(ret)) : 0;
}

int lethe_vm_reset(struct lethe_vm *vm, struct lethe_destroy_result *ret)
{
	struct abi_perform_ret result = {0};
	int err;

	pthread_mutex_lock(&vm->lock);
	err = failpoint("destroy-reset");
	if (err == 0)
		err = hv_call(vm, ABI_CALL_RESET, NULL, &result);
	if (err == 0 || err == -EUCLEAN) {
		(void)failpoint("destroy-was-reset");
		vm->is_protected = false;
		hv_drop_slots(vm);
		copy_result(&result, ret);
	}
	pthread_mutex_unlock(&vm->lock);
	return err < 0 ? fail(err, "cannot reset: %s", why(err)) : 0;
}
