/* SPDX-License-Identifier: GPL-2.0-only */
/* actions.h: what each action does to the key and to the list of pending outputs.
 *
 * Actions run on s->cur. The packet itself is edited by emit.h, when it is sent.
 */
#ifndef PYOFFLOAD_ACTIONS_H
#define PYOFFLOAD_ACTIONS_H

#include "../lib/maps.h"
#include "../lib/meter.h"
#include "../lib/scratch.h"

/* Notes that the flow decides about this packet. */
INLINE void flow_credit(struct scratch *s, struct flow *f, __u32 slot)
{
	counter_add(flow_stats_at(slot), s->len);
	f->used_ns = s->now;
	if (f->idle_ns || f->deadline_ns)
		s->timed = 1;
	if (s->meter)
		s->uncacheable = 1; /* what the meter refuses is none of this flow's */
	if (s->n_flows < MAX_CACHE_FLOWS)
		s->flow[s->n_flows & (MAX_CACHE_FLOWS - 1)] = slot;
	else
		s->uncacheable = 1;
	s->n_flows++;
}

INLINE int is_ip(const struct scratch *s)
{
	return (s->cur.dl_type == ETH_P_IP_BE || s->cur.dl_type == ETH_P_IPV6_BE) &&
	       (s->cur.valid & KEY_VALID_L3);
}

INLINE int prereq_holds(const struct scratch *s, __u32 prereq)
{
	const struct flow_key *k = &s->cur;
	__u32 proto = k->nw_proto;
	int l4 = is_ip(s) && (k->valid & KEY_VALID_L4) && !(k->nw_frag & NW_FRAG_LATER);

	switch (prereq) {
	case PREREQ_NONE:
		return 1;
	case PREREQ_IPV4:
		return is_ip(s) && k->dl_type == ETH_P_IP_BE;
	case PREREQ_IPV6:
		return is_ip(s) && k->dl_type == ETH_P_IPV6_BE;
	case PREREQ_IP:
		return is_ip(s);
	case PREREQ_TCP:
		return l4 && proto == IPPROTO_TCP;
	case PREREQ_UDP:
		return l4 && proto == IPPROTO_UDP;
	case PREREQ_SCTP:
		return l4 && proto == IPPROTO_SCTP;
	case PREREQ_PORTS:
		return l4 &&
		       (proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == IPPROTO_SCTP);
	case PREREQ_ICMP4:
		return l4 && k->dl_type == ETH_P_IP_BE && proto == IPPROTO_ICMP;
	case PREREQ_ICMP6:
		return l4 && k->dl_type == ETH_P_IPV6_BE && proto == IPPROTO_ICMPV6;
	case PREREQ_ARP:
		return (k->dl_type == ETH_P_ARP_BE || k->dl_type == ETH_P_RARP_BE) &&
		       (k->valid & KEY_VALID_L3);
	case PREREQ_ND:
		return k->valid & KEY_VALID_ND ? 1 : 0;
	case PREREQ_VLAN:
		return k->vlan_tci0 != 0;
	}
	return 0;
}

/* Which edit a write to these bits of a key word amounts to, for the cache entry. */
INLINE __u32 written_fields(const struct scratch *s, __u32 word, __u64 mask)
{
	int v4 = s->cur.dl_type == ETH_P_IP_BE;
	__u32 fields = 0;

	switch (word) {
	case 0:
	case 1:
		return (mask & MASK48 ? EDIT_ETH : 0) | (mask & ~MASK48 ? EDIT_VLAN : 0);
	case 2:
		return (mask & 0x0000ff0000000000ULL ? EDIT_TOS : 0) |
		       (mask & 0x00ff000000000000ULL ? EDIT_TTL : 0) |
		       (mask & 0x000000ff00000000ULL ? EDIT_ARP : 0);
	case 3:
		return (mask & 0xffff ? EDIT_TP_SRC : 0) | (mask & 0xffff0000 ? EDIT_TP_DST : 0);
	case 4:
		if (v4) {
			fields = (mask & 0xffffffff ? EDIT_NW_SRC : 0) |
				 (mask >> 32 ? EDIT_NW_DST : 0);
			return fields;
		}
		return is_ip(s) ? EDIT_NW_SRC : EDIT_ARP;
	case 5:
		return EDIT_NW_SRC;
	case 6:
	case 7:
		return EDIT_NW_DST;
	case 8:
		return EDIT_LABEL;
	case 9:
	case 10:
	case 11:
	case 12:
		return EDIT_ND;
	}
	return 0; /* metadata and registers are not in the packet */
}

