/* SPDX-License-Identifier: GPL-2.0-only */
/* abi.h: every struct, enum and limit that both the datapath and Python know.
 *
 * The one home of these facts: scripts/gen_abi turns this file into pyoffload/_abi.py, and CI fails when
 * the two differ. Only fixed-width types; "be16"/"be32" are wire order, everything else is the host's.
 * Structs are laid out by hand so that no compiler inserts padding (the _Static_asserts check it).
 */
#ifndef PYOFFLOAD_ABI_H
#define PYOFFLOAD_ABI_H

typedef unsigned char abi_u8;
typedef unsigned short abi_u16;
typedef unsigned int abi_u32;
typedef unsigned long long abi_u64;
typedef unsigned short abi_be16; /* wire order */
typedef unsigned int abi_be32;	 /* wire order */

/* Bumped whenever a map's layout or meaning changes: pins of another version are never opened. */
#define ABI_VERSION 1

/* ---- limits ------------------------------------------------------------------------------- */

#define MAX_PORTS 4096	     /* port slots of one instance */
#define MAX_BRIDGES 256	     /* bridge slots of one instance */
#define MAX_BRIDGE_PORTS 256 /* ports of one bridge, without `local` */
#define MAX_OFPORT 1023	     /* highest OpenFlow port number that a port can have */
#define MAX_TABLES 32	     /* flow tables of one bridge */
#define MAX_SUBTABLES 64     /* distinct masks of one flow table */
#define MAX_FLOWS_PER_BRIDGE 65536
#define MAX_FLOWS \
	262144 /* flow slots of one instance: two full bridges, and both sides of a swap */
#define MAX_FLOW_CHAIN 16      /* flows of equal table and match that wait behind each other */
#define MAX_ACTIONS 524288     /* micro-operations of one instance, shared by equal lists */
#define MAX_FLOW_ACTIONS 64    /* micro-operations of one flow or bucket */
#define MAX_RESUBMIT_DEPTH 8   /* nested resubmits and group buckets that are being executed */
#define MAX_GROUPS 1024	       /* group slots of one instance */
#define MAX_BUCKETS 8192       /* bucket slots of one instance */
#define MAX_GROUP_BUCKETS 32   /* buckets of one group */
#define MAX_METERS 1024	       /* meter slots of one instance */
#define MAX_FDB 65536	       /* learned and static MAC addresses of one instance */
#define MAX_FDB_EPOCHS 65536   /* power of two */
#define MAX_VLAN_PROFILES 4096 /* distinct trunk lists in use */
#define MAX_PENDING_OUTPUTS 32 /* outputs waiting for the packet as it stands */
#define MAX_CACHE_FLOWS 8      /* flows credited by one flow-cache entry */
#define MAX_CACHE_OUTPUTS 4    /* output ports of one flow-cache entry */
#define TICK_SHIFT 30	       /* 2^30 ns: the unit of cache_entry.seen */
#define CACHE_WAYS 4	       /* entries a flow may live in: a power of two */
#define DEFAULT_CACHE_ENTRIES 262144
#define PORT_PROBES 8	  /* slots from ifindex % MAX_PORTS that may hold an interface */
#define N_DROP_REASONS 32 /* stride of port_drops; not the number of reasons in use */

#define FLOW_KEY_WORDS 18	/* struct flow_key in 64-bit words */
#define CACHE_KEY_WORDS 9	/* its first words: what a packet's headers say */
#define CACHE_KEY_WORDS_SHORT 5 /* the same without IPv6 addresses and label */

/* OpenFlow 1.0 reserved ports (openflow-1.0.h, enum ofp_port), in the 16 bits of flow_key.in_port. */
#define OFPORT_NONE 0xffff
#define OFPORT_LOCAL 0xfffe

#define PORT_SLOT_NONE 0xffff
#define VLAN_PRESENT \
	0x1000 /* the CFI bit of a tci in flow_key says: there is a tag (as OVS does) */

/* ---- the flow key --------------------------------------------------------------------------- */

enum nw_frag {
	NW_FRAG_ANY = 1,   /* any fragment */
	NW_FRAG_LATER = 2, /* its offset is not zero: there are no ports in it */
};

