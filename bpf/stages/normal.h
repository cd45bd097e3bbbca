/* SPDX-License-Identifier: GPL-2.0-only */
/* normal.h: the learning switch (IEEE 802.1Q 8.6-8.8), the action "normal".
 *
 * Reads s->cur, learns its source, and appends what it decides to the pending outputs: one port with the tag that the port
 * asks for, or all ports of the VLAN. The key is left as it is.
 */
#ifndef PYOFFLOAD_NORMAL_H
#define PYOFFLOAD_NORMAL_H

#include "../lib/fdb.h"
#include "../lib/maps.h"
#include "../lib/scratch.h"
#include "actions.h"

#define VLAN_NONE 0xffffffff

INLINE int profile_has(__u32 profile, __u32 vid)
{
	struct vlan_profile *p = vlan_profile_at(profile);

	return p && (p->vlans[(vid >> 6) & 63] >> (vid & 63) & 1);
}

/* The VLAN that a frame with this tci (wire order; 0: untagged) is in when it comes in by a port, or VLAN_NONE. */
INLINE __u32 vlan_of_ingress(struct port_mode mode, __be16 tci)
{
	__u32 vid = swap16(tci) & 0x0fff;

	switch (mode.vlan_mode) {
	case VLAN_MODE_TRANSPARENT:
		return vid;
	case VLAN_MODE_ACCESS:
		return vid ? VLAN_NONE : mode.pvid; /* a priority tag (vid 0) is no VLAN */
	}
	if (vid)
		return profile_has(mode.vlan_profile, vid) ||
				       ((mode.flags & PORT_MODE_NATIVE) && vid == mode.pvid)
			       ? vid
			       : VLAN_NONE;
	return mode.flags & PORT_MODE_NATIVE ? mode.pvid : VLAN_NONE;
}

enum egress_tag {
	EGRESS_NONE = 0, /* the VLAN does not leave by this port */
	EGRESS_UNTAGGED = 1,
	EGRESS_TAGGED = 2,
	EGRESS_AS_IT_IS = 3, /* VLAN 0: no tag, or a priority tag */
};

INLINE __u32 vlan_egress(struct port_mode mode, __u32 vid)
{
	switch (mode.vlan_mode) {
	case VLAN_MODE_TRANSPARENT:
		return vid ? EGRESS_TAGGED : EGRESS_AS_IT_IS;
	case VLAN_MODE_ACCESS:
		return vid == mode.pvid ? EGRESS_UNTAGGED : EGRESS_NONE;
	}
	if (!vid)
		return EGRESS_NONE;
	if ((mode.flags & PORT_MODE_NATIVE) && vid == mode.pvid)
		return EGRESS_UNTAGGED;
	return profile_has(mode.vlan_profile, vid) ? EGRESS_TAGGED : EGRESS_NONE;
}

/* The same for a packet that may have a second tag: on a trunk, taking off the native VLAN's tag would show the inner one to
 * the next switch, which is how to hop into a VLAN that the sender is not in. */
INLINE __u32 normal_egress(const struct scratch *s, struct port_mode mode)
{
	__u32 form = vlan_egress(mode, s->normal_vid);

	if (form == EGRESS_UNTAGGED && mode.vlan_mode == VLAN_MODE_TRUNK && s->normal_inner)
		return EGRESS_NONE;
	return form;
}

/* Makes the key's tags what the port asks for. */
INLINE void key_retag(struct flow_key *k, __u32 egress, __u32 vid)
{
	__u16 tci = swap16(k->vlan_tci0);

	if (egress == EGRESS_UNTAGGED) {
		if (tci)
			key_vlan_pop(k);
	} else if (egress == EGRESS_TAGGED) {
		if (!tci)
			key_vlan_push(k, swap16(vid | VLAN_PRESENT), 0);
		else
			k->vlan_tci0 = swap16((tci & ~0x0fff) | vid);
	}
}

INLINE int mac_is_group(const __u8 *mac)
{
	return mac[0] & 1;
}

