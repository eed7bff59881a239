/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* lethe version */
#include <stdio.h>

#include "cli/cli.h"
#include "cli/options.h"
#include "lethe/lethe.h"

int cmd_version(int argc, char **argv)
{
	static const struct options_spec spec = {
		.name = "lethe version",
		.doc = "Print the version.",
	};
	int status;

	if (!options_parse(&spec, argc, argv, NULL, &status))
		return status;
	printf("lethe %s\n", lethe_version());
	return CLI_OK;
}
