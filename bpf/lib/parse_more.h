/* SPDX-License-Identifier: GPL-2.0-only */
/* parse_more.h: the rest of the parser, for the slow path: 802.3/SNAP, ARP, IPv6 extension headers, ND.
 *
 * It completes the key in the scratch. What is cut off or makes no sense leaves its KEY_VALID_* bit clear.
 */
#ifndef PYOFFLOAD_PARSE_MORE_H
#define PYOFFLOAD_PARSE_MORE_H

#include "packet.h"
#include "scratch.h"

#define DL_TYPE_NONE_BE 0xff05 /* 0x05ff, OFP_DL_TYPE_NOT_ETH_TYPE */
#define MAX_EXTENSION_HEADERS 16
#define MAX_ND_OPTIONS 8

INLINE void key_from_packet(struct flow_key *key, const struct packet *p)
{
	__u64 *w = (__u64 *)key;

#pragma unroll
	for (int i = 0; i < CACHE_KEY_WORDS; i++)
		w[i] = p->w[i];
#pragma unroll
	for (int i = CACHE_KEY_WORDS; i < FLOW_KEY_WORDS; i++)
		w[i] = 0;
}

/* IEEE 802.3 with LLC: a SNAP header of OUI 0 (RFC 1042) names an Ethernet type after all. */
INLINE void parse_llc(struct __sk_buff *skb, struct packet *p)
{
	__u8 llc[8] = {};
	__u16 type = DL_TYPE_NONE_BE;

	if (!bpf_skb_load_bytes(skb, p->l3, llc, 8) && llc[0] == 0xaa && llc[1] == 0xaa &&
	    llc[2] == 3 && !(llc[3] | llc[4] | llc[5]) && llc[6] >= 0x06) {
		type = llc[6] | (__u16)llc[7] << 8;
		p->l3 += 8;
	}
	p->w[1] = (p->w[1] & MASK48) | (__u64)type << 48;
}

/* Ethernet/IPv4 ARP (RFC 826): others keep the key's ARP fields empty. */
INLINE void parse_arp(struct __sk_buff *skb, struct scratch *s)
{
	__u8 b[28] = {};

	if (bpf_skb_load_bytes(skb, s->l3, b, 28))
		return;
	if (*(__u16 *)b != 0x0100 || *(__u16 *)(b + 2) != ETH_P_IP_BE || b[4] != 6 || b[5] != 4)
		return;
	if (!b[6])
		s->cur.nw_proto = b[7];
	__builtin_memcpy(s->cur.arp_sha, b + 8, 6);
	__builtin_memcpy(&s->cur.nw_src, b + 14, 4);
	__builtin_memcpy(s->cur.arp_tha, b + 18, 6);
	__builtin_memcpy(&s->cur.nw_dst, b + 24, 4);
	s->cur.valid |= KEY_VALID_L3;
}

/* Neighbour solicitation or advertisement (RFC 4861 4.3, 4.4), whose ICMPv6 header is known to be whole. */
INLINE void parse_nd(struct __sk_buff *skb, struct scratch *s, __u32 end)
{
	__u32 at = s->l4 + 24;

	if (s->cur.tp_dst || at > end || bpf_skb_load_bytes(skb, s->l4 + 8, s->cur.nd_target, 16))
		return;
	s->cur.valid |= KEY_VALID_ND;
	for (int i = 0; i < MAX_ND_OPTIONS; i++) {
		__u8 opt[8] = {};

		if (at + 8 > end || bpf_skb_load_bytes(skb, at, opt, 8) || !opt[1])
			return;
		if (opt[0] == 1 && opt[1] == 1 && !s->nd_sll) {
			__builtin_memcpy(s->cur.arp_sha, opt + 2, 6);
			s->nd_sll = at + 2;
		} else if (opt[0] == 2 && opt[1] == 1 && !s->nd_tll) {
			__builtin_memcpy(s->cur.arp_tha, opt + 2, 6);
			s->nd_tll = at + 2;
		}
		at += opt[1] * 8;
	}
}