/* What the packet really contains; a match on a field below adds the bit to its mask, so that a
 * truncated header never matches a rule by the zeros that stand in for what is missing. */
enum key_valid {
	KEY_VALID_L3 = 1, /* IPv4, IPv6 or ARP header is whole and sane: nw_*, ipv6_*, arp_* */
	KEY_VALID_L4 =
		2, /* tp_*, icmp_*, tcp_flags (a later fragment counts as valid, with zeros, as in OVS) */
	KEY_VALID_ND = 4, /* nd_target, nd_sll, nd_tll */
};

enum key_tpid {
	KEY_TPID_OUTER_AD = 1, /* tpid of vlan_tci[0] is 0x88a8 and not 0x8100 */
	KEY_TPID_INNER_AD = 2, /* the same of vlan_tci[1] */
};

/* The fields that a flow may match, in 64-bit words so that masking and comparing go word by word.
 * Words 0..4 describe an IPv4 packet completely, words 0..8 an IPv6 one. What does not exist is zero.
 * vlan_tci[0] is the outermost tag. dl_type is what follows at most two tags; 0x05ff (OFP_DL_TYPE_NOT_ETH_TYPE)
 * for 802.3 frames without SNAP. For ICMP tp_src/tp_dst hold type/code; for ARP nw_proto holds the opcode.
 * nw_src/nw_dst share their place with the IPv6 source: dl_type tells, and it is always part of such a mask. */
struct flow_key {
	/* word 0 */
	abi_u8 dl_dst[6];
	abi_be16 vlan_tci0;
	/* word 1 */
	abi_u8 dl_src[6];
	abi_be16 dl_type;
	/* word 2 */
	abi_u16 in_port; /* OpenFlow port number; in a cache key: the port's slot */
	abi_be16 vlan_tci1;
	abi_u8 nw_proto;
	abi_u8 nw_tos; /* DSCP and ECN: the whole octet */
	abi_u8 nw_ttl;
	abi_u8 nw_frag;
	/* word 3 */
	abi_be16 tp_src;
	abi_be16 tp_dst;
	abi_be16 tcp_flags;
	abi_u8 valid; /* enum key_valid */
	abi_u8 tpids; /* enum key_tpid */
	/* words 4..7 */
	abi_be32 nw_src; /* also arp_spa; also ipv6_src[0..3] */
	abi_be32 nw_dst; /* also arp_tpa; also ipv6_src[4..7] */
	abi_be32 ipv6_src_lo[2];
	abi_be32 ipv6_dst[4];
	/* word 8 */
	abi_be32 ipv6_label;
	abi_u32 reserved0;
	/* words 9..12: ARP and neighbour discovery */
	abi_u8 arp_sha[6]; /* also nd_sll */
	abi_u16 reserved1;
	abi_u8 arp_tha[6]; /* also nd_tll */
	abi_u16 reserved2;
	abi_be32 nd_target[4];
	/* words 13..17: the pipeline's own registers, zero when a packet comes in; host order */
	abi_u64 metadata;
	abi_u32 reg[4];
	abi_u64 tun_id;
	abi_u32 ct_state;
	abi_u32 ct_mark;
};

/* ---- ports and bridges ---------------------------------------------------------------------- */

enum vlan_mode {
	VLAN_MODE_TRANSPARENT =
		0, /* every VLAN, tags as they are; untagged frames are VLAN 0 (OVS: a trunk of all) */
	VLAN_MODE_ACCESS = 1, /* pvid only, untagged; tagged frames from the guest are dropped */
	VLAN_MODE_TRUNK =
		2, /* the VLANs of the profile, tagged; untagged frames are dropped unless native */
};

enum port_mode_flag {
	PORT_MODE_NATIVE = 1, /* TRUNK: pvid is the native VLAN, untagged on the wire */
	PORT_MODE_ISOLATED =
		2, /* no traffic between isolated ports of a bridge by normal, flood and all */
};

enum port_deliver {
	PORT_DELIVER_ABSENT = 0,   /* configured, its interface is not there */
	PORT_DELIVER_REDIRECT = 1, /* bpf_redirect: transmit on out_ifindex */
	PORT_DELIVER_PEER =
		2, /* bpf_redirect_peer: out_ifindex is a veth whose peer is in another namespace */
	PORT_DELIVER_INGRESS =
		3, /* bpf_redirect(BPF_F_INGRESS): out_ifindex receives (port `local`) */
};

