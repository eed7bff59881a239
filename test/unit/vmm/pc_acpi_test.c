/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmm/pc_acpi.c: walks the tables as an operating system does. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "vmm/pc_acpi.h"
#include "vmm/pc_memory.h"

static uint8_t tables[PC_ACPI_MAX];

static uint64_t get(uint64_t gpa, size_t bytes)
{
	uint64_t value = 0;

	assert_in_range(gpa, PC_BIOS_GPA, PC_BIOS_GPA + PC_ACPI_MAX - bytes);
	memcpy(&value, tables + (gpa - PC_BIOS_GPA), bytes);
	return value;
}

static void assert_sum_is_zero(uint64_t gpa, size_t bytes)
{
	uint8_t sum = 0;

	for (size_t i = 0; i < bytes; i++)
		sum += (uint8_t)get(gpa + i, 1);
	assert_int_equal(sum, 0);
}

static void assert_table(uint64_t gpa, const char *signature)
{
	assert_memory_equal(tables + (gpa - PC_BIOS_GPA), signature, 4);
	assert_sum_is_zero(gpa, get(gpa + 4, 4));
}

static uint64_t build(unsigned int vcpus)
{
	size_t bytes = 0;

	assert_int_equal(pc_acpi_build(vcpus, PC_BIOS_GPA, tables, &bytes), 0);
	assert_in_range(bytes, 1, PC_ACPI_MAX);
	assert_memory_equal(tables, "RSD PTR ", 8);
	assert_sum_is_zero(PC_BIOS_GPA, 20);
	assert_sum_is_zero(PC_BIOS_GPA, 36);
	return get(PC_BIOS_GPA + 24, 8);
}

static void every_table_is_reachable_and_sums_to_zero(void **state)
{
	uint64_t xsdt = build(3), fadt, dsdt, facs;

	assert_table(xsdt, "XSDT");
	assert_int_equal(get(xsdt + 4, 4), 36 + 2 * 8);
	fadt = get(xsdt + 36, 8);
	assert_table(fadt, "FACP");
	assert_table(get(xsdt + 44, 8), "APIC");
	dsdt = get(fadt + 140, 8);
	assert_table(dsdt, "DSDT");
	assert_int_equal(get(fadt + 40, 4), dsdt);
	facs = get(fadt + 36, 4);
	assert_memory_equal(tables + (facs - PC_BIOS_GPA), "FACS", 4);
	assert_int_equal(facs % 64, 0);
}

static void fadt_names_the_emulated_ports(void **state)
{
	uint64_t fadt = get(build(1) + 36, 8);

	assert_int_equal(get(fadt + 46, 2), PC_ACPI_SCI_IRQ);
	assert_int_equal(get(fadt + 48, 4), 0); /* no SMI */
	assert_int_equal(get(fadt + 56, 4), PC_ACPI_PM1_EVENT);
	assert_int_equal(get(fadt + 64, 4), PC_ACPI_PM1_CONTROL);
	assert_int_equal(get(fadt + 76, 4), PC_ACPI_PM_TIMER);
	assert_int_equal(get(fadt + 112, 4) >> 10 & 1, 1); /* has a reset register */
	assert_int_equal(get(fadt + 112, 4) >> 20 & 1, 0); /* not hardware-reduced */
	assert_int_equal(get(fadt + 116, 1), 1);           /* an I/O port */
	assert_int_equal(get(fadt + 120, 8), PC_RESET_PORT);
	assert_int_equal(get(fadt + 128, 1), PC_RESET_VALUE);
}

static void madt_lists_every_processor_once(void **state)
{
	uint64_t madt = get(build(PC_ACPI_VCPUS_MAX) + 44, 8), at = madt + 44;
	uint64_t end = madt + get(madt + 4, 4), seen = 0;
	unsigned int io_apics = 0;

	assert_int_equal(get(madt + 36, 4), PC_LOCAL_APIC_GPA);
	while (at < end) {
		uint64_t type = get(at, 1);

		if (type == 0) {
			uint64_t id = get(at + 3, 1);

			assert_int_equal(get(at + 4, 4), 1);
			assert_int_equal(seen >> id & 1, 0);
			seen |= 1ull << id;
		} else if (type == 1) {
			assert_int_equal(get(at + 4, 4), PC_IOAPIC_GPA);
			io_apics++;
		}
		assert_in_range(get(at + 1, 1), 1, 255);
		at += get(at + 1, 1);
	}
	assert_int_equal(at, end);
	assert_int_equal(seen, UINT64_MAX);
	assert_int_equal(io_apics, 1);
}

/* Follows an AML package length at @at: where the package ends, and its body begins. */
static uint64_t package(uint64_t at, uint64_t *ret_body)
{
	uint64_t lead = get(at, 1);

	if (lead < 0x40) {
		*ret_body = at + 1;
		return at + lead;
	}
	*ret_body = at + 2;
	return at + ((lead & 0xf) | get(at + 1, 1) << 4);
}

static void dsdt_packages_nest(void **state)
{
	uint64_t dsdt = get(get(build(1) + 36, 8) + 140, 8), end = dsdt + get(dsdt + 4, 4);
	uint64_t at = dsdt + 36, body, next;

	/* Name, "\_S5_", a package of 4 that begins with the sleep type. */
	assert_int_equal(get(at, 1), 0x08);
	assert_memory_equal(tables + (at + 1 - PC_BIOS_GPA), "\\_S5_", 5);
	assert_int_equal(get(at + 6, 1), 0x12);
	at = package(at + 7, &body);
	assert_int_equal(get(body, 1), 4);
	assert_int_equal(get(body + 2, 1), PC_ACPI_SLEEP_OFF);

	/* Scope, "\_SB_", devices to its very end, and nothing after it. */
	assert_int_equal(get(at, 1), 0x10);
	assert_int_equal(package(at + 1, &body), end);
	at = body + 5;
	while (at < end) {
		assert_int_equal(get(at, 2), 0x825b);
		next = package(at + 2, &body);
		body += 4; /* its name */
		while (body < next) {
			uint64_t type = get(body + 5, 1);

			assert_int_equal(get(body, 1), 0x08);
			if (type == 0x11)
				body = package(body + 6, &body);
			else
				body += type == 0x0c ? 10 : 6;
		}
		assert_int_equal(body, next);
		assert_int_equal(get(next - 2, 2), 0x0079); /* end tag of _CRS */
		at = next;
	}
	assert_int_equal(at, end);
}

static void vcpu_count_is_checked(void **state)
{
	size_t bytes = 77;

	assert_int_equal(pc_acpi_build(0, PC_BIOS_GPA, tables, &bytes), -EINVAL);
	assert_int_equal(
		pc_acpi_build(PC_ACPI_VCPUS_MAX + 1, PC_BIOS_GPA, tables, &bytes), -EINVAL);
	assert_int_equal(bytes, 77);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_table_is_reachable_and_sums_to_zero),
		cmocka_unit_test(fadt_names_the_emulated_ports),
		cmocka_unit_test(madt_lists_every_processor_once),
		cmocka_unit_test(dsdt_packages_nest),
		cmocka_unit_test(vcpu_count_is_checked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
