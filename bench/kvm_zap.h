/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The kernel's own way to drop the mappings of a VM: deleting a memslot of KVM's. */
#ifndef BENCH_KVM_ZAP_H
#define BENCH_KVM_ZAP_H

#include <stdint.h>

/*
 * Lets a KVM guest touch @entries 4K pages of a slot, and measures how long deleting that
 * slot takes.  0; -1 and *ret_why: KVM is not there, or the guest is too slow for so many.
 */
int kvm_zap_measure(uint64_t entries, uint64_t *ret_ns, const char **ret_why);

#endif
