/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Asking a VM that another process runs. */
#ifndef CLI_VM_CONTROL_H
#define CLI_VM_CONTROL_H

#include <jansson.h>
#include <stdbool.h>

/*
 * Sends @request, which is taken over, to the VM called @name.  Returns the result that it
 * answered, for json_decref(); NULL: it failed or was refused, and that was logged.
 */
json_t *vm_control_ask(const char *name, json_t *request);

/* Logs that the VM's answer was not what was asked for. */
void vm_control_log_bad(const char *name);

/* Prints @document, an object, with the schema's number.  False: logged. */
bool vm_control_print_json(const json_t *document);

#endif
