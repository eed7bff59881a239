/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One table says who answers; a device is found by the access's first port.
 *
 * A device takes accesses up to its width that end inside its range; others are done
 * byte by byte, as a PC's bus does.  What reaches beyond the device is ignored: a 32-bit
 * access to PCI's 0xcf8 must not touch the reset register at 0xcf9.
 *
 * COM1 has a lock of its own, because its output may block; all the rest is guarded by
 * the bus's lock.
 */
#include "vmm/pc_bus.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "vmm/pc_acpi.h"
#include "vmm/pc_rtc.h"

struct pc_bus {
	struct pc_serial serial;

	pthread_mutex_t lock;
	/* Guarded by lock, all below. */
	struct pc_rtc rtc;
	struct pc_i8042 i8042;
	struct pc_power power;
};

/* @offset of the device's first port; @value has @size bytes. */
typedef enum pc_action (*port_handler)(
	struct pc_bus *bus, unsigned int offset, unsigned int size, bool is_write, uint32_t *value);

static uint32_t low_bytes(unsigned int size)
{
	return size >= 4 ? UINT32_MAX : (1u << (8 * size)) - 1;
}

/* Reads @size bytes at @offset of a register, or returns it with them replaced. */
static uint32_t extract(uint32_t reg, unsigned int offset, unsigned int size)
{
	return reg >> (8 * offset) & low_bytes(size);
}

static uint32_t insert(uint32_t reg, unsigned int offset, unsigned int size, uint32_t value)
{
	uint32_t mask = low_bytes(size) << (8 * offset);

	return (reg & ~mask) | (value << (8 * offset) & mask);
}

static enum pc_action access_i8042_data(
	struct pc_bus *bus, unsigned int offset, unsigned int size, bool is_write, uint32_t *value)
{
	if (is_write)
		pc_i8042_write_data(&bus->i8042, (uint8_t)*value);
	else
		*value = pc_i8042_read_data(&bus->i8042);
	return PC_ACTION_NONE;
}

static enum pc_action access_i8042_command(
	struct pc_bus *bus, unsigned int offset, unsigned int size, bool is_write, uint32_t *value)
{
	if (is_write)
		return pc_i8042_write_command(&bus->i8042, (uint8_t)*value);
	*value = pc_i8042_read_status(&bus->i8042);
	return PC_ACTION_NONE;
}

static enum pc_action access_rtc(
	struct pc_bus *bus, unsigned int offset, unsigned int size, bool is_write, uint32_t *value)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (!is_write)
		*value = offset == 0 ? bus->rtc.index : pc_rtc_read(&bus->rtc, &now);
	else if (offset == 0)
		pc_rtc_select(&bus->rtc, (uint8_t)*value);
	else
		pc_rtc_write(&bus->rtc, (uint8_t)*value);
	return PC_ACTION_NONE;
}

static enum pc_action access_pm1_event(
	struct pc_bus *bus, unsigned int offset, unsigned int size, bool is_write, uint32_t *value)
{
	uint32_t reg = pc_power_read_event(&bus->power);

	if (is_write)
		pc_power_write_event(&bus->power, insert(reg, offset, size, *value));
	else
		*value = extract(reg, offset, size);
	return PC_ACTION_NONE;
}

static enum pc_action access_pm1_control(
	struct pc_bus *bus, unsigned int offset, unsigned int size, bool is_write, uint32_t *value)
{
	uint32_t reg = pc_power_read_control(&bus->power);

	if (is_write)
		return pc_power_write_control(
			&bus->power, (uint16_t)insert(reg, offset, size, *value));
	*value = extract(reg, offset, size);
	return PC_ACTION_NONE;
}

static enum pc_action access_pm_timer(
	struct pc_bus *bus, unsigned int offset, unsigned int size, bool is_write, uint32_t *value)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (!is_write)
		*value = extract(
			pc_power_timer((uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec),
			offset, size);
	return PC_ACTION_NONE;
}

static enum pc_action access_reset_control(
	struct pc_bus *bus, unsigned int offset, unsigned int size, bool is_write, uint32_t *value)
{
	if (is_write)
		return pc_reset_control_write((uint8_t)*value);
	*value = 0;
	return PC_ACTION_NONE;
}

