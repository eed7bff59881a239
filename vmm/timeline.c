/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/timeline.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "os/clock.h"

struct entry {
	uint64_t t_ns;
	size_t order; /* of arrival: keeps events of one time in place */
	json_t *fields;
};

/* Pages that went one way, and are not an event yet. */
struct paging {
	uint64_t bytes;
	uint64_t first_ns, last_ns;
};

struct timeline {
	int fd; /* -1: events go nowhere */
	uint64_t start_ns;
	json_t *vm;
	pthread_mutex_t lock;
	struct entry *entries;                    /* Guarded by lock. */
	size_t count, room;                       /* Guarded by lock. */
	uint64_t counter[TIMELINE_COUNTER_COUNT]; /* Guarded by lock. */
	struct paging paging[2];                  /* in, out; guarded by lock. */
};

int timeline_open(const char *path, struct timeline **ret)
{
	struct timeline *timeline = calloc(1, sizeof(*timeline));

	if (!timeline)
		return -ENOMEM;
	timeline->fd = -1;
	if (path) {
		timeline->fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
		if (timeline->fd < 0) {
			int err = -errno;

			free(timeline);
			return err;
		}
	}
	timeline->start_ns = clock_ns();
	pthread_mutex_init(&timeline->lock, NULL);
	*ret = timeline;
	return 0;
}

void timeline_free(struct timeline *timeline)
{
	if (!timeline)
		return;
	for (size_t i = 0; i < timeline->count; i++)
		json_decref(timeline->entries[i].fields);
	free(timeline->entries);
	json_decref(timeline->vm);
	if (timeline->fd >= 0)
		close(timeline->fd);
	pthread_mutex_destroy(&timeline->lock);
	free(timeline);
}

void timeline_describe(struct timeline *timeline, const char *name, uint64_t memory_bytes,
	unsigned int vcpus, const char *executor)
{
	json_decref(timeline->vm);
	timeline->vm = json_pack("{s:s, s:I, s:I, s:s}", "name", name, "memory_bytes",
		(json_int_t)memory_bytes, "vcpus", (json_int_t)vcpus, "executor", executor);
}

/* Makes room for one more entry.  False: no memory, or more than a file should hold. */
static bool make_room_locked(struct timeline *timeline)
{
	size_t room = timeline->room ? timeline->room * 2 : 64;
	struct entry *entries;

	if (timeline->count < timeline->room)
		return true;
	if (timeline->count >= TIMELINE_EVENTS_MAX)
		return false;
	entries = realloc(timeline->entries, room * sizeof(*entries));
	if (!entries)
		return false;
	timeline->entries = entries;
	timeline->room = room;
	return true;
}

/* Takes @fields over (NULL: there was no memory for them). */
static void add_entry_locked(
	struct timeline *timeline, uint64_t at_ns, const char *event, json_t *fields)
{
	if (!fields || json_object_set_new(fields, "event", json_string(event)) != 0 ||
		!make_room_locked(timeline)) {
		json_decref(fields);
		timeline->counter[TIMELINE_events_dropped]++;
		return;
	}
	if (at_ns == 0)
		at_ns = clock_ns();
	timeline->entries[timeline->count] = (struct entry){
		.t_ns = at_ns > timeline->start_ns ? at_ns - timeline->start_ns : 0,
		.order = timeline->count,
		.fields = fields,
	};
	timeline->count++;
}

void timeline_event(
	struct timeline *timeline, uint64_t at_ns, const char *event, const char *format, ...)
{
	json_t *fields;
	va_list args;

	if (timeline->fd < 0)
		return;
	if (format) {
		va_start(args, format);
		fields = json_vpack_ex(NULL, 0, format, args);
		va_end(args);
	} else {
		fields = json_object();
	}
	pthread_mutex_lock(&timeline->lock);
	add_entry_locked(timeline, at_ns, event, fields);
	pthread_mutex_unlock(&timeline->lock);
}

void timeline_conversion(struct timeline *timeline, uint64_t gpa, uint64_t bytes, bool to_shared)
{
	uint64_t *count = &timeline->counter[to_shared ? TIMELINE_shares : TIMELINE_unshares];
	uint64_t *total =
		&timeline->counter[to_shared ? TIMELINE_shared_bytes : TIMELINE_unshared_bytes];

	pthread_mutex_lock(&timeline->lock);
	*total += bytes;
	if (++*count <= TIMELINE_CONVERSIONS_MAX && timeline->fd >= 0)
		add_entry_locked(timeline, 0, to_shared ? "share" : "unshare",
			json_pack(
				"{s:I, s:I}", "gpa", (json_int_t)gpa, "bytes", (json_int_t)bytes));
	pthread_mutex_unlock(&timeline->lock);
}

