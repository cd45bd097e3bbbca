/* SPDX-License-Identifier: GPL-2.0-only */
/* maps.h: typed look-ups of array maps; each returns NULL only for an index out of range. */
#ifndef PYOFFLOAD_MAPS_H
#define PYOFFLOAD_MAPS_H

#include "kernel.h"

#define ARRAY_LOOKUP(function, type, map)                     \
	INLINE type *function(__u32 index)                    \
	{                                                     \
		return bpf_map_lookup_elem(MAP(map), &index); \
	}

ARRAY_LOOKUP(port_at, struct port, ports)
ARRAY_LOOKUP(bridge_at, struct bridge, bridges)
ARRAY_LOOKUP(bridge_ports_at, struct bridge_ports, bridge_ports)
ARRAY_LOOKUP(vlan_profile_at, struct vlan_profile, vlan_profiles)
ARRAY_LOOKUP(bridge_counters_at, struct bridge_counters, bridge_counters)
ARRAY_LOOKUP(config_at, struct config, config)
ARRAY_LOOKUP(flow_at, struct flow, flows)
ARRAY_LOOKUP(action_at, struct action, actions)
ARRAY_LOOKUP(group_at, struct group, groups)
ARRAY_LOOKUP(group_stats_at, struct counter, group_stats)
ARRAY_LOOKUP(bucket_at, struct bucket, buckets)
ARRAY_LOOKUP(bucket_stats_at, struct counter, bucket_stats)
ARRAY_LOOKUP(meter_at, struct meter, meters)
ARRAY_LOOKUP(meter_stats_at, struct counter, meter_stats)
ARRAY_LOOKUP(port_stats_at, struct port_stats, port_stats)
ARRAY_LOOKUP(fdb_epoch_at, __u32, fdb_epochs)
ARRAY_LOOKUP(fdb_ring_at, struct fdb_key, fdb_ring)
ARRAY_LOOKUP(fdb_state_at, struct fdb_state, fdb_state)
ARRAY_LOOKUP(cache_bucket_at, struct cache_bucket, flow_cache)
ARRAY_LOOKUP(cache_tag_at, __u32, cache_tags)
ARRAY_LOOKUP(crc32c_shift_at, __u32, crc32c_shift)

/* Two large tables of counters have a part for each CPU in one plain array: made in no time (a per-CPU map of that size
 * takes half a second), and read by mmap. */
INLINE struct counter *flow_stats_at(__u32 slot)
{
	__u32 index = bpf_get_smp_processor_id() * MAX_FLOWS + (slot & (MAX_FLOWS - 1));

	return bpf_map_lookup_elem(MAP(flow_stats), &index);
}

INLINE __u64 *port_drops_at(__u32 index)
{
	index += bpf_get_smp_processor_id() * (MAX_PORTS * N_DROP_REASONS);
	return bpf_map_lookup_elem(MAP(port_drops), &index);
}

/* The port of an interface, and its slot. Python puts it within PORT_PROBES places of its home. */
INLINE struct port *port_by_ifindex(__u32 ifindex, __u32 *slot)
{
	for (int i = 0; i < PORT_PROBES; i++) {
		struct port *p;

		*slot = (ifindex + i) & (MAX_PORTS - 1);
		p = port_at(*slot);
		if (p && p->ifindex == ifindex)
			return p;
	}
	return NULL;
}

INLINE void counter_add(struct counter *c, __u32 len)
{
	if (!c)
		return; /* a lost count is not a lost packet */
	c->packets++;
	c->bytes += len;
}

INLINE void count_rx(__u32 slot, __u32 len)
{
	struct port_stats *st = port_stats_at(slot);

	if (!st)
		return;
	st->rx_packets++;
	st->rx_bytes += len;
}

INLINE void count_tx(__u32 slot, __u32 len)
{
	struct port_stats *st = port_stats_at(slot);

	if (!st)
		return;
	st->tx_packets++;
	st->tx_bytes += len;
}

/* Counts a packet, or a copy of it, that came from port `slot` and goes no further. */
INLINE void count_drop(__u32 slot, __u32 reason)
{
	__u64 *n = port_drops_at((slot & (MAX_PORTS - 1)) * N_DROP_REASONS +
				 (reason & (N_DROP_REASONS - 1)));

	if (n)
		(*n)++;
}

#endif
