/* SPDX-License-Identifier: GPL-2.0-only */
/* execute.h: the machine: one action after the other, table after table, until the packet is to be sent.
 *
 * All its state is in the scratch, so that it can stop anywhere, let another program work (normal, emit) and go on.
 */
#ifndef PYOFFLOAD_EXECUTE_H
#define PYOFFLOAD_EXECUTE_H

#include "../lib/maps.h"
#include "../lib/meter.h"
#include "../lib/scratch.h"
#include "actions.h"
#include "classify.h"
#include "groups.h"

#define ROUNDS_PER_CALL 2    /* tables that one run of the program looks up */
#define ACTIONS_PER_ROUND 16 /* actions that it executes after each */
#define MAX_ROUNDS 64	     /* tables and stretches of actions that one packet may take */

/* What the machine wants next. */
enum step {
	STEP_ON = 0,	 /* the next action */
	STEP_LOOKUP = 1, /* a table */
	STEP_NORMAL = 2, /* tc_normal, and back */
	STEP_EMIT =
		3, /* the pending outputs have to leave before the key changes; then the same action again */
	STEP_GROUP = 4,	 /* tc_group, and back */
	STEP_END = 5,	 /* emit what is pending, for the last time */
	STEP_SEARCH = 7, /* more of the same table */
	STEP_DROP = 6,	 /* s->lost says why; what is pending still leaves */
};

INLINE __u32 stop(struct scratch *s, __u32 reason)
{
	s->lost = reason;
	s->uncacheable = 1;
	return STEP_DROP;
}

/* The list is at its end: back to the one that it was called from. */
INLINE __u32 list_end(struct scratch *s)
{
	__u32 d = s->depth - 1;
	struct frame *f;

	if (!s->depth)
		return STEP_END;
	if (d >= MAX_RESUBMIT_DEPTH)
		return stop(s, DROP_REASON_INTERNAL);
	f = &s->stack[d];
	if (f->is_group) {
		if (s->n_pending && bucket_changed_key(s, f))
			return STEP_EMIT; /* they must leave as this bucket made them */
		if (group_next(s, f))
			return STEP_ON;
	}
	s->next_action = f->next_action;
	s->end_action = f->end_action;
	s->depth = d;
	return STEP_ON;
}

INLINE __u32 action_meter(struct scratch *s, __u32 slot)
{
	if (s->meter || s->n_pending || s->emitted)
		s->uncacheable = 1;
	s->meter = slot + 1;
	return meter_admits(slot, s->len) ? STEP_ON : stop(s, DROP_REASON_METER);
}

INLINE __u32 action_resubmit(struct scratch *s, __u32 table)
{
	if (!push_frame(s, s->next_action, s->end_action))
		return stop(s, DROP_REASON_RESUBMIT_DEPTH);
	s->table = table;
	return STEP_LOOKUP;
}

