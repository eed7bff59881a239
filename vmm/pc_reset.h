/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The ways by which a guest resets the machine or switches it off, and the power
 * management registers around them: i8042 keyboard controller, reset control register
 * 0xcf9, ACPI PM1 blocks and PM timer.  Plain state, no locks: pc_bus.c has one.
 */
#ifndef VMM_PC_RESET_H
#define VMM_PC_RESET_H

#include <stdbool.h>
#include <stdint.h>

/* What the machine must do after an access. */
enum pc_action { PC_ACTION_NONE, PC_ACTION_RESET, PC_ACTION_POWEROFF };

/*
 * A keyboard controller without keyboard: it answers its self-test and its command byte,
 * so that a driver that insists on probing it finds it idle.
 */
struct pc_i8042 {
	uint8_t command_byte;
	uint8_t output;
	bool output_full;
	bool wants_command_byte; /* the next byte of data is one */
};

void pc_i8042_reset(struct pc_i8042 *k);
uint8_t pc_i8042_read_status(const struct pc_i8042 *k);
uint8_t pc_i8042_read_data(struct pc_i8042 *k);
void pc_i8042_write_data(struct pc_i8042 *k, uint8_t value);
enum pc_action pc_i8042_write_command(struct pc_i8042 *k, uint8_t value);

enum pc_action pc_reset_control_write(uint8_t value);

struct pc_power {
	uint16_t pm1_enable;
	uint16_t pm1_control;
};

void pc_power_reset(struct pc_power *p);

/* The PM1 event block: status in bits 15:0, enable in bits 31:16. */
uint32_t pc_power_read_event(const struct pc_power *p);
void pc_power_write_event(struct pc_power *p, uint32_t value);

uint16_t pc_power_read_control(const struct pc_power *p);
enum pc_action pc_power_write_control(struct pc_power *p, uint16_t value);

/* The PM timer's 32 bits at @ns of a monotonic clock: 3.579545 MHz. */
uint32_t pc_power_timer(uint64_t ns);

#endif
