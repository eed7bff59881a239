/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The ACPI tables of the PC, and the addresses they share with its devices.
 *
 * Enough for an operating system to find its processors and interrupt controller, to
 * power off (PM1 control block, \_S5) and to reset (register 0xcf9).  There is no SMI,
 * no GPE and no embedded controller: ACPI is always on.
 */
#ifndef VMM_PC_ACPI_H
#define VMM_PC_ACPI_H

#include <stddef.h>
#include <stdint.h>

#define PC_ACPI_MAX       4096u /* bytes of all tables together */
#define PC_ACPI_VCPUS_MAX 64u

#define PC_ACPI_SCI_IRQ     9u
#define PC_ACPI_PM1_EVENT   0x600u /* 4 bytes: status, enable */
#define PC_ACPI_PM1_CONTROL 0x604u /* 2 bytes */
#define PC_ACPI_PM_TIMER    0x608u /* 4 bytes */
#define PC_ACPI_SLEEP_OFF   5u     /* SLP_TYP of \_S5 */
#define PC_RESET_PORT       0xcf9u
#define PC_RESET_VALUE      6u

/*
 * Writes the tables of a machine with @vcpus processors (APIC ids 0, 1, ...) for an
 * operating system that finds them at @gpa, the RSDP first.
 * Returns 0 and their size; -EINVAL if @vcpus is 0 or above PC_ACPI_VCPUS_MAX.
 */
int pc_acpi_build(unsigned int vcpus, uint64_t gpa, uint8_t ret[PC_ACPI_MAX], size_t *ret_bytes);

#endif