/* 01:80:c2:00:00:00 to 0f: spoken between neighbours, never forwarded by a bridge. */
INLINE int mac_is_reserved(const __u8 *m)
{
	return m[0] == 0x01 && m[1] == 0x80 && m[2] == 0xc2 && !(m[3] | m[4]) && m[5] < 0x10;
}

/* Remembers the epoch of a MAC before the table is read: if it changes afterwards, the decision is void. */
INLINE __u32 epoch_note(const struct fdb_key *k, __u16 *index)
{
	__u32 at = fdb_epoch_index(k), *epoch = fdb_epoch_at(at);

	*index = at;
	return epoch ? read_once_u32(epoch) : 0;
}

INLINE void normal_flood(struct scratch *s, struct bridge *br, struct bridge_counters *n,
			 int unknown)
{
	if (unknown && !(br->flags & BRIDGE_FLOOD)) {
		s->lost = DROP_REASON_UNKNOWN_UNICAST;
		return;
	}
	n->flooded++;
	s->uncacheable = 1; /* until its MAC is learned */
	s->has_normal = 1;
	pend(s, PORT_SLOT_NONE, PENDING_NORMAL_FLOOD);
}

INLINE void normal_run(struct scratch *s)
{
	struct port *in = port_at(s->in_slot), *out;
	struct bridge *br = bridge_at(s->bridge);
	struct bridge_counters *n = bridge_counters_at(s->bridge);
	struct fdb_key k;
	struct fdb_entry *e;
	__u32 vid, egress;

	if (!in || !br || !n) {
		s->lost = DROP_REASON_INTERNAL;
		return;
	}
	vid = vlan_of_ingress(in->mode, s->cur.vlan_tci0);
	s->normal_inner = s->cur.vlan_tci1 != 0;
	if (vid == VLAN_NONE || (s->normal_inner && in->mode.vlan_mode == VLAN_MODE_ACCESS)) {
		s->lost = DROP_REASON_VLAN_INGRESS;
		return;
	}
	s->normal_vid = vid;
	if (mac_is_group(s->cur.dl_src) || !(*(__u64 *)s->cur.dl_src & MASK48)) {
		s->lost = DROP_REASON_SOURCE_MAC;
		return;
	}
	fdb_key_make(&k, s->cur.dl_src, vid, s->bridge);
	s->fdb_src_epoch = epoch_note(&k, &s->fdb_src);
	fdb_learn(&k, s->in_slot, s->now, br, n);
	s->fdb_dst = s->fdb_src;
	s->fdb_dst_epoch = s->fdb_src_epoch;
	if (s->used_fdb)
		s->uncacheable = 1; /* an entry has room for one such decision */
	s->used_fdb = 1;

	if (mac_is_group(s->cur.dl_dst)) {
		if (mac_is_reserved(s->cur.dl_dst))
			s->lost = DROP_REASON_RESERVED_MULTICAST;
		else
			normal_flood(s, br, n, 0);
		return;
	}
	fdb_key_make(&k, s->cur.dl_dst, vid, s->bridge);
	s->fdb_dst_epoch = epoch_note(&k, &s->fdb_dst);
	e = fdb_get(&k);
	if (!e || fdb_expired(e, s->now, br->mac_age_ns)) {
		normal_flood(s, br, n, 1);
		return;
	}
	if (e->port == s->in_slot) {
		s->lost = DROP_REASON_SAME_PORT;
		return;
	}
	out = port_at(e->port);
	if (!out || out->deliver == PORT_DELIVER_ABSENT || out->bridge != s->bridge) {
		s->lost = DROP_REASON_PORT_ABSENT;
		return;
	}
	egress = normal_egress(s, out->mode);
	if (egress == EGRESS_NONE)
		s->lost = DROP_REASON_VLAN_EGRESS;
	else if ((in->mode.flags & PORT_MODE_ISOLATED) && (out->mode.flags & PORT_MODE_ISOLATED))
		s->lost = DROP_REASON_ISOLATED;
	else {
		s->has_normal = 1;
		pend(s, e->port, PENDING_NORMAL);
	}
}

#endif