enum port_flag {
	PORT_XDP_OUT = 1,	/* XDP programs may redirect to it: it takes frames from a devmap */
	PORT_XDP_CSUM_SAFE = 2, /* its guest never leaves checksums partial: XDP need not look */
	PORT_XDP_TAGS_SEEN = 4, /* its guest's VLAN tags are in the frame, not beside it */
};

/* How a port treats VLANs. One 64-bit store, so that no packet sees half of a change. */
struct port_mode {
	abi_u8 vlan_mode; /* enum vlan_mode */
	abi_u8 flags;	  /* enum port_mode_flag */
	abi_u16 pvid;
	abi_u32 vlan_profile; /* index into vlan_profiles (TRUNK) */
};

/* map ports[slot]; a slot is (ifindex + i) % MAX_PORTS for some i < PORT_PROBES while the port is attached;
 * an absent port keeps its slot (ifindex 0) until it is attached again, maybe elsewhere. */
struct port {
	abi_u32 ifindex; /* 0: slot is free or the port is absent */
	abi_u16 bridge;	 /* bridge slot */
	abi_u16 ofport;	 /* OpenFlow number in the bridge, 1..MAX_OFPORT, or OFPORT_LOCAL */
	struct port_mode mode;
	abi_u32 out_ifindex;
	abi_u16 deliver; /* enum port_deliver */
	abi_u16 flags;	 /* enum port_flag */
	abi_u64 device; /* where the kernel keeps its struct net_device, noted by the datapath; 0: not known yet */
};

enum bridge_flag {
	BRIDGE_UP = 1,
	BRIDGE_FLOOD = 2, /* unknown unicast is flooded */
	BRIDGE_CACHE = 4, /* the flow cache is in use */
	BRIDGE_NEEDS_L3 =
		8, /* cache_mask has bits beyond word 2's in_port and vlan_tci1: parse layers 3 and 4 */
};

/* Which decisions are valid. One 64-bit store makes a change of configuration effective. */
struct policy {
	abi_u32 generation; /* of all that a cached decision depends on: bumped by every change */
	abi_u32 version; /* of the flow tables: flows with add_version <= version < remove_version exist */
};

/* map bridges[slot] */
struct bridge {
	struct policy policy;
	abi_u32 flags;		 /* enum bridge_flag */
	abi_u16 local;		 /* slot of port `local`, or PORT_SLOT_NONE */
	abi_u16 n_flows_nonzero; /* what a miss in table 0 does: 0 (it is empty) and 2: normal; 1: drop */
	abi_u64 mac_age_ns;
	abi_u32 mac_limit;
	abi_u32 reserved;
	/* Which bits of the key decisions depend on, by generation & 1: a mask is written before the generation
	 * that uses it. Bits that no flow looks at are left out, so that flows that differ only there share an entry. */
	abi_u64 cache_mask[2][CACHE_KEY_WORDS];
};

/* map bridge_ports[bridge slot] */
struct bridge_ports {
	abi_u32 n_members;
	abi_u32 reserved;
	abi_u16 members[MAX_BRIDGE_PORTS + 2]; /* port slots, `local` included, absent ports not */
	abi_u16 reserved1[2];
	abi_u16 by_ofport[MAX_OFPORT + 1]; /* port slot, or PORT_SLOT_NONE */
};

/* map vlan_profiles[profile]: the VLANs of a trunk, bit v % 64 of word v / 64 */
struct vlan_profile {
	abi_u64 vlans[64];
};

/* map bridge_counters[bridge slot], per CPU */
struct bridge_counters {
	abi_u64 mac_learned;
	abi_u64 mac_moved;
	abi_u64 mac_aged;
	abi_u64 mac_limit_hit;	/* a MAC was not learned: the bridge has mac_limit already */
	abi_u64 mac_table_full; /* a MAC was not learned: the instance has MAX_FDB already */
	abi_u64 flooded;
	abi_u64 cache_misses;
	abi_u64 cache_inserts;
	abi_u64 cache_full; /* every way held a live entry: the flow stays on the slow path */
	abi_u64 cache_busy; /* another CPU was writing the entry */
	abi_u64 cache_uncacheable; /* the decision cannot be held in an entry (groups, floods, many outputs) */
};

