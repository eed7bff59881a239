/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The commands of the control socket: one row of a table each.  A request has exactly the
 * fields that its command knows, of the right types; anything else is refused as a whole.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "vmm/machine_state.h"

/* Bytes of one request: what others wait for, and the end of the VM, is bounded. */
#define PAGE_OUT_MAX ((uint64_t)16 << 20)

static json_t *refused(int err, const struct refusal *why)
{
	return control_error(err, why->why, why->todo);
}

static json_t *malformed(const char *expected)
{
	return control_error(-EINVAL, "the request is malformed", expected);
}

static json_t *slot_json(const struct machine *machine, unsigned int id)
{
	const struct memory_slot *slot = &machine->slot[id];

	return json_pack("{s:i, s:I, s:I, s:b}", "slot", (int)id, "gpa", (json_int_t)slot->gpa,
		"bytes", (json_int_t)slot->bytes, "added", (int)slot->added);
}

/* The integer @name of @request that is not negative; false if there is none. */
static bool get_number(const json_t *request, const char *name, uint64_t *ret)
{
	const json_t *value = json_object_get(request, name);

	if (!json_is_integer(value) || json_integer_value(value) < 0)
		return false;
	*ret = (uint64_t)json_integer_value(value);
	return true;
}

static json_t *memory_add_command(struct machine *machine, const json_t *request)
{
	bool has_gpa = json_object_get(request, "gpa") != NULL;
	uint64_t bytes, gpa;
	struct refusal why;
	unsigned int id;
	int err;

	if (!get_number(request, "bytes", &bytes) || (has_gpa && !get_number(request, "gpa", &gpa)))
		return malformed("give bytes, and gpa or not");
	err = memory_add(machine, bytes, has_gpa ? &gpa : NULL, &id, &why);
	return err ? refused(err, &why) : control_result(slot_json(machine, id));
}

/* The slot that begins at @gpa, or one that is not there. */
static unsigned int slot_at(const struct machine *machine, uint64_t gpa)
{
	unsigned int i = 0;

	while (i < MEMORY_SLOTS && !(machine->slot[i].used && machine->slot[i].gpa == gpa))
		i++;
	return i;
}

/* Settles which slot @request names.  NULL, or the answer that refuses it. */
static json_t *find_slot(struct machine *machine, const json_t *request, unsigned int *ret)
{
	bool by_gpa = json_object_get(request, "gpa") != NULL;
	struct refusal why = {.todo = "see lethe memory list"};
	uint64_t number;

	if (by_gpa == (json_object_get(request, "slot") != NULL) ||
		!get_number(request, by_gpa ? "gpa" : "slot", &number))
		return malformed("give slot or gpa");
	*ret = by_gpa                  ? slot_at(machine, number)
	       : number < MEMORY_SLOTS ? (unsigned int)number
				       : MEMORY_SLOTS;
	if (*ret < MEMORY_SLOTS)
		return NULL;
	if (by_gpa)
		snprintf(why.why, sizeof(why.why), "no slot begins at 0x%" PRIx64, number);
	else
		snprintf(why.why, sizeof(why.why), "it has no slot %" PRIu64, number);
	return refused(-ENOENT, &why);
}

static json_t *memory_remove_command(struct machine *machine, const json_t *request)
{
	struct refusal why;
	unsigned int id;
	json_t *answer = find_slot(machine, request, &id);
	int err;

	if (answer)
		return answer;
	err = memory_remove(machine, id, &why);
	return err ? refused(err, &why) : control_result(slot_json(machine, id));
}

static json_t *memory_list_command(struct machine *machine, const json_t *request)
{
	json_t *slots = json_array();

	for (unsigned int i = 0; i < MEMORY_SLOTS; i++) {
		if (machine->slot[i].used)
			json_array_append_new(slots, slot_json(machine, i));
	}
	return control_result(
		json_pack("{s:s, s:o}", "name", lethe_vm_name(machine->vm), "slots", slots));
}

/* While a reboot exchanges all memory, no slot is there. */
static bool has_slot(struct machine *machine, uint64_t slot)
{
	bool has;

	pthread_mutex_lock(&machine->life);
	has = slot < MEMORY_SLOTS && machine->slot[slot].used;
	pthread_mutex_unlock(&machine->life);
	return has;
}

