/* SPDX-License-Identifier: GPL-2.0-only */
/* edit.h: edit_apply(): the only code that changes packets (TC), on a flow's first packet and on every later one.
 *
 * Checksums are updated by difference (RFC 1624), through the kernel's helpers, which know about checksums that the
 * hardware has yet to fill in and about UDP's "no checksum". A wrong checksum stays wrong.
 */
#ifndef PYOFFLOAD_EDIT_H
#define PYOFFLOAD_EDIT_H

#include "maps.h"
#include "packet.h"

/* Where an edit acts. l4 is 0 where there is no whole transport header (a later fragment, a truncated packet). */
struct edit_place {
	__u32 l3;
	__u32 l4;
	__u16 dl_type; /* wire order */
	__u8 nw_proto;
	__u8 nw_frag;
	__u8 routed; /* checksums cover the last hop of a routing header, not ipv6_dst (RFC 8200 8.1) */
	__u8 n_tags; /* before the edit, at most 2 */
};

/* Offset of the transport checksum that covers the pseudo-header; 0: there is none. */
INLINE __u32 edit_pseudo_csum(const struct edit_place *at)
{
	if (!at->l4)
		return 0;
	if (at->nw_proto == IPPROTO_TCP)
		return at->l4 + 16;
	if (at->nw_proto == IPPROTO_UDP)
		return at->l4 + 6;
	if (at->nw_proto == IPPROTO_ICMPV6 && at->dl_type == ETH_P_IPV6_BE)
		return at->l4 + 2;
	return 0;
}

INLINE __u64 edit_csum_flags(const struct edit_place *at)
{
	return at->nw_proto == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
}

INLINE int edit_addr4(struct __sk_buff *skb, const struct edit_place *at, __u32 off, __be32 addr)
{
	__u32 csum = edit_pseudo_csum(at);
	__be32 old = 0;

	if (bpf_skb_load_bytes(skb, off, &old, 4))
		return -1;
	if (old == addr)
		return 0;
	if (csum &&
	    bpf_l4_csum_replace(skb, csum, old, addr, 4 | BPF_F_PSEUDO_HDR | edit_csum_flags(at)))
		return -1;
	if (bpf_l3_csum_replace(skb, at->l3 + 10, old, addr, 4))
		return -1;
	return bpf_skb_store_bytes(skb, off, &addr, 4, 0);
}

INLINE int edit_addr6(struct __sk_buff *skb, const struct edit_place *at, __u32 off,
		      const __be32 *addr)
{
	__u32 csum = edit_pseudo_csum(at);
	__be32 old[4] = {}, new[4] = { addr[0], addr[1], addr[2], addr[3] };

	if (bpf_skb_load_bytes(skb, off, old, 16))
		return -1;
	if (csum && !(at->routed && off == at->l3 + 24)) {
#pragma unroll
		for (int i = 0; i < 4; i++) {
			if (bpf_l4_csum_replace(skb, csum, old[i], new[i],
						4 | BPF_F_PSEUDO_HDR | edit_csum_flags(at)))
				return -1;
		}
	}
	return bpf_skb_store_bytes(skb, off, new, 16, BPF_F_RECOMPUTE_CSUM);
}

/* The octets `old` of the IPv4 header at `off` (even) become `new`. */
INLINE int edit_ip_word(struct __sk_buff *skb, const struct edit_place *at, __u32 off, __u16 old,
			__u16 new)
{
	if (old == new)
		return 0;
	if (bpf_l3_csum_replace(skb, at->l3 + 10, old, new, 2))
		return -1;
	return bpf_skb_store_bytes(skb, off, &new, 2, 0);
}

