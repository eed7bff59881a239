/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/vm_control.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "lethe/lethe.h"
#include "vmm/control.h"

#define PATH_BYTES 1024
#define TEXT_BYTES 300

static void log_unreachable(const struct lethe_ps_entry *vm, int err)
{
	bool starts = strcmp(vm->state, "starting") == 0;

	if (!vm->hv_alive)
		log_error(
			"%s: its hypervisor is gone, its memory is being forgotten (see lethe ps)",
			vm->name);
	else if (err == -ENOENT && !starts)
		log_error("%s: takes no requests (ask VMs that lethe run runs)", vm->name);
	else if (err == -ENOENT || err == -ECONNREFUSED)
		log_error("%s: takes no requests, it starts or ends (see lethe ps)", vm->name);
	else if (err == -ETIMEDOUT)
		log_error("%s: does not answer (see whether its process %d is stopped)", vm->name,
			(int)vm->hv_pid);
	else if (err == -ECONNRESET)
		log_error("%s: ended before it answered (see lethe ps)", vm->name);
	else
		log_error("%s: cannot be asked: %s (see whether it is yours)", vm->name,
			strerror(-err));
}

/* Makes text of another process fit for a terminal. */
static const char *clean(const char *text, char *buffer)
{
	snprintf(buffer, TEXT_BYTES, "%s", text);
	for (char *c = buffer; *c; c++) {
		if (*c < ' ' || *c > '~')
			*c = '?';
	}
	return buffer;
}

void vm_control_log_bad(const char *name)
{
	log_error("%s: its answer makes no sense (use the lethe that runs it)", name);
}

/* The result in @answer; NULL if it is an error, logged. */
static json_t *take_result(const char *name, json_t *answer)
{
	char why_text[TEXT_BYTES], todo_text[TEXT_BYTES];
	json_t *result = json_object_get(answer, "result");
	const char *why, *todo;

	if (json_is_object(result))
		return json_incref(result);
	if (json_unpack(answer, "{s:{s:s, s:s}}", "error", "why", &why, "todo", &todo) == 0)
		log_error("%s: %s (%s)", name, clean(why, why_text), clean(todo, todo_text));
	else
		vm_control_log_bad(name);
	return NULL;
}

json_t *vm_control_ask(const char *name, json_t *request)
{
	struct lethe_ps_entry vm;
	json_t *answer, *result;
	char folder[PATH_BYTES];
	int err = lethe_vm_find(name, &vm, folder, sizeof(folder));

	if (err) {
		log_error("%s: %s (see lethe ps)", name, lethe_error());
		json_decref(request);
		return NULL;
	}
	err = control_ask(folder, request, &answer);
	if (err) {
		log_unreachable(&vm, err);
		return NULL;
	}
	result = take_result(name, answer);
	json_decref(answer);
	return result;
}

bool vm_control_print_json(const json_t *document)
{
	json_t *whole = json_pack("{s:i}", "schema", 1);
	bool fine = whole && json_object_update(whole, (json_t *)document) == 0 &&
		    json_dumpf(whole, stdout, JSON_INDENT(1)) == 0;

	json_decref(whole);
	if (fine)
		putchar('\n');
	else
		log_error("standard output: cannot write JSON (free some memory or disk space)");
	return fine;
}
