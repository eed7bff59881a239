/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ACPI 6.0 tables: RSDP, XSDT, FADT, FACS, MADT, DSDT.
 *
 * The fixed tables are packed structs with the specification's field names.  The DSDT's
 * code (AML) is short enough to be written as bytes; each group names what it stands for.
 * ISA interrupt n is input n of the I/O APIC for every n, the timer's 0 included: so does
 * KVM route them unless told otherwise.
 * Layout in memory: RSDP, then each table at the next multiple of 64 (the FACS needs it).
 */
#include "vmm/pc_acpi.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "vmm/pc_memory.h"

#define TABLE_ALIGNMENT 64u

struct acpi_rsdp {
	char signature[8];
	uint8_t checksum; /* of the first 20 bytes */
	char oem_id[6];
	uint8_t revision;
	uint32_t rsdt_address;
	uint32_t length;
	uint64_t xsdt_address;
	uint8_t extended_checksum;
	uint8_t reserved[3];
} __attribute__((packed));

struct acpi_header {
	char signature[4];
	uint32_t length;
	uint8_t revision;
	uint8_t checksum;
	char oem_id[6];
	char oem_table_id[8];
	uint32_t oem_revision;
	char creator_id[4];
	uint32_t creator_revision;
} __attribute__((packed));

struct acpi_xsdt {
	struct acpi_header header;
	uint64_t entries[2]; /* FADT, MADT */
} __attribute__((packed));

/* Generic address structure. */
struct acpi_gas {
	uint8_t space; /* 1: I/O port */
	uint8_t bit_width;
	uint8_t bit_offset;
	uint8_t access_size; /* 1: byte, 2: word, 3: dword */
	uint64_t address;
} __attribute__((packed));

struct acpi_fadt {
	struct acpi_header header;
	uint32_t firmware_ctrl;
	uint32_t dsdt;
	uint8_t reserved0;
	uint8_t preferred_pm_profile;
	uint16_t sci_int;
	uint32_t smi_cmd; /* 0: ACPI is always enabled */
	uint8_t acpi_enable, acpi_disable, s4bios_req, pstate_cnt;
	uint32_t pm1a_evt_blk, pm1b_evt_blk;
	uint32_t pm1a_cnt_blk, pm1b_cnt_blk;
	uint32_t pm2_cnt_blk;
	uint32_t pm_tmr_blk;
	uint32_t gpe0_blk, gpe1_blk;
	uint8_t pm1_evt_len, pm1_cnt_len, pm2_cnt_len, pm_tmr_len;
	uint8_t gpe0_blk_len, gpe1_blk_len, gpe1_base, cst_cnt;
	uint16_t p_lvl2_lat, p_lvl3_lat;
	uint16_t flush_size, flush_stride;
	uint8_t duty_offset, duty_width;
	uint8_t day_alarm, month_alarm, century;
	uint16_t iapc_boot_arch;
	uint8_t reserved1;
	uint32_t flags;
	struct acpi_gas reset_reg;
	uint8_t reset_value;
	uint16_t arm_boot_arch;
	uint8_t minor_version;
	uint64_t x_firmware_ctrl;
	uint64_t x_dsdt;
	struct acpi_gas x_pm1a_evt_blk, x_pm1b_evt_blk;
	struct acpi_gas x_pm1a_cnt_blk, x_pm1b_cnt_blk;
	struct acpi_gas x_pm2_cnt_blk;
	struct acpi_gas x_pm_tmr_blk;
	struct acpi_gas x_gpe0_blk, x_gpe1_blk;
	struct acpi_gas sleep_control_reg, sleep_status_reg;
	uint64_t hypervisor_vendor;
} __attribute__((packed));

_Static_assert(sizeof(struct acpi_rsdp) == 36, "ACPI 6.0, 5.2.5.3");
_Static_assert(sizeof(struct acpi_header) == 36, "ACPI 6.0, 5.2.6");
_Static_assert(sizeof(struct acpi_fadt) == 276, "ACPI 6.0, 5.2.9");

