/* SPDX-License-Identifier: GPL-2.0-only */
/* datapath_tc.c: the datapath at TC ingress of every port.
 *
 *   tc_ingress -- hit --> out                    an established packet: one parse, one look-up, one apply
 *      |    `-- hit, with more to do --> tc_hit  an edit, copies, a meter, a timeout; ages, once a tick
 *      | miss
 *      v
 *   tc_miss                                      the rest of the parser
 *      v
 *   tc_classify <-> tc_normal, tc_group          flow tables, actions, the learning switch: on a copy of the key
 *      |  ^
 *      v  |
 *   tc_emit -> tc_flood                          edit the packet, remember the decision, send
 */
#include "lib/kernel.h"
#include "lib/packet.h"
#include "lib/cache.h"
#include "lib/deliver.h"
#include "lib/edit.h"
#include "lib/fdb.h"
#include "lib/maps.h"
#include "lib/parse_more.h"
#include "lib/scratch.h"
#include "lib/tail.h"
#include "stages/emit.h"
#include "stages/execute.h"
#include "stages/flood.h"
#include "stages/hit.h"
#include "stages/miss.h"
#include "stages/normal.h"

int tc_ingress(struct __sk_buff *skb)
{
	struct arrival in = {};
	struct packet p;
	int verdict;

	/* being added or taken away in this very moment: as if no program were here */
	if (!arrival_of(skb, &in))
		return TC_ACT_UNSPEC;
	count_rx(in.slot, in.len);
	if (!(in.bridge->flags & BRIDGE_UP))
		return hit_drop(&in, DROP_REASON_BRIDGE_DOWN);
	in.parsed = arrival_parse(skb, &in, &p);
	if (in.parsed == PARSE_TRUNCATED)
		return hit_drop(&in, DROP_REASON_TRUNCATED);
	verdict = arrival_cacheable(&in) ? hit_fast(skb, &in, &p) : HIT_MISS;
	if (verdict == HIT_MISS)
		return try(skb, in.slot, TAIL_MISS);
	if (verdict == HIT_FULL)
		return try(skb, in.slot, TAIL_HIT);
	return verdict;
}

int tc_hit(struct __sk_buff *skb)
{
	struct arrival in = {};
	struct packet p;
	int verdict = HIT_MISS;

	if (!arrival_of(skb, &in))
		return hit_drop(&in, DROP_REASON_NO_PORT);
	in.parsed = arrival_parse(skb, &in, &p);
	if (in.parsed == PARSE_TRUNCATED)
		return hit_drop(&in, DROP_REASON_TRUNCATED);
	if (arrival_cacheable(&in))
		verdict = hit_full(skb, &in, &p);
	return verdict == HIT_MISS ? try(skb, in.slot, TAIL_MISS) : verdict;
}

int tc_miss(struct __sk_buff *skb)
{
	return miss_run(skb);
}

int tc_classify(struct __sk_buff *skb)
{
	struct scratch *s = scratch_get();
	__u32 step;

	if (!s)
		return TC_ACT_SHOT;
	step = execute(s);
	if (step == STEP_NORMAL)
		return go_on(skb, s, TAIL_NORMAL);
	if (step == STEP_GROUP)
		return go_on(skb, s, TAIL_GROUP);
	if (step == STEP_ON)
		return go_on(skb, s, TAIL_CLASSIFY);
	s->final = step != STEP_EMIT;
	return go_on(skb, s, TAIL_EMIT);
}

int tc_normal(struct __sk_buff *skb)
{
	struct scratch *s = scratch_get();

	if (!s)
		return TC_ACT_SHOT;
	normal_run(s);
	if (s->next_action >= s->end_action && !s->depth) {
		s->final = 1; /* nothing comes behind it, as mostly: the shorter way */
		return go_on(skb, s, TAIL_EMIT);
	}
	return go_on(skb, s, TAIL_CLASSIFY);
}

int tc_group(struct __sk_buff *skb)
{
	struct scratch *s = scratch_get();
	__u32 reason;

	if (!s)
		return TC_ACT_SHOT;
	reason = action_group(skb, s, s->group);
	if (!reason)
		return go_on(skb, s, TAIL_CLASSIFY);
	stop(s, reason);
	s->final = 1;
	return go_on(skb, s, TAIL_EMIT);
}

/* All pending outputs are served: that was it, or the actions go on. */
INLINE int sent(struct __sk_buff *skb, struct scratch *s)
{
	s->n_pending = 0;
	s->has_normal = s->has_flood = 0;
	if (s->final)
		return emit_last(skb, s);
	emit_held(skb, s);
	return go_on(skb, s, TAIL_CLASSIFY);
}

int tc_emit(struct __sk_buff *skb)
{
	struct scratch *s = scratch_get();

	if (!s)
		return TC_ACT_SHOT;
	if (s->final && s->n_pending == 1 && s->pending[0].kind == PENDING_NORMAL) {
		struct port *out = port_at(s->pending[0].slot);

		__u32 form = out ? normal_egress(s, out->mode) : EGRESS_NONE;

		/* asked again: the port's mode may have changed since */
		if (form == EGRESS_NONE)
			return drop(s, DROP_REASON_VLAN_EGRESS);
		key_retag(&s->cur, form, s->normal_vid);
		s->pending[0].kind = PENDING_PORT;
	}
	edit_from_keys(s);
	cache_insert(s);
	if (s->n_pending && emit_edit(skb, s))
		return drop(s, DROP_REASON_EDIT_FAILED);
	s->flood = 0;
	for (__u32 i = 0; i < MAX_PENDING_OUTPUTS; i++) {
		struct pending out;

		if (i >= s->n_pending)
			break;
		out = s->pending[i];
		if (out.kind == PENDING_PORT) {
			emit_to(skb, s, out.slot);
			continue;
		}
		s->flood |= 1 << (out.kind & 3);
		if (out.kind == PENDING_NORMAL)
			s->normal_slot = out.slot;
	}
	if (!s->flood)
		return sent(skb, s);
	flood_begin(s);
	return go_on(skb, s, TAIL_FLOOD);
}

int tc_flood(struct __sk_buff *skb)
{
	struct scratch *s = scratch_get();
	int more;

	if (!s)
		return TC_ACT_SHOT;
	if (!flood_some(skb, s))
		return go_on(skb, s, TAIL_FLOOD);
	more = flood_next_form(skb, s);
	if (more < 0)
		return drop(s, DROP_REASON_EDIT_FAILED);
	if (more)
		return go_on(skb, s, TAIL_FLOOD);
	if (!s->held && !s->emitted && !s->lost)
		s->lost = DROP_REASON_NO_DESTINATION;
	return sent(skb, s);
}
