"""The words of a match, one by one, and what they say together."""

from __future__ import annotations

from typing import NamedTuple

from pyoffload import _abi as abi
from pyoffload.flow import fields as f
from pyoffload.flow.fields import FIELDS, FOREIGN_FIELDS, LATER_FIELDS, MATCH_FIELDS, Field
from pyoffload.flow.syntax import PortNames, fail, name_and_argument, parse_uint
from pyoffload.flow.values import ones, parse_masked

PROTOCOLS: dict[str, tuple[int, int | None]] = {
    "ip": (f.ETH_IP, None),
    "ip4": (f.ETH_IP, None),
    "ipv4": (f.ETH_IP, None),
    "icmp": (f.ETH_IP, f.PROTO_ICMP),
    "tcp": (f.ETH_IP, f.PROTO_TCP),
    "udp": (f.ETH_IP, f.PROTO_UDP),
    "sctp": (f.ETH_IP, f.PROTO_SCTP),
    "ipv6": (f.ETH_IPV6, None),
    "ip6": (f.ETH_IPV6, None),
    "icmp6": (f.ETH_IPV6, f.PROTO_ICMPV6),
    "tcp6": (f.ETH_IPV6, f.PROTO_TCP),
    "udp6": (f.ETH_IPV6, f.PROTO_UDP),
    "sctp6": (f.ETH_IPV6, f.PROTO_SCTP),
    "arp": (f.ETH_ARP, None),
    "rarp": (f.ETH_RARP, None),
    "mpls": (0x8847, None),
    "mplsm": (0x8848, None),
}

# OpenFlow 1.0's reserved ports by name, as ovs-ofctl writes them (in any case).
IN_PORT, TABLE, NORMAL, FLOOD, ALL, CONTROLLER = 0xFFF8, 0xFFF9, 0xFFFA, 0xFFFB, 0xFFFC, 0xFFFD
RESERVED_PORTS = {
    "in_port": IN_PORT,
    "table": TABLE,
    "normal": NORMAL,
    "flood": FLOOD,
    "all": ALL,
    "controller": CONTROLLER,
    "local": abi.OFPORT_LOCAL,
    "any": abi.OFPORT_NONE,
    "none": abi.OFPORT_NONE,
    "unset": 0xFFF7,
}
PORT_MAX = 0xFEFF  # below OpenFlow 1.0's reserved ones

# A shape says which fields a match has, and the values that prerequisites look at, in one integer: a bit per field of
# FIELDS, then dl_type + 1, nw_proto + 1, icmp_type + 1, and whether there is a VLAN tag.
_DL_TYPE, _NW_PROTO, _ICMP_TYPE, _HAS_VLAN = 64, 81, 90, 1 << 99
_BIT = {id(entry): 1 << index for index, entry in enumerate(FIELDS)}
_DL_TYPE_FIELD = MATCH_FIELDS["dl_type"]
_NW_PROTO_FIELD = MATCH_FIELDS["nw_proto"]
_TCI = MATCH_FIELDS["vlan_tci"]
_VALID_SHIFT: int = 8 * abi.flow_key.valid.offset  # type: ignore[attr-defined]

# value and mask as they lie in the key, and shape
MatchPart = tuple[int, int, int]
NOTHING: MatchPart = (0, 0, 0)


def field_bit(entry: Field) -> int:
    return _BIT[id(entry)]


def parse_port(text: str, names: PortNames) -> int:
    """An OpenFlow port, reserved or not, by number or by name; what is in quotes is a name."""
    if len(text) > 2 and text[0] == text[-1] == '"':
        quoted = names.number(text[1:-1])
        if quoted is None:
            fail(f"no port {text} in this bridge", text)
        return quoted
    if text.isdecimal() and text.isascii():
        number = int(text)
        if number >= 0xFFFFFF00:  # OpenFlow 1.1 and later number the reserved ports in 32 bits
            number &= 0xFFFF
        if number <= PORT_MAX or number in RESERVED_PORTS.values():
            return number
        fail(f"port {text} is more than {PORT_MAX}", text)
    reserved = RESERVED_PORTS.get(text.lower())
    if reserved is not None:
        return reserved
    known = names.number(text)
    if known is None:
        fail(f"no port '{text}' in this bridge", text)
    return known


def parse_protocol(word: str) -> MatchPart | None:
    """``tcp`` and the like; what follows it (``tcp=``) does not count, as in ovs-ofctl."""
    protocol = PROTOCOLS.get(word)
    if protocol is None:
        return None
    dl_type, nw_proto = protocol
    value, mask, shape = _place(_DL_TYPE_FIELD, dl_type, 0xFFFF)
    if nw_proto is not None:
        proto = _place(_NW_PROTO_FIELD, nw_proto, 0xFF)
        value, mask, shape = value | proto[0], mask | proto[1], shape | proto[2]
    return value, mask, shape


