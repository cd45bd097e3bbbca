"""Every field of the flow language, once: its names, its place in struct flow_key, what it needs, how it is written.

Names and prerequisites are those of ovs-fields(7); the places are bpf/abi.h's.
Keys and masks are handled as integers of 144 bytes, the first byte of struct flow_key lowest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from pyoffload import _abi as abi
from pyoffload.flow.values import Kind, ones

KEY_BYTES = abi.FLOW_KEY_WORDS * 8
CACHE_KEY_BYTES = abi.CACHE_KEY_WORDS * 8

ETH_IP, ETH_ARP, ETH_RARP, ETH_IPV6 = 0x0800, 0x0806, 0x8035, 0x86DD
PROTO_ICMP, PROTO_TCP, PROTO_UDP, PROTO_ICMPV6, PROTO_SCTP = 1, 6, 17, 58, 132
ND_SOLICIT, ND_ADVERT = 135, 136  # RFC 4861 sections 4.3, 4.4

# What a match says about the packets it takes, as bits; a field needs any of some of them.
IPV4, IPV6, ARP, TCP, UDP, SCTP, ICMP4, ICMP6, SOLICIT, ADVERT, VLAN = (1 << bit for bit in range(11))
IP = IPV4 | IPV6
PORTS = TCP | UDP | SCTP
ND = SOLICIT | ADVERT

NEED_WORDS = {
    IPV4: "ip",
    IPV6: "ipv6",
    IP: "ip or ipv6",
    ARP: "arp",
    IPV4 | ARP: "ip or arp",
    IP | ARP: "ip, ipv6 or arp",
    TCP: "tcp or tcp6",
    UDP: "udp or udp6",
    SCTP: "sctp or sctp6",
    PORTS: "tcp, udp or sctp (or tcp6, udp6, sctp6)",
    PORTS | ICMP4 | ICMP6: "tcp, udp, sctp or icmp (or tcp6, udp6, sctp6, icmp6)",
    ICMP4: "icmp",
    ICMP6: "icmp6",
    ICMP4 | ICMP6: "icmp or icmp6",
    SOLICIT: "icmp6,icmp_type=135",
    ADVERT: "icmp6,icmp_type=136",
    ND: "icmp6,icmp_type=135 or icmp6,icmp_type=136",
    VLAN: "a VLAN tag: dl_vlan=… in the match, or push_vlan before it",
}


# Fields whose written value is not what lies in the key.
Special = Literal["dl_vlan", "vlan_pcp", "vlan_vid", "vlan_tci"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Field:
    """``bits`` of value from bit ``lsb`` on of the ``size`` bytes at ``member`` (element ``index``) of struct flow_key.

    ``needs`` are facts about the packet any one of which must hold; ``valid`` is the key_valid bit that a match on it
    adds. ``set_name`` is what set_field calls it, "" if nothing may set it; ``nxm`` is what load calls it; ``mod`` is the
    OpenFlow 1.0 action that sets it.
    """

    name: str
    member: str
    index: int = 0
    size: int
    bits: int
    lsb: int = 0
    kind: Kind
    maskable: bool = False
    host_order: bool = False
    special: Special | None = None
    match: bool = True
    needs: int = 0
    valid: int = 0
    set_name: str = ""
    nxm: str = ""
    prereq: abi.prereq = abi.prereq.NONE
    mod: str = ""
    aliases: tuple[str, ...] = ()
    nxm_aliases: tuple[str, ...] = ()
    shift: int = field(init=False)  # of its bytes in a key
    words: range = field(init=False)  # the 64-bit words they lie in
    ones: int = field(init=False)  # mask over its value
    full: int = field(init=False)  # the same as it lies in a key

    def __post_init__(self) -> None:
        offset: int = getattr(abi.flow_key, self.member).offset
        shift = 8 * (offset + self.index * self.size)
        object.__setattr__(self, "shift", shift)
        object.__setattr__(self, "words", range(shift // 64, (shift + 8 * self.size - 1) // 64 + 1))
        object.__setattr__(self, "ones", ones(self.bits))
        object.__setattr__(self, "full", self.place(ones(self.bits)))

    def place(self, value: int) -> int:
        """``value`` as it lies in a key (or, given a mask, as it lies in a mask)."""
        raw = (value << self.lsb).to_bytes(self.size, "little" if self.host_order else "big")
        return int.from_bytes(raw, "little") << self.shift

    def take(self, key: int) -> int:
        """The field's value in a key: the other way round."""
        raw = (key >> self.shift & ones(8 * self.size)).to_bytes(self.size, "little")
        return int.from_bytes(raw, "little" if self.host_order else "big") >> self.lsb & ones(self.bits)

    @property
    def whole(self) -> int:
        """Mask over all the bytes that the field lies in."""
        return ones(8 * self.size) << self.shift


