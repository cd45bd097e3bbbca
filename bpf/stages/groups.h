/* SPDX-License-Identifier: GPL-2.0-only */
/* groups.h: which buckets of a group a packet meets (OpenFlow 1.3, 5.6.1), and the stack of action lists.
 *
 * A bucket's actions work on a copy of the packet: the key is saved before it and put back behind it. Nothing of a group's
 * decision is cached: the buckets' counters and the liveness of ports are looked at for every packet.
 */
#ifndef PYOFFLOAD_GROUPS_H
#define PYOFFLOAD_GROUPS_H

#include "../lib/liveness.h"
#include "../lib/maps.h"
#include "../lib/scratch.h"
#include "actions.h"

INLINE struct frame *push_frame(struct scratch *s, __u32 next, __u32 end)
{
	__u32 d = s->depth;
	struct frame *f;

	if (d >= MAX_RESUBMIT_DEPTH)
		return NULL;
	f = &s->stack[d];
	f->next_action = next;
	f->end_action = end;
	f->is_group = 0;
	s->depth = d + 1;
	return f;
}

/* A number below 65535 that all packets of a connection share in one direction: addresses, protocol, ports. */
INLINE __u32 flow_hash(const struct scratch *s)
{
	const __u64 *w = (const __u64 *)&s->cur;
	struct config *cfg = config_at(0);
	__u64 h;

	if (!cfg)
		return 0;
	h = w[4] * cfg->hash_seed[4] + w[5] * cfg->hash_seed[5] + w[6] * cfg->hash_seed[6] +
	    w[7] * cfg->hash_seed[7] + (w[3] & 0xffffffff) * cfg->hash_seed[3] +
	    s->cur.nw_proto * cfg->hash_seed[2];
	if (!(s->cur.valid & KEY_VALID_L3)) /* not IP: the addresses of layer 2 */
		h += w[0] * cfg->hash_seed[0] + w[1] * cfg->hash_seed[1];
	h ^= h >> 32;
	return ((h * 0x9e3779b97f4a7c15ULL) >> 32) % 65535;
}

#define CHOOSE_STEPS 40

/* Index of the first bucket of a fast_failover group that is alive, or -1. A bucket lives by its port, or by any bucket of
 * the group that it watches. One flat walk, with its state in the scratch, so that the verifier follows it once a step. */
INLINE int failover_choose(struct __sk_buff *skb, struct scratch *s, const struct group *g)
{
	s->choose_bucket = s->choose_inner = 0;
	s->choose_group = FLOW_SLOT_NONE;
	for (int step = 0; step < CHOOSE_STEPS; step++) {
		int nested = s->choose_group != FLOW_SLOT_NONE;
		struct group *of = group_at(s->choose_group);
		__u32 at = g->first_bucket + s->choose_bucket;
		struct bucket *b;

		if (s->choose_bucket >= g->n_buckets)
			return -1;
		if (nested) {
			if (!of || s->choose_inner >= of->n_buckets) {
				s->choose_bucket++;
				s->choose_group = FLOW_SLOT_NONE;
				continue;
			}
			at = of->first_bucket + s->choose_inner;
			s->choose_inner++;
		}
		b = bucket_at(at);
		if (!b)
			return -1;
		if (b->watch_port != OFPORT_NONE) {
			if (port_alive(skb, slot_of_ofport(s, b->watch_port)))
				return s->choose_bucket;
			if (!nested)
				s->choose_bucket++;
		} else if (nested || b->watch_group == FLOW_SLOT_NONE) {
			return s->choose_bucket;
		} else {
			s->choose_group = b->watch_group;
			s->choose_inner = 0;
		}
	}
	return -1;
}

INLINE int select_choose(struct scratch *s, const struct group *g)
{
	__u32 hash = flow_hash(s);

	for (__u32 i = 0; i < MAX_GROUP_BUCKETS; i++) {
		struct bucket *b = bucket_at(g->first_bucket + i);

		if (i >= g->n_buckets || !b)
			return -1;
		if (hash < b->weight_end)
			return i;
	}
	return -1;
}

/* Index of the bucket that a select, indirect or fast_failover group chooses; -1: none. */
INLINE int group_choose(struct __sk_buff *skb, struct scratch *s, const struct group *g)
{
	if (g->type == GROUP_FAST_FAILOVER)
		return failover_choose(skb, s, g);
	if (g->type == GROUP_SELECT)
		return select_choose(s, g);
	return g->n_buckets ? 0 : -1;
}

/* Executes group `slot` and returns here afterwards. Returns a drop reason, or 0. */
INLINE __u32 action_group(struct __sk_buff *skb, struct scratch *s, __u32 slot)
{
	struct group *g = group_at(slot), copy;
	__u32 level = s->group_depth, first, n;
	struct frame *f;

	if (!g)
		return DROP_REASON_INTERNAL;
	copy = *g; /* one look: it may be changed under us */
	s->uncacheable = 1;
	counter_add(group_stats_at(slot), s->len);
	first = copy.first_bucket;
	n = copy.n_buckets;
	if (copy.type != GROUP_ALL) {
		int i = group_choose(skb, s, &copy);

		if (i < 0) {
			s->lost = DROP_REASON_NO_LIVE_BUCKET;
			return 0;
		}
		first += i;
		n = 1;
	}
	if (level >= MAX_GROUP_DEPTH)
		return DROP_REASON_RESUBMIT_DEPTH;
	f = push_frame(s, s->next_action, s->end_action);
	if (!f)
		return DROP_REASON_RESUBMIT_DEPTH;
	f->is_group = 1;
	f->bucket = first;
	f->end_bucket = n;
	f->saved = level;
	s->saved[level] = s->cur;
	s->group_depth = level + 1;
	s->next_action = s->end_action = 0; /* group_next() begins the first bucket */
	return 0;
}

/* What is pending looks different from what the next bucket begins with. */
INLINE int bucket_changed_key(const struct scratch *s, const struct frame *f)
{
	const __u64 *a = (const __u64 *)&s->cur, *b;
	__u32 level = f->saved;
	__u64 differ = 0;

	if (level >= MAX_GROUP_DEPTH)
		return 1;
	b = (const __u64 *)&s->saved[level];
#pragma unroll
	for (int i = 0; i < CACHE_KEY_WORDS + 4; i++)
		differ |= a[i] ^ b[i];
	return differ != 0;
}

/* At the end of a bucket: the key as it was, and the next bucket. Returns 0 when there is none. */
INLINE int group_next(struct scratch *s, struct frame *f)
{
	struct bucket *b;
	__u32 level = f->saved;

	if (level < MAX_GROUP_DEPTH)
		s->cur = s->saved[level];
	if (!f->end_bucket) {
		s->group_depth--;
		return 0;
	}
	b = bucket_at(f->bucket);
	if (!b)
		return 0;
	counter_add(bucket_stats_at(f->bucket), s->len);
	s->next_action = b->first_action;
	s->end_action = b->first_action + b->n_actions;
	f->bucket++;
	f->end_bucket--;
	return 1;
}

#endif
