/* SPDX-License-Identifier: GPL-2.0-only */
/* hit.h: what every packet meets first: parse, look the flow cache up, apply. And the way into the slow path. */
#ifndef PYOFFLOAD_HIT_H
#define PYOFFLOAD_HIT_H

#include "../lib/cache.h"
#include "../lib/deliver.h"
#include "../lib/edit.h"
#include "../lib/fdb.h"
#include "../lib/liveness.h"
#include "../lib/maps.h"
#include "../lib/meter.h"
#include "../lib/packet.h"
#include "../lib/parse_more.h"
#include "../lib/scratch.h"
#include "../lib/tail.h"
#include "credit.h"

#define HIT_MISS 0xffffffff

/* Headers up to here are made linear before parsing: Ethernet, one more tag, IPv6, TCP. */
#define PARSE_LINEAR (14 + 4 + 40 + 20)

struct arrival {
	struct port *port;
	struct bridge *bridge;
	struct policy policy; /* read once: it holds for the whole packet */
	__u32 slot;
	__u32 len;
	__u32 parsed;
	__u32 hash;
};

INLINE int arrival_parse(struct __sk_buff *skb, const struct arrival *in, struct packet *p)
{
	void *data = (void *)(long)skb->data, *data_end = (void *)(long)skb->data_end;
	__u32 tci = 0, ad = 0;

	if (data + PARSE_LINEAR > data_end && skb->len > (__u32)(data_end - data)) {
		bpf_skb_pull_data(skb, skb->len < PARSE_LINEAR ? skb->len : PARSE_LINEAR);
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

INLINE int slow_begin(struct __sk_buff *skb, const struct arrival *in, struct packet *p,
		      const __u64 *key)
{
	struct bridge_counters *n = bridge_counters_at(in->port->bridge);
	struct scratch *s = scratch_get();
	int more = in->parsed;

	if (!s)
		return TC_ACT_SHOT;
	if (n)
		n->cache_misses++;
	port_note_device(skb, in->port);
	if (swap16(p->w[1] >> 48) < 0x0600) {
		parse_llc(skb, p);
		more = PARSE_DONE;
		if (in->bridge->flags & BRIDGE_NEEDS_L3)
			more = parse_network(p, (void *)(long)skb->data_end,
					     (void *)(long)skb->data + (p->l3 & 63),
					     skb->len - p->l3, p->w[1] >> 48);
	}
	key_from_packet(&s->cur, p);
#pragma unroll
	for (int i = 0; i < CACHE_KEY_WORDS; i++)
		s->cache_key[i] = key[i];
	s->cache_hash = in->hash;
	s->policy = in->policy;
	s->version = in->policy.version;
	s->now = bpf_ktime_get_coarse_ns();
	s->len = in->len;
	s->in_slot = in->slot;
	s->bridge = in->port->bridge;
	s->l3 = p->l3;
	s->l4 = p->l4;
	s->nd_sll = s->nd_tll = s->routed = 0;
	s->phase = s->table = s->next_action = s->end_action = s->depth = s->group_depth =
		s->rounds = 0;
	s->n_pending = s->emitted = s->final = s->flood = s->held = s->lost = s->has_normal =
		s->has_flood = 0;
	s->normal_slot = PORT_SLOT_NONE;
	s->written = s->timed = s->n_flows = s->meter = s->dec_ttl = s->used_fdb = 0;
	s->fdb_src = s->fdb_dst = 0;
	s->normal_vid = 0;
	s->index_key.reserved = 0;
	/* an incomplete parse was not looked up, and its key holds less than its decision depends on */
	s->uncacheable = in->parsed != PARSE_DONE;
	if (more == PARSE_MORE)
		parse_more(skb, s);
	s->pkt = s->cur;
	return go_on(skb, s, in->bridge->n_flows_nonzero ? TAIL_CLASSIFY : TAIL_NORMAL);
}

/* What is copied out of an entry before it is known to be whole. */
struct decision {
	__u32 flags;
	__u32 out;
	__u32 n_out;
	__u32 meter;
};

/* The MAC table's part of a decision is still true. */
INLINE int hit_fdb_valid(const struct cache_entry *e)
{
	__u32 *src = fdb_epoch_at(e->fdb_src), *dst = fdb_epoch_at(e->fdb_dst);

	return src && dst && *src == e->fdb_src_epoch && *dst == e->fdb_dst_epoch;
}

/* Once a tick: the source is alive, and the destination must not have aged out. */
INLINE int hit_fdb_refresh(const struct cache_entry *e, const struct packet *p,
			   const struct bridge *br, __u64 now)
{
	struct fdb_key k;
	struct fdb_entry *f;

	fdb_key_make(&k, (const __u8 *)&p->w[1], e->vlan, e->bridge);
	f = fdb_get(&k);
	if (f && !(f->flags & FDB_STATIC)) {
		if (fdb_expired(f, now, br->mac_age_ns))
			return 0; /* to be learned anew */
		f->seen_ns = now;
	}
	if (e->flags & CACHE_DROP)
		return 1;
	fdb_key_make(&k, (const __u8 *)&p->w[0], e->vlan, e->bridge);
	f = fdb_get(&k);
	return f && !fdb_expired(f, now, br->mac_age_ns);
}

/* Copies to the ports before the last one. */
INLINE void hit_copies(struct __sk_buff *skb, const __u16 *outs, __u32 n_out,
		       const struct arrival *in)
{
	for (__u32 i = 0; i < MAX_CACHE_OUTPUTS; i++) {
		struct port *p;

		if (i + 1 >= n_out)
			break;
		p = port_at(outs[i]);
		if (!p)
			continue;
		if (deliver_copy(skb, p->out_ifindex, p->deliver))
			count_drop(in->slot, DROP_REASON_OUTPUT_FAILED);
		else
			count_tx(outs[i], in->len);
	}
}

INLINE int hit_run(struct __sk_buff *skb, struct arrival *in, struct packet *p, __u64 *key)
{
	__u32 needs_l3 = in->bridge->flags & BRIDGE_NEEDS_L3;
	const struct config *cfg = config_at(0);
	struct cache_bucket *b;
	struct cache_entry *e;
	struct decision d;
	struct port *out;
	struct edit edit;
	__u64 seq;
	__u16 outs[MAX_CACHE_OUTPUTS] = {};

#pragma unroll
	for (int i = 0; i < CACHE_KEY_WORDS; i++)
		key[i] = p->w[i];
	cache_mask_key(key, in->bridge, in->policy.generation, in->slot, needs_l3);
	if (!cfg)
		return HIT_MISS;
	in->hash = cache_hash(key, cfg, needs_l3);
	b = cache_bucket_of(cfg, in->hash);
	if (!b)
		return HIT_MISS;
	e = cache_find(b, in->hash, key, needs_l3, in->policy.generation, &seq);
	if (!e)
		return HIT_MISS;
	d.flags = e->flags;
	d.out = e->out;
	if ((d.flags & CACHE_FDB) && !hit_fdb_valid(e))
		return HIT_MISS;
	if ((d.flags & CACHE_TIMED) || e->tick != TICK_NOW()) {
		__u64 now = bpf_ktime_get_coarse_ns();

		if ((d.flags & CACHE_FDB) && !hit_fdb_refresh(e, p, in->bridge, now))
			return HIT_MISS;
		out = port_at(d.out);
		if (!(d.flags & CACHE_DROP) && out && port_is_down(out))
			return HIT_MISS; /* there every packet is counted */
		if ((d.flags & CACHE_TIMED) && !credit_valid(e, now))
			return HIT_MISS;
		credit_seen(e, now);
		e->seen = TICK(now);
		e->tick = TICK_NOW();
	}
	if (d.flags & CACHE_MULTI) {
		*(__u64 *)outs = *(__u64 *)e->outs;
		d.n_out = e->n_out;
	}
	if (d.flags & CACHE_EDIT) {
		edit = e->edit;
		if ((edit.fields & EDIT_DEC_TTL) && (__u8)(p->w[2] >> 48) <= edit.ttl)
			return HIT_MISS;
	}
	if (d.flags & CACHE_METER) {
		d.meter = e->meter;
		if (!cache_still(e, seq))
			return HIT_MISS;
		if (!meter_admits(d.meter, in->len)) {
			credit_flows(e, in->len);
			count_drop(in->slot, DROP_REASON_METER);
			return TC_ACT_SHOT;
		}
	}
	cache_count(e, in->len);
	if (!cache_still(e, seq))
		return HIT_MISS;
	credit_flows(e, in->len);
	if (d.flags & CACHE_DROP) {
		count_drop(in->slot, e->reason);
		return TC_ACT_SHOT;
	}
	out = port_at(d.out);
	if (!out)
		return HIT_MISS;
	if (d.flags & CACHE_EDIT) {
		struct edit_place at = {
			.l3 = p->l3,
			.l4 = p->l4,
			.dl_type = p->w[1] >> 48,
			.nw_proto = p->w[2] >> 32,
			.nw_frag = p->w[2] >> 56,
		};

		if (edit_apply(skb, &edit, &at)) {
			count_drop(in->slot, DROP_REASON_EDIT_FAILED);
			return TC_ACT_SHOT;
		}
	}
	if (d.flags & CACHE_MULTI)
		hit_copies(skb, outs, d.n_out, in);
	count_tx(d.out, in->len);
	return deliver(out->out_ifindex, out->deliver);
}

#endif