/* map config[0] */
enum config_flag {
	CONFIG_CACHE = 1, /* as `up --no-cache` leaves it out */
};
struct config {
	abi_u32 abi_version;
	abi_u32 flags;	    /* enum config_flag */
	abi_u32 cache_mask; /* number of flow-cache entries - 1 */
	abi_u32 reserved;
	abi_u64 hash_seed
		[CACHE_KEY_WORDS]; /* random and odd: collisions cannot be built from outside */
};

/* ---- MAC table ------------------------------------------------------------------------------ */

struct fdb_key {
	abi_u8 mac[6];
	abi_u16 vlan; /* 0: untagged on a bridge without VLANs */
	abi_u32 bridge;
};

enum fdb_flag {
	FDB_STATIC = 1, /* never moves, never ages */
};

struct fdb_entry {
	abi_u64 seen_ns; /* CLOCK_MONOTONIC_COARSE; 0: expired, whatever its age (how the control side deletes) */
	abi_u16 port;  /* slot */
	abi_u16 flags; /* enum fdb_flag */
	abi_u32 reserved;
};

/* map fdb_state[bridge slot]; the two hands belong to the instance and are kept in fdb_state[0] only */
struct fdb_state {
	abi_u64 n_learned; /* entries without FDB_STATIC, expired ones included until they are reclaimed */
	abi_u64 hand;	    /* next place of fdb_ring for a new entry */
	abi_u64 sweep_hand; /* next place that is looked at for an expired one */
	abi_u64 reserved;
};

/* ---- flow tables ---------------------------------------------------------------------------- */

/* A distinct mask of one flow table. Inner array of classifiers[bridge slot]: elements 0..MAX_TABLES-1
 * are the tables' headers (first, count), the subtables follow, per table ordered by falling max_priority. */
struct subtable {
	abi_u64 mask[FLOW_KEY_WORDS];
	abi_u32 id;	      /* unique in the instance; never reused while a flow of it exists */
	abi_u32 max_priority; /* of its flows, over both versions during a change */
	abi_u32 first;	      /* header: index of the table's first subtable */
	abi_u32 count;	      /* header: how many */
	abi_u64 version;      /* header of table 0: the version this classifier was built for */
};

/* map flow_index: masked key -> head of the chain of flows with that match */
struct flow_index_key {
	abi_u32 subtable;
	abi_u32 reserved;
	abi_u64 words[FLOW_KEY_WORDS];
};

#define FLOW_SLOT_NONE 0xffffffffu
#define VERSION_NEVER 0xffffffffu

/* map flows[slot]. Chains are ordered by falling priority, then by falling add_version. */
struct flow {
	abi_u32 priority;
	abi_u32 add_version;
	abi_u32 remove_version;
	abi_u32 next; /* slot of the next flow with the same match, or FLOW_SLOT_NONE */
	abi_u32 first_action;
	abi_u16 n_actions; /* 0: drop */
	abi_u16 table;
	abi_u64 idle_ns;     /* idle_timeout, or 0 */
	abi_u64 deadline_ns; /* CLOCK_MONOTONIC time of the hard timeout, or 0 */
	abi_u64 used_ns; /* last packet, CLOCK_MONOTONIC_COARSE; Python sets it to the time of adding */
	abi_u64 reserved[2];
};

/* maps flow_stats[flow slot], group_stats[group slot], bucket_stats, meter_stats: per CPU */
struct counter {
	abi_u64 packets;
	abi_u64 bytes;
};

