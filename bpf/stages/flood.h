/* SPDX-License-Identifier: GPL-2.0-only */
/* flood.h: copies to many ports: the actions flood and all, and what "normal" sends to a whole VLAN.
 *
 * The ports of the bridge are walked once for each form of the frame that is needed (as it is, untagged, tagged), so that
 * the packet is edited twice at most, however many ports there are.
 */
#ifndef PYOFFLOAD_FLOOD_H
#define PYOFFLOAD_FLOOD_H

#include "../lib/maps.h"
#include "../lib/scratch.h"
#include "emit.h"
#include "normal.h"

#define FLOOD_PORTS_PER_CALL 86 /* three runs of the program for a full bridge */

/* To which form does this port belong? EGRESS_NONE: it gets nothing. */
INLINE __u32 flood_form(const struct scratch *s, __u32 slot, const struct port *p,
			struct port_mode in)
{
	if (slot == s->in_slot || p->deliver == PORT_DELIVER_ABSENT || p->bridge != s->bridge)
		return EGRESS_NONE;
	if ((s->flood & (1 << PENDING_NORMAL)) && slot == s->normal_slot)
		return normal_egress(s, p->mode);
	if (in.flags & p->mode.flags & PORT_MODE_ISOLATED)
		return EGRESS_NONE;
	return s->flood & (1 << PENDING_NORMAL_FLOOD) ? normal_egress(s, p->mode) : EGRESS_NONE;
}

/* Sends to the port of one member, if it wants the frame in the form at hand; notes the form if it is another. */
INLINE void flood_one(struct __sk_buff *skb, struct scratch *s, __u32 slot, struct port_mode in)
{
	struct port *p = port_at(slot);
	__u32 wants;

	if (slot == PORT_SLOT_NONE || !p)
		return;
	if (slot != s->normal_slot && port_is_down(p))
		return; /* as if it was not there; where normal means this very port, the loss is counted */
	if (s->flood_form == EGRESS_AS_IT_IS && (s->flood & (1 << PENDING_FLOOD)) &&
	    slot != s->in_slot && p->deliver != PORT_DELIVER_ABSENT &&
	    !(in.flags & p->mode.flags & PORT_MODE_ISOLATED))
		emit_to(skb, s, slot);
	wants = flood_form(s, slot, p, in);
	if (wants == s->flood_form)
		emit_to(skb, s, slot);
	else
		s->flood_forms |= 1 << wants;
}

/* Serves some members. Returns 1 when all were asked. */
INLINE int flood_some(struct __sk_buff *skb, struct scratch *s)
{
	struct bridge_ports *ports = bridge_ports_at(s->bridge);
	struct port *in = port_at(s->in_slot);
	struct port_mode mode;

	if (!ports || !in)
		return 1;
	mode = in->mode;
	for (int i = 0; i < FLOOD_PORTS_PER_CALL; i++) {
		__u32 at = s->flood_next;

		if (at >= ports->n_members || at >= MAX_BRIDGE_PORTS + 2)
			return 1;
		s->flood_next = at + 1;
		flood_one(skb, s, ports->members[at], mode);
	}
	return 0;
}

INLINE void flood_begin(struct scratch *s)
{
	s->flood_form = EGRESS_AS_IT_IS;
	s->flood_next = 0;
	s->flood_forms = 0;
	s->flood_tci[0] = s->cur.vlan_tci0;
	s->flood_tci[1] = s->cur.vlan_tci1;
	s->flood_tpids = s->cur.tpids;
}

INLINE void flood_restore(struct scratch *s)
{
	s->cur.vlan_tci0 = s->flood_tci[0];
	s->cur.vlan_tci1 = s->flood_tci[1];
	s->cur.tpids = s->flood_tpids;
}

/* After a form: the next one that is wanted, with the packet's tags made so; what is held back leaves before.
 * Returns 1: go on; 0: finished, the key is as it was; -1: the kernel refused the edit. */
INLINE int flood_next_form(struct __sk_buff *skb, struct scratch *s)
{
	__u32 form = EGRESS_NONE;

	if (s->flood_form == EGRESS_AS_IT_IS && (s->flood_forms & (1 << EGRESS_UNTAGGED)))
		form = EGRESS_UNTAGGED;
	else if (s->flood_form != EGRESS_TAGGED && (s->flood_forms & (1 << EGRESS_TAGGED)))
		form = EGRESS_TAGGED;
	flood_restore(s);
	if (form == EGRESS_NONE)
		return 0;
	s->flood_form = form;
	s->flood_next = 0;
	emit_held(skb, s);
	key_retag(&s->cur, form, s->normal_vid);
	edit_from_keys(s);
	return emit_edit(skb, s) ? -1 : 1;
}

#endif
