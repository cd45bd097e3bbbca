/* SPDX-License-Identifier: GPL-2.0-only */
/* miss.h: the way into the slow path: parse what the fast path left out, and prepare the scratch. */
#ifndef PYOFFLOAD_MISS_H
#define PYOFFLOAD_MISS_H

#include "../lib/arrival.h"
#include "../lib/liveness.h"
#include "../lib/maps.h"
#include "../lib/parse_more.h"
#include "../lib/scratch.h"
#include "../lib/tail.h"

/* Fills the scratch and begins to decide. */
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
		if (make_linear(skb, PARSE_LINEAR_SNAP)) {
			count_drop(in->slot, DROP_REASON_TRUNCATED);
			return TC_ACT_SHOT;
		}
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
	s->hidden = 0;
	if (more == PARSE_MORE)
		parse_more(skb, s);
	if (s->hidden || first_fragment_is_short(&s->cur))
		return drop(s, DROP_REASON_HIDDEN_HEADER);
	s->pkt = s->cur;
	return go_on(skb, s, in->bridge->n_flows_nonzero ? TAIL_CLASSIFY : TAIL_NORMAL);
}

INLINE int miss_run(struct __sk_buff *skb)
{
	struct arrival in = {};
	struct packet p;
	__u64 key[CACHE_KEY_WORDS];

	if (!arrival_of(skb, &in)) {
		count_drop(in.slot, DROP_REASON_NO_PORT);
		return TC_ACT_SHOT;
	}
	in.parsed = arrival_parse(skb, &in, &p);
	if (in.parsed == PARSE_TRUNCATED) {
		count_drop(in.slot, DROP_REASON_TRUNCATED);
		return TC_ACT_SHOT;
	}
#pragma unroll
	for (int i = 0; i < CACHE_KEY_WORDS; i++)
		key[i] = p.w[i];
	if (arrival_cacheable(&in))
		arrival_bucket(&in, key);
	return slow_begin(skb, &in, &p, key);
}

#endif
