/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Typed addresses and page arithmetic.
 *
 * A guest physical address (GPA), a guest frame number (GFN) and a host virtual
 * address are different things that happen to be 64 bits wide.  Each is a struct
 * of one field, so that the compiler refuses to mix them.  Wire formats (abi/)
 * carry plain integers; decoders turn them into these types after checking.
 */
#ifndef BASE_TYPES_H
#define BASE_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE_SHIFT 12
#define PAGE_SIZE  ((uint64_t)1 << PAGE_SHIFT)
#define PAGE_MASK  (PAGE_SIZE - 1)

#define SIZE_2M ((uint64_t)1 << 21)
#define SIZE_1G ((uint64_t)1 << 30)

/* Guest physical addresses are below 2^48: what four levels of 9 bits translate. */
#define GPA_BITS 48
#define GPA_END  ((uint64_t)1 << GPA_BITS)
#define GFN_END  (GPA_END >> PAGE_SHIFT)

typedef struct {
	uint64_t v; /* bytes */
} gpa_t;

typedef struct {
	uint64_t v; /* 4K pages */
} gfn_t;

/* A range of whole pages: start .. start + count - 1.  Never wraps once checked. */
struct gfn_range {
	gfn_t start;
	uint64_t count; /* pages */
};

static inline gpa_t gpa(uint64_t v)
{
	return (gpa_t){v};
}

static inline gfn_t gfn(uint64_t v)
{
	return (gfn_t){v};
}

static inline gfn_t gpa_to_gfn(gpa_t a)
{
	return gfn(a.v >> PAGE_SHIFT);
}

static inline gpa_t gfn_to_gpa(gfn_t f)
{
	return gpa(f.v << PAGE_SHIFT);
}

static inline uint64_t range_end(struct gfn_range r)
{
	return r.start.v + r.count;
}

static inline uint64_t range_bytes(struct gfn_range r)
{
	return r.count << PAGE_SHIFT;
}

static inline uint64_t align_down(uint64_t x, uint64_t to)
{
	return x & ~(to - 1);
}

#endif
