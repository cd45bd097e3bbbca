"""Generated from bpf/abi.h by scripts/gen_abi: do not edit."""

from __future__ import annotations

from ctypes import Array, LittleEndianStructure, c_uint8, c_uint16, c_uint32, c_uint64
from enum import IntEnum, IntFlag

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing takes longer to import than all the rest
    from typing import Any

# ctypes knows these attributes, its type stubs do not.
be16: Any = c_uint16.__ctype_be__  # type: ignore[attr-defined,unused-ignore]
be32: Any = c_uint32.__ctype_be__  # type: ignore[attr-defined,unused-ignore]

ABI_VERSION = 1
MAX_PORTS = 4096
MAX_BRIDGES = 256
MAX_BRIDGE_PORTS = 256
MAX_OFPORT = 1023
MAX_TABLES = 32
MAX_SUBTABLES = 64
MAX_FLOWS_PER_BRIDGE = 65536
MAX_FLOWS = 262144
MAX_FLOW_CHAIN = 16
MAX_ACTIONS = 524288
MAX_FLOW_ACTIONS = 64
MAX_RESUBMIT_DEPTH = 8
MAX_GROUPS = 1024
MAX_BUCKETS = 8192
MAX_GROUP_BUCKETS = 32
MAX_METERS = 1024
MAX_FDB = 65536
MAX_FDB_EPOCHS = 65536
MAX_VLAN_PROFILES = 4096
MAX_PENDING_OUTPUTS = 32
MAX_CACHE_FLOWS = 8
MAX_CACHE_OUTPUTS = 4
TICK_SHIFT = 30
CACHE_WAYS = 4
DEFAULT_CACHE_ENTRIES = 262144
PORT_PROBES = 8
N_DROP_REASONS = 32
FLOW_KEY_WORDS = 18
CACHE_KEY_WORDS = 9
CACHE_KEY_WORDS_SHORT = 5
OFPORT_NONE = 65535
OFPORT_LOCAL = 65534
PORT_SLOT_NONE = 65535
VLAN_PRESENT = 4096
FLOW_SLOT_NONE = 0xffffffff
VERSION_NEVER = 0xffffffff
SCRATCH_SIZE = 2048


class nw_frag(IntFlag):
    ANY = 1
    LATER = 2


class key_valid(IntFlag):
    L3 = 1
    L4 = 2
    ND = 4


class key_tpid(IntFlag):
    OUTER_AD = 1
    INNER_AD = 2


class vlan_mode(IntEnum):
    TRANSPARENT = 0
    ACCESS = 1
    TRUNK = 2


class port_mode_flag(IntFlag):
    NATIVE = 1
    ISOLATED = 2


class port_deliver(IntEnum):
    ABSENT = 0
    REDIRECT = 1
    PEER = 2
    INGRESS = 3


class port_flag(IntFlag):
    XDP_OUT = 1
    XDP_CSUM_SAFE = 2
    XDP_TAGS_SEEN = 4


class bridge_flag(IntFlag):
    UP = 1
    FLOOD = 2
    CACHE = 4
    NEEDS_L3 = 8


class config_flag(IntFlag):
    CACHE = 1


class fdb_flag(IntFlag):
    STATIC = 1


class action_op(IntEnum):
    DROP = 0
    SET = 1
    OUTPUT = 2
    IN_PORT = 3
    NORMAL = 4
    FLOOD = 5
    ALL = 6
    PUSH_VLAN = 7
    POP_VLAN = 8
    SET_VID = 9
    SET_PCP = 10
    DEC_TTL = 11
    GOTO = 12
    RESUBMIT = 13
    METER = 14
    GROUP = 15


class prereq(IntEnum):
    NONE = 0
    IPV4 = 1
    IPV6 = 2
    IP = 3
    TCP = 4
    UDP = 5
    SCTP = 6
    PORTS = 7
    ICMP4 = 8
    ICMP6 = 9
    ARP = 10
    ND = 11
    VLAN = 12


class group_type(IntEnum):
    ALL = 0
    SELECT = 1
    INDIRECT = 2
    FAST_FAILOVER = 3


class tail_program(IntEnum):
    CLASSIFY = 0
    NORMAL = 1
    EMIT = 2
    FLOOD = 3
    GROUP = 4
    HIT = 5
    MISS = 6
    PROGRAMS = 8


class edit_field(IntFlag):
    ETH = 1
    VLAN = 2
    NW_SRC = 4
    NW_DST = 8
    TOS = 16
    TTL = 32
    DEC_TTL = 64
    TP_SRC = 128
    TP_DST = 256
    LABEL = 512
    ARP = 1024
    ND = 2048


