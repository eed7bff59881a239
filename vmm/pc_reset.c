/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Linux powers off by writing SLP_TYP of \_S5 with SLP_EN into PM1 control.  It resets
 * through the FADT's reset register (0xcf9), else through the keyboard controller.
 * Nothing here ever raises the SCI: no bit of PM1 status is ever set.
 */
#include "vmm/pc_reset.h"

#include <string.h>

#include "vmm/pc_acpi.h"

/* i8042 */
#define STATUS_OUTPUT_FULL 0x01u
#define STATUS_SYSTEM      0x04u /* self-test passed */
#define COMMAND_READ_BYTE  0x20u
#define COMMAND_WRITE_BYTE 0x60u
#define COMMAND_SELF_TEST  0xaau
#define COMMAND_PORT_TEST  0xabu
#define COMMAND_PULSE      0xf0u /* low bits: lines to leave alone; line 0 is reset */
#define SELF_TEST_PASSED   0x55u
#define PORT_TEST_PASSED   0x00u

/* Reset control register */
#define RESET_CPU 0x04u

/* PM1 control */
#define PM1_SCI_ENABLE    0x0001u
#define PM1_SLEEP_TYPE(c) (((c) >> 10) & 7u)
#define PM1_SLEEP_ENABLE  0x2000u /* reads as 0 */

#define PM_TIMER_HZ 3579545u

void pc_i8042_reset(struct pc_i8042 *k)
{
	memset(k, 0, sizeof(*k));
}

uint8_t pc_i8042_read_status(const struct pc_i8042 *k)
{
	return STATUS_SYSTEM | (k->output_full ? STATUS_OUTPUT_FULL : 0);
}

uint8_t pc_i8042_read_data(struct pc_i8042 *k)
{
	k->output_full = false;
	return k->output;
}

void pc_i8042_write_data(struct pc_i8042 *k, uint8_t value)
{
	if (k->wants_command_byte)
		k->command_byte = value;
	k->wants_command_byte = false;
}

static void answer(struct pc_i8042 *k, uint8_t value)
{
	k->output = value;
	k->output_full = true;
}

enum pc_action pc_i8042_write_command(struct pc_i8042 *k, uint8_t value)
{
	k->wants_command_byte = value == COMMAND_WRITE_BYTE;
	if (value == COMMAND_READ_BYTE)
		answer(k, k->command_byte);
	else if (value == COMMAND_SELF_TEST)
		answer(k, SELF_TEST_PASSED);
	else if (value == COMMAND_PORT_TEST)
		answer(k, PORT_TEST_PASSED);
	else if (value >= COMMAND_PULSE && !(value & 1))
		return PC_ACTION_RESET;
	return PC_ACTION_NONE;
}

enum pc_action pc_reset_control_write(uint8_t value)
{
	return value & RESET_CPU ? PC_ACTION_RESET : PC_ACTION_NONE;
}

void pc_power_reset(struct pc_power *p)
{
	p->pm1_enable = 0;
	p->pm1_control = PM1_SCI_ENABLE;
}

uint32_t pc_power_read_event(const struct pc_power *p)
{
	return (uint32_t)p->pm1_enable << 16;
}

void pc_power_write_event(struct pc_power *p, uint32_t value)
{
	p->pm1_enable = (uint16_t)(value >> 16);
}

uint16_t pc_power_read_control(const struct pc_power *p)
{
	return p->pm1_control;
}

enum pc_action pc_power_write_control(struct pc_power *p, uint16_t value)
{
	p->pm1_control = (uint16_t)((value & ~PM1_SLEEP_ENABLE) | PM1_SCI_ENABLE);
	if ((value & PM1_SLEEP_ENABLE) && PM1_SLEEP_TYPE(value) == PC_ACPI_SLEEP_OFF)
		return PC_ACTION_POWEROFF;
	return PC_ACTION_NONE;
}

uint32_t pc_power_timer(uint64_t ns)
{
	uint64_t seconds = ns / 1000000000u, rest = ns % 1000000000u;

	return (uint32_t)(seconds * PM_TIMER_HZ + rest * PM_TIMER_HZ / 1000000000u);
}
