/* SPDX-License-Identifier: GPL-2.0-only */
/* hit.h: established packets.
 *
 * hit_fast() is what nearly all of them need: look the cache up, see that the MAC table has not moved, count, redirect. It is
 * kept small, because code that is only jumped over costs as well (instruction cache, registers): with the rest inlined a hit
 * took half as long again. Whatever else a decision may hold (an edit, several outputs, a meter, timeouts), and the look at
 * ages once a tick, is hit_full(), a program of its own. Nothing is decided here: an entry that does not hold goes to miss.h.
 */
#ifndef PYOFFLOAD_HIT_H
#define PYOFFLOAD_HIT_H

#include "../lib/arrival.h"
#include "../lib/cache.h"
#include "../lib/deliver.h"
#include "../lib/edit.h"
#include "../lib/maps.h"
#include "../lib/meter.h"
#include "../lib/packet.h"
#include "credit.h"
#include "refresh.h"

#define HIT_MISS 0xffffffff
#define HIT_FULL 0xfffffffe

#define CACHE_NEEDS_FULL (CACHE_EDIT | CACHE_MULTI | CACHE_METER | CACHE_TIMED)

INLINE int hit_drop(const struct arrival *in, __u32 reason)
{
	count_drop(in->slot, reason);
	return TC_ACT_SHOT;
}

INLINE int hit_deliver(struct __sk_buff *skb, const struct arrival *in, const struct port *out,
		       __u32 slot)
{
	__u64 delivery = read_once_u64(&out->out_ifindex); /* with `deliver`, which belongs to it */

	if (!(__u32)delivery)
		return hit_drop(in, DROP_REASON_PORT_ABSENT);
	count_tx(slot, in->len);
	return deliver(skb, (__u32)delivery, (__u16)(delivery >> 32));
}

/* Returns what the program has to return, HIT_FULL or HIT_MISS. Makes p->w the cache key. */
INLINE int hit_fast(struct __sk_buff *skb, struct arrival *in, struct packet *p)
{
	struct cache_bucket *b = arrival_bucket(in, p->w);
	struct cache_entry *e;
	struct port *out;
	__u32 flags, slot;
	__u64 seq;

	if (!b)
		return HIT_MISS;
	e = cache_find(b, in->hash, p->w, in->bridge->flags & BRIDGE_NEEDS_L3,
		       in->policy.generation, &seq);
	if (!e)
		return HIT_MISS;
	flags = e->flags;
	slot = e->out;
	if ((flags & CACHE_NEEDS_FULL) || e->tick != TICK_NOW())
		return HIT_FULL;
	if ((flags & CACHE_FDB) && !hit_fdb_valid(e))
		return HIT_MISS;
	out = port_at(slot);
	if (!out)
		return HIT_MISS;
	cache_count(e, in->len);
	if (!cache_still(e, seq))
		return HIT_MISS;
	credit_flows(e, in->len);
	if (flags & CACHE_DROP)
		return hit_drop(in, e->reason);
	return hit_deliver(skb, in, out, slot);
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

/* The same with everything that an entry may hold. Returns what the program has to return, or HIT_MISS. */
INLINE int hit_full(struct __sk_buff *skb, struct arrival *in, struct packet *p)
{
	__u16 outs[MAX_CACHE_OUTPUTS] = {};
	__u64 key[CACHE_KEY_WORDS];
	struct edit_place at = {
		.l3 = p->l3,
		.l4 = p->l4,
		.dl_type = p->w[1] >> 48,
		.nw_proto = p->w[2] >> 32,
		.nw_frag = p->w[2] >> 56,
	};
	__u32 flags, slot, meter, reason, n_out;
	struct cache_bucket *b;
	struct cache_entry *e;
	struct port *out;
	struct edit edit;
	__u64 seq;

#pragma unroll
	for (int i = 0; i < CACHE_KEY_WORDS; i++)
		key[i] = p->w[i];
	b = arrival_bucket(in, key);
	if (!b)
		return HIT_MISS;
	e = cache_find(b, in->hash, key, in->bridge->flags & BRIDGE_NEEDS_L3, in->policy.generation,
		       &seq);
	if (!e)
		return HIT_MISS;
	if ((e->flags & CACHE_FDB) && !hit_fdb_valid(e))
		return HIT_MISS;
	if (((e->flags & CACHE_TIMED) || e->tick != TICK_NOW()) && !hit_refresh(e, key, in->bridge))
		return HIT_MISS;
	flags = e->flags;
	slot = e->out;
	meter = e->meter;
	reason = e->reason;
	n_out = e->n_out;
	*(__u64 *)outs = *(__u64 *)e->outs;
	edit = e->edit;
	out = port_at(slot);
	if (!out || !cache_still(e, seq))
		return HIT_MISS;
	if ((flags & CACHE_EDIT) && (edit.fields & EDIT_DEC_TTL) &&
	    (__u8)(p->w[2] >> 48) <= edit.ttl)
		return HIT_MISS;
	cache_count(e, in->len);
	credit_flows(e, in->len);
	if ((flags & CACHE_METER) && !meter_admits(meter, in->len))
		return hit_drop(in, DROP_REASON_METER);
	if (flags & CACHE_DROP)
		return hit_drop(in, reason);
	if ((flags & CACHE_EDIT) && edit_apply(skb, &edit, &at))
		return hit_drop(in, DROP_REASON_EDIT_FAILED);
	if (flags & CACHE_MULTI)
		hit_copies(skb, outs, n_out, in);
	return hit_deliver(skb, in, out, slot);
}

#endif
