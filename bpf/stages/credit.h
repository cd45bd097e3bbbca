/* SPDX-License-Identifier: GPL-2.0-only */
/* credit.h: a cached decision's flows: count the packet for each, and notice when one of them has timed out. */
#ifndef PYOFFLOAD_CREDIT_H
#define PYOFFLOAD_CREDIT_H

#include "../lib/cache.h"
#include "../lib/maps.h"

INLINE __u32 credit_slot(const struct cache_entry *e, int i)
{
	return i ? e->flow[i - 1] : e->flow0;
}

/* No flow behind the entry has reached a timeout. */
INLINE int credit_valid(const struct cache_entry *e, __u64 now)
{
	for (int i = 0; i < MAX_CACHE_FLOWS; i++) {
		struct flow *f;

		if (i >= e->n_flows)
			break;
		f = flow_at(credit_slot(e, i));
		if (!f)
			return 0;
		if (f->deadline_ns && (__s64)(now - f->deadline_ns) >= 0)
			return 0;
		if (f->idle_ns && (__s64)(now - f->used_ns) > (__s64)f->idle_ns)
			return 0;
	}
	return 1;
}

INLINE void credit_seen(const struct cache_entry *e, __u64 now)
{
	for (int i = 0; i < MAX_CACHE_FLOWS; i++) {
		struct flow *f;

		if (i >= e->n_flows)
			break;
		f = flow_at(credit_slot(e, i));
		if (f)
			f->used_ns = now;
	}
}

INLINE void credit_flows(const struct cache_entry *e, __u32 len)
{
	for (int i = 0; i < MAX_CACHE_FLOWS; i++) {
		if (i >= e->n_flows)
			break;
		counter_add(flow_stats_at(credit_slot(e, i)), len);
	}
}

#endif
