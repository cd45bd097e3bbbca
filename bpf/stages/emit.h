/* SPDX-License-Identifier: GPL-2.0-only */
/* emit.h: make the packet what the key says, remember the decision, send it to the pending ports.
 *
 * The edit is the difference between s->pkt (the bytes as they are) and s->cur (what the actions made of the key).
 */
#ifndef PYOFFLOAD_EMIT_H
#define PYOFFLOAD_EMIT_H

#include "../lib/cache.h"
#include "../lib/deliver.h"
#include "../lib/edit.h"
#include "../lib/liveness.h"
#include "../lib/scratch.h"
#include "normal.h"

INLINE __u32 n_tags(const struct flow_key *k)
{
	return (k->vlan_tci0 != 0) + (k->vlan_tci1 != 0);
}

INLINE __be16 outer_tpid(const struct flow_key *k)
{
	return k->tpids & KEY_TPID_OUTER_AD ? ETH_P_8021AD_BE : ETH_P_8021Q_BE;
}

INLINE __be16 inner_tpid(const struct flow_key *k)
{
	return k->tpids & KEY_TPID_INNER_AD ? ETH_P_8021AD_BE : ETH_P_8021Q_BE;
}

/* Tags to take off and to put on, so that what stays is touched as little as can be. */
INLINE void edit_from_tags(struct edit *e, const struct flow_key *old, const struct flow_key *new)
{
	__u32 n_old = n_tags(old), n_new = n_tags(new), keep = 0;
	/* the innermost tags, seen from behind: what both have in common stays */
	__u32 old_in = n_old == 2   ? old->vlan_tci1 | (__u32)inner_tpid(old) << 16
		       : n_old == 1 ? old->vlan_tci0 | (__u32)outer_tpid(old) << 16
				    : 0;
	__u32 new_in = n_new == 2   ? new->vlan_tci1 | (__u32)inner_tpid(new) << 16
		       : n_new == 1 ? new->vlan_tci0 | (__u32)outer_tpid(new) << 16
				    : 0;

	if (n_old && n_new && old_in == new_in) {
		keep = 1;
		if (n_old == 2 && n_new == 2 &&
		    old->vlan_tci0 == new->vlan_tci0 &&outer_tpid(old) == outer_tpid(new))
			keep = 2;
	}
	e->n_pop = n_old - keep;
	e->n_push = n_new - keep;
	if (e->n_push == 1) {
		e->push_tci[0] = new->vlan_tci0;
		e->push_tpid[0] = outer_tpid(new);
	} else if (e->n_push == 2) {
		e->push_tci[0] = new->vlan_tci1;
		e->push_tpid[0] = inner_tpid(new);
		e->push_tci[1] = new->vlan_tci0;
		e->push_tpid[1] = outer_tpid(new);
	}
	if (e->n_pop | e->n_push)
		e->fields |= EDIT_VLAN;
}