P = abi.prereq
L3, L4, VALID_ND = int(abi.key_valid.L3), int(abi.key_valid.L4), int(abi.key_valid.ND)

_mac = partial(Field, size=6, bits=48, kind="mac", maskable=True)
_tci = partial(Field, member="vlan_tci0", size=2)
_ip4 = partial(Field, size=4, bits=32, kind="ip4", maskable=True, valid=L3)
_ip6 = partial(Field, size=16, bits=128, kind="ip6", maskable=True)
_octet = partial(Field, size=1, bits=8, kind="decimal", valid=L3)
_port = partial(Field, size=2, bits=16, kind="port", maskable=True, valid=L4)
_icmp = partial(Field, size=2, bits=8, kind="decimal", valid=L4)
_reg = partial(Field, kind="hex", maskable=True, host_order=True)

FIELDS: tuple[Field, ...] = (
    Field(name="in_port", member="in_port", size=2, bits=16, kind="ofport", host_order=True, nxm="NXM_OF_IN_PORT"),
    # Ethernet and VLAN
    _mac(name="dl_src", member="dl_src", set_name="eth_src", nxm="NXM_OF_ETH_SRC", mod="mod_dl_src",
         aliases=("eth_src",), nxm_aliases=("OXM_OF_ETH_SRC",)),
    _mac(name="dl_dst", member="dl_dst", set_name="eth_dst", nxm="NXM_OF_ETH_DST", mod="mod_dl_dst",
         aliases=("eth_dst",), nxm_aliases=("OXM_OF_ETH_DST",)),
    Field(name="dl_type", member="dl_type", size=2, bits=16, kind="hex4", aliases=("eth_type",)),
    _tci(name="dl_vlan", bits=12, kind="decimal", special="dl_vlan"),
    _tci(name="dl_vlan_pcp", bits=3, lsb=13, kind="decimal", special="vlan_pcp"),
    _tci(name="vlan_tci", bits=16, kind="hex4", maskable=True, special="vlan_tci", set_name="vlan_tci",
         nxm="NXM_OF_VLAN_TCI"),
    _tci(name="vlan_vid", bits=12, kind="decimal", maskable=True, special="vlan_vid", needs=VLAN,
         set_name="vlan_vid", nxm="OXM_OF_VLAN_VID", prereq=P.VLAN, mod="mod_vlan_vid"),
    _tci(name="vlan_pcp", bits=3, lsb=13, kind="decimal", special="vlan_pcp", needs=VLAN,
         set_name="vlan_pcp", nxm="OXM_OF_VLAN_PCP", prereq=P.VLAN, mod="mod_vlan_pcp"),
    # IPv4; the addresses of a match are also ARP's
    _ip4(name="nw_src", member="nw_src", needs=IPV4 | ARP, set_name="ip_src", nxm="NXM_OF_IP_SRC", prereq=P.IPV4,
         mod="mod_nw_src", aliases=("ip_src",), nxm_aliases=("OXM_OF_IPV4_SRC",)),
    _ip4(name="nw_dst", member="nw_dst", needs=IPV4 | ARP, set_name="ip_dst", nxm="NXM_OF_IP_DST", prereq=P.IPV4,
         mod="mod_nw_dst", aliases=("ip_dst",), nxm_aliases=("OXM_OF_IPV4_DST",)),
    # IPv4 and IPv6
    _octet(name="nw_proto", member="nw_proto", needs=IP | ARP, aliases=("ip_proto",)),
    _octet(name="nw_tos", member="nw_tos", needs=IP, set_name="nw_tos", nxm="NXM_OF_IP_TOS", prereq=P.IP,
           mod="mod_nw_tos"),
    _octet(name="ip_dscp", member="nw_tos", bits=6, lsb=2, needs=IP, set_name="ip_dscp", nxm="OXM_OF_IP_DSCP",
           prereq=P.IP),
    _octet(name="nw_ecn", member="nw_tos", bits=2, needs=IP, set_name="nw_ecn", nxm="NXM_NX_IP_ECN", prereq=P.IP,
           aliases=("ip_ecn",), nxm_aliases=("OXM_OF_IP_ECN",)),
    _octet(name="nw_ttl", member="nw_ttl", needs=IP, set_name="nw_ttl", nxm="NXM_NX_IP_TTL", prereq=P.IP),
    _octet(name="nw_frag", member="nw_frag", bits=2, kind="fragment", needs=IP, aliases=("ip_frag",)),
    # IPv6
    _ip6(name="ipv6_src", member="nw_src", needs=IPV6, valid=L3, set_name="ipv6_src", nxm="NXM_NX_IPV6_SRC",
         prereq=P.IPV6, nxm_aliases=("OXM_OF_IPV6_SRC",)),
    _ip6(name="ipv6_dst", member="ipv6_dst", needs=IPV6, valid=L3, set_name="ipv6_dst", nxm="NXM_NX_IPV6_DST",
         prereq=P.IPV6, nxm_aliases=("OXM_OF_IPV6_DST",)),
    Field(name="ipv6_label", member="ipv6_label", size=4, bits=20, kind="hex5", maskable=True, needs=IPV6, valid=L3,
          set_name="ipv6_label", nxm="NXM_NX_IPV6_LABEL", prereq=P.IPV6, nxm_aliases=("OXM_OF_IPV6_FLABEL",)),
    # Transport. tp_src and tp_dst are whatever the match's protocol has.
    _port(name="tp_src", member="tp_src", needs=PORTS | ICMP4 | ICMP6, set_name="tp_src", prereq=P.PORTS,
          mod="mod_tp_src"),
    _port(name="tp_dst", member="tp_dst", needs=PORTS | ICMP4 | ICMP6, set_name="tp_dst", prereq=P.PORTS,
          mod="mod_tp_dst"),
    _port(name="tcp_src", member="tp_src", needs=TCP, set_name="tcp_src", nxm="NXM_OF_TCP_SRC", prereq=P.TCP,
          mod="mod_tp_src", nxm_aliases=("OXM_OF_TCP_SRC",)),
    _port(name="tcp_dst", member="tp_dst", needs=TCP, set_name="tcp_dst", nxm="NXM_OF_TCP_DST", prereq=P.TCP,
          mod="mod_tp_dst", nxm_aliases=("OXM_OF_TCP_DST",)),
    _port(name="udp_src", member="tp_src", needs=UDP, set_name="udp_src", nxm="NXM_OF_UDP_SRC", prereq=P.UDP,
          mod="mod_tp_src", nxm_aliases=("OXM_OF_UDP_SRC",)),
    _port(name="udp_dst", member="tp_dst", needs=UDP, set_name="udp_dst", nxm="NXM_OF_UDP_DST", prereq=P.UDP,
          mod="mod_tp_dst", nxm_aliases=("OXM_OF_UDP_DST",)),
    _port(name="sctp_src", member="tp_src", needs=SCTP, set_name="sctp_src", nxm="OXM_OF_SCTP_SRC", prereq=P.SCTP),
    _port(name="sctp_dst", member="tp_dst", needs=SCTP, set_name="sctp_dst", nxm="OXM_OF_SCTP_DST", prereq=P.SCTP),
    Field(name="tcp_flags", member="tcp_flags", size=2, bits=12, kind="tcp_flags", maskable=True, needs=TCP,
          valid=L4),
    # ICMP. As a match, icmp_type is that of either family; what sets it has a name for each.
    _icmp(name="icmp_type", member="tp_src", needs=ICMP4 | ICMP6),
    _icmp(name="icmp_code", member="tp_dst", needs=ICMP4 | ICMP6),
    _icmp(name="icmp_type", member="tp_src", match=False, needs=ICMP4, set_name="icmp_type", nxm="NXM_OF_ICMP_TYPE",
          prereq=P.ICMP4, nxm_aliases=("OXM_OF_ICMPV4_TYPE",)),
    _icmp(name="icmp_code", member="tp_dst", match=False, needs=ICMP4, set_name="icmp_code", nxm="NXM_OF_ICMP_CODE",
          prereq=P.ICMP4, nxm_aliases=("OXM_OF_ICMPV4_CODE",)),
    _icmp(name="icmpv6_type", member="tp_src", needs=ICMP6, set_name="icmpv6_type", nxm="NXM_NX_ICMPV6_TYPE",
          prereq=P.ICMP6, nxm_aliases=("OXM_OF_ICMPV6_TYPE",)),
    _icmp(name="icmpv6_code", member="tp_dst", needs=ICMP6, set_name="icmpv6_code", nxm="NXM_NX_ICMPV6_CODE",
          prereq=P.ICMP6, nxm_aliases=("OXM_OF_ICMPV6_CODE",)),
    # ARP
    _octet(name="arp_op", member="nw_proto", needs=ARP, set_name="arp_op", nxm="NXM_OF_ARP_OP", prereq=P.ARP,
           nxm_aliases=("OXM_OF_ARP_OP",)),
    _ip4(name="arp_spa", member="nw_src", needs=ARP, set_name="arp_spa", nxm="NXM_OF_ARP_SPA", prereq=P.ARP,
         nxm_aliases=("OXM_OF_ARP_SPA",)),
    _ip4(name="arp_tpa", member="nw_dst", needs=ARP, set_name="arp_tpa", nxm="NXM_OF_ARP_TPA", prereq=P.ARP,
         nxm_aliases=("OXM_OF_ARP_TPA",)),
    _mac(name="arp_sha", member="arp_sha", needs=ARP, valid=L3, set_name="arp_sha", nxm="NXM_NX_ARP_SHA",
         prereq=P.ARP, nxm_aliases=("OXM_OF_ARP_SHA",)),
    _mac(name="arp_tha", member="arp_tha", needs=ARP, valid=L3, set_name="arp_tha", nxm="NXM_NX_ARP_THA",
         prereq=P.ARP, nxm_aliases=("OXM_OF_ARP_THA",)),
    # Neighbour discovery
    _ip6(name="nd_target", member="nd_target", needs=ND, valid=VALID_ND, set_name="nd_target",
         nxm="NXM_NX_ND_TARGET", prereq=P.ND, nxm_aliases=("OXM_OF_IPV6_ND_TARGET",)),
    _mac(name="nd_sll", member="arp_sha", needs=SOLICIT, valid=VALID_ND, set_name="nd_sll", nxm="NXM_NX_ND_SLL",
         prereq=P.ND, nxm_aliases=("OXM_OF_IPV6_ND_SLL",)),
    _mac(name="nd_tll", member="arp_tha", needs=ADVERT, valid=VALID_ND, set_name="nd_tll", nxm="NXM_NX_ND_TLL",
         prereq=P.ND, nxm_aliases=("OXM_OF_IPV6_ND_TLL",)),
    # The pipeline's own
    _reg(name="metadata", member="metadata", size=8, bits=64, set_name="metadata", nxm="OXM_OF_METADATA"),
    *(
        _reg(name=f"reg{n}", member="reg", index=n, size=4, bits=32, set_name=f"reg{n}", nxm=f"NXM_NX_REG{n}")
        for n in range(4)
    ),
)  # fmt: skip

