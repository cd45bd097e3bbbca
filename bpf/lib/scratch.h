/* SPDX-License-Identifier: GPL-2.0-only */
/* scratch.h: what the slow path's programs hand to each other: one struct a CPU, valid for one packet.
 *
 * A packet is decided on a copy of its key (`cur`) and edited only when it is sent: `pkt` says how the bytes in the
 * skb look now, so the edit that is due is always the difference between the two.
 */
#ifndef PYOFFLOAD_SCRATCH_H
#define PYOFFLOAD_SCRATCH_H

#include "kernel.h"

enum phase {
	PHASE_LOOKUP = 0,  /* look `table` up, then execute the flow's actions */
	PHASE_ACTIONS = 1, /* go on with the actions at next_action */
	PHASE_SEARCH = 2,  /* in the middle of `table` */
};

enum pending_kind {
	PENDING_PORT = 0,	  /* slot: as the packet is */
	PENDING_NORMAL = 1,	  /* slot: with the tag that the port's VLAN mode asks for */
	PENDING_FLOOD = 2,	  /* every other port of the bridge, as the packet is */
	PENDING_NORMAL_FLOOD = 3, /* every other port of VLAN normal_vid, each with its tag */
};

/* An action list that waits for the end of another one: of a resubmit, or of a group's bucket. */
struct frame {
	__u32 next_action;
	__u32 end_action;
	__u32 bucket;	  /* group all: the next bucket */
	__u16 end_bucket; /* group: one past its last bucket, counted from `bucket` */
	__u8 is_group;
	__u8 saved; /* group: index into `saved` of the key as it was before the bucket */
};

struct pending {
	__u16 slot;
	__u16 kind;
};

#define MAX_GROUP_DEPTH 3

struct scratch {
	struct flow_key cur;
	struct flow_key pkt;
	struct flow_key saved[MAX_GROUP_DEPTH];
	struct flow_index_key index_key;
	__u64 cache_key[CACHE_KEY_WORDS]; /* masked */
	__u32 cache_hash;
	struct policy policy;
	__u64 now;
	__u32 version;
	__u32 len;
	__u32 hash; /* of the 5-tuple: select groups */
	__u16 in_slot;
	__u16 bridge;
	__u32 l3;
	__u32 l4;
	__u32 hidden; /* DROP_REASON_HIDDEN_HEADER */
	__u32 nd_sll; /* offset of the option's address, 0: none */
	__u32 nd_tll;
	__u32 routed; /* an IPv6 routing header names further hops */

	/* the machine */
	__u32 phase;
	__u32 table;
	__u32 next_action;
	__u32 end_action;
	__u32 depth;
	__u32 group_depth;
	__u32 rounds;
	__u32 step; /* enum step, kept here so that the verifier does not follow each of its values */
	struct frame stack[MAX_RESUBMIT_DEPTH];

	__u32 group; /* slot: what TAIL_GROUP has to execute */
	__u32 choose_bucket;
	__u32 choose_inner;
	__u32 choose_group;

	/* outputs */
	__u32 n_pending;
	__u32 normal_inner;  /* that packet has a second tag */
	__u32 normal_vid;    /* VLAN of the pending PENDING_NORMAL* */
	__u32 emitted;	     /* copies that left already */
	__u32 final;	     /* nothing comes after this emission */
	__u32 flood;	     /* 1 << enum pending_kind: what TAIL_FLOOD has to do */
	__u32 flood_form;    /* enum egress_tag: which copies are being made */
	__u32 flood_next;    /* next member of the bridge */
	__u32 flood_forms;   /* 1 << form: other forms that are wanted */
	__be16 flood_tci[2]; /* the tags as they were */
	__u32 flood_tpids;
	__u32 normal_slot; /* PENDING_NORMAL among other outputs: the one port that it means */
	__u32 held; /* slot + 1 of the output that is not sent yet: the last one needs no copy */
	__u32 lost; /* drop reason of an output that could not be made */
	__u32 has_normal; /* normal_vid is in use by a pending output */
	__u32 has_flood;  /* one PENDING_FLOOD waits: flood_some() walks the ports once */
	struct pending pending[MAX_PENDING_OUTPUTS];

	/* what the cache entry will be */
	__u32 uncacheable;
	__u32 written; /* enum edit_field: what actions wrote, changed or not */
	__u32 timed;
	__u32 n_flows;
	__u32 flow[MAX_CACHE_FLOWS];
	__u32 meter; /* slot + 1 */
	__u32 dec_ttl;
	__u32 used_fdb;
	__u16 fdb_src;
	__u16 fdb_dst;
	__u32 fdb_src_epoch;
	__u32 fdb_dst_epoch;
	struct edit edit;

	/* the search of a flow table */
	__u32 found;
	__u32 best_priority;
	__u64 classifier; /* which one is being searched */
	__u32 chain;	  /* next flow to look at */
	__u32 subtable;
	__u32 end_subtable;
};

_Static_assert(sizeof(struct scratch) <= SCRATCH_SIZE, "scratch");

INLINE struct scratch *scratch_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(MAP(scratch), &zero);
}

#endif