/* fadt.iapc_boot_arch: devices of the ISA bus, but no 8042 keyboard and no VGA. */
#define BOOT_LEGACY_DEVICES (1u << 0)
#define BOOT_VGA_ABSENT     (1u << 2)

/* fadt.flags */
#define FADT_WBINVD        (1u << 0)
#define FADT_C1            (1u << 2)
#define FADT_NO_PWR_BUTTON (1u << 4) /* none of fixed hardware */
#define FADT_NO_SLP_BUTTON (1u << 5)
#define FADT_NO_FIX_RTC    (1u << 6)
#define FADT_TMR_VAL_EXT   (1u << 8) /* the timer has 32 bits */
#define FADT_RESET_REG     (1u << 10)

struct acpi_facs {
	char signature[4];
	uint32_t length;
	uint32_t hardware_signature;
	uint32_t waking_vector;
	uint32_t global_lock;
	uint32_t flags;
	uint64_t x_waking_vector;
	uint8_t version;
	uint8_t reserved[31];
} __attribute__((packed));

struct madt_local_apic {
	uint8_t type, length; /* 0, 8 */
	uint8_t processor_uid;
	uint8_t apic_id;
	uint32_t flags; /* 1: enabled */
} __attribute__((packed));

struct madt_io_apic {
	uint8_t type, length; /* 1, 12 */
	uint8_t id;
	uint8_t reserved;
	uint32_t address;
	uint32_t gsi_base;
} __attribute__((packed));

struct madt_override {
	uint8_t type, length; /* 2, 10 */
	uint8_t bus;          /* 0: ISA */
	uint8_t source;
	uint32_t gsi;
	uint16_t flags;
} __attribute__((packed));

struct madt_local_nmi {
	uint8_t type, length;  /* 4, 6 */
	uint8_t processor_uid; /* 0xff: all */
	uint16_t flags;
	uint8_t lint;
} __attribute__((packed));

struct acpi_madt {
	struct acpi_header header;
	uint32_t local_apic_address;
	uint32_t flags; /* 1: a pair of 8259s is there too */
	struct madt_io_apic io_apic;
	struct madt_override sci;
	struct madt_local_nmi nmi;
	struct madt_local_apic local_apics[PC_ACPI_VCPUS_MAX];
} __attribute__((packed));

/*
 * A package length counts itself: one byte below 64, else bits 3:0 and 11:4 in two bytes,
 * the first with 0x40.
 */
// clang-format off
static const uint8_t dsdt_code[] = {
	/* Name (\_S5, Package (4) {5, 5, 0, 0}) */
	0x08, '\\', '_', 'S', '5', '_', 0x12, 0x08, 4,
	0x0a, PC_ACPI_SLEEP_OFF, 0x0a, PC_ACPI_SLEEP_OFF, 0x00, 0x00,
	/* Scope (\_SB) */
	0x10, 0x48, 0x05, '\\', '_', 'S', 'B', '_',
	/* Device (COM1) */
	0x5b, 0x82, 0x2b, 'C', 'O', 'M', '1',
	/* Name (_HID, EisaId ("PNP0501")) */
	0x08, '_', 'H', 'I', 'D', 0x0c, 0x41, 0xd0, 0x05, 0x01,
	/* Name (_UID, One) */
	0x08, '_', 'U', 'I', 'D', 0x01,
	/* Name (_CRS, Buffer (13) {IO (Decode16, 0x3f8, 0x3f8, 1, 8), IRQNoFlags () {4}}) */
	0x08, '_', 'C', 'R', 'S', 0x11, 0x10, 0x0a, 13,
	0x47, 0x01, 0xf8, 0x03, 0xf8, 0x03, 1, 8, 0x22, 1u << 4, 0x00, 0x79, 0x00,
	/* Device (RTC) */
	0x5b, 0x82, 0x22, 'R', 'T', 'C', '_',
	/* Name (_HID, EisaId ("PNP0B00")) */
	0x08, '_', 'H', 'I', 'D', 0x0c, 0x41, 0xd0, 0x0b, 0x00,
	/* Name (_CRS, Buffer (10) {IO (Decode16, 0x70, 0x70, 1, 2)}) */
	0x08, '_', 'C', 'R', 'S', 0x11, 0x0d, 0x0a, 10,
	0x47, 0x01, 0x70, 0x00, 0x70, 0x00, 1, 2, 0x79, 0x00,
};
// clang-format on