INLINE void action_set(struct scratch *s, const struct action *a)
{
	__u64 *w = (__u64 *)&s->cur;
	__u32 word = a->word, fields;

	if (word >= FLOW_KEY_WORDS || !prereq_holds(s, a->prereq))
		return;
	fields = written_fields(s, word, a->mask);
	if (fields & (EDIT_ARP | EDIT_ND))
		s->uncacheable = 1;
	if ((fields & EDIT_TTL) && s->dec_ttl) {
		s->uncacheable =
			1; /* the entry would not say any more that a TTL of 1 is too small */
		s->dec_ttl = 0;
	}
	s->written |= fields;
	w[word] = (w[word] & ~a->mask) | a->value;
}

INLINE void key_vlan_pop(struct flow_key *k)
{
	k->vlan_tci0 = k->vlan_tci1;
	k->vlan_tci1 = 0;
	k->tpids = k->tpids & KEY_TPID_INNER_AD ? KEY_TPID_OUTER_AD : 0;
}

/* Returns 0 when there are two tags already. */
INLINE int key_vlan_push(struct flow_key *k, __be16 tci, int ad)
{
	if (k->vlan_tci1)
		return 0;
	k->vlan_tci1 = k->vlan_tci0;
	k->vlan_tci0 = tci;
	k->tpids = (k->tpids & KEY_TPID_OUTER_AD ? KEY_TPID_INNER_AD : 0) |
		   (ad ? KEY_TPID_OUTER_AD : 0);
	return 1;
}

/* mod_vlan_vid and mod_vlan_pcp: `value` into the bits `mask` of the tci (host order); without a tag, put one on. */
INLINE void action_set_tci(struct scratch *s, __u16 mask, __u16 value)
{
	__u16 tci = swap16(s->cur.vlan_tci0);

	s->written |= EDIT_VLAN;
	if (!tci) {
		key_vlan_push(&s->cur, swap16(value | VLAN_PRESENT), 0);
		return;
	}
	tci = (tci & ~mask) | value;
	s->cur.vlan_tci0 = swap16(tci);
}

/* Returns 0 when the packet has come to the end of its life. */
INLINE int action_dec_ttl(struct scratch *s, __u32 n)
{
	if (!is_ip(s))
		return 1;
	if (s->cur.nw_ttl <= n)
		return 0;
	s->cur.nw_ttl -= n;
	if (!(s->written & EDIT_TTL))
		s->dec_ttl += n;
	return 1;
}

INLINE void pend(struct scratch *s, __u32 slot, __u32 kind)
{
	__u32 n = s->n_pending;

	if (n >= MAX_PENDING_OUTPUTS) {
		s->lost = DROP_REASON_PIPELINE_LIMIT;
		return;
	}
	s->pending[n].slot = slot;
	s->pending[n].kind = kind;
	s->n_pending = n + 1;
}

/* Slot of the bridge's port with that OpenFlow number, or PORT_SLOT_NONE. */
INLINE __u32 slot_of_ofport(const struct scratch *s, __u32 ofport)
{
	struct bridge_ports *ports = bridge_ports_at(s->bridge);
	struct bridge *br = bridge_at(s->bridge);

	if (ofport == OFPORT_LOCAL)
		return br ? br->local : PORT_SLOT_NONE;
	if (ports && ofport <= MAX_OFPORT)
		return ports->by_ofport[ofport & MAX_OFPORT];
	return PORT_SLOT_NONE;
}

INLINE void action_output(struct scratch *s, __u32 ofport)
{
	__u32 slot = slot_of_ofport(s, ofport);
	struct port *p = port_at(slot);

	if (p && p->deliver == PORT_DELIVER_ABSENT)
		s->lost = DROP_REASON_PORT_ABSENT;
	else if (slot == PORT_SLOT_NONE)
		s->lost = DROP_REASON_NO_SUCH_PORT;
	else if (slot == s->in_slot)
		s->lost = s->lost ? s->lost : DROP_REASON_SAME_PORT;
	else
		pend(s, slot, PENDING_PORT);
}

/* Which actions need the pending copies to leave first, because they change the key. */
INLINE int changes_key(__u32 op)
{
	return op == ACTION_SET || (op >= ACTION_PUSH_VLAN && op <= ACTION_DEC_TTL);
}

#endif
