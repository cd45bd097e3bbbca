"""Flows as ovs-ofctl prints them, to the letter.

ovs-ofctl prints actions as the OpenFlow version of its connection can say them, so one list has several texts:
NATIVE keeps the admin's words, OPENFLOW10 is what plain ``ovs-ofctl dump-flows`` prints (goto_table:5 is resubmit(,5),
set_field:…->ip_src is mod_nw_src:…), OPENFLOW13 what ``ovs-ofctl -O OpenFlow13 dump-flows`` prints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum
from functools import lru_cache
from typing import Protocol

from pyoffload import _abi as abi
from pyoffload.flow import fields as f
from pyoffload.flow.actions import Op, Step, Steps
from pyoffload.flow.fields import MATCH_FIELDS, SET_FIELDS, Field
from pyoffload.flow.syntax import PortNames
from pyoffload.flow.values import format_hex, format_masked, format_value, ones


class Dialect(Enum):
    NATIVE = "native"
    OPENFLOW10 = "OpenFlow10"
    OPENFLOW13 = "OpenFlow13"


NATIVE, OPENFLOW10, OPENFLOW13 = Dialect.NATIVE, Dialect.OPENFLOW10, Dialect.OPENFLOW13
DEFAULT_PRIORITY = 32768

_KEYWORDS = {
    (f.ETH_IP, f.PROTO_ICMP): "icmp",
    (f.ETH_IP, f.PROTO_TCP): "tcp",
    (f.ETH_IP, f.PROTO_UDP): "udp",
    (f.ETH_IP, f.PROTO_SCTP): "sctp",
    (f.ETH_IPV6, f.PROTO_ICMPV6): "icmp6",
    (f.ETH_IPV6, f.PROTO_TCP): "tcp6",
    (f.ETH_IPV6, f.PROTO_UDP): "udp6",
    (f.ETH_IPV6, f.PROTO_SCTP): "sctp6",
}
_ETHERTYPES = {
    f.ETH_IP: "ip", f.ETH_IPV6: "ipv6", f.ETH_ARP: "arp", f.ETH_RARP: "rarp", 0x8847: "mpls", 0x8848: "mplsm",
}  # fmt: skip

# ---- matches ----

_Printer = Callable[[int, int, PortNames | None], str]
_Plan = tuple[str, tuple[_Printer, ...]]

_TCI, _DL_TYPE, _NW_PROTO = MATCH_FIELDS["vlan_tci"], MATCH_FIELDS["dl_type"], MATCH_FIELDS["nw_proto"]
_DL_TYPE_AT = slice(_DL_TYPE.shift // 8, _DL_TYPE.shift // 8 + 2)
_NW_PROTO_AT = _NW_PROTO.shift // 8
_FIRST = ("reg0", "reg1", "reg2", "reg3", "metadata", "in_port", "vlan_tci", "dl_src", "dl_dst")
_IP_ORDER = ("nw_tos", "nw_ecn", "nw_ttl", "nw_frag")
_ARP_ORDER = ("arp_spa", "arp_tpa", "arp_op", "arp_sha", "arp_tha")


def format_match(key: bytes, mask: bytes, names: PortNames | None = None) -> str:
    """The match alone; "" for one that takes every packet. ``names``: ports by name instead of by number."""
    keyword, printers = _plan(mask, key[_DL_TYPE_AT], key[_NW_PROTO_AT])
    if not printers:
        return keyword
    key_bits, mask_bits = int.from_bytes(key, "little"), int.from_bytes(mask, "little")
    texts = [printer(key_bits, mask_bits, names) for printer in printers]
    if keyword:
        texts.insert(0, keyword)
    return ",".join(texts)


@lru_cache(maxsize=4096)
def _plan(mask: bytes, dl_type_bytes: bytes, nw_proto: int) -> _Plan:
    """The protocol's word, and what prints each field that a mask covers, in ovs-ofctl's order."""
    bits = int.from_bytes(mask, "little")
    keyword = ""
    order = list(_FIRST)
    dl_type = int.from_bytes(dl_type_bytes, "big") if _DL_TYPE.take(bits) == 0xFFFF else -1
    has_proto = _NW_PROTO.take(bits) == 0xFF
    if dl_type >= 0:
        pair = _KEYWORDS.get((dl_type, nw_proto)) if has_proto else None
        keyword = pair or _ETHERTYPES.get(dl_type, "")
        if not keyword:
            order.append("dl_type")
        if dl_type in {f.ETH_ARP, f.ETH_RARP}:
            order.extend(_ARP_ORDER)
        elif dl_type in {f.ETH_IP, f.ETH_IPV6}:
            order.extend(
                ("nw_src", "nw_dst") if dl_type == f.ETH_IP else ("ipv6_src", "ipv6_dst", "ipv6_label")
            )
            if has_proto and not pair:
                order.append("nw_proto")
            order.extend(_IP_ORDER)
            order.extend(_transport_order(pair))
    return keyword, tuple(_printer(name) for name in order if _covered(MATCH_FIELDS[name], bits))


def _transport_order(pair: str | None) -> tuple[str, ...]:
    if pair is None:
        return ()
    if pair == "icmp":
        return "icmp_type", "icmp_code"
    if pair == "icmp6":
        return "icmp_type", "icmp_code", "nd_target", "nd_sll", "nd_tll"
    return "tp_src", "tp_dst", "tcp_flags"


def _covered(entry: Field, bits: int) -> bool:
    if entry.name == "nw_tos":
        return entry.take(bits) & 0xFC != 0
    return entry.take(bits) != 0


def _printer(name: str) -> _Printer:
    entry = MATCH_FIELDS[name]
    if entry.special == "vlan_tci":
        return _format_tci
    if entry.kind == "ofport":
        return lambda key, _mask, names: f"in_port={format_port(entry.take(key), names)}"
    if name == "nw_tos":
        return lambda key, _mask, _names: f"nw_tos={entry.take(key) & 0xFC}"

    def plain(key: int, mask: int, _names: PortNames | None) -> str:
        return f"{name}={format_masked(entry.kind, entry.bits, entry.take(key), entry.take(mask))}"

    return plain


def _format_tci(key: int, mask: int, _names: PortNames | None) -> str:
    value, bits = _TCI.take(key), _TCI.take(mask)
    vid, pcp = bits & 0xFFF, bits >> 13
    if value & bits & abi.VLAN_PRESENT and vid in {0, 0xFFF} and pcp in {0, 7} and (vid or pcp):
        texts = []
        if vid:
            texts.append(f"dl_vlan={value & 0xFFF}")
        if pcp:
            texts.append(f"dl_vlan_pcp={value >> 13}")
        return ",".join(texts)
    return f"vlan_tci=0x{value:04x}" if bits == 0xFFFF else f"vlan_tci=0x{value:04x}/0x{bits:04x}"


def format_port(port: int, names: PortNames | None) -> str:
    """A port as it stands in in_port= and output:; names in quotes where ovs-ofctl puts them."""
    if port == abi.OFPORT_LOCAL:
        return "LOCAL"
    name = names.name(port) if names is not None else None
    if name is None:
        return str(port)
    plain = name[:1].isalpha() and name.isascii() and name.replace("_", "a").isalnum()
    return name if plain else f'"{name}"'


# ---- actions ----

_PLAIN = {
    Op.IN_PORT: "IN_PORT",
    Op.NORMAL: "NORMAL",
    Op.FLOOD: "FLOOD",
    Op.ALL: "ALL",
    Op.DEC_TTL: "dec_ttl",
}
_MOD_TTL, _MOD_ECN = SET_FIELDS["nw_ttl"], SET_FIELDS["nw_ecn"]
_SHARED = {"tp_src": ("tcp_src", "udp_src", "sctp_src"), "tp_dst": ("tcp_dst", "udp_dst", "sctp_dst")}


def format_actions(
    steps: Steps, dialect: Dialect = NATIVE, names: PortNames | None = None, facts: int = 0
) -> str:
    """An action list. ``facts``: what the match says (match_facts()); the dialects' choice of words depends on it."""
    if not steps:
        return "drop"
    texts: list[str] = []
    tagged = bool(facts & f.VLAN)
    for step in steps:
        texts.extend(_format_step(step, dialect, names, facts, tagged=tagged))
        if step.op in {Op.PUSH_VLAN, Op.SET_VID, Op.SET_PCP}:
            tagged = True
        elif step.op is Op.POP_VLAN:
            tagged = False
    return ",".join(texts) or "drop"