/* The tables while they are put one after another. */
struct acpi_builder {
	uint8_t *out;
	uint64_t gpa;
	size_t used;
};

static uint8_t checksum(const void *data, size_t bytes)
{
	const uint8_t *p = data;
	uint8_t sum = 0;

	for (size_t i = 0; i < bytes; i++)
		sum += p[i];
	return (uint8_t)-sum;
}

static struct acpi_header header(const char signature[4], uint8_t revision, size_t length)
{
	struct acpi_header h = {
		.length = (uint32_t)length,
		.revision = revision,
		.oem_id = {'L', 'E', 'T', 'H', 'E', ' '},
		.oem_table_id = {'L', 'E', 'T', 'H', 'E', 'P', 'C', ' '},
		.oem_revision = 1,
		.creator_id = {'L', 'T', 'H', 'E'},
		.creator_revision = 1,
	};

	memcpy(h.signature, signature, sizeof(h.signature));
	return h;
}

/* Appends @bytes at the next aligned place; returns its address. */
static uint64_t append(struct acpi_builder *b, const void *data, size_t bytes)
{
	size_t at = (b->used + TABLE_ALIGNMENT - 1) / TABLE_ALIGNMENT * TABLE_ALIGNMENT;

	assert(at + bytes <= PC_ACPI_MAX);
	memcpy(b->out + at, data, bytes);
	b->used = at + bytes;
	return b->gpa + at;
}

/* Appends a table that begins with a header, and makes its sum zero. */
static uint64_t append_table(struct acpi_builder *b, const void *table, size_t bytes)
{
	uint64_t at = append(b, table, bytes);
	uint8_t *copy = b->out + (at - b->gpa);

	copy[offsetof(struct acpi_header, checksum)] = checksum(copy, bytes);
	return at;
}

static uint64_t append_dsdt(struct acpi_builder *b)
{
	struct {
		struct acpi_header header;
		uint8_t code[sizeof(dsdt_code)];
	} __attribute__((packed)) dsdt = {.header = header("DSDT", 2, sizeof(dsdt))};

	memcpy(dsdt.code, dsdt_code, sizeof(dsdt_code));
	return append_table(b, &dsdt, sizeof(dsdt));
}

static uint64_t append_facs(struct acpi_builder *b)
{
	struct acpi_facs facs = {
		.signature = {'F', 'A', 'C', 'S'}, .length = sizeof(facs), .version = 2};

	return append(b, &facs, sizeof(facs));
}

static struct acpi_gas port_register(uint64_t port, uint8_t bits, uint8_t access_size)
{
	return (struct acpi_gas){
		.space = 1, .bit_width = bits, .access_size = access_size, .address = port};
}