class cache_flag(IntFlag):
    DROP = 1
    EDIT = 2
    TIMED = 4
    FDB = 8
    METER = 16
    MULTI = 32
    LONG = 64


class drop_reason(IntEnum):
    NONE = 0
    FLOW = 1
    TABLE_MISS = 2
    TRUNCATED = 3
    BRIDGE_DOWN = 4
    VLAN_INGRESS = 5
    SOURCE_MAC = 6
    RESERVED_MULTICAST = 7
    SAME_PORT = 8
    UNKNOWN_UNICAST = 9
    NO_DESTINATION = 10
    ISOLATED = 11
    VLAN_EGRESS = 12
    PORT_ABSENT = 13
    NO_SUCH_PORT = 14
    METER = 15
    NO_LIVE_BUCKET = 16
    TTL = 17
    VLAN_DEPTH = 18
    RESUBMIT_DEPTH = 19
    PIPELINE_LIMIT = 20
    EDIT_FAILED = 21
    OUTPUT_FAILED = 22
    INTERNAL = 23
    NO_PORT = 24
    PORT_DOWN = 25
    HIDDEN_HEADER = 26


class flow_key(LittleEndianStructure):
    __slots__ = ()
    dl_dst: Array[Any]
    vlan_tci0: int
    dl_src: Array[Any]
    dl_type: int
    in_port: int
    vlan_tci1: int
    nw_proto: int
    nw_tos: int
    nw_ttl: int
    nw_frag: int
    tp_src: int
    tp_dst: int
    tcp_flags: int
    valid: int
    tpids: int
    nw_src: int
    nw_dst: int
    ipv6_src_lo: Array[Any]
    ipv6_dst: Array[Any]
    ipv6_label: int
    reserved0: int
    arp_sha: Array[Any]
    reserved1: int
    arp_tha: Array[Any]
    reserved2: int
    nd_target: Array[Any]
    metadata: int
    reg: Array[Any]
    tun_id: int
    ct_state: int
    ct_mark: int
    _fields_ = (
        ("dl_dst", c_uint8 * 6),
        ("vlan_tci0", be16),
        ("dl_src", c_uint8 * 6),
        ("dl_type", be16),
        ("in_port", c_uint16),
        ("vlan_tci1", be16),
        ("nw_proto", c_uint8),
        ("nw_tos", c_uint8),
        ("nw_ttl", c_uint8),
        ("nw_frag", c_uint8),
        ("tp_src", be16),
        ("tp_dst", be16),
        ("tcp_flags", be16),
        ("valid", c_uint8),
        ("tpids", c_uint8),
        ("nw_src", be32),
        ("nw_dst", be32),
        ("ipv6_src_lo", be32 * 2),
        ("ipv6_dst", be32 * 4),
        ("ipv6_label", be32),
        ("reserved0", c_uint32),
        ("arp_sha", c_uint8 * 6),
        ("reserved1", c_uint16),
        ("arp_tha", c_uint8 * 6),
        ("reserved2", c_uint16),
        ("nd_target", be32 * 4),
        ("metadata", c_uint64),
        ("reg", c_uint32 * 4),
        ("tun_id", c_uint64),
        ("ct_state", c_uint32),
        ("ct_mark", c_uint32),
    )


class port_mode(LittleEndianStructure):
    __slots__ = ()
    vlan_mode: int
    flags: int
    pvid: int
    vlan_profile: int
    _fields_ = (
        ("vlan_mode", c_uint8),
        ("flags", c_uint8),
        ("pvid", c_uint16),
        ("vlan_profile", c_uint32),
    )


class port(LittleEndianStructure):
    __slots__ = ()
    ifindex: int
    bridge: int
    ofport: int
    mode: port_mode
    out_ifindex: int
    deliver: int
    flags: int
    device: int
    _fields_ = (
        ("ifindex", c_uint32),
        ("bridge", c_uint16),
        ("ofport", c_uint16),
        ("mode", port_mode),
        ("out_ifindex", c_uint32),
        ("deliver", c_uint16),
        ("flags", c_uint16),
        ("device", c_uint64),
    )


class policy(LittleEndianStructure):
    __slots__ = ()
    generation: int
    version: int
    _fields_ = (
        ("generation", c_uint32),
        ("version", c_uint32),
    )


_policy = policy


class bridge(LittleEndianStructure):
    __slots__ = ()
    policy: _policy
    flags: int
    local: int
    n_flows_nonzero: int
    mac_age_ns: int
    mac_limit: int
    reserved: int
    cache_mask: Array[Any]
    _fields_ = (
        ("policy", _policy),
        ("flags", c_uint32),
        ("local", c_uint16),
        ("n_flows_nonzero", c_uint16),
        ("mac_age_ns", c_uint64),
        ("mac_limit", c_uint32),
        ("reserved", c_uint32),
        ("cache_mask", (c_uint64 * 9) * 2),
    )