static enum pc_action access_serial(
	struct pc_bus *bus, unsigned int offset, unsigned int size, bool is_write, uint32_t *value)
{
	if (is_write)
		pc_serial_write(&bus->serial, offset, (uint8_t)*value);
	else
		*value = pc_serial_read(&bus->serial, offset);
	return PC_ACTION_NONE;
}

/* By rising port, without overlap. */
static const struct port_range {
	uint16_t first;
	uint16_t count;
	uint8_t width; /* widest access, in bytes */
	bool locks_itself;
	port_handler access;
} ports[] = {
	{0x60, 1, 1, false, access_i8042_data},
	{0x64, 1, 1, false, access_i8042_command},
	{0x70, 2, 1, false, access_rtc},
	{PC_COM1_PORT, PC_SERIAL_PORTS, 1, true, access_serial},
	{PC_ACPI_PM1_EVENT, 4, 4, false, access_pm1_event},
	{PC_ACPI_PM1_CONTROL, 2, 2, false, access_pm1_control},
	{PC_ACPI_PM_TIMER, 4, 4, false, access_pm_timer},
	{PC_RESET_PORT, 1, 1, false, access_reset_control},
};

static const struct port_range *find_range(uint16_t port)
{
	for (size_t i = 0; i < sizeof(ports) / sizeof(ports[0]) && ports[i].first <= port; i++)
		if (port - ports[i].first < ports[i].count)
			return &ports[i];
	return NULL;
}

static enum pc_action access_one(struct pc_bus *bus, const struct port_range *range,
	unsigned int offset, unsigned int size, bool is_write, uint32_t *value)
{
	enum pc_action action;

	if (range->locks_itself)
		return range->access(bus, offset, size, is_write, value);
	pthread_mutex_lock(&bus->lock);
	action = range->access(bus, offset, size, is_write, value);
	pthread_mutex_unlock(&bus->lock);
	return action;
}

static enum pc_action access_bytes(struct pc_bus *bus, const struct port_range *range,
	unsigned int offset, unsigned int size, bool is_write, uint32_t *value)
{
	enum pc_action action = PC_ACTION_NONE;

	for (unsigned int i = 0; i < size && offset + i < range->count; i++) {
		uint32_t byte = extract(*value, i, 1);
		enum pc_action one = access_one(bus, range, offset + i, 1, is_write, &byte);

		if (!is_write)
			*value = insert(*value, i, 1, byte);
		if (one != PC_ACTION_NONE)
			action = one;
	}
	return action;
}

enum pc_action pc_bus_access(
	struct pc_bus *bus, uint16_t port, unsigned int size, bool is_write, uint64_t *value)
{
	const struct port_range *range = find_range(port);
	uint32_t data = is_write ? (uint32_t)*value : low_bytes(size);
	enum pc_action action = PC_ACTION_NONE;
	unsigned int offset;

	if (range && size <= sizeof(data)) {
		offset = port - range->first;
		if (size <= range->width && offset + size <= range->count)
			action = access_one(bus, range, offset, size, is_write, &data);
		else
			action = access_bytes(bus, range, offset, size, is_write, &data);
	}
	if (!is_write)
		*value = data;
	return action;
}

size_t pc_bus_input(struct pc_bus *bus, const uint8_t *data, size_t bytes)
{
	return pc_serial_input(&bus->serial, data, bytes);
}

void pc_bus_reset(struct pc_bus *bus)
{
	pc_serial_reset(&bus->serial);
	pthread_mutex_lock(&bus->lock);
	pc_rtc_reset(&bus->rtc);
	pc_i8042_reset(&bus->i8042);
	pc_power_reset(&bus->power);
	pthread_mutex_unlock(&bus->lock);
}

int pc_bus_new(const struct pc_serial_ops *serial, struct pc_bus **ret)
{
	struct pc_bus *bus = calloc(1, sizeof(*bus));

	if (!bus)
		return -ENOMEM;
	pc_serial_init(&bus->serial, PC_COM1_IRQ, serial);
	pthread_mutex_init(&bus->lock, NULL);
	pc_bus_reset(bus);
	*ret = bus;
	return 0;
}

void pc_bus_free(struct pc_bus *bus)
{
	if (!bus)
		return;
	pc_serial_destroy(&bus->serial);
	pthread_mutex_destroy(&bus->lock);
	free(bus);
}
