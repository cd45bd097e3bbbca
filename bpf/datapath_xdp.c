/* SPDX-License-Identifier: GPL-2.0-only */
/* datapath_xdp.c: the flow cache at XDP, for ports that are attached there (--hook xdp).
 *
 * Only established traffic that leaves by one port, unchanged, is decided here: one parse, one look-up, one redirect, no
 * skb. Everything else is passed on to tc_ingress of the same port, which knows the whole pipeline and makes the entries
 * that this program finds. So both hooks always give the same packets.
 */
#include "lib/kernel.h"
#include "lib/packet.h"
#include "lib/cache.h"
#include "lib/maps.h"
#include "stages/credit.h"
#include "stages/refresh.h"

#define CACHE_NOT_AT_XDP (CACHE_EDIT | CACHE_MULTI | CACHE_METER | CACHE_TIMED)

/* Ones' complement sum of 16-bit words, folded. */
INLINE __u32 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* A guest that leaves checksums to the hardware puts the sum of the pseudo-header where the checksum belongs; the rest is
 * in metadata that an XDP redirect loses. Returns 1 if that sum is there: the frame must go on as an skb. A finished
 * checksum looks the same once in 65,536 frames; that costs time, not truth. */
INLINE int checksum_is_partial(const struct packet *p, void *data, void *data_end)
{
	const __u32 off = 16; /* of the checksum in TCP's header */
	__u32 proto = (p->w[2] >> 32) & 0xff, len;
	void *l3 = data + p->l3, *l4 = data + p->l4;
	__u16 type = p->w[1] >> 48, check;
	__u64 sum;

	if (type != ETH_P_IP_BE && type != ETH_P_IPV6_BE)
		return 0;
	if (proto == IPPROTO_ICMP || proto == IPPROTO_ICMPV6)
		return 0; /* no hardware completes these */
	if (proto != IPPROTO_TCP)
		return 1; /* tunnels: the one that is missing may be inside; SCTP: nothing tells */
	if (!p->l4 || l4 + off + 2 > data_end || l3 + 20 > data_end)
		return 1;
	check = load_u16(l4 + off);
	if (type == ETH_P_IP_BE)
		len = swap16(load_u16(l3 + 2)) - (p->l4 - p->l3);
	else
		len = swap16(load_u16(l3 + 4)) + 40 - (p->l4 - p->l3);
	sum = (p->w[4] & 0xffffffff) + (p->w[4] >> 32) + (p->w[5] & 0xffffffff) + (p->w[5] >> 32) +
	      (p->w[6] & 0xffffffff) + (p->w[6] >> 32) + (p->w[7] & 0xffffffff) + (p->w[7] >> 32);
	sum += swap16(len & 0xffff) + (proto << 8);
	return fold(sum) % 0xffff == check % 0xffff;
}

int xdp_ingress(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;
	const struct config *cfg = config_at(0);
	__u32 slot, len = data_end - data, needs_l3, hash;
	struct policy policy;
	struct cache_bucket *b;
	struct cache_entry *e;
	struct bridge *br;
	struct packet p;
	struct port *in, *out;
	__u32 out_slot, flags, reason;
	__u64 seq;

	in = port_by_ifindex(ctx->ingress_ifindex, &slot);
	if (!in || !cfg)
		return XDP_PASS;
	/* a tag beside the frame is lost by a redirect; on an access port a tagged frame has no business anyway */
	if (!(in->flags & PORT_XDP_TAGS_SEEN) && in->mode.vlan_mode != VLAN_MODE_ACCESS)
		return XDP_PASS;
	br = bridge_at(in->bridge);
	if (!br || (br->flags & (BRIDGE_UP | BRIDGE_CACHE)) != (BRIDGE_UP | BRIDGE_CACHE))
		return XDP_PASS;
	*(__u64 *)&policy = read_once_u64(&br->policy);
	needs_l3 = br->flags & BRIDGE_NEEDS_L3;
	if (packet_parse(&p, data, data_end, len, 0, 0, in->ofport,
			 needs_l3 || !(in->flags & PORT_XDP_CSUM_SAFE)) != PARSE_DONE)
		return XDP_PASS;
	if (!(in->flags & PORT_XDP_CSUM_SAFE) && checksum_is_partial(&p, data, data_end))
		return XDP_PASS;
	cache_mask_key(p.w, br, policy.generation, slot, needs_l3);
	hash = cache_hash(p.w, cfg, needs_l3);
	b = cache_bucket_of(cfg, hash);
	if (!b)
		return XDP_PASS;
	e = cache_find(b, hash, p.w, needs_l3, policy.generation, &seq);
	if (!e)
		return XDP_PASS;
	flags = e->flags;
	out_slot = e->out;
	reason = e->reason;
	if (flags & CACHE_NOT_AT_XDP)
		return XDP_PASS;
	if ((flags & CACHE_FDB) && !hit_fdb_valid(e))
		return XDP_PASS;
	if (e->tick != TICK_NOW() && !hit_refresh(e, p.w, br))
		return XDP_PASS;
	out = port_at(out_slot);
	if (!out || (!(flags & CACHE_DROP) && !(out->flags & PORT_XDP_OUT)))
		return XDP_PASS;
	if (!cache_still(e, seq))
		return XDP_PASS;
	cache_count(e, len);
	credit_flows(e, len);
	count_rx(slot, len);
	if (flags & CACHE_DROP) {
		count_drop(slot, reason);
		return XDP_DROP;
	}
	count_tx(out_slot, len);
	return bpf_redirect_map(MAP(tx_ports), out_slot, 0);
}