/* The transport header behind extension headers: the fields that parse_ports() reads in place. */
INLINE void parse_ports_at(struct __sk_buff *skb, struct scratch *s, __u32 at, __u32 end)
{
	__u8 b[20] = {};
	__u32 proto = s->cur.nw_proto, need;

	need = proto == IPPROTO_TCP ? 20 : proto == IPPROTO_SCTP ? 12 : 8;
	if (proto != IPPROTO_TCP && proto != IPPROTO_UDP && proto != IPPROTO_SCTP &&
	    proto != IPPROTO_ICMPV6)
		return;
	if (at + need > end || bpf_skb_load_bytes(skb, at, b, 8))
		return;
	if (proto == IPPROTO_TCP &&
	    (bpf_skb_load_bytes(skb, at, b, 20) || !tcp_is_whole(b[12], end - at)))
		return;
	s->l4 = at;
	s->cur.valid |= KEY_VALID_L4;
	if (proto == IPPROTO_ICMPV6) {
		s->cur.tp_src = (__u16)b[0] << 8;
		s->cur.tp_dst = (__u16)b[1] << 8;
		return;
	}
	s->cur.tp_src = *(__u16 *)b;
	s->cur.tp_dst = *(__u16 *)(b + 2);
	if (proto == IPPROTO_TCP)
		s->cur.tcp_flags = *(__u16 *)(b + 12) & 0xff0f;
}

/* Walks the extension headers (RFC 8200 4). nw_proto becomes what follows them; of a later fragment it is 44, as in OVS,
 * since nothing says what is in it; where the chain is cut off, the type of the header that is not there. */
INLINE void parse_extensions(struct __sk_buff *skb, struct scratch *s, __u32 end)
{
	__u32 at = s->l3 + 40;

	s->hidden = 1; /* unless the walk comes to an end */
	for (int i = 0; i <= MAX_EXTENSION_HEADERS; i++) {
		__u8 b[8] = {};
		__u32 type = s->cur.nw_proto;

		if (type != IPPROTO_HOPOPTS && type != IPPROTO_ROUTING && type != IPPROTO_DSTOPTS &&
		    type != IPPROTO_AH && type != IPPROTO_FRAGMENT) {
			s->hidden = 0;
			parse_ports_at(skb, s, at, end);
			return;
		}
		if (i == MAX_EXTENSION_HEADERS)
			return;
		if (at + 8 > end || bpf_skb_load_bytes(skb, at, b, 8))
			break; /* cut off: nobody will find a transport header there */
		if (type == IPPROTO_FRAGMENT) {
			__u16 off = (__u16)b[2] << 8 | b[3];

			at += 8;
			if (off) {
				s->cur.nw_frag = NW_FRAG_ANY;
				if (off & 0xfff8) {
					s->cur.nw_frag = NW_FRAG_ANY | NW_FRAG_LATER;
					s->cur.valid |= KEY_VALID_L4;
					break;
				}
			}
		} else {
			__u32 len = type == IPPROTO_AH ? (b[1] + 2) * 4 : (b[1] + 1) * 8;

			if (at + len > end)
				break;
			if (type == IPPROTO_ROUTING && b[3])
				s->routed = 1;
			at += len;
		}
		s->cur.nw_proto = b[0];
	}
	/* cut off in a first fragment: the rest may come in the next (RFC 7112) */
	s->hidden = s->cur.nw_frag == NW_FRAG_ANY;
}

/* A first fragment must hold its whole transport header, or rules on ports can be passed by. */
INLINE int first_fragment_is_short(const struct flow_key *k)
{
	__u32 p = k->nw_proto;

	return k->nw_frag == NW_FRAG_ANY && !(k->valid & KEY_VALID_L4) &&
	       (p == IPPROTO_TCP || p == IPPROTO_UDP || p == IPPROTO_SCTP ||
		p == (k->dl_type == ETH_P_IP_BE ? IPPROTO_ICMP : IPPROTO_ICMPV6));
}

/* Completes s->cur, s->l3 and s->l4. */
INLINE void parse_more(struct __sk_buff *skb, struct scratch *s)
{
	__u16 type = s->cur.dl_type, payload = 0;
	__u32 end;

	if (type == ETH_P_ARP_BE || type == ETH_P_RARP_BE) {
		parse_arp(skb, s);
		return;
	}
	s->hidden = type == ETH_P_IP_BE; /* see parse_ipv4() */
	if (type != ETH_P_IPV6_BE || bpf_skb_load_bytes(skb, s->l3 + 4, &payload, 2))
		return;
	end = s->l3 + 40 + swap16(payload);
	if (!payload && skb->len > end + 0xffff)
		end = skb->len; /* BIG TCP */
	if (!s->l4)
		parse_extensions(skb, s, end);
	if (s->l4 && s->cur.nw_proto == IPPROTO_ICMPV6 &&
	    (s->cur.tp_src == 0x8700 || s->cur.tp_src == 0x8800))
		parse_nd(skb, s, end);
}

#endif
