/* SPDX-License-Identifier: GPL-2.0-only */
/* arrival.h: what is known of a packet before anything is decided: its port, its bridge, the policy that holds for it. */
#ifndef PYOFFLOAD_ARRIVAL_H
#define PYOFFLOAD_ARRIVAL_H

#include "cache.h"
#include "deliver.h"
#include "maps.h"
#include "packet.h"

/* Headers up to here are made linear before parsing: Ethernet, one more tag, IPv4 with all options, TCP; behind SNAP: the
 * same and its 8 octets. */
#define PARSE_LINEAR (14 + 4 + 60 + 20)
#define PARSE_LINEAR_SNAP (PARSE_LINEAR + 8)

struct arrival {
	struct port *port;
	struct bridge *bridge;
	struct policy
		policy; /* read once: it holds for the whole packet, in the program that read it */
	__u32 slot;
	__u32 len;
	__u32 parsed; /* enum parse_result */
	__u32 hash;
};

/* Returns 0 where the interface is not a port, or the port's bridge is not there. */
INLINE int arrival_of(struct __sk_buff *skb, struct arrival *in)
{
	in->port = port_by_ifindex(skb->ifindex, &in->slot);
	in->len = frame_len(skb);
	if (!in->port)
		return 0;
	in->bridge = bridge_at(in->port->bridge);
	if (!in->bridge)
		return 0;
	*(__u64 *)&in->policy = read_once_u64(&in->bridge->policy);
	return 1;
}

/* Returns 0, or an error: no memory. */
INLINE int make_linear(struct __sk_buff *skb, __u32 n)
{
	return bpf_skb_pull_data(skb, skb->len < n ? skb->len : n);
}

INLINE int arrival_parse(struct __sk_buff *skb, const struct arrival *in, struct packet *p)
{
	void *data = (void *)(long)skb->data, *data_end = (void *)(long)skb->data_end;
	__u32 tci = 0, ad = 0;

	if (data + PARSE_LINEAR > data_end && skb->len > (__u32)(data_end - data)) {
		if (make_linear(skb, PARSE_LINEAR))
			return PARSE_TRUNCATED; /* not seen, not passed */
		data = (void *)(long)skb->data;
		data_end = (void *)(long)skb->data_end;
	}
	if (skb->vlan_present) {
		tci = swap16(skb->vlan_tci | VLAN_PRESENT);
		ad = skb->vlan_proto == ETH_P_8021AD_BE;
	}
	return packet_parse(p, data, data_end, skb->len, tci, ad, in->port->ofport,
			    in->bridge->flags & BRIDGE_NEEDS_L3);
}

/* The cache is asked about this packet. */
INLINE int arrival_cacheable(const struct arrival *in)
{
	return (in->bridge->flags & BRIDGE_CACHE) && in->parsed == PARSE_DONE;
}

/* Makes `key` (the words of a parsed packet) the packet's key in the cache, and finds its bucket. */
INLINE struct cache_bucket *arrival_bucket(struct arrival *in, __u64 *key)
{
	__u32 needs_l3 = in->bridge->flags & BRIDGE_NEEDS_L3;
	const struct config *cfg = config_at(0);

	if (!cfg)
		return NULL;
	cache_mask_key(key, in->bridge, in->policy.generation, in->slot, needs_l3);
	in->hash = cache_hash(key, cfg, needs_l3);
	return cache_bucket_of(cfg, in->hash);
}

#endif
