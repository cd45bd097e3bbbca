/* SPDX-License-Identifier: GPL-2.0-only */
/* packet.h: the parser of both hooks.
 *
 * packet_parse() reads the headers straight into the words of the flow key; it knows everything that established
 * traffic consists of. What it leaves out (802.3/SNAP, ARP, neighbour discovery, IPv6 extension headers) it reports by
 * PARSE_MORE, and lib/parse_more.h completes the key on the slow path.
 */
#ifndef PYOFFLOAD_PACKET_H
#define PYOFFLOAD_PACKET_H

#include "kernel.h"

enum parse_result {
	PARSE_DONE = 0,	     /* the key is complete */
	PARSE_MORE = 1,	     /* there is more to read than the fast path does */
	PARSE_TRUNCATED = 2, /* no whole Ethernet header */
};

struct packet {
	__u64 w[CACHE_KEY_WORDS]; /* the first words of struct flow_key */
	__u32 l3;		  /* offset of the network header from `data`; 0: none */
	__u32 l4;		  /* offset of the transport header; 0: none, or not whole */
};

#define load_u16(p) (*(__u16 *)(p))
#define load_u32(p) (*(__u32 *)(p))
#define load_u64(p) (*(__u64 *)(p))

/* The data offset (RFC 9293 3.1: words, in the upper half of octet 12) is one that a header can have, and the options are
 * there, as OVS demands. */
INLINE int tcp_is_whole(__u8 offset, __u32 l4_len)
{
	__u32 len = (offset >> 4) * 4;

	return len >= 20 && len <= l4_len;
}

/* Transport header at `l4`: the ports, type/code and flags of word 3. Only what is there is valid: l4_len is what
 * the network header promises, so that Ethernet padding is not read as ports. */
INLINE __u64 parse_ports(void *data_end, void *l4, __u32 l4_len, __u32 proto)
{
	__u64 w3 = 0;

	if (proto == IPPROTO_TCP) {
		if (l4_len < 20 || l4 + 20 > data_end || !tcp_is_whole(*(__u8 *)(l4 + 12), l4_len))
			return 0;
		/* OVS keeps the 12 flag bits and drops the data offset before them */
		w3 = load_u32(l4) | ((__u64)(load_u16(l4 + 12) & 0xff0f)) << 32;
	} else if (proto == IPPROTO_UDP) {
		if (l4_len < 8 || l4 + 8 > data_end)
			return 0;
		w3 = load_u32(l4);
	} else if (proto == IPPROTO_SCTP) {
		if (l4_len < 12 || l4 + 12 > data_end)
			return 0;
		w3 = load_u32(l4);
	} else if (proto == IPPROTO_ICMP || proto == IPPROTO_ICMPV6) {
		__u16 type_code;

		if (l4_len < 8 || l4 + 8 > data_end)
			return 0;
		type_code = load_u16(l4); /* type and code as two 16-bit fields in wire order */
		w3 = (__u64)(type_code & 0xff) << 8 | (__u64)(type_code >> 8) << 24;
	} else {
		return 0;
	}
	return w3 | (__u64)KEY_VALID_L4 << 48;
}

INLINE int parse_ipv4(struct packet *p, void *data_end, void *l3, __u32 l3_len)
{
	struct iphdr *ip = l3;
	__u32 ihl, frag, total;
	__u64 nw_frag = 0, ports;

	if (l3 + sizeof(*ip) > data_end)
		return PARSE_DONE;
	ihl = (*(__u8 *)l3 & 0x0f) * 4;
	total = swap16(load_u16(l3 + 2));
	if (!total && l3_len > 0xffff)
		total = l3_len; /* a super-packet whose length does not fit (BIG TCP) */
	/* the same sanity as OVS: version, header length, and a total length that holds the header and is there */
	if ((*(__u8 *)l3 >> 4) != 4 || ihl < sizeof(*ip) || total < ihl || total > l3_len)
		return PARSE_DONE;
	frag = swap16(load_u16(l3 + 6));
	if (frag & 0x3fff)
		nw_frag = NW_FRAG_ANY | (frag & 0x1fff ? NW_FRAG_LATER : 0);
	p->w[2] |= (__u64)ip->protocol << 32 | (__u64) * (__u8 *)(l3 + 1) << 40 |
		   (__u64)ip->ttl << 48 | nw_frag << 56;
	p->w[3] |= (__u64)KEY_VALID_L3 << 48;
	p->w[4] = load_u64(l3 + 12);
	if (ip->protocol == IPPROTO_ICMPV6)
		return PARSE_DONE; /* not over IPv4 */
	if (ip->protocol == IPPROTO_TCP && (frag & 0x1fff) == 1)
		return PARSE_MORE; /* RFC 3128: it would overwrite the flags */
	if (nw_frag & NW_FRAG_LATER) {
		p->w[3] |= (__u64)KEY_VALID_L4 << 48;
		return PARSE_DONE;
	}
	ports = parse_ports(data_end, l3 + ihl, total - ihl, ip->protocol);
	if (ports) {
		p->w[3] |= ports;
		p->l4 = p->l3 + ihl;
	}
	return PARSE_DONE;
}

