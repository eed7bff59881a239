/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* lethe capabilities: what works here, what does not, and why. */
#include <jansson.h>
#include <string.h>

#include "base/log.h"
#include "cli/cli.h"
#include "cli/options.h"
#include "lethe/lethe.h"
#include "vmm/host.h"

static const struct {
	const char *name;
	enum lethe_executor executor;
} executors[] = {{"kvm", LETHE_EXECUTOR_KVM}, {"sw", LETHE_EXECUTOR_SW}};

#define EXECUTOR_COUNT (sizeof(executors) / sizeof(executors[0]))

/* Puts executor @index into the form of a feature. */
static void probe_executor(size_t index, struct host_feature *ret)
{
	*ret = (struct host_feature){.name = executors[index].name};
	ret->available = lethe_executor_probe(executors[index].executor) == 0;
	if (!ret->available)
		snprintf(ret->reason, sizeof(ret->reason), "%s", lethe_error());
}

static json_t *feature_json(const struct host_feature *feature)
{
	return json_pack("{s:s, s:b, s:s, s:s}", "name", feature->name, "available",
		(int)feature->available, "value", feature->value, "reason", feature->reason);
}

static int print_json(void)
{
	json_t *executor_list = json_array(), *feature_list = json_array();
	struct host_feature feature;
	json_t *document;
	int err;

	for (size_t i = 0; i < EXECUTOR_COUNT; i++) {
		probe_executor(i, &feature);
		json_array_append_new(executor_list, feature_json(&feature));
	}
	for (size_t i = 0; host_feature_probe(i, &feature); i++)
		json_array_append_new(feature_list, feature_json(&feature));
	document = json_pack("{s:i, s:s, s:o, s:o}", "schema", 1, "version", lethe_version(),
		"executors", executor_list, "features", feature_list);
	err = document ? json_dumpf(document, stdout, JSON_INDENT(1)) : -1;
	json_decref(document);
	if (err) {
		log_error("standard output: cannot write JSON (free some memory or disk space)");
		return CLI_FAILED;
	}
	putchar('\n');
	return CLI_OK;
}

static void print_feature(const char *kind, const struct host_feature *feature)
{
	const char *before = feature->value[0] || feature->reason[0] ? "  " : "";
	const char *between = feature->value[0] && feature->reason[0] ? "; " : "";

	printf("%-8s  %-14s  %s%s%s%s%s\n", kind, feature->name, feature->available ? "yes" : "no ",
		before, feature->value, between, feature->reason);
}

static int print_text(void)
{
	struct host_feature feature;

	for (size_t i = 0; i < EXECUTOR_COUNT; i++) {
		probe_executor(i, &feature);
		print_feature("executor", &feature);
	}
	for (size_t i = 0; host_feature_probe(i, &feature); i++)
		print_feature("host", &feature);
	return CLI_OK;
}

static bool take(int key, const char *arg, void *input)
{
	*(bool *)input = true;
	return true;
}

int cmd_capabilities(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{"json", 'j', NULL, 0, "Print one JSON document", 0}, {0}};
	static const struct options_spec spec = {
		.name = "lethe capabilities",
		.doc = "Show executors, kernel features and limits: what is missing, and why.",
		.options = options,
		.take = take,
	};
	bool json = false;
	int status;

	if (!options_parse(&spec, argc, argv, &json, &status))
		return status;
	return json ? print_json() : print_text();
}