MATCH_FIELDS: dict[str, Field] = {
    name: entry for entry in FIELDS if entry.match for name in (entry.name, *entry.aliases)
}

# What set_field and load may call a field. Of two entries with one name the one that can be set counts.
SET_FIELDS: dict[str, Field] = {
    name: entry
    for entry in sorted(FIELDS, key=lambda entry: bool(entry.set_name))
    for name in (entry.name, entry.set_name, *entry.aliases, entry.nxm, *entry.nxm_aliases)
    if name
}

# Fields of cli.md and of ovs-fields(7) that this version takes no match on, and what they wait for.
LATER_FIELDS: dict[str, str] = {
    "tun_id": "tunnels",
    "tunnel_id": "tunnels",
    "tun_src": "tunnels",
    "tun_dst": "tunnels",
    "tun_ipv6_src": "tunnels",
    "tun_ipv6_dst": "tunnels",
    "tun_flags": "tunnels",
    "tun_ttl": "tunnels",
    "tun_tos": "tunnels",
    "ct_state": "connection tracking",
    "ct_zone": "connection tracking",
    "ct_mark": "connection tracking",
    "ct_label": "connection tracking",
    "ct_nw_src": "connection tracking",
    "ct_nw_dst": "connection tracking",
    "ct_ipv6_src": "connection tracking",
    "ct_ipv6_dst": "connection tracking",
    "ct_nw_proto": "connection tracking",
    "ct_tp_src": "connection tracking",
    "ct_tp_dst": "connection tracking",
    "NXM_NX_TUN_ID": "tunnels",
    "OXM_OF_TUNNEL_ID": "tunnels",
    "NXM_NX_CT_STATE": "connection tracking",
    "NXM_NX_CT_MARK": "connection tracking",
    "NXM_NX_CT_ZONE": "connection tracking",
}

# Fields that Open vSwitch has and no version of this switch is going to.
FOREIGN_FIELDS = frozenset(
    {
        "conj_id", "recirc_id", "dp_hash", "pkt_mark", "skb_priority", "actset_output", "packet_type", "mpls_label",
        "mpls_tc", "mpls_bos", "mpls_ttl", "nd_reserved", "nd_options_type", "nsh_flags", "nsh_mdtype", "nsh_np",
        "nsh_spi", "nsh_si", "nsh_ttl", "in_port_oxm",
        *(f"reg{n}" for n in range(4, 16)), *(f"xreg{n}" for n in range(8)), *(f"xxreg{n}" for n in range(4)),
    }
)  # fmt: skip