/* Executes the action at s->next_action, which is not at the end of its list. */
INLINE __u32 execute_one(struct scratch *s)
{
	struct action *a = action_at(s->next_action);
	__u32 reason = 0;

	if (!a)
		return stop(s, DROP_REASON_INTERNAL);
	if (s->n_pending && (changes_key(a->op) || a->op == ACTION_GROUP || a->op == ACTION_METER ||
			     (a->op == ACTION_NORMAL && s->has_normal) ||
			     ((a->op == ACTION_FLOOD || a->op == ACTION_ALL) && s->has_flood)))
		return STEP_EMIT;
	s->next_action++;
	switch (a->op) {
	case ACTION_DROP:
		s->next_action = s->end_action;
		break;
	case ACTION_SET:
		action_set(s, a);
		break;
	case ACTION_OUTPUT:
		action_output(s, a->arg);
		break;
	case ACTION_IN_PORT:
		pend(s, s->in_slot, PENDING_PORT);
		break;
	case ACTION_NORMAL:
		return STEP_NORMAL;
	case ACTION_FLOOD:
	case ACTION_ALL:
		s->uncacheable = 1;
		s->has_flood = 1;
		pend(s, PORT_SLOT_NONE, PENDING_FLOOD);
		break;
	case ACTION_PUSH_VLAN:
		s->written |= EDIT_VLAN;
		if (!key_vlan_push(&s->cur, swap16(VLAN_PRESENT), a->arg == 0x88a8))
			return stop(s, DROP_REASON_VLAN_DEPTH);
		break;
	case ACTION_POP_VLAN:
		s->written |= EDIT_VLAN;
		key_vlan_pop(&s->cur);
		break;
	case ACTION_SET_VID:
		action_set_tci(s, 0x0fff, a->arg & 0x0fff);
		break;
	case ACTION_SET_PCP:
		action_set_tci(s, 0xe000, (a->arg & 7) << 13);
		break;
	case ACTION_DEC_TTL:
		if (!action_dec_ttl(s, a->arg ? a->arg : 1)) {
			s->lost =
				DROP_REASON_TTL; /* ends this list; the ones it was called from go on, as in OVS */
			s->uncacheable = 1;
			s->next_action = s->end_action;
		}
		break;
	case ACTION_GOTO:
		s->table = a->arg;
		s->next_action = s->end_action;
		return STEP_LOOKUP;
	case ACTION_RESUBMIT:
		return action_resubmit(s, a->arg);
	case ACTION_METER:
		return action_meter(s, a->arg);
	case ACTION_GROUP:
		s->group = a->arg;
		return STEP_GROUP;
	default:
		reason = DROP_REASON_INTERNAL;
	}
	return reason ? stop(s, reason) : STEP_ON;
}

/* What happens when no flow of s->table matches. */
INLINE __u32 table_miss(struct scratch *s)
{
	struct bridge *br = bridge_at(s->bridge);

	s->next_action = s->end_action = 0;
	/* n_flows_nonzero: 1 = the tables hold exactly what the admin gave, a miss is a drop */
	if (!s->table && !s->depth && !s->n_flows && br && br->n_flows_nonzero != 1)
		return STEP_NORMAL;
	if (!s->lost)
		s->lost = DROP_REASON_TABLE_MISS;
	return STEP_ON;
}

/* The next table, or more of it. */
INLINE __u32 lookup(struct scratch *s)
{
	struct flow *f;

	if (s->table >= MAX_TABLES)
		return stop(s, DROP_REASON_INTERNAL);
	if (s->phase == PHASE_LOOKUP && !search_begin(s))
		return table_miss(s);
	s->phase = PHASE_SEARCH;
	if (!search_on(s))
		return STEP_SEARCH;
	if (s->found == FLOW_SLOT_NONE)
		return table_miss(s);
	f = flow_at(s->found);
	if (!f)
		return stop(s, DROP_REASON_INTERNAL);
	flow_credit(s, f, s->found);
	s->next_action = f->first_action;
	s->end_action = f->first_action + f->n_actions;
	return STEP_ON;
}

/* Runs for a bounded while. Returns the step that another program has to do; STEP_ON: not finished, call again. */
INLINE __u32 execute(struct scratch *s)
{
	for (int round = 0; round < ROUNDS_PER_CALL; round++) {
		if (++s->rounds > MAX_ROUNDS)
			return stop(s, DROP_REASON_PIPELINE_LIMIT);
		s->step = STEP_ON;
		if (s->phase != PHASE_ACTIONS)
			s->step = lookup(s);
		if (s->step == STEP_SEARCH)
			return STEP_ON;
		s->phase = PHASE_ACTIONS;
		for (int i = 0; i < ACTIONS_PER_ROUND; i++) {
			if (s->step != STEP_ON)
				break;
			if (s->next_action >= s->end_action)
				s->step = list_end(s);
			else
				s->step = execute_one(s);
		}
		if (s->step > STEP_LOOKUP)
			return s->step;
		if (s->step == STEP_LOOKUP)
			s->phase = PHASE_LOOKUP;
	}
	return STEP_ON;
}

#endif