def _format_step(
    step: Step, dialect: Dialect, names: PortNames | None, facts: int, *, tagged: bool
) -> Iterator[str]:
    op, arg = step.op, step.arg
    if op is Op.SET:
        yield from _format_set(step, dialect, facts)
    elif op is Op.OUTPUT:
        port = format_port(arg, names)
        yield port if port == "LOCAL" else f"output:{port}"
    elif op in _PLAIN:
        yield _PLAIN[op]
    elif op is Op.PUSH_VLAN:
        yield f"push_vlan:{arg:#06x}"
    elif op is Op.POP_VLAN:
        yield "pop_vlan" if dialect is OPENFLOW13 else "strip_vlan"
    elif op in {Op.SET_VID, Op.SET_PCP}:
        what = "vlan_vid" if op is Op.SET_VID else "vlan_pcp"
        if dialect is not OPENFLOW13:
            yield f"mod_{what}:{arg}"
            return
        if not tagged:
            yield "push_vlan:0x8100"
        yield f"set_field:{arg | abi.VLAN_PRESENT if op is Op.SET_VID else arg}->{what}"
    elif op is Op.GOTO:
        yield f"resubmit(,{arg})" if dialect is OPENFLOW10 else f"goto_table:{arg}"
    elif op is Op.RESUBMIT:
        yield f"resubmit(,{arg})"
    else:
        yield f"{op.name.lower()}:{arg}"