enum action_op {
	ACTION_DROP = 0, /* ends the list */
	ACTION_SET = 1,	 /* key word `word`: (old & ~mask) | value, if `prereq` holds */
	ACTION_OUTPUT =
		2, /* arg: OpenFlow port (OFPORT_LOCAL too); the port the packet came from is skipped */
	ACTION_IN_PORT = 3,   /* back to where it came from */
	ACTION_NORMAL = 4,    /* the learning switch */
	ACTION_FLOOD = 5,     /* every port but the one it came from, whatever its VLANs */
	ACTION_ALL = 6,	      /* the same */
	ACTION_PUSH_VLAN = 7, /* arg: tpid 0x8100 or 0x88a8; new tag with vid 0, pcp 0 */
	ACTION_POP_VLAN = 8,  /* no tag: nothing */
	ACTION_SET_VID = 9,   /* arg: vid; without a tag a 0x8100 one is pushed (mod_vlan_vid) */
	ACTION_SET_PCP = 10,  /* arg: pcp; without a tag a 0x8100 one is pushed (mod_vlan_pcp) */
	ACTION_DEC_TTL = 11,  /* IPv4/IPv6; a packet with ttl <= 1 is dropped */
	ACTION_GOTO = 12,     /* arg: table; ends the list */
	ACTION_RESUBMIT = 13, /* arg: table; the list goes on afterwards */
	ACTION_METER = 14,    /* arg: meter slot */
	ACTION_GROUP =
		15, /* arg: group slot; the list goes on afterwards with the packet as it was */
};

/* When ACTION_SET takes effect (otherwise it does nothing, as in OVS). */
enum prereq {
	PREREQ_NONE = 0,
	PREREQ_IPV4 = 1,
	PREREQ_IPV6 = 2,
	PREREQ_IP = 3, /* either */
	PREREQ_TCP =
		4, /* ... over either family, with its ports in the packet (KEY_VALID_L4, not a later fragment) */
	PREREQ_UDP = 5,
	PREREQ_SCTP = 6,
	PREREQ_PORTS = 7, /* TCP, UDP or SCTP */
	PREREQ_ICMP4 = 8,
	PREREQ_ICMP6 = 9,
	PREREQ_ARP = 10,
	PREREQ_ND = 11,	  /* neighbour solicitation or advertisement (KEY_VALID_ND) */
	PREREQ_VLAN = 12, /* has a tag */
};

/* map actions[index]: one micro-operation */
struct action {
	abi_u8 op;     /* enum action_op */
	abi_u8 prereq; /* enum prereq */
	abi_u16 word;  /* ACTION_SET: index of the word in struct flow_key */
	abi_u32 arg;
	abi_u64 mask; /* ACTION_SET: bits to change, as the word lies in memory */
	abi_u64 value;
};

enum group_type {
	GROUP_ALL = 0,
	GROUP_SELECT = 1,
	GROUP_INDIRECT = 2,
	GROUP_FAST_FAILOVER = 3,
};

/* map groups[slot]: 8 bytes, one store */
struct group {
	abi_u32 first_bucket;
	abi_u16 n_buckets;
	abi_u16 type; /* enum group_type */
};

/* map buckets[index] */
struct bucket {
	abi_u32 first_action;
	abi_u16 n_actions;
	abi_u16 weight_end; /* SELECT: sum of the weights up to and with this one, scaled to 65535 for the last */
	abi_u16 watch_port; /* FAST_FAILOVER: OpenFlow port that must be alive, or OFPORT_NONE */
	abi_u16 reserved;
	abi_u32 watch_group; /* FAST_FAILOVER: group slot one of whose buckets must be alive, or 0xffffffff */
};

/* map meters[slot]: a token bucket in the form of GCRA (ATM Forum TM 4.0, 4.4.2): one 64-bit state, no lock */
struct meter {
	abi_u64 tat_ns;		 /* theoretical arrival time, CLOCK_MONOTONIC */
	abi_u64 burst_ns;	 /* how far tat may run ahead of now */
	abi_u64 ns_per_unit_q16; /* time one byte or packet takes at the meter's rate, << 16 */
	abi_u32 per_packet;	 /* 1: pktps, 0: kbps */
	abi_u32 enabled;
};

/* ---- programs ------------------------------------------------------------------------------- */

/* Index in the map tail_programs; each is a program tc_<name> of datapath_tc.c. */
enum tail_program {
	TAIL_CLASSIFY = 0, /* look tables up, execute actions */
	TAIL_NORMAL = 1,   /* the learning switch */
	TAIL_EMIT = 2,	   /* edit the packet, send it to the pending ports */
	TAIL_FLOOD = 3,	   /* send it to every port that may have it */
	TAIL_GROUP = 4,	   /* choose a group's buckets */
	TAIL_HIT = 5,	   /* apply a cached decision with all that it may hold */
	TAIL_MISS = 6,	   /* begin to decide */
	TAIL_PROGRAMS = 8, /* size of the map */
};