INLINE int edit_tos(struct __sk_buff *skb, const struct edit_place *at, __u8 tos)
{
	__u8 b[2] = {};

	if (bpf_skb_load_bytes(skb, at->l3, b, 2))
		return -1;
	if (at->dl_type == ETH_P_IP_BE)
		return edit_ip_word(skb, at, at->l3, b[0] | (__u16)b[1] << 8,
				    b[0] | (__u16)tos << 8);
	b[0] = (b[0] & 0xf0) | tos >> 4;
	b[1] = (b[1] & 0x0f) | tos << 4;
	return bpf_skb_store_bytes(skb, at->l3, b, 2, BPF_F_RECOMPUTE_CSUM);
}

/* Sets the TTL or hop limit, or subtracts from it (the caller has seen that it is large enough). */
INLINE int edit_ttl(struct __sk_buff *skb, const struct edit_place *at, __u8 ttl, int subtract)
{
	__u8 b[2] = {};

	if (at->dl_type == ETH_P_IP_BE) {
		if (bpf_skb_load_bytes(skb, at->l3 + 8, b, 2))
			return -1;
		if (subtract)
			ttl = b[0] - ttl;
		return edit_ip_word(skb, at, at->l3 + 8, b[0] | (__u16)b[1] << 8,
				    ttl | (__u16)b[1] << 8);
	}
	if (bpf_skb_load_bytes(skb, at->l3 + 7, b, 1))
		return -1;
	if (subtract)
		ttl = b[0] - ttl;
	return bpf_skb_store_bytes(skb, at->l3 + 7, &ttl, 1, BPF_F_RECOMPUTE_CSUM);
}

INLINE int edit_label(struct __sk_buff *skb, const struct edit_place *at, __be32 label)
{
	__be32 first = 0;

	if (bpf_skb_load_bytes(skb, at->l3, &first, 4))
		return -1;
	first = (first & ~0xffff0f00) | (label & 0xffff0f00);
	return bpf_skb_store_bytes(skb, at->l3, &first, 4, BPF_F_RECOMPUTE_CSUM);
}

/* SCTP's checksum is a CRC32c of the whole packet (RFC 9260 6.8, appendix A). It is linear: changing the first four
 * octets by `delta` changes it by delta * x^(8 * length) modulo the polynomial, whatever the packet holds. */
INLINE int edit_sctp_crc(struct __sk_buff *skb, const struct edit_place *at, __u32 delta)
{
	__u32 a = delta, product = 0, crc = 0, len, b;
	__u16 total = 0;
	__u32 *shift;

	if (at->nw_frag)
		return -1; /* the rest of what it covers is not here */
	if (bpf_skb_load_bytes(skb, at->l4 + 8, &crc, 4))
		return -1;
	if (!crc)
		return 0; /* to be filled in by the hardware */
	if (bpf_skb_load_bytes(skb, at->l3 + (at->dl_type == ETH_P_IP_BE ? 2 : 4), &total, 2))
		return -1;
	len = swap16(total) + (at->dl_type == ETH_P_IP_BE ? 0 : 40) - (at->l4 - at->l3);
	shift = crc32c_shift_at(len & 0xffff);
	if (!shift)
		return -1;
	b = *shift;
	for (int i = 0; i < 32; i++) {
		if (b & 0x80000000)
			product ^= a;
		b <<= 1;
		a = (a & 1) ? (a >> 1) ^ 0x82f63b78 : a >> 1;
	}
	crc ^= product;
	return bpf_skb_store_bytes(skb, at->l4 + 8, &crc, 4, 0);
}

