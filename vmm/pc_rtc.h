/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The MC146818 clock and CMOS memory, ports 0x70 and 0x71.
 *
 * The guest reads the host's time, UTC; what it writes into the time registers is
 * dropped.  There are no alarm, periodic or update interrupts.
 */
#ifndef VMM_PC_RTC_H
#define VMM_PC_RTC_H

#include <stdint.h>
#include <time.h>

struct pc_rtc {
	uint8_t index;
	uint8_t memory[128];
};

/* As after power-on: the CMOS memory is zero. */
void pc_rtc_reset(struct pc_rtc *rtc);

void pc_rtc_select(struct pc_rtc *rtc, uint8_t index);

/* The selected register, at @now of CLOCK_REALTIME. */
uint8_t pc_rtc_read(const struct pc_rtc *rtc, const struct timespec *now);
void pc_rtc_write(struct pc_rtc *rtc, uint8_t value);

#endif