/* Value size of the map scratch: struct scratch of bpf/lib/scratch.h, which only the datapath knows. */
#define SCRATCH_SIZE 2048

/* ---- the flow cache ------------------------------------------------------------------------- */

/* Which parts of an edit are to be done. */
enum edit_field {
	EDIT_ETH = 1,
	EDIT_VLAN = 2,
	EDIT_NW_SRC = 4, /* IPv4 or IPv6, by the packet */
	EDIT_NW_DST = 8,
	EDIT_TOS = 16,
	EDIT_TTL = 32,
	EDIT_DEC_TTL = 64,
	EDIT_TP_SRC = 128,
	EDIT_TP_DST = 256,
	EDIT_LABEL = 512,
	EDIT_ARP = 1024, /* opcode and addresses; never cached */
	EDIT_ND = 2048,	 /* target and link-layer addresses; never cached */
};

/* What to do to a packet, values in wire order. The only description of a change that edit_apply() knows. */
struct edit {
	abi_u32 fields; /* enum edit_field */
	abi_u8 n_pop;	/* VLAN tags to take off, */
	abi_u8 n_push;	/* then to put on, push[0] first */
	abi_u8 tos;
	abi_u8 ttl; /* EDIT_TTL: new value; EDIT_DEC_TTL: how many to subtract */
	abi_be16 push_tci[2];
	abi_be16 push_tpid[2];
	abi_u8 dl_dst[6];
	abi_u8 dl_src[6];
	abi_be16 tp_src;
	abi_be16 tp_dst;
	abi_be32 nw_src[4];
	abi_be32 nw_dst[4];
	abi_be32 label;
	abi_u32 reserved;
};

enum cache_flag {
	CACHE_DROP = 1,	  /* no output: reason holds why */
	CACHE_EDIT = 2,	  /* the edit is not empty */
	CACHE_TIMED = 4,  /* one of the flows has a timeout: look at it before use */
	CACHE_FDB = 8,	  /* decided by the MAC table: the epochs must still be the same */
	CACHE_METER = 16, /* meter holds its slot */
	CACHE_MULTI = 32, /* more than one output */
	CACHE_LONG = 64,  /* IPv6: all CACHE_KEY_WORDS count */
};

/* map flow_cache[index / CACHE_WAYS].entry[index % CACHE_WAYS]: 256 bytes; an IPv4 or L2 hit without edit reads
 * the first two cache lines only. */
struct cache_entry {
	/* line 0 */
	abi_u64 seq; /* even: valid to read; odd: being written; 0: never used */
	abi_u64 key[CACHE_KEY_WORDS_SHORT];
	abi_u32 generation;
	abi_u16 out;   /* port slot */
	abi_u16 flags; /* enum cache_flag */
	abi_u64 hits; /* packets << 40 | bytes, since the last time it was folded into the totals below */
	/* line 1 */
	abi_u64 key_long[CACHE_KEY_WORDS - CACHE_KEY_WORDS_SHORT];
	abi_u16 fdb_src; /* index into fdb_epochs */
	abi_u16 fdb_dst;
	abi_u32 fdb_src_epoch;
	abi_u32 fdb_dst_epoch;
	abi_u32 seen;  /* CLOCK_MONOTONIC_COARSE >> TICK_SHIFT: the last tick in which it was hit */
	abi_u32 tick;  /* the same by jiffies, which cost nothing to read */
	abi_u32 flow0; /* slot of the first flow credited */
	abi_u16 meter; /* METER: slot */
	abi_u16 vlan;  /* FDB: of both MACs, for refreshing the MAC table */
	abi_u8 bridge;
	abi_u8 n_flows;
	abi_u8 reason; /* CACHE_DROP: enum drop_reason */
	abi_u8 n_out;
	/* lines 2 and 3 */
	abi_u32 flow[MAX_CACHE_FLOWS - 1]; /* the other flows credited */
	abi_u32 reserved2;		   /* keeps outs[] on 8 bytes */
	abi_u16 outs[MAX_CACHE_OUTPUTS];   /* MULTI: n_out - 1 ports before `out` */
	struct edit edit;
	abi_u64 packets; /* folded out of hits */
	abi_u64 bytes;
};