/* Fills s->edit with all values of s->cur, and with the fields in which it differs from s->pkt. */
INLINE void edit_from_keys(struct scratch *s)
{
	const struct flow_key *old = &s->pkt, *new = &s->cur;
	const __u64 *a = (const __u64 *)old, *b = (const __u64 *)new;
	struct edit *e = &s->edit;
	int v4 = new->dl_type == ETH_P_IP_BE, ip = is_ip(s);

	e->fields = 0;
	e->n_pop = e->n_push = 0;
	__builtin_memcpy(e->dl_dst, new->dl_dst, 6);
	__builtin_memcpy(e->dl_src, new->dl_src, 6);
	if (((a[0] ^ b[0]) | (a[1] ^ b[1])) & MASK48)
		e->fields |= EDIT_ETH;
	edit_from_tags(e, old, new);
	if (!ip)
		return;
	e->tos = new->nw_tos;
	e->ttl = new->nw_ttl;
	e->tp_src = new->tp_src;
	e->tp_dst = new->tp_dst;
	e->label = new->ipv6_label;
	e->nw_src[0] = new->nw_src;
	e->nw_dst[0] = v4 ? new->nw_dst : new->ipv6_dst[0];
	if (v4) {
		if (old->nw_src != new->nw_src)
			e->fields |= EDIT_NW_SRC;
		if (old->nw_dst != new->nw_dst)
			e->fields |= EDIT_NW_DST;
	} else {
		e->nw_src[1] = new->nw_dst;
		e->nw_src[2] = new->ipv6_src_lo[0];
		e->nw_src[3] = new->ipv6_src_lo[1];
		e->nw_dst[1] = new->ipv6_dst[1];
		e->nw_dst[2] = new->ipv6_dst[2];
		e->nw_dst[3] = new->ipv6_dst[3];
		if ((a[4] ^ b[4]) | (a[5] ^ b[5]))
			e->fields |= EDIT_NW_SRC;
		if ((a[6] ^ b[6]) | (a[7] ^ b[7]))
			e->fields |= EDIT_NW_DST;
		if (old->ipv6_label != new->ipv6_label)
			e->fields |= EDIT_LABEL;
	}
	if (old->nw_tos != new->nw_tos)
		e->fields |= EDIT_TOS;
	if (old->nw_ttl != new->nw_ttl)
		e->fields |= EDIT_TTL;
	if (old->tp_src != new->tp_src)
		e->fields |= EDIT_TP_SRC;
	if (old->tp_dst != new->tp_dst)
		e->fields |= EDIT_TP_DST;
}

/* ARP's opcode and addresses: no checksum. */
INLINE int emit_arp(struct __sk_buff *skb, struct scratch *s)
{
	__u8 b[22];

	if (s->cur.dl_type != ETH_P_ARP_BE && s->cur.dl_type != ETH_P_RARP_BE)
		return 0;
	if (!(s->cur.valid & KEY_VALID_L3))
		return 0;
	b[0] = 0;
	b[1] = s->cur.nw_proto;
	__builtin_memcpy(b + 2, s->cur.arp_sha, 6);
	__builtin_memcpy(b + 8, &s->cur.nw_src, 4);
	__builtin_memcpy(b + 12, s->cur.arp_tha, 6);
	__builtin_memcpy(b + 18, &s->cur.nw_dst, 4);
	if (s->cur.nw_proto ==
	    s->pkt.nw_proto) /* an opcode above 255 does not fit into the key: leave it */
		return bpf_skb_store_bytes(skb, s->l3 + 8, b + 2, 20, 0);
	return bpf_skb_store_bytes(skb, s->l3 + 6, b, 22, 0);
}

/* `len` octets (a multiple of 2) at `off`, which ICMPv6's checksum covers. */
INLINE int emit_nd_part(struct __sk_buff *skb, struct scratch *s, __u32 off, const __u8 *old,
			const __u8 *new, int len)
{
	for (int i = 0; i < len; i += 2) {
		__u16 a = old[i] | (__u16)old[i + 1] << 8, b = new[i] | (__u16) new[i + 1] << 8;

		if (a != b && bpf_l4_csum_replace(skb, s->l4 + 2, a, b, 2))
			return -1;
	}
	return bpf_skb_store_bytes(skb, off, new, len, 0);
}

INLINE int emit_nd(struct __sk_buff *skb, struct scratch *s)
{
	if (!(s->cur.valid & KEY_VALID_ND) || !s->l4)
		return 0;
	if (emit_nd_part(skb, s, s->l4 + 8, (__u8 *)s->pkt.nd_target, (__u8 *)s->cur.nd_target, 16))
		return -1;
	if (s->nd_sll && emit_nd_part(skb, s, s->nd_sll, s->pkt.arp_sha, s->cur.arp_sha, 6))
		return -1;
	if (s->nd_tll && emit_nd_part(skb, s, s->nd_tll, s->pkt.arp_tha, s->cur.arp_tha, 6))
		return -1;
	return 0;
}

/* Offsets move with the tags that lie in the packet; the kernel keeps the outermost one beside it. */
INLINE void move_offsets(struct scratch *s, __u32 before, __u32 after)
{
	__u32 a = before > 1 ? 4 : 0, b = after > 1 ? 4 : 0;

	s->l3 += b - a;
	if (s->l4)
		s->l4 += b - a;
	if (s->nd_sll)
		s->nd_sll += b - a;
	if (s->nd_tll)
		s->nd_tll += b - a;
}