class bridge_ports(LittleEndianStructure):
    __slots__ = ()
    n_members: int
    reserved: int
    members: Array[Any]
    reserved1: Array[Any]
    by_ofport: Array[Any]
    _fields_ = (
        ("n_members", c_uint32),
        ("reserved", c_uint32),
        ("members", c_uint16 * 258),
        ("reserved1", c_uint16 * 2),
        ("by_ofport", c_uint16 * 1024),
    )


class vlan_profile(LittleEndianStructure):
    __slots__ = ()
    vlans: Array[Any]
    _fields_ = (
        ("vlans", c_uint64 * 64),
    )


class bridge_counters(LittleEndianStructure):
    __slots__ = ()
    mac_learned: int
    mac_moved: int
    mac_aged: int
    mac_limit_hit: int
    mac_table_full: int
    flooded: int
    cache_misses: int
    cache_inserts: int
    cache_full: int
    cache_busy: int
    cache_uncacheable: int
    _fields_ = (
        ("mac_learned", c_uint64),
        ("mac_moved", c_uint64),
        ("mac_aged", c_uint64),
        ("mac_limit_hit", c_uint64),
        ("mac_table_full", c_uint64),
        ("flooded", c_uint64),
        ("cache_misses", c_uint64),
        ("cache_inserts", c_uint64),
        ("cache_full", c_uint64),
        ("cache_busy", c_uint64),
        ("cache_uncacheable", c_uint64),
    )


class config(LittleEndianStructure):
    __slots__ = ()
    abi_version: int
    flags: int
    cache_mask: int
    reserved: int
    hash_seed: Array[Any]
    _fields_ = (
        ("abi_version", c_uint32),
        ("flags", c_uint32),
        ("cache_mask", c_uint32),
        ("reserved", c_uint32),
        ("hash_seed", c_uint64 * 9),
    )


class fdb_key(LittleEndianStructure):
    __slots__ = ()
    mac: Array[Any]
    vlan: int
    bridge: int
    _fields_ = (
        ("mac", c_uint8 * 6),
        ("vlan", c_uint16),
        ("bridge", c_uint32),
    )


class fdb_entry(LittleEndianStructure):
    __slots__ = ()
    seen_ns: int
    port: int
    flags: int
    reserved: int
    _fields_ = (
        ("seen_ns", c_uint64),
        ("port", c_uint16),
        ("flags", c_uint16),
        ("reserved", c_uint32),
    )


class fdb_state(LittleEndianStructure):
    __slots__ = ()
    n_learned: int
    hand: int
    sweep_hand: int
    reserved: int
    _fields_ = (
        ("n_learned", c_uint64),
        ("hand", c_uint64),
        ("sweep_hand", c_uint64),
        ("reserved", c_uint64),
    )


class subtable(LittleEndianStructure):
    __slots__ = ()
    mask: Array[Any]
    id: int
    max_priority: int
    first: int
    count: int
    version: int
    _fields_ = (
        ("mask", c_uint64 * 18),
        ("id", c_uint32),
        ("max_priority", c_uint32),
        ("first", c_uint32),
        ("count", c_uint32),
        ("version", c_uint64),
    )


class flow_index_key(LittleEndianStructure):
    __slots__ = ()
    subtable: int
    reserved: int
    words: Array[Any]
    _fields_ = (
        ("subtable", c_uint32),
        ("reserved", c_uint32),
        ("words", c_uint64 * 18),
    )


class flow(LittleEndianStructure):
    __slots__ = ()
    priority: int
    add_version: int
    remove_version: int
    next: int
    first_action: int
    n_actions: int
    table: int
    idle_ns: int
    deadline_ns: int
    used_ns: int
    reserved: Array[Any]
    _fields_ = (
        ("priority", c_uint32),
        ("add_version", c_uint32),
        ("remove_version", c_uint32),
        ("next", c_uint32),
        ("first_action", c_uint32),
        ("n_actions", c_uint16),
        ("table", c_uint16),
        ("idle_ns", c_uint64),
        ("deadline_ns", c_uint64),
        ("used_ns", c_uint64),
        ("reserved", c_uint64 * 2),
    )


class counter(LittleEndianStructure):
    __slots__ = ()
    packets: int
    bytes: int
    _fields_ = (
        ("packets", c_uint64),
        ("bytes", c_uint64),
    )