struct cache_bucket {
	struct cache_entry entry[CACHE_WAYS];
};

/* ---- counters and reasons ------------------------------------------------------------------- */

/* map port_stats[slot], per CPU; rx is what came from the guest, tx what went to it */
struct port_stats {
	abi_u64 rx_packets;
	abi_u64 rx_bytes;
	abi_u64 tx_packets;
	abi_u64 tx_bytes;
};

/* Why a packet, or a copy of it, was not delivered: index port_drops[slot of the port it came from *
 * N_DROP_REASONS + reason], per CPU. */
enum drop_reason {
	DROP_REASON_NONE = 0,
	DROP_REASON_FLOW = 1,	    /* a flow's actions say drop, or name no output */
	DROP_REASON_TABLE_MISS = 2, /* no flow of the table matched */
	DROP_REASON_TRUNCATED = 3,  /* no whole Ethernet header */
	DROP_REASON_BRIDGE_DOWN = 4,
	DROP_REASON_VLAN_INGRESS = 5, /* its VLAN is not allowed on the port it came from */
	DROP_REASON_SOURCE_MAC = 6,   /* normal: the source is a group address or zero */
	DROP_REASON_RESERVED_MULTICAST =
		7, /* normal: 01:80:c2:00:00:0x, not forwarded (IEEE 802.1Q 8.6.3) */
	DROP_REASON_SAME_PORT = 8,	 /* its destination is where it came from */
	DROP_REASON_UNKNOWN_UNICAST = 9, /* and the bridge does not flood */
	DROP_REASON_NO_DESTINATION = 10, /* flooding found no other port in its VLAN */
	DROP_REASON_ISOLATED = 11,
	DROP_REASON_VLAN_EGRESS = 12,  /* its VLAN is not allowed on the port it was to leave by */
	DROP_REASON_PORT_ABSENT = 13,  /* the interface is gone */
	DROP_REASON_NO_SUCH_PORT = 14, /* output to an OpenFlow port that no port has */
	DROP_REASON_METER = 15,
	DROP_REASON_NO_LIVE_BUCKET = 16,
	DROP_REASON_TTL = 17,
	DROP_REASON_VLAN_DEPTH = 18,	 /* push onto two tags */
	DROP_REASON_RESUBMIT_DEPTH = 19, /* MAX_RESUBMIT_DEPTH */
	DROP_REASON_PIPELINE_LIMIT = 20, /* too many tables, actions or outputs for one packet */
	DROP_REASON_EDIT_FAILED = 21,	 /* the kernel refused an edit (no memory) */
	DROP_REASON_OUTPUT_FAILED = 22,	 /* the kernel refused a copy (no memory, interface down) */
	DROP_REASON_INTERNAL = 23,	 /* a map entry that must exist does not: a defect */
	DROP_REASON_NO_PORT = 24,	 /* the interface it came from is not a port any more */
	DROP_REASON_PORT_DOWN = 25, /* the interface it was to leave by is down or has no carrier */
	/* flows may match a transport header that cannot be seen: a first fragment without it, or one that
	 * the next overwrites (RFC 1858, 3128), or too many extension headers before it */
	DROP_REASON_HIDDEN_HEADER = 26,
};

_Static_assert(sizeof(struct flow_key) == FLOW_KEY_WORDS * 8, "flow_key");
_Static_assert(sizeof(struct port) == 32, "port");
_Static_assert(sizeof(struct bridge) == 32 + 16 * CACHE_KEY_WORDS, "bridge");
_Static_assert(sizeof(struct subtable) == FLOW_KEY_WORDS * 8 + 24, "subtable");
_Static_assert(sizeof(struct flow_index_key) == FLOW_KEY_WORDS * 8 + 8, "flow_index_key");
_Static_assert(sizeof(struct flow) == 64, "flow");
_Static_assert(sizeof(struct action) == 24, "action");
_Static_assert(sizeof(struct group) == 8, "group");
_Static_assert(sizeof(struct bucket) == 16, "bucket");
_Static_assert(sizeof(struct edit) == 72, "edit");
_Static_assert(sizeof(struct cache_entry) == 256, "cache_entry");

#endif