/* Makes the packet what s->cur says. Returns 0, or -1: the kernel refused, nothing of it may leave. */
INLINE int emit_edit(struct __sk_buff *skb, struct scratch *s)
{
	const __u64 *a = (const __u64 *)&s->pkt, *b = (const __u64 *)&s->cur;
	struct edit_place at = {
		.l3 = s->l3,
		.l4 = s->l4,
		.dl_type = s->cur.dl_type,
		.nw_proto = s->cur.nw_proto,
		.nw_frag = s->cur.nw_frag,
		.routed = s->routed,
	};

	if ((a[9] ^ b[9]) | (a[10] ^ b[10]) | (a[11] ^ b[11]) | (a[12] ^ b[12]) | (a[4] ^ b[4]) |
	    (s->pkt.nw_proto ^ s->cur.nw_proto)) {
		if (emit_arp(skb, s) || emit_nd(skb, s))
			return -1;
	}
	if (s->edit.fields && edit_apply(skb, &s->edit, &at))
		return -1;
	move_offsets(s, n_tags(&s->pkt), n_tags(&s->cur));
	s->pkt = s->cur;
	return 0;
}

/* ---- sending ---------------------------------------------------------------------------------- */

/* Sends a copy to the port that is held back. */
INLINE void emit_held(struct __sk_buff *skb, struct scratch *s)
{
	__u32 slot = s->held - 1;
	struct port *p;

	if (!s->held)
		return;
	s->held = 0;
	p = port_at(slot);
	if (!p)
		return;
	if (deliver_copy(skb, p->out_ifindex, p->deliver)) {
		/* a host that does not use its port `local` has it down: no flooded copy is missed there */
		if (!s->flood || p->deliver != PORT_DELIVER_INGRESS)
			count_drop(s->in_slot, DROP_REASON_OUTPUT_FAILED);
		return;
	}
	s->emitted++;
	count_tx(slot, s->len);
}

/* Sends to a port; the last one is held back, because it may have the packet itself. */
INLINE void emit_to(struct __sk_buff *skb, struct scratch *s, __u32 slot)
{
	struct port *p = port_at(slot);

	if (!p || p->deliver == PORT_DELIVER_ABSENT || p->bridge != s->bridge) {
		s->lost = DROP_REASON_PORT_ABSENT;
		return;
	}
	if (port_is_down(p)) {
		s->lost = DROP_REASON_PORT_DOWN;
		return;
	}
	emit_held(skb, s);
	s->held = slot + 1;
}

/* A drop to be counted whatever else becomes of the packet. Not sending it back where it came from, or a resubmit to a
 * table where nothing matches, is none as long as another copy leaves. */
INLINE int copy_was_lost(const struct scratch *s)
{
	return s->lost && s->lost != DROP_REASON_SAME_PORT && s->lost != DROP_REASON_TABLE_MISS;
}

/* The end of a packet's way: its last output, or the reason why there is none. */
INLINE int emit_last(struct __sk_buff *skb, struct scratch *s)
{
	__u32 slot = s->held - 1;
	struct port *p = s->held ? port_at(slot) : NULL;

	if (copy_was_lost(s))
		count_drop(s->in_slot, s->lost);
	else if (!p && !s->emitted)
		count_drop(s->in_slot, s->lost ? s->lost : DROP_REASON_FLOW);
	if (!p)
		return TC_ACT_SHOT;
	count_tx(slot, s->len);
	/* a guest must see that a flooded frame is not for it; redirect_peer says that every frame is */
	return deliver(skb, p->out_ifindex,
		       s->flood && p->deliver == PORT_DELIVER_PEER ? PORT_DELIVER_REDIRECT
								   : p->deliver);
}

/* ---- remembering the decision ------------------------------------------------------------------- */