/* One slot at a time: looking through it takes a while. */
static json_t *memory_audit_command(struct machine *machine, const json_t *request)
{
	struct lethe_audit audit;
	uint64_t slot;
	int err;

	if (!get_number(request, "slot", &slot))
		return malformed("give slot");
	err = slot < MEMORY_SLOTS ? lethe_vm_audit(machine->vm, (unsigned int)slot, &audit)
				  : -ENOENT;
	if (err == -ENOENT && !has_slot(machine, slot))
		return control_error(err, "it has no such slot", "see lethe memory list");
	if (err == -ENOENT || err == -ERANGE || err == -EPROTO)
		return control_error(err, "its memory changed meanwhile", "try again");
	if (err)
		return control_error(err, lethe_error(), "see lethe ps");
	return control_result(json_pack("{s:I, s:I, s:I, s:I, s:I}", "private_bytes",
		(json_int_t)audit.private_bytes, "shared_bytes", (json_int_t)audit.shared_bytes,
		"stale_bytes", (json_int_t)audit.stale_bytes, "doubly_held_bytes",
		(json_int_t)audit.doubly_held_bytes, "paged_out_bytes",
		(json_int_t)audit.paged_out_bytes));
}

/* What a failed page-out means; other errors speak for themselves. */
static const struct {
	int err;
	const char *why, *todo;
} page_out_failures[] = {
	{-ENODEV, "it has no page store", "run it with --page-store"},
	{-EPROTO, "it is not secure, and only private memory is paged out", "let it turn secure"},
	{-EOPNOTSUPP, "its executor cannot page out here", "see lethe capabilities"},
	{-ENOSPC, "its page store is full", "make room there"},
	{-EAGAIN, "a conversion is in the way", "try again"},
};

static json_t *page_out_failed(int err)
{
	for (size_t i = 0; i < sizeof(page_out_failures) / sizeof(page_out_failures[0]); i++) {
		if (page_out_failures[i].err == err)
			return control_error(
				err, page_out_failures[i].why, page_out_failures[i].todo);
	}
	return control_error(err, lethe_error(), "look at the page store");
}

static json_t *page_out_command(struct machine *machine, const json_t *request)
{
	uint64_t bytes, done;
	int err;

	if (!get_number(request, "bytes", &bytes) || bytes == 0)
		return malformed("give bytes");
	if (bytes > PAGE_OUT_MAX)
		bytes = PAGE_OUT_MAX;
	err = lethe_page_out_cold(machine->vm, bytes, &done);
	if (err)
		return page_out_failed(err);
	return control_result(
		json_pack("{s:I, s:b}", "bytes", (json_int_t)done, "more", (int)(done >= bytes)));
}

#define FIELDS_MAX 2

static const struct {
	const char *name;
	const char *fields[FIELDS_MAX]; /* that a request may have beside `command` */
	bool locks_life;                /* is performed with machine->life held */
	json_t *(*perform)(struct machine *machine, const json_t *request);
} commands[] = {
	{"memory-add", {"bytes", "gpa"}, true, memory_add_command},
	{"memory-remove", {"slot", "gpa"}, true, memory_remove_command},
	{"memory-list", {NULL}, true, memory_list_command},
	{"memory-audit", {"slot"}, false, memory_audit_command},
	{"page-out", {"bytes"}, false, page_out_command},
};

static bool is_one_of(const char *key, const char *const *fields)
{
	for (size_t i = 0; i < FIELDS_MAX && fields[i]; i++) {
		if (strcmp(fields[i], key) == 0)
			return true;
	}
	return strcmp(key, "command") == 0;
}

/* Whether each field of @request is `command` or one of @fields. */
static bool has_only(const json_t *request, const char *const *fields)
{
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)request, key, value)
	{
		if (!is_one_of(key, fields))
			return false;
	}
	return true;
}

json_t *commands_perform(void *ctx, const json_t *request)
{
	const char *name = json_string_value(json_object_get(request, "command"));
	struct machine *machine = ctx;
	json_t *answer;

	for (size_t i = 0; name && i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(commands[i].name, name) != 0)
			continue;
		if (!has_only(request, commands[i].fields))
			return malformed("leave unknown fields away");
		/* Not while a reboot exchanges all memory; which waits for no store, nor audit. */
		if (commands[i].locks_life)
			pthread_mutex_lock(&machine->life);
		answer = commands[i].perform(machine, request);
		if (commands[i].locks_life)
			pthread_mutex_unlock(&machine->life);
		return answer;
	}
	return control_error(-ENOTTY, "it knows no such command", "use the lethe that runs it");
}
