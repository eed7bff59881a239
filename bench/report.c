/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bench/report.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/size.h"

/* Reads the first line of @path that begins with @key, from after its colon if it has one. */
static void read_line(const char *path, const char *key, char *ret, size_t size)
{
	char line[256];
	FILE *file = fopen(path, "r");

	snprintf(ret, size, "unknown");
	while (file && fgets(line, sizeof(line), file)) {
		const char *value = line;

		if (strncmp(line, key, strlen(key)) != 0)
			continue;
		if (*key && strchr(line, ':'))
			value = strchr(line, ':') + 1;
		value += strspn(value, " \t");
		snprintf(ret, size, "%.*s", (int)strcspn(value, "\n"), value);
		break;
	}
	if (file)
		fclose(file);
}

void bench_machine_describe(struct bench_machine *ret)
{
	struct utsname name;

	*ret = (struct bench_machine){0};
	if (uname(&name) == 0)
		snprintf(ret->kernel, sizeof(ret->kernel), "%s", name.release);
	read_line("/proc/cpuinfo", "model name", ret->cpu, sizeof(ret->cpu));
	read_line("/sys/kernel/mm/transparent_hugepage/enabled", "", ret->thp, sizeof(ret->thp));
	ret->cores = (unsigned int)sysconf(_SC_NPROCESSORS_ONLN);
	ret->memory_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* "12.3 us", "4567 MB/s", "missing"; returns @buf. */
static char *format_value(const struct bench_row *row, double value, char *buf, size_t len)
{
	if (row->missing[0])
		snprintf(buf, len, "missing");
	else if (strcmp(row->unit, "ns") == 0 && value < 1000)
		snprintf(buf, len, "%.1f ns", value);
	else if (strcmp(row->unit, "ns") == 0)
		duration_format((uint64_t)value, buf, len);
	else if (strcmp(row->unit, "bytes") == 0)
		size_format((uint64_t)value, buf, len);
	else if (strcmp(row->unit, "percent") == 0)
		snprintf(buf, len, "%.1f%%", value);
	else
		snprintf(buf, len, "%.0f %s", value, row->unit);
	return buf;
}

/* What tells a row from others of its case. */
static void describe(const struct bench_row *row, char *buf, size_t len)
{
	char bytes[32];
	size_t used = 0;

	buf[0] = '\0';
	if (row->memory_bytes)
		used += (size_t)snprintf(buf + used, len - used, "memory %s ",
			size_format(row->memory_bytes, bytes, sizeof(bytes)));
	if (row->resident_bytes)
		used += (size_t)snprintf(buf + used, len - used, "resident %s ",
			size_format(row->resident_bytes, bytes, sizeof(bytes)));
	if (row->entries)
		used += (size_t)snprintf(
			buf + used, len - used, "entries %llu ", (unsigned long long)row->entries);
	if (row->threads)
		used += (size_t)snprintf(buf + used, len - used, "threads %u ", row->threads);
	if (row->operations)
		used += (size_t)snprintf(buf + used, len - used, "operations %llu ",
			(unsigned long long)row->operations);
	if (row->executor)
		used += (size_t)snprintf(buf + used, len - used, "%s ", row->executor);
	if (row->p99 > 0)
		used += (size_t)snprintf(buf + used, len - used, "p99 %s ",
			format_value(row, row->p99, bytes, sizeof(bytes)));
	if (row->extrapolated)
		snprintf(buf + used, len - used, "extrapolated ");
}

void bench_table(const struct bench *bench, const struct bench_machine *machine, FILE *out)
{
	char memory[32];

	fprintf(out, "%s, %u cores, %s, Linux %s, THP %s\n\n", machine->cpu, machine->cores,
		size_format(machine->memory_bytes, memory, sizeof(memory)), machine->kernel,
		machine->thp);
	fprintf(out, "%-9s %-20s %12s %12s %12s %4s  %s\n", "QUESTION", "CASE", "MEDIAN", "MIN",
		"MAX", "RUNS", "OF");
	for (size_t i = 0; i < bench->count; i++) {
		const struct bench_row *row = &bench->rows[i];
		char of[128], value[3][32];

		describe(row, of, sizeof(of));
		fprintf(out, "%-9s %-20s %12s %12s %12s %4u  %s%s\n", row->question, row->name,
			format_value(row, row->median, value[0], sizeof(value[0])),
			row->missing[0] ? "" : format_value(row, row->min, value[1], 32),
			row->missing[0] ? "" : format_value(row, row->max, value[2], 32), row->runs,
			of, row->missing);
		if (bench_note(bench, i))
			fprintf(out, "%-9s Note: %s.\n", row->question, bench_note(bench, i));
	}
}

/* ---- JSON ---- */

static json_t *row_json(const struct bench_row *row)
{
	json_t *object = json_pack("{s:s, s:s, s:I, s:I, s:s}", "question", row->question, "case",
		row->name, "memory_bytes", (json_int_t)row->memory_bytes, "resident_bytes",
		(json_int_t)row->resident_bytes, "unit", row->unit);

	if (row->missing[0]) {
		json_object_set_new(object, "median", json_null());
		json_object_set_new(object, "min", json_null());
		json_object_set_new(object, "max", json_null());
		json_object_set_new(object, "missing", json_string(row->missing));
	} else {
		json_object_set_new(object, "median", json_real(row->median));
		json_object_set_new(object, "min", json_real(row->min));
		json_object_set_new(object, "max", json_real(row->max));
	}
	json_object_set_new(object, "runs", json_integer(row->runs));
	if (row->entries)
		json_object_set_new(object, "entries", json_integer((json_int_t)row->entries));
	if (row->threads)
		json_object_set_new(object, "threads", json_integer(row->threads));
	if (row->operations)
		json_object_set_new(
			object, "operations", json_integer((json_int_t)row->operations));
	if (row->executor)
		json_object_set_new(object, "executor", json_string(row->executor));
	if (row->p99 > 0)
		json_object_set_new(object, "p99", json_real(row->p99));
	if (row->extrapolated)
		json_object_set_new(object, "extrapolated", json_true());
	return object;
}

int bench_json(const struct bench *bench, const struct bench_machine *machine, FILE *out)
{
	json_t *results = json_array(), *notes = json_object(), *document;
	int err = 0;

	for (size_t i = 0; i < bench->count; i++) {
		json_array_append_new(results, row_json(&bench->rows[i]));
		if (bench_note(bench, i))
			json_object_set_new(
				notes, bench->rows[i].question, json_string(bench_note(bench, i)));
	}
	document = json_pack("{s:i, s:{s:s, s:s, s:i, s:I, s:s}, s:o, s:o}", "schema", 1, "machine",
		"kernel", machine->kernel, "cpu", machine->cpu, "cores", (int)machine->cores,
		"memory_bytes", (json_int_t)machine->memory_bytes, "thp", machine->thp, "results",
		results, "notes", notes);
	if (!document)
		err = -ENOMEM;
	else if (json_dumpf(document, out, JSON_INDENT(1) | JSON_REAL_PRECISION(9)) != 0 ||
		 fputc('\n', out) == EOF)
		err = -EIO;
	json_decref(document);
	return err;
}

/* ---- HTML ---- */

static void put_escaped(const char *text, FILE *out)
{
	for (; *text; text++) {
		switch (*text) {
		case '&':
			fputs("&amp;", out);
			break;
		case '<':
			fputs("&lt;", out);
			break;
		case '>':
			fputs("&gt;", out);
			break;
		default:
			fputc(*text, out);
		}
	}
}

/* The bar of @row: its length is logarithmic within those rows of its question and unit. */
static double bar_percent(const struct bench *bench, const struct bench_row *row)
{
	double least = row->median, most = row->median;
	double steps = 0, position = 0;

	for (size_t i = 0; i < bench->count; i++) {
		const struct bench_row *other = &bench->rows[i];

		if (other->missing[0] || strcmp(other->question, row->question) != 0 ||
			strcmp(other->unit, row->unit) != 0)
			continue;
		least = other->median < least ? other->median : least;
		most = other->median > most ? other->median : most;
	}
	if (least <= 0)
		return 0;
	for (double x = least; x < most; x *= 1.1)
		steps++;
	for (double x = least; x < row->median; x *= 1.1)
		position++;
	return steps > 0 ? 5 + 95 * position / steps : 100;
}

static void put_row(const struct bench *bench, const struct bench_row *row, FILE *out)
{
	char of[128], value[3][32];

	describe(row, of, sizeof(of));
	fprintf(out, "<tr><td>");
	put_escaped(row->name, out);
	fprintf(out, "</td><td>%s</td>", of);
	if (row->missing[0]) {
		fprintf(out, "<td colspan=4 class=missing>missing: ");
		put_escaped(row->missing, out);
		fprintf(out, "</td></tr>\n");
		return;
	}
	fprintf(out,
		"<td class=n>%s</td><td class=n>%s</td><td class=n>%s</td>"
		"<td class=bar><div style=\"width:%.0f%%\"></div></td></tr>\n",
		format_value(row, row->median, value[0], sizeof(value[0])),
		format_value(row, row->min, value[1], sizeof(value[1])),
		format_value(row, row->max, value[2], sizeof(value[2])), bar_percent(bench, row));
}

static void put_page(const struct bench *bench, const struct bench_machine *machine, FILE *out)
{
	const char *question = "";
	char memory[32];

	fprintf(out,
		"<!DOCTYPE html>\n<html lang=en><meta charset=utf-8><title>lethe bench</title>\n"
		"<style>body{font:15px/1.4 sans-serif;max-width:70em;margin:2em auto}"
		"table{border-collapse:collapse;width:100%%}td,th{padding:.15em .6em;"
		"text-align:left;border-bottom:1px solid #ddd}.n{text-align:right;"
		"white-space:nowrap}.bar{width:30%%}.bar div{background:#47a;height:.8em}"
		".missing{color:#777}</style>\n<h1>lethe bench</h1>\n<p>");
	put_escaped(machine->cpu, out);
	fprintf(out, ", %u cores, %s, Linux ", machine->cores,
		size_format(machine->memory_bytes, memory, sizeof(memory)));
	put_escaped(machine->kernel, out);
	fprintf(out, ", THP ");
	put_escaped(machine->thp, out);
	fprintf(out, ". Bars are logarithmic.</p>\n");
	for (size_t i = 0; i < bench->count; i++) {
		const struct bench_row *row = &bench->rows[i];

		if (strcmp(row->question, question) != 0) {
			question = row->question;
			fprintf(out,
				"%s<h2>%s</h2>\n<table><tr><th>case<th>of<th>median<th>least"
				"<th>greatest<th></tr>\n",
				i ? "</table>\n" : "", question);
		}
		put_row(bench, row, out);
		if (bench_note(bench, i)) {
			fprintf(out, "<tr><td colspan=6>Note: ");
			put_escaped(bench_note(bench, i), out);
			fprintf(out, ".</td></tr>\n");
		}
	}
	fprintf(out, "%s</html>\n", bench->count ? "</table>\n" : "");
}

int bench_html(const struct bench *bench, const struct bench_machine *machine, FILE *out)
{
	put_page(bench, machine, out);
	return ferror(out) ? -EIO : 0;
}