static uint64_t append_fadt(struct acpi_builder *b, uint64_t facs, uint64_t dsdt)
{
	struct acpi_fadt fadt = {
		.header = header("FACP", 6, sizeof(fadt)),
		.firmware_ctrl = (uint32_t)facs,
		.dsdt = (uint32_t)dsdt,
		.sci_int = PC_ACPI_SCI_IRQ,
		.pm1a_evt_blk = PC_ACPI_PM1_EVENT,
		.pm1a_cnt_blk = PC_ACPI_PM1_CONTROL,
		.pm_tmr_blk = PC_ACPI_PM_TIMER,
		.pm1_evt_len = 4,
		.pm1_cnt_len = 2,
		.pm_tmr_len = 4,
		.p_lvl2_lat = 0xffff, /* no C2 and C3 */
		.p_lvl3_lat = 0xffff,
		.century = 0x32,
		.iapc_boot_arch = BOOT_LEGACY_DEVICES | BOOT_VGA_ABSENT,
		.flags = FADT_WBINVD | FADT_C1 | FADT_NO_PWR_BUTTON | FADT_NO_SLP_BUTTON |
			 FADT_NO_FIX_RTC | FADT_TMR_VAL_EXT | FADT_RESET_REG,
		.reset_reg = port_register(PC_RESET_PORT, 8, 1),
		.reset_value = PC_RESET_VALUE,
		.x_dsdt = dsdt,
		.x_pm1a_evt_blk = port_register(PC_ACPI_PM1_EVENT, 32, 2),
		.x_pm1a_cnt_blk = port_register(PC_ACPI_PM1_CONTROL, 16, 2),
		.x_pm_tmr_blk = port_register(PC_ACPI_PM_TIMER, 32, 3),
	};

	return append_table(b, &fadt, sizeof(fadt));
}

static uint64_t append_madt(struct acpi_builder *b, unsigned int vcpus)
{
	size_t bytes = offsetof(struct acpi_madt, local_apics[vcpus]);
	struct acpi_madt madt = {
		.header = header("APIC", 4, bytes),
		.local_apic_address = PC_LOCAL_APIC_GPA,
		.flags = 1,
		.io_apic = {.type = 1, .length = 12, .address = PC_IOAPIC_GPA},
		/* level, active high */
		.sci = {.type = 2,
			.length = 10,
			.source = PC_ACPI_SCI_IRQ,
			.gsi = PC_ACPI_SCI_IRQ,
			.flags = 0xd},
		.nmi = {.type = 4, .length = 6, .processor_uid = 0xff, .lint = 1},
	};

	for (unsigned int i = 0; i < vcpus; i++)
		madt.local_apics[i] = (struct madt_local_apic){.type = 0,
			.length = 8,
			.processor_uid = (uint8_t)i,
			.apic_id = (uint8_t)i,
			.flags = 1};
	return append_table(b, &madt, bytes);
}

static void write_rsdp(uint8_t *out, uint64_t xsdt)
{
	struct acpi_rsdp rsdp = {
		.signature = {'R', 'S', 'D', ' ', 'P', 'T', 'R', ' '},
		.oem_id = {'L', 'E', 'T', 'H', 'E', ' '},
		.revision = 2,
		.length = sizeof(rsdp),
		.xsdt_address = xsdt,
	};

	rsdp.checksum = checksum(&rsdp, 20);
	rsdp.extended_checksum = checksum(&rsdp, sizeof(rsdp));
	memcpy(out, &rsdp, sizeof(rsdp));
}

int pc_acpi_build(unsigned int vcpus, uint64_t gpa, uint8_t ret[PC_ACPI_MAX], size_t *ret_bytes)
{
	struct acpi_builder b = {.out = ret, .gpa = gpa, .used = sizeof(struct acpi_rsdp)};
	struct acpi_xsdt xsdt = {.header = header("XSDT", 1, sizeof(xsdt))};
	uint64_t dsdt, facs;

	if (vcpus == 0 || vcpus > PC_ACPI_VCPUS_MAX)
		return -EINVAL;
	memset(ret, 0, PC_ACPI_MAX);
	dsdt = append_dsdt(&b);
	facs = append_facs(&b);
	xsdt.entries[0] = append_fadt(&b, facs, dsdt);
	xsdt.entries[1] = append_madt(&b, vcpus);
	write_rsdp(ret, append_table(&b, &xsdt, sizeof(xsdt)));
	*ret_bytes = b.used;
	return 0;
}