/* Sets ports, or type and code of ICMP. */
INLINE int edit_ports(struct __sk_buff *skb, const struct edit_place *at, __u32 fields, __be16 src,
		      __be16 dst)
{
	__u32 old = 0, new;

	if (!at->l4)
		return 0;
	if (bpf_skb_load_bytes(skb, at->l4, &old, 4))
		return -1;
	if (at->nw_proto == IPPROTO_ICMP || at->nw_proto == IPPROTO_ICMPV6) {
		new = old;
		if (fields & EDIT_TP_SRC)
			new = (new & ~0xffU) | src >> 8;
		if (fields & EDIT_TP_DST)
			new = (new & ~0xff00U) | (dst & 0xff00);
		if ((new & 0xffff) == (old & 0xffff))
			return 0;
		if (bpf_l4_csum_replace(skb, at->l4 + 2, old & 0xffff, new & 0xffff, 2))
			return -1;
		return bpf_skb_store_bytes(skb, at->l4, &new, 2, 0);
	}
	new = old;
	if (fields & EDIT_TP_SRC)
		new = (new & ~0xffffU) | src;
	if (fields & EDIT_TP_DST)
		new = (new & 0xffff) | (__u32)dst << 16;
	if (new == old)
		return 0;
	if (at->nw_proto == IPPROTO_TCP || at->nw_proto == IPPROTO_UDP) {
		__u32 csum = at->l4 + (at->nw_proto == IPPROTO_TCP ? 16 : 6);

		if (bpf_l4_csum_replace(skb, csum, old, new, 4 | edit_csum_flags(at)))
			return -1;
	} else if (at->nw_proto == IPPROTO_SCTP) {
		if (edit_sctp_crc(skb, at, old ^ new))
			return -1;
	} else {
		return 0;
	}
	return bpf_skb_store_bytes(skb, at->l4, &new, 4, 0);
}

INLINE int edit_vlan(struct __sk_buff *skb, const struct edit *e)
{
	if (e->n_pop > 0 && bpf_skb_vlan_pop(skb))
		return -1;
	if (e->n_pop > 1 && bpf_skb_vlan_pop(skb))
		return -1;
	if (e->n_push > 0 &&
	    bpf_skb_vlan_push(skb, e->push_tpid[0], swap16(e->push_tci[0]) & ~VLAN_PRESENT))
		return -1;
	if (e->n_push > 1 &&
	    bpf_skb_vlan_push(skb, e->push_tpid[1], swap16(e->push_tci[1]) & ~VLAN_PRESENT))
		return -1;
	return 0;
}

/* Does what `e` says. Returns 0, or -1 when the kernel refused (no memory): the packet must be dropped then. */
INLINE int edit_apply(struct __sk_buff *skb, const struct edit *e, const struct edit_place *at)
{
	__u32 fields = e->fields;

	if (fields & (EDIT_NW_SRC | EDIT_NW_DST)) {
		if (at->dl_type == ETH_P_IP_BE) {
			if ((fields & EDIT_NW_SRC) &&
			    edit_addr4(skb, at, at->l3 + 12, e->nw_src[0]))
				return -1;
			if ((fields & EDIT_NW_DST) &&
			    edit_addr4(skb, at, at->l3 + 16, e->nw_dst[0]))
				return -1;
		} else {
			if ((fields & EDIT_NW_SRC) && edit_addr6(skb, at, at->l3 + 8, e->nw_src))
				return -1;
			if ((fields & EDIT_NW_DST) && edit_addr6(skb, at, at->l3 + 24, e->nw_dst))
				return -1;
		}
	}
	if ((fields & EDIT_TOS) && edit_tos(skb, at, e->tos))
		return -1;
	if ((fields & (EDIT_TTL | EDIT_DEC_TTL)) && edit_ttl(skb, at, e->ttl, !(fields & EDIT_TTL)))
		return -1;
	if ((fields & EDIT_LABEL) && edit_label(skb, at, e->label))
		return -1;
	if ((fields & (EDIT_TP_SRC | EDIT_TP_DST)) &&
	    edit_ports(skb, at, fields, e->tp_src, e->tp_dst))
		return -1;
	if ((fields & EDIT_VLAN) && edit_vlan(skb, e))
		return -1;
	if ((fields & EDIT_ETH) && bpf_skb_store_bytes(skb, 0, (void *)e->dl_dst, 12, 0))
		return -1;
	return 0;
}

#endif
