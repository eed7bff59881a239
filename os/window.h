/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Windows: the address ranges in which the ultravisor holds guest memory.
 *
 * A private window is anonymous memory that costs nothing until touched, in 2M pages
 * where the kernel has them, never merged, dumped, inherited or (where the limit lets
 * it) swapped.  A shared window is a mapping of the slot's memfd.  Base addresses are
 * 2M-aligned so that GPA and HVA agree below 2M.
 */
#ifndef OS_WINDOW_H
#define OS_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

struct window {
	uint8_t *base; /* NULL: none */
	uint64_t bytes;
};

/* Makes a private window of @bytes zeroes.  0, -ENOMEM or another negative errno. */
int window_private(uint64_t bytes, struct window *ret);

/* Makes a window onto the first @bytes of @memfd. */
int window_shared(int memfd, uint64_t bytes, struct window *ret);

/*
 * Lays [offset, offset + bytes) of @memfd over the same part of @w.  0; -ENOTRECOVERABLE, the
 * part is mapped no more; another negative errno, nothing changed then.
 */
int window_overlay(const struct window *w, int memfd, uint64_t offset, uint64_t bytes);

/*
 * Replaces a part of @w by fresh private memory that holds @bytes of content from
 * @source (another mapping; holes of zero pages are not touched).  The replacement is
 * one step: a reader sees the old or the new page.  Errors as window_overlay().
 */
int window_restore(const struct window *w, uint64_t offset, uint64_t bytes, const uint8_t *source);

/*
 * Lays @memfd over a part that is mapped no more, unless something else has come to lie there.
 * 0 or -errno.
 */
int window_mend(const struct window *w, int memfd, uint64_t offset, uint64_t bytes);

/* Gives the memory of a part back to the kernel; it reads as zeros.  0 or -errno. */
int window_discard(const struct window *w, uint64_t offset, uint64_t bytes);

/*
 * The same for a part that will be used again: what comes to lie there is locked on fault
 * like the rest.
 */
int window_vacate(const struct window *w, uint64_t offset, uint64_t bytes);

/* Gives a part memory now, which its first use would do. */
void window_populate(const struct window *w, uint64_t offset, uint64_t bytes);

/* Makes every access to a part fail, KVM's too.  It holds nothing.  0 or -errno. */
int window_forbid(const struct window *w, uint64_t offset, uint64_t bytes);

/*
 * Copies whole pages to memory that is zero; pages of zeros are left alone there.  Pages
 * that nobody has touched read as zeros, and those in swap come back, so this misses
 * nothing, unlike a look at what is resident.
 */
void window_copy(uint8_t *to, const uint8_t *from, uint64_t bytes);

/*
 * Finds the first resident memory in [offset, end) without touching any.  The result is a
 * run of resident pages, at most 2M long and within one 2M block.  Returns 0; -ENXIO if
 * there is none; another negative errno.  A page in swap is not resident: who must not miss
 * content does not ask here.
 */
int window_next_resident(const struct window *w, uint64_t offset, uint64_t end,
	uint64_t *ret_offset, uint64_t *ret_bytes);

/* How many bytes of [offset, end) are resident.  0 or -errno. */
int window_resident(const struct window *w, uint64_t offset, uint64_t end, uint64_t *ret_bytes);

/*
 * For each page of [offset, offset + bytes), whether it is resident: bit 0 of a byte of
 * @ret_page.  Touches none.  0 or -errno.
 */
int window_residency(
	const struct window *w, uint64_t offset, uint64_t bytes, unsigned char *ret_page);

/* Unmaps the window: linear in what is resident.  0 or -errno (then still mapped). */
int window_unmap(struct window *w);

/*
 * Unmaps the first @bytes of a window, which then begins behind them: a window never says
 * that it has what is not its own any more.  0 or -errno, nothing changed then.
 */
int window_trim(struct window *w, uint64_t bytes);

/* Lets a window begin @bytes later; these stay mapped, and are nobody's from now on. */
void window_skip(struct window *w, uint64_t bytes);

/* Overwrites @bytes of memory with zeros, in a way the compiler cannot leave out. */
void window_wipe(uint8_t *start, uint64_t bytes);

#endif