def parse_match_word(word: str, names: PortNames) -> MatchPart | None:
    """One word of a match, or None if it is no field's; BadWordError if it is one and is wrong."""
    name, equals, rest = word.partition("=")
    entry = MATCH_FIELDS.get(name)
    argument: str | None = rest
    if entry is None or not equals:
        name, argument = name_and_argument(word)
        entry = MATCH_FIELDS.get(name)
    if entry is None:
        protocol = parse_protocol(name)
        if protocol is not None:
            if argument:
                fail(f"'{name}' takes no value", word)
            return protocol
        if name in LATER_FIELDS:
            fail(f"matching {name} is not yet supported: it comes with {LATER_FIELDS[name]}", word)
        if name in FOREIGN_FIELDS:
            fail(f"matching {name} is not supported", word, _register_hint(name))
        return None
    if not argument:
        fail(f"{name}: a value is missing", word)
    if argument == "*":
        return NOTHING
    if entry.special is not None:
        return _vlan(entry, name, argument)
    if entry.kind == "ofport":
        return _in_port(entry, argument, names)
    value, mask = parse_masked(entry.kind, entry.bits, argument, name)
    if mask != entry.ones and not entry.maskable and entry.kind != "fragment":
        if mask == 0:
            return NOTHING
        fail(f"{name} takes no mask", argument[argument.index("/") :])
    if entry.name == "nw_tos":
        value, mask = value & 0xFC, 0xFC  # the two bits below are nw_ecn's
    return _place(entry, value, mask)


def _register_hint(name: str) -> str | None:
    return "registers are reg0 to reg3" if "reg" in name else None


def _place(entry: Field, value: int, mask: int) -> MatchPart:
    if mask == 0:
        return NOTHING
    shape = field_bit(entry)
    if entry is _DL_TYPE_FIELD:
        shape |= (value + 1) << _DL_TYPE
    elif entry is _NW_PROTO_FIELD:
        shape |= (value + 1) << _NW_PROTO
    elif entry.member == "tp_src" and mask & 0xFF == 0xFF and value <= 0xFF:
        shape |= (value + 1) << _ICMP_TYPE
    if entry.kind == "decimal" and entry.size == 2:
        mask = 0xFFFF  # type and code of ICMP fill the place of a port
    return entry.place(value), entry.full if mask == entry.ones else entry.place(mask), shape


def _in_port(entry: Field, argument: str, names: PortNames) -> MatchPart:
    port = parse_port(argument, names)
    if port > PORT_MAX and port != abi.OFPORT_LOCAL:
        fail(f"in_port: no packet comes from port '{argument}'", argument)
    return _place(entry, port, 0xFFFF)


def _vlan(entry: Field, name: str, argument: str) -> MatchPart:
    """The fields of the outermost tag: in a key its CFI bit says that there is one."""
    present = abi.VLAN_PRESENT
    if entry.special == "vlan_pcp":
        value, mask = parse_uint(argument, 7, name) << 13 | present, 0xE000 | present
    elif entry.special == "dl_vlan":
        vid = parse_uint(argument, 0xFFFF, name)
        if vid == 0xFFFF:  # OpenFlow 1.0's OFP_VLAN_NONE
            value, mask = 0, 0xFFFF
        elif vid > 0xFFF:
            fail(f"{name}: {argument} is more than 4095", argument)
        else:
            value, mask = vid | present, 0xFFF | present
    else:
        bits = 16 if entry.special == "vlan_tci" else 13
        value, mask = parse_masked("hex", bits, argument, name)
        if mask == ones(bits) and not value & present:
            if value and entry.special == "vlan_vid":
                fail(
                    f"{name}: {argument} lacks bit 0x1000",
                    argument,
                    f"use vlan_vid={value | present:#x} or dl_vlan",
                )
            value, mask = 0, 0xFFFF  # no tag, whatever else is said
    if mask == 0:
        return NOTHING
    tagged = _HAS_VLAN if value & mask & present else 0
    return _TCI.place(value), _TCI.place(mask), field_bit(_TCI) | tagged


class Shape(NamedTuple):
    """``facts``: what the match says about its packets (bits of fields.py); ``valid``: key_valid bits, in key and mask."""

    facts: int
    valid: int


class UnmetNeedError(Exception):
    """``entry`` is in the match, what it needs is not."""

    def __init__(self, entry: Field) -> None:
        super().__init__(entry.name)
        self.entry = entry


def resolve_shape(shape: int) -> Shape:
    facts = _facts(shape)
    valid = 0
    for index, entry in enumerate(FIELDS):
        if shape >> index & 1:
            if entry.needs and not entry.needs & facts:
                raise UnmetNeedError(entry)
            valid |= entry.valid
    return Shape(facts, valid << _VALID_SHIFT)


def _facts(shape: int) -> int:
    dl_type = (shape >> _DL_TYPE & ones(17)) - 1
    nw_proto = (shape >> _NW_PROTO & ones(9)) - 1
    icmp_type = (shape >> _ICMP_TYPE & ones(9)) - 1
    facts = f.VLAN if shape & _HAS_VLAN else 0
    if dl_type in {f.ETH_ARP, f.ETH_RARP}:
        facts |= f.ARP
    elif dl_type in {f.ETH_IP, f.ETH_IPV6}:
        facts |= f.IPV4 if dl_type == f.ETH_IP else f.IPV6
        facts |= {f.PROTO_TCP: f.TCP, f.PROTO_UDP: f.UDP, f.PROTO_SCTP: f.SCTP}.get(nw_proto, 0)
        if dl_type == f.ETH_IP and nw_proto == f.PROTO_ICMP:
            facts |= f.ICMP4
        elif dl_type == f.ETH_IPV6 and nw_proto == f.PROTO_ICMPV6:
            facts |= f.ICMP6 | {f.ND_SOLICIT: f.SOLICIT, f.ND_ADVERT: f.ADVERT}.get(icmp_type, 0)
    return facts


def explain_need(entry: Field) -> str:
    return f"{entry.name} needs {f.NEED_WORDS.get(entry.needs, 'more')} in the match"