def _format_set(step: Step, dialect: Dialect, facts: int) -> Iterator[str]:
    entry = step.field
    if entry is None:
        raise AssertionError("SET without a field")
    whole = step.mask == ones(entry.bits)
    if dialect is NATIVE:
        yield from _native_set(step, entry, whole=whole)
    elif step.style == "load" or not whole:
        yield from _loads(step, entry, facts)
    elif dialect is OPENFLOW10:
        yield from _openflow10_set(step, entry, facts)
    else:
        yield from _openflow13_set(step, entry, facts)


def _native_set(step: Step, entry: Field, *, whole: bool) -> Iterator[str]:
    if step.style == "load":
        yield from _loads(step, entry, 0)
    elif step.style == "mod":
        yield f"{_mod_name(entry)}:{_written(entry, step.value)}"
    else:
        value = _written(entry, step.value)
        if not whole:
            value = _with_mask(entry, step)
        yield f"set_field:{value}->{entry.set_name}"


def _mod_name(entry: Field) -> str:
    return entry.mod or f"mod_{entry.set_name}"


def _written(entry: Field, value: int) -> str:
    """A value as set_field has it: numbers without leading zeros, vlan_vid with its CFI bit."""
    if entry.special == "vlan_vid":
        return str(value | abi.VLAN_PRESENT)
    if entry.kind in {"hex4", "hex5"}:
        return format_hex(value)
    return format_value(entry.kind, value)


def _with_mask(entry: Field, step: Step) -> str:
    if entry.kind in {"ip4", "ip6"}:
        return format_masked(entry.kind, entry.bits, step.value, step.mask)
    if entry.kind == "mac":
        return f"{format_value(entry.kind, step.value)}/{format_value(entry.kind, step.mask)}"
    return f"{format_hex(step.value)}/{format_hex(step.mask)}"


def _loads(step: Step, entry: Field, facts: int) -> Iterator[str]:
    """A set as load:, one for each run of mask bits and at most 64 bits each, from the lowest on."""
    named = _by_protocol(entry, facts)
    name = named.nxm or named.set_name
    low = 0
    while step.mask >> low:
        if not step.mask >> low & 1:
            low += 1
            continue
        count = 1
        while count < 64 and step.mask >> (low + count) & 1:
            count += 1
        value = format_hex(step.value >> low & ones(count))
        if count == entry.bits:
            where = ""
        elif count == 1:
            where = str(low)
        else:
            where = f"{low}..{low + count - 1}"
        yield f"load:{value}->{name}[{where}]"
        low += count


def _by_protocol(entry: Field, facts: int) -> Field:
    """tp_src and tp_dst by the name they have in the match's protocol."""
    for name, fact in zip(_SHARED.get(entry.name, ()), (f.TCP, f.UDP, f.SCTP), strict=False):
        if facts & fact:
            return SET_FIELDS[name]
    return entry