bool timeline_wants_conversions(struct timeline *timeline)
{
	const uint64_t *counter = timeline->counter;
	bool wants;

	pthread_mutex_lock(&timeline->lock);
	wants = timeline->fd >= 0 && (counter[TIMELINE_shares] < TIMELINE_CONVERSIONS_MAX ||
					     counter[TIMELINE_unshares] < TIMELINE_CONVERSIONS_MAX);
	pthread_mutex_unlock(&timeline->lock);
	return wants;
}

static void flush_paging_locked(struct timeline *timeline, bool out)
{
	struct paging *paging = &timeline->paging[out];

	if (paging->bytes && timeline->fd >= 0)
		add_entry_locked(timeline, paging->last_ns, out ? "page-out" : "page-in",
			json_pack("{s:I, s:I}", "bytes", (json_int_t)paging->bytes, "duration_ns",
				(json_int_t)(paging->last_ns - paging->first_ns)));
	*paging = (struct paging){0};
}

void timeline_paging(struct timeline *timeline, uint64_t bytes, bool out)
{
	struct paging *paging = &timeline->paging[out];
	uint64_t now;

	pthread_mutex_lock(&timeline->lock);
	now = clock_ns();
	if (now - paging->first_ns >= TIMELINE_PAGING_NS)
		flush_paging_locked(timeline, out);
	if (paging->bytes == 0)
		paging->first_ns = now;
	paging->last_ns = now;
	paging->bytes += bytes;
	timeline->counter[out ? TIMELINE_paged_out_bytes : TIMELINE_paged_in_bytes] += bytes;
	pthread_mutex_unlock(&timeline->lock);
}

void timeline_count(struct timeline *timeline, enum timeline_counter counter, uint64_t add)
{
	pthread_mutex_lock(&timeline->lock);
	timeline->counter[counter] += add;
	pthread_mutex_unlock(&timeline->lock);
}

static int compare_entries(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	if (x->t_ns != y->t_ns)
		return x->t_ns < y->t_ns ? -1 : 1;
	return x->order < y->order ? -1 : x->order > y->order;
}

static json_t *counters_json(const struct timeline *timeline)
{
	static const char *const names[] = {
#define X(name) #name,
		TIMELINE_COUNTERS(X)
#undef X
	};
	json_t *counters = json_object();

	for (int i = 0; i < TIMELINE_COUNTER_COUNT; i++)
		json_object_set_new(
			counters, names[i], json_integer((json_int_t)timeline->counter[i]));
	return counters;
}

static json_t *events_json(struct timeline *timeline)
{
	json_t *events = json_array();

	if (timeline->count)
		qsort(timeline->entries, timeline->count, sizeof(*timeline->entries),
			compare_entries);
	for (size_t i = 0; i < timeline->count; i++) {
		const struct entry *entry = &timeline->entries[i];
		json_t *event = json_pack("{s:I}", "t_ns", (json_int_t)entry->t_ns);

		json_object_set(event, "event", json_object_get(entry->fields, "event"));
		json_object_update(event, entry->fields);
		json_array_append_new(events, event);
	}
	return events;
}

/* The whole document as text, for free(); NULL when memory is short. */
static char *document_text(struct timeline *timeline)
{
	json_t *vm = timeline->vm ? json_incref(timeline->vm) : json_object();
	json_t *document;
	char *text;

	pthread_mutex_lock(&timeline->lock);
	flush_paging_locked(timeline, true);
	flush_paging_locked(timeline, false);
	document = json_pack("{s:i, s:o, s:o, s:o}", "schema", 1, "vm", vm, "events",
		events_json(timeline), "counters", counters_json(timeline));
	pthread_mutex_unlock(&timeline->lock);
	if (!document)
		return NULL;
	text = json_dumps(document, JSON_INDENT(1));
	json_decref(document);
	return text;
}

static int write_all(int fd, const char *data, size_t bytes)
{
	while (bytes) {
		ssize_t n = write(fd, data, bytes);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		data += n;
		bytes -= (size_t)n;
	}
	return 0;
}

int timeline_write(struct timeline *timeline)
{
	char *text;
	int err;

	if (timeline->fd < 0)
		return 0;
	text = document_text(timeline);
	if (!text)
		return -ENOMEM;
	/* A pipe or terminal has nothing to truncate: EINVAL; nor a place to go to. */
	lseek(timeline->fd, 0, SEEK_SET);
	if (ftruncate(timeline->fd, 0) != 0 && errno != EINVAL)
		err = -errno;
	else
		err = write_all(timeline->fd, text, strlen(text));
	if (!err)
		err = write_all(timeline->fd, "\n", 1);
	free(text);
	return err;
}
