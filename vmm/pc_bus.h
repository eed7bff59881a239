/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The I/O ports of the PC: which device answers which, and what an access asks of the
 * machine.
 *
 * Emulated elsewhere, by KVM: interrupt controllers, PIT, port 0x61.  Ports of no device
 * read as all ones and swallow writes, as on an ISA bus.
 */
#ifndef VMM_PC_BUS_H
#define VMM_PC_BUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/pc_reset.h"
#include "vmm/pc_serial.h"

#define PC_COM1_PORT 0x3f8u
#define PC_COM1_IRQ  4u

struct pc_bus;

/* Makes the devices, as after power-on; @serial is where COM1 leads.  -ENOMEM. */
int pc_bus_new(const struct pc_serial_ops *serial, struct pc_bus **ret);
void pc_bus_free(struct pc_bus *bus);

/* Every device to its state after power-on.  Bytes received and not read are lost. */
void pc_bus_reset(struct pc_bus *bus);

/*
 * Performs a guest's access of @size bytes (1, 2 or 4): writes *@value, or reads into it.
 * Thread-safe.  On PC_ACTION_RESET the caller stops the vCPUs and calls pc_bus_reset.
 */
enum pc_action pc_bus_access(
	struct pc_bus *bus, uint16_t port, unsigned int size, bool is_write, uint64_t *value);

/* Hands in bytes for COM1; returns how many were taken (pc_serial_ops.input_ready). */
size_t pc_bus_input(struct pc_bus *bus, const uint8_t *data, size_t bytes);

#endif