INLINE int parse_ipv6(struct packet *p, void *data_end, void *l3, __u32 l3_len)
{
	struct ipv6hdr *ip6 = l3;
	__u32 first, proto, payload;
	__u64 ports;

	if (l3 + sizeof(*ip6) > data_end)
		return PARSE_DONE;
	first = load_u32(l3);
	payload = swap16(load_u16(l3 + 4));
	if (!payload && l3_len > 0xffff + sizeof(*ip6))
		payload = l3_len - sizeof(*ip6); /* BIG TCP */
	/* a jumbogram (payload 0 with a hop-by-hop option) is not sane here, as in OVS */
	if ((first & 0xf0) != 0x60 || payload + sizeof(*ip6) > l3_len)
		return PARSE_DONE;
	proto = ip6->nexthdr;
	p->w[2] |= (__u64)proto << 32 |
		   (__u64)((first & 0x0f) << 4 | ((first >> 12) & 0x0f)) << 40 |
		   (__u64)ip6->hop_limit << 48;
	p->w[3] |= (__u64)KEY_VALID_L3 << 48;
	p->w[4] = load_u64(l3 + 8);
	p->w[5] = load_u64(l3 + 16);
	p->w[6] = load_u64(l3 + 24);
	p->w[7] = load_u64(l3 + 32);
	p->w[8] = first & 0xffff0f00; /* flow label: 20 bits, wire order */
	switch (proto) {
	case IPPROTO_HOPOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_FRAGMENT:
	case IPPROTO_AH:
	case IPPROTO_DSTOPTS:
		return PARSE_MORE;
	case IPPROTO_ICMP:
		return PARSE_DONE; /* not over IPv6 */
	}
	ports = parse_ports(data_end, l3 + sizeof(*ip6), payload, proto);
	if (!ports)
		return PARSE_DONE;
	p->w[3] |= ports;
	p->l4 = p->l3 + sizeof(*ip6);
	if (proto == IPPROTO_ICMPV6) {
		__u32 type = (p->w[3] >> 8) & 0xff;

		if (type == 135 || type == 136)
			return PARSE_MORE; /* RFC 4861: target and options */
	}
	return PARSE_DONE;
}

/* What comes at `l3`, of which there are l3_len octets, linear or not. */
INLINE int parse_network(struct packet *p, void *data_end, void *l3, __u32 l3_len, __u16 type)
{
	if (type == ETH_P_IP_BE)
		return parse_ipv4(p, data_end, l3, l3_len);
	if (type == ETH_P_IPV6_BE)
		return parse_ipv6(p, data_end, l3, l3_len);
	if (type == ETH_P_ARP_BE || type == ETH_P_RARP_BE)
		return PARSE_MORE;
	return PARSE_DONE;
}

/* Fills `p` from the frame in [data, data_end) of `len` bytes in total.
 * tci: the outermost tag, in wire order with VLAN_PRESENT, that the kernel has already taken off (0: none);
 * tpid_ad: that tag's tpid is 0x88a8. needs_l3: read layers 3 and 4 as well. in_port goes into word 2. */
INLINE int packet_parse(struct packet *p, void *data, void *data_end, __u32 len, __u16 tci,
			__u32 tpid_ad, __u32 in_port, __u32 needs_l3)
{
	void *cursor = data + ETH_HLEN;
	__u32 off = ETH_HLEN; /* cursor - data, as a number whose bounds the verifier keeps */
	__u32 tpids = tpid_ad ? KEY_TPID_OUTER_AD : 0;
	__u16 tci1 = 0, type;

	p->w[4] = p->w[5] = p->w[6] = p->w[7] = p->w[8] = 0;
	p->l3 = p->l4 = 0;
	if (cursor > data_end)
		return PARSE_TRUNCATED;
	type = load_u16(data + 12);
	if (!tci && (type == ETH_P_8021Q_BE || type == ETH_P_8021AD_BE) && cursor + 4 <= data_end) {
		tci = load_u16(cursor) | 0x0010;
		tpids = type == ETH_P_8021AD_BE ? KEY_TPID_OUTER_AD : 0;
		type = load_u16(cursor + 2);
		cursor += 4;
		off += 4;
	}
	if (tci && (type == ETH_P_8021Q_BE || type == ETH_P_8021AD_BE) && cursor + 4 <= data_end) {
		tci1 = load_u16(cursor) | 0x0010;
		tpids |= type == ETH_P_8021AD_BE ? KEY_TPID_INNER_AD : 0;
		type = load_u16(cursor + 2);
		cursor += 4;
		off += 4;
	}
	p->w[0] = (load_u64(data) & MASK48) | (__u64)tci << 48;
	p->w[1] = (load_u64(data + 6) & MASK48) | (__u64)type << 48;
	p->w[2] = in_port | (__u64)tci1 << 16;
	p->w[3] = (__u64)tpids << 56;
	p->l3 = off;
	if (swap16(type) < 0x0600)
		return PARSE_MORE;
	return needs_l3 ? parse_network(p, data_end, cursor, len - off, type) : PARSE_DONE;
}

#endif