def _openflow10_set(step: Step, entry: Field, facts: int) -> Iterator[str]:
    if entry.special == "vlan_tci":
        if step.value & abi.VLAN_PRESENT:
            yield f"mod_vlan_vid:{step.value & 0xFFF}"
            yield f"mod_vlan_pcp:{step.value >> 13}"
        else:
            yield "strip_vlan"
    elif entry.set_name == "ip_dscp":
        yield f"mod_nw_tos:{step.value << 2}"
    elif step.style == "mod" and entry.needs and not entry.mod and not entry.needs & facts:
        yield from _native_set(step, entry, whole=True)  # as a load it would be refused for this match
    elif entry.mod:
        value = str(step.value) if entry.special == "vlan_vid" else _written(entry, step.value)
        yield f"{entry.mod}:{value}"
    else:
        yield from _loads(step, entry, facts)


def _openflow13_set(step: Step, entry: Field, facts: int) -> Iterator[str]:
    named = _by_protocol(entry, facts)
    if step.style == "mod":
        if entry is _MOD_TTL or named.name in _SHARED:
            yield f"{_mod_name(entry)}:{step.value}"
            return
        if entry.set_name == "nw_tos":
            yield f"set_field:{step.value >> 2}->ip_dscp"
            return
    yield f"set_field:{_written(named, step.value)}->{named.set_name}"


# ---- whole flows ----


class _Flow(Protocol):
    """What format_flow needs of a FlowSpec or of anything else that describes a flow."""

    @property
    def table(self) -> int: ...
    @property
    def priority(self) -> int: ...
    @property
    def cookie(self) -> int: ...
    @property
    def idle_timeout(self) -> int: ...
    @property
    def hard_timeout(self) -> int: ...


class Statistics(Protocol):
    @property
    def packets(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def age_s(self) -> float: ...
    @property
    def idle_s(self) -> float: ...


def format_flow(flow: _Flow, match: str, actions: str, stats: Statistics | None = None) -> str:
    """One line of dump-flows, without its end. ``stats`` None is --no-stats."""
    parts: list[str] = []
    if stats is not None:
        parts.append(
            f"cookie={flow.cookie:#x}, duration={format_duration(stats.age_s)}, table={flow.table}, "
        )
        parts.append(f"n_packets={stats.packets}, n_bytes={stats.bytes}, ")
    else:
        if flow.cookie:
            parts.append(f"cookie={flow.cookie:#x}, ")
        if flow.table:
            parts.append(f"table={flow.table}, ")
    if flow.idle_timeout:
        parts.append(f"idle_timeout={flow.idle_timeout}, ")
    if flow.hard_timeout:
        parts.append(f"hard_timeout={flow.hard_timeout}, ")
    if stats is not None:
        parts.append(f"idle_age={int(stats.idle_s)}, ")
    if flow.priority != DEFAULT_PRIORITY:
        parts.append(f"priority={flow.priority}")
        if match:
            parts.append(",")
    parts.append(match)
    if match or flow.priority != DEFAULT_PRIORITY:
        parts.append(" ")
    return f" {''.join(parts)}actions={actions}"


def format_duration(seconds: float) -> str:
    """As ovs-ofctl: milliseconds, without zeros at the end."""
    whole, thousandths = divmod(round(seconds * 1000), 1000)
    return f"{whole}.{thousandths:03d}".rstrip("0") + "s" if thousandths else f"{whole}s"


@lru_cache(maxsize=4096)
def _facts_of(mask: bytes, dl_type: bytes, nw_proto: int, tag: int) -> int:
    bits = int.from_bytes(mask, "little")
    facts = f.VLAN if tag and _TCI.take(bits) & abi.VLAN_PRESENT else 0
    keyword = _plan(mask, dl_type, nw_proto)[0]
    if _DL_TYPE.take(bits) == 0xFFFF:
        facts |= {f.ETH_IP: f.IPV4, f.ETH_IPV6: f.IPV6}.get(int.from_bytes(dl_type, "big"), 0)
    for fact, stems in ((f.TCP, ("tcp", "tcp6")), (f.UDP, ("udp", "udp6")), (f.SCTP, ("sctp", "sctp6"))):
        if keyword in stems:
            facts |= fact
    return facts


def match_facts(key: bytes, mask: bytes) -> int:
    """What a compiled match says about its packets, as far as format_actions() asks."""
    tag = key[_TCI.shift // 8] & (abi.VLAN_PRESENT >> 8)
    return _facts_of(mask, key[_DL_TYPE_AT], key[_NW_PROTO_AT], tag)
