/* SPDX-License-Identifier: GPL-2.0-only */
/* meter.h: meter_admits(): a token bucket as the generic cell rate algorithm (virtual scheduling form).
 *
 * The whole state is the theoretical arrival time, one 64-bit word that is advanced by compare-and-swap; so CPUs share a
 * meter exactly, without a lock.
 */
#ifndef PYOFFLOAD_METER_H
#define PYOFFLOAD_METER_H

#include "maps.h"

#define METER_TRIES 8

/* Returns 1 if the packet is within the rate; otherwise counts it and returns 0. */
INLINE int meter_admits(__u32 slot, __u32 len)
{
	struct meter *m = meter_at(slot);
	__u64 now, cost;

	if (!m || !m->enabled)
		return 1;
	now = bpf_ktime_get_ns(); /* allow: rates need nanoseconds */
	cost = ((m->per_packet ? 1 : len) * m->ns_per_unit_q16) >> 16;
	for (int i = 0; i < METER_TRIES; i++) {
		__u64 tat = read_once_u64(&m->tat_ns), start = (__s64)(tat - now) > 0 ? tat : now;

		if (start + cost - now > m->burst_ns)
			break;
		if (__sync_val_compare_and_swap(&m->tat_ns, tat, start + cost) == tat)
			return 1;
	}
	counter_add(meter_stats_at(slot), len);
	return 0;
}

#endif