class action(LittleEndianStructure):
    __slots__ = ()
    op: int
    prereq: int
    word: int
    arg: int
    mask: int
    value: int
    _fields_ = (
        ("op", c_uint8),
        ("prereq", c_uint8),
        ("word", c_uint16),
        ("arg", c_uint32),
        ("mask", c_uint64),
        ("value", c_uint64),
    )


class group(LittleEndianStructure):
    __slots__ = ()
    first_bucket: int
    n_buckets: int
    type: int
    _fields_ = (
        ("first_bucket", c_uint32),
        ("n_buckets", c_uint16),
        ("type", c_uint16),
    )


class bucket(LittleEndianStructure):
    __slots__ = ()
    first_action: int
    n_actions: int
    weight_end: int
    watch_port: int
    reserved: int
    watch_group: int
    _fields_ = (
        ("first_action", c_uint32),
        ("n_actions", c_uint16),
        ("weight_end", c_uint16),
        ("watch_port", c_uint16),
        ("reserved", c_uint16),
        ("watch_group", c_uint32),
    )


class meter(LittleEndianStructure):
    __slots__ = ()
    tat_ns: int
    burst_ns: int
    ns_per_unit_q16: int
    per_packet: int
    enabled: int
    _fields_ = (
        ("tat_ns", c_uint64),
        ("burst_ns", c_uint64),
        ("ns_per_unit_q16", c_uint64),
        ("per_packet", c_uint32),
        ("enabled", c_uint32),
    )


class edit(LittleEndianStructure):
    __slots__ = ()
    fields: int
    n_pop: int
    n_push: int
    tos: int
    ttl: int
    push_tci: Array[Any]
    push_tpid: Array[Any]
    dl_dst: Array[Any]
    dl_src: Array[Any]
    tp_src: int
    tp_dst: int
    nw_src: Array[Any]
    nw_dst: Array[Any]
    label: int
    reserved: int
    _fields_ = (
        ("fields", c_uint32),
        ("n_pop", c_uint8),
        ("n_push", c_uint8),
        ("tos", c_uint8),
        ("ttl", c_uint8),
        ("push_tci", be16 * 2),
        ("push_tpid", be16 * 2),
        ("dl_dst", c_uint8 * 6),
        ("dl_src", c_uint8 * 6),
        ("tp_src", be16),
        ("tp_dst", be16),
        ("nw_src", be32 * 4),
        ("nw_dst", be32 * 4),
        ("label", be32),
        ("reserved", c_uint32),
    )


_edit = edit


class cache_entry(LittleEndianStructure):
    __slots__ = ()
    seq: int
    key: Array[Any]
    generation: int
    out: int
    flags: int
    hits: int
    key_long: Array[Any]
    fdb_src: int
    fdb_dst: int
    fdb_src_epoch: int
    fdb_dst_epoch: int
    seen: int
    tick: int
    flow0: int
    meter: int
    vlan: int
    bridge: int
    n_flows: int
    reason: int
    n_out: int
    flow: Array[Any]
    reserved2: int
    outs: Array[Any]
    edit: _edit
    packets: int
    bytes: int
    _fields_ = (
        ("seq", c_uint64),
        ("key", c_uint64 * 5),
        ("generation", c_uint32),
        ("out", c_uint16),
        ("flags", c_uint16),
        ("hits", c_uint64),
        ("key_long", c_uint64 * 4),
        ("fdb_src", c_uint16),
        ("fdb_dst", c_uint16),
        ("fdb_src_epoch", c_uint32),
        ("fdb_dst_epoch", c_uint32),
        ("seen", c_uint32),
        ("tick", c_uint32),
        ("flow0", c_uint32),
        ("meter", c_uint16),
        ("vlan", c_uint16),
        ("bridge", c_uint8),
        ("n_flows", c_uint8),
        ("reason", c_uint8),
        ("n_out", c_uint8),
        ("flow", c_uint32 * 7),
        ("reserved2", c_uint32),
        ("outs", c_uint16 * 4),
        ("edit", _edit),
        ("packets", c_uint64),
        ("bytes", c_uint64),
    )


class cache_bucket(LittleEndianStructure):
    __slots__ = ()
    entry: Array[Any]
    _fields_ = (
        ("entry", cache_entry * 4),
    )


class port_stats(LittleEndianStructure):
    __slots__ = ()
    rx_packets: int
    rx_bytes: int
    tx_packets: int
    tx_bytes: int
    _fields_ = (
        ("rx_packets", c_uint64),
        ("rx_bytes", c_uint64),
        ("tx_packets", c_uint64),
        ("tx_bytes", c_uint64),
    )
