/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Register B says in which form the guest wants its numbers: BCD or binary, 12 or 24
 * hours.  Register A's "update in progress" bit is set for the last 244 us of a second,
 * so that a driver that honours it never sees half of a change.
 */
#include "vmm/pc_rtc.h"

#include <stdbool.h>
#include <string.h>

enum {
	RTC_SECONDS = 0x00,
	RTC_MINUTES = 0x02,
	RTC_HOURS = 0x04,
	RTC_WEEKDAY = 0x06,
	RTC_DAY = 0x07,
	RTC_MONTH = 0x08,
	RTC_YEAR = 0x09,
	RTC_A = 0x0a,
	RTC_B = 0x0b,
	RTC_C = 0x0c,
	RTC_D = 0x0d,
	RTC_CENTURY = 0x32
};

#define A_UPDATE      0x80u
#define A_DIVIDER     0x26u /* 32768 Hz, 1024 Hz */
#define B_24_HOURS    0x02u
#define B_BINARY      0x04u
#define D_VALID       0x80u
#define HOUR_PM       0x80u
#define UPDATE_NS     244000
#define NS_PER_SECOND 1000000000

void pc_rtc_reset(struct pc_rtc *rtc)
{
	memset(rtc, 0, sizeof(*rtc));
	rtc->memory[RTC_A] = A_DIVIDER;
	rtc->memory[RTC_B] = B_24_HOURS;
	rtc->memory[RTC_D] = D_VALID;
}

void pc_rtc_select(struct pc_rtc *rtc, uint8_t index)
{
	rtc->index = index & 0x7f; /* bit 7 masks NMI */
}

static uint8_t number(const struct pc_rtc *rtc, int value)
{
	if (rtc->memory[RTC_B] & B_BINARY)
		return (uint8_t)value;
	return (uint8_t)(value / 10 << 4 | value % 10);
}

static uint8_t hours(const struct pc_rtc *rtc, int hour)
{
	bool pm = hour >= 12;

	if (rtc->memory[RTC_B] & B_24_HOURS)
		return number(rtc, hour);
	hour = hour % 12 ? hour % 12 : 12;
	return number(rtc, hour) | (pm ? HOUR_PM : 0);
}

uint8_t pc_rtc_read(const struct pc_rtc *rtc, const struct timespec *now)
{
	struct tm tm;

	gmtime_r(&now->tv_sec, &tm);
	switch (rtc->index) {
	case RTC_SECONDS:
		return number(rtc, tm.tm_sec);
	case RTC_MINUTES:
		return number(rtc, tm.tm_min);
	case RTC_HOURS:
		return hours(rtc, tm.tm_hour);
	case RTC_WEEKDAY:
		return number(rtc, tm.tm_wday + 1);
	case RTC_DAY:
		return number(rtc, tm.tm_mday);
	case RTC_MONTH:
		return number(rtc, tm.tm_mon + 1);
	case RTC_YEAR:
		return number(rtc, tm.tm_year % 100);
	case RTC_CENTURY:
		return number(rtc, (tm.tm_year + 1900) / 100);
	case RTC_A:
		return rtc->memory[RTC_A] |
		       (now->tv_nsec >= NS_PER_SECOND - UPDATE_NS ? A_UPDATE : 0);
	default:
		return rtc->memory[rtc->index];
	}
}

void pc_rtc_write(struct pc_rtc *rtc, uint8_t value)
{
	switch (rtc->index) {
	case RTC_C:
	case RTC_D:
		break;
	case RTC_A:
		rtc->memory[RTC_A] = value & (uint8_t)~A_UPDATE;
		break;
	default:
		/* Time registers too: reading them never looks here. */
		rtc->memory[rtc->index] = value;
	}
}