/* Every pending output is a port that gets the packet as it is: there is room for that in an entry. */
INLINE int cacheable(const struct scratch *s)
{
	struct bridge *br = bridge_at(s->bridge);
	int n = s->n_pending;

	if (s->uncacheable || s->emitted || !s->final || !br || !(br->flags & BRIDGE_CACHE) ||
	    n > MAX_CACHE_OUTPUTS)
		return 0;
	if (!n && s->dec_ttl)
		return 0; /* without an edit nobody looks at the TTL, which decides about the reason */
	if (n && copy_was_lost(s))
		return 0; /* the loss must be counted for every packet */
	for (int i = 0; i < MAX_CACHE_OUTPUTS; i++) {
		if (i < n &&
		    (s->pending[i].kind != PENDING_PORT || slot_is_down(s->pending[i].slot)))
			return 0;
	}
	return 1;
}

INLINE void cache_entry_fill(struct cache_entry *e, const struct scratch *s)
{
	__u32 flags = 0, n = s->n_pending, fields;

#pragma unroll
	for (int i = 0; i < CACHE_KEY_WORDS_SHORT; i++)
		e->key[i] = s->cache_key[i];
#pragma unroll
	for (int i = CACHE_KEY_WORDS_SHORT; i < CACHE_KEY_WORDS; i++)
		e->key_long[i - CACHE_KEY_WORDS_SHORT] = s->cache_key[i];
	if (s->cache_key[5] | s->cache_key[6] | s->cache_key[7] | s->cache_key[8])
		flags |= CACHE_LONG;
	e->generation = s->policy.generation;
	e->hits = e->packets = e->bytes = 0;
	e->fdb_src = s->fdb_src;
	e->fdb_dst = s->fdb_dst;
	e->fdb_src_epoch = s->fdb_src_epoch;
	e->fdb_dst_epoch = s->fdb_dst_epoch;
	e->vlan = s->normal_vid;
	e->seen = TICK(s->now);
	e->tick = TICK_NOW();
	e->bridge = s->bridge;
	e->n_flows = s->n_flows;
	e->flow0 = s->flow[0];
#pragma unroll
	for (int i = 1; i < MAX_CACHE_FLOWS; i++)
		e->flow[i - 1] = s->flow[i];
	e->reason = s->lost ? s->lost : DROP_REASON_FLOW;
	e->meter = s->meter - 1;
	e->n_out = n;
	e->out = 0;
	if (!n)
		flags |= CACHE_DROP;
	else
		e->out = s->pending[(n - 1) & (MAX_CACHE_OUTPUTS - 1)].slot;
#pragma unroll
	for (int i = 0; i < MAX_CACHE_OUTPUTS; i++)
		e->outs[i] = s->pending[i].slot;
	fields = (s->written & ~EDIT_VLAN) | (s->edit.fields & EDIT_VLAN);
	e->edit = s->edit;
	if (s->dec_ttl && !(fields & EDIT_TTL)) {
		fields |= EDIT_DEC_TTL;
		e->edit.ttl = s->dec_ttl;
	}
	e->edit.fields = fields;
	e->flags = flags | (fields && n ? CACHE_EDIT : 0) | (n > 1 ? CACHE_MULTI : 0) |
		   (s->timed ? CACHE_TIMED : 0) | (s->used_fdb ? CACHE_FDB : 0) |
		   (s->meter ? CACHE_METER : 0);
}

INLINE void cache_insert(struct scratch *s)
{
	struct bridge_counters *n = bridge_counters_at(s->bridge);
	struct config *cfg = config_at(0);
	struct cache_bucket *b;
	struct cache_entry *e;
	__u32 *tag, index;
	__u64 seq;
	int busy;

	if (!n || !cfg)
		return;
	if (!cacheable(s)) {
		n->cache_uncacheable++;
		return;
	}
	b = cache_bucket_of(cfg, s->cache_hash);
	if (!b)
		return;
	e = cache_claim(b, s->cache_hash, s->cache_key, TICK(s->now), &seq, &busy);
	if (!e) {
		n->cache_busy += busy;
		n->cache_full += !busy;
		return;
	}
	cache_entry_fill(e, s);
	cache_publish(e, seq);
	n->cache_inserts++;
	index = (s->cache_hash & cfg->cache_mask & ~(CACHE_WAYS - 1)) +
		(((void *)e - (void *)b) / sizeof(*e));
	tag = cache_tag_at(index);
	if (tag)
		*tag = 1;
}

#endif
