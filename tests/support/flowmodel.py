"""What flow tables do to a frame, in plain Python: the yardstick that the datapath is compared with.

Written from Open vSwitch's documentation (ovs-fields(7), ovs-actions(7)), the RFCs and the comments of bpf/abi.h,
and using nothing of the project: its own dissector, its own matching, its own edits and checksums.
Where it has a choice it follows Open vSwitch: see `Parsed` for what a broken header means and `Tables.run` for order.
"""

from __future__ import annotations

import copy
import ipaddress
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

C_TAG, S_TAG = 0x8100, 0x88A8
TAGS = (C_TAG, S_TAG)
PRESENT = 0x1000  # in a tci: there is a tag
IP4, ARP, RARP, IP6, NO_TYPE = 0x0800, 0x0806, 0x8035, 0x86DD, 0x05FF
ICMP, TCP, UDP, FRAGMENT, ICMP6, SCTP = 1, 6, 17, 44, 58, 132
EXTENSIONS = (0, 43, FRAGMENT, 51, 60)
L3, L4, ND = "l3", "l4", "nd"
LOCAL = 0xFFFE

MAX_EXTENSIONS, MAX_ND_OPTIONS = 16, 8
MAX_DEPTH, MAX_GROUP_DEPTH = 8, 3
TAIL_CALLS = 33  # the kernel's limit for one packet


class Field(NamedTuple):
    """Where a field's value is kept: bits ``shift``… of ``slot``; ``valid``: what must be whole for a match on it."""

    slot: str
    bits: int
    valid: str = ""
    shift: int = 0
    kind: str = "dec"


FIELDS: dict[str, Field] = {
    "in_port": Field("in_port", 16),
    "dl_src": Field("dl_src", 48, kind="mac"),
    "dl_dst": Field("dl_dst", 48, kind="mac"),
    "dl_type": Field("dl_type", 16, kind="hex"),
    "vlan_tci": Field("tci", 16, kind="hex"),
    "vlan_vid": Field("tci", 12),
    "vlan_pcp": Field("tci", 3, shift=13),
    "nw_src": Field("ip_src", 32, L3, kind="ip4"),
    "nw_dst": Field("ip_dst", 32, L3, kind="ip4"),
    "nw_proto": Field("proto", 8, L3),
    "nw_tos": Field("tos", 8, L3),
    "ip_dscp": Field("tos", 6, L3, 2),
    "nw_ecn": Field("tos", 2, L3),
    "nw_ttl": Field("ttl", 8, L3),
    "nw_frag": Field("frag", 2, L3),
    "ipv6_src": Field("ip6_src", 128, L3, kind="ip6"),
    "ipv6_dst": Field("ip6_dst", 128, L3, kind="ip6"),
    "ipv6_label": Field("label", 20, L3, kind="hex"),
    **{
        f"{p}_{d}": Field(f"tp_{d}", 16, L4, kind="port")
        for p in ("tp", "tcp", "udp", "sctp")
        for d in ("src", "dst")
    },
    "tcp_flags": Field("flags", 12, L4, kind="hex"),
    **{name: Field("tp_src", 8, L4) for name in ("icmp_type", "icmpv6_type")},
    **{name: Field("tp_dst", 8, L4) for name in ("icmp_code", "icmpv6_code")},
    "arp_op": Field("proto", 8, L3),
    "arp_spa": Field("ip_src", 32, L3, kind="ip4"),
    "arp_tpa": Field("ip_dst", 32, L3, kind="ip4"),
    "arp_sha": Field("sha", 48, L3, kind="mac"),
    "arp_tha": Field("tha", 48, L3, kind="mac"),
    "nd_target": Field("target", 128, ND, kind="ip6"),
    "nd_sll": Field("sha", 48, ND, kind="mac"),
    "nd_tll": Field("tha", 48, ND, kind="mac"),
    "metadata": Field("metadata", 64, kind="hex"),
    **{f"reg{n}": Field(f"reg{n}", 32, kind="hex") for n in range(4)},
}


def written(kind: str, value: int, bits: int) -> str:
    """A value in ovs-ofctl's words."""
    if kind == "mac":
        return value.to_bytes(6, "big").hex(":")
    if kind == "ip4":
        return str(ipaddress.IPv4Address(value))
    if kind == "ip6":
        return str(ipaddress.IPv6Address(value))
    return f"{value:#x}" if kind in {"hex", "port"} and bits > 8 else str(value)


class Term(NamedTuple):
    """One condition: ``(field & mask) == value``. ``text``: how to write it, where that is special."""

    name: str
    value: int
    mask: int
    text: str = ""

    def __str__(self) -> str:
        if self.text:
            return self.text
        entry = FIELDS[self.name]
        value = written(entry.kind, self.value, entry.bits)
        if self.mask == (1 << entry.bits) - 1:
            return f"{self.name}={value}"
        return f"{self.name}={value}/{written(entry.kind, self.mask, entry.bits)}"


def term(name: str, value: int, mask: int | None = None, text: str = "") -> Term:
    full = (1 << FIELDS[name].bits) - 1
    mask = full if mask is None else mask
    return Term(name, value & mask, mask, text)


class Action(NamedTuple):
    """``op`` and its argument; ``set`` has a field, a value and a mask, and does nothing where it does not apply."""

    op: str
    text: str
    arg: int = 0
    name: str = ""
    mask: int = 0
    applies: str = ""

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, eq=False)
class Flow:
    table: int
    priority: int
    match: tuple[Term, ...]
    actions: tuple[Action, ...]

    def __str__(self) -> str:
        words = [f"table={self.table}", f"priority={self.priority}", *map(str, self.match)]
        return ",".join([*words, "actions=" + (",".join(map(str, self.actions)) or "drop")])


@dataclass(frozen=True)
class Group:
    """Type all or indirect: the buckets' choice is no secret."""

    number: int
    buckets: tuple[tuple[Action, ...], ...]

    def __str__(self) -> str:
        kind = "all" if len(self.buckets) != 1 else "indirect"
        return f"group_id={self.number},type={kind}," + ",".join(
            "bucket=actions=" + (",".join(map(str, actions)) or "drop") for actions in self.buckets
        )


# Checksums ---------------------------------------------------------------------------------------------------------


def csum_replace(check: int, old: bytes, new: bytes) -> int:
    """RFC 1624, eqn 3: HC' = ~(~HC + ~m + m'), in the form that is never 0xffff but for all zeros."""
    total = ~check & 0xFFFF
    for at in range(0, len(old), 2):
        total += (~int.from_bytes(old[at : at + 2], "big") & 0xFFFF) + int.from_bytes(new[at : at + 2], "big")
    return ~((total - 1) % 0xFFFF + 1 if total else 0) & 0xFFFF


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)  # noqa: PLW2901
        table.append(value)
    return table


_CRC32C = _crc_table()


def crc32c_difference(delta: bytes, zeros: int) -> int:
    """How the CRC32c of a packet changes when its first octets change by ``delta`` and ``zeros`` octets follow."""
    crc = 0
    for byte in delta + bytes(zeros):
        crc = crc >> 8 ^ _CRC32C[(crc ^ byte) & 0xFF]
    return crc


# Packets -----------------------------------------------------------------------------------------------------------


class Parsed:
    """A frame as the tables see it. ``rest`` is all from the Ethernet type behind at most two tags on.

    What is cut off, or says it is longer than the frame, is not there: its fields are zero, and a match on one of them
    fails even if it asks for zero (`valid`). Padding behind a packet is no part of it.
    """

    def __init__(self, frame: bytes, in_port: int) -> None:
        self.f: dict[str, int] = dict.fromkeys((entry.slot for entry in FIELDS.values()), 0)
        self.valid: set[str] = set()
        self.tags: list[tuple[int, int]] = []  # (tpid, tci as it is in the frame)
        self.l4 = self.sll = self.tll = 0
        self.hidden = False  # flows may ask for a transport header that cannot be seen
        self.routed = False  # a routing header names further hops: the checksum covers the last of them
        at = 12
        while len(self.tags) < 2 and _u16(frame, at) in TAGS and len(frame) >= at + 6:
            self.tags.append((_u16(frame, at), _u16(frame, at + 2)))
            at += 4
        self.wire = list(self.tags)
        self.rest = bytearray(frame[at:])
        self.l3 = 2
        f = self.f
        f["in_port"] = in_port
        f["dl_dst"], f["dl_src"] = int.from_bytes(frame[:6], "big"), int.from_bytes(frame[6:12], "big")
        f["dl_type"] = self._ethertype()
        if f["dl_type"] == IP4:
            self._ip4()
        elif f["dl_type"] == IP6:
            self._ip6()
        elif f["dl_type"] in {ARP, RARP}:
            self._arp()
        transports = {TCP, UDP, SCTP, ICMP if f["dl_type"] == IP4 else ICMP6}
        # RFC 1858: a first fragment holds its transport header.
        self.hidden |= f["frag"] == 1 and L4 not in self.valid and f["proto"] in transports
        self.wire_ports = self._ports()

    def _ethertype(self) -> int:
        rest = self.rest
        found = _u16(rest, 0)
        if found >= 0x600:
            return found
        if len(rest) >= 10 and rest[2:8] == b"\xaa\xaa\x03\0\0\0" and _u16(rest, 8) >= 0x600:
            self.l3 = 10
            return _u16(rest, 8)
        return NO_TYPE

    def _ip4(self) -> None:
        d, f = self.rest[self.l3 :], self.f
        if len(d) < 20:
            return
        ihl, total = (d[0] & 15) * 4, _u16(d, 2)
        if d[0] >> 4 != 4 or ihl < 20 or not ihl <= total <= len(d):
            return
        self.valid.add(L3)
        fragment = _u16(d, 6)
        f["frag"] = bool(fragment & 0x3FFF) | 2 * bool(fragment & 0x1FFF)
        f["proto"], f["tos"], f["ttl"] = d[9], d[1], d[8]
        f["ip_src"], f["ip_dst"] = int.from_bytes(d[12:16], "big"), int.from_bytes(d[16:20], "big")
        if d[9] == ICMP6:
            return
        if d[9] == TCP and fragment & 0x1FFF == 1:
            self.hidden = True  # RFC 3128: it would overwrite the flags
            return
        self._transport(self.l3 + ihl, self.l3 + total)

    def _ip6(self) -> None:
        d, f = self.rest[self.l3 :], self.f
        if len(d) < 40 or d[0] >> 4 != 6 or 40 + _u16(d, 4) > len(d):
            return
        self.valid.add(L3)
        first = int.from_bytes(d[:4], "big")
        f["tos"], f["label"], f["proto"], f["ttl"] = first >> 20 & 0xFF, first & 0xFFFFF, d[6], d[7]
        f["ip6_src"], f["ip6_dst"] = int.from_bytes(d[8:24], "big"), int.from_bytes(d[24:40], "big")
        end = 40 + _u16(d, 4)
        at = self._extensions(d, 40, end)
        # Where the chain of a first fragment is cut off, the next may go on with it (RFC 7112).
        self.hidden |= at is None and f["frag"] == 1
        if at is not None and f["proto"] != ICMP:
            self._transport(self.l3 + at, self.l3 + end)

    def _extensions(self, d: bytes, at: int, end: int) -> int | None:
        """Place of what follows the extension headers, or None when that is not to be had."""
        f = self.f
        if f["proto"] not in EXTENSIONS:
            return at
        for _ in range(MAX_EXTENSIONS):
            kind = f["proto"]
            if kind not in EXTENSIONS:
                return at
            if at + 8 > end:
                return None
            if kind == FRAGMENT:
                offset = _u16(d, at + 2)
                if offset:  # a further header that says "no fragment" changes nothing
                    f["frag"] = 1 | 2 * bool(offset & 0xFFF8)
                if offset & 0xFFF8:
                    self.valid.add(L4)  # of zeros: there are no ports in it
                    return None
                f["proto"], at = d[at], at + 8
                continue
            length = (d[at + 1] + 2) * 4 if kind == 51 else (d[at + 1] + 1) * 8
            if at + length > end:
                return None
            self.routed |= kind == 43 and d[at + 3] > 0
            f["proto"], at = d[at], at + length
        self.hidden = f["proto"] in EXTENSIONS
        return None if self.hidden else at

    def _transport(self, at: int, end: int) -> None:
        f, d = self.f, self.rest
        if f["frag"] & 2:
            self.valid.add(L4)
            return
        least = {TCP: 20, UDP: 8, SCTP: 12, ICMP: 8, ICMP6: 8}.get(f["proto"])
        if least is None or at + least > end:
            return
        if f["proto"] == TCP and not 20 <= (d[at + 12] >> 4) * 4 <= end - at:
            return  # options that are not there
        self.valid.add(L4)
        self.l4 = at
        if f["proto"] in {ICMP, ICMP6}:
            f["tp_src"], f["tp_dst"] = d[at], d[at + 1]
            if f["proto"] == ICMP6 and d[at] in {135, 136} and d[at + 1] == 0:
                self._neighbour(at, end)
            return
        f["tp_src"], f["tp_dst"] = _u16(d, at), _u16(d, at + 2)
        if f["proto"] == TCP:
            f["flags"] = _u16(d, at + 12) & 0xFFF

    def _neighbour(self, at: int, end: int) -> None:
        d, f = self.rest, self.f
        if at + 24 > end:
            return
        self.valid.add(ND)
        f["target"] = int.from_bytes(d[at + 8 : at + 24], "big")
        at += 24
        for _ in range(MAX_ND_OPTIONS):
            if at + 8 > end or not d[at + 1]:
                return
            if d[at + 1] == 1 and d[at] == 1 and not self.sll:
                self.sll, f["sha"] = at + 2, int.from_bytes(d[at + 2 : at + 8], "big")
            elif d[at + 1] == 1 and d[at] == 2 and not self.tll:
                self.tll, f["tha"] = at + 2, int.from_bytes(d[at + 2 : at + 8], "big")
            at += d[at + 1] * 8

    def _arp(self) -> None:
        d, f = self.rest[self.l3 :], self.f
        if len(d) < 28 or d[:6] != b"\0\1\x08\0\6\4":
            return
        self.valid.add(L3)
        f["proto"] = d[7] if not d[6] else 0
        f["sha"], f["ip_src"] = int.from_bytes(d[8:14], "big"), int.from_bytes(d[14:18], "big")
        f["tha"], f["ip_dst"] = int.from_bytes(d[18:24], "big"), int.from_bytes(d[24:28], "big")

    # Matching

    def matches(self, terms: Sequence[Term]) -> bool:
        for name, value, mask, _ in terms:
            entry = FIELDS[name]
            if entry.valid and entry.valid not in self.valid:
                return False
            if self._value(entry) & mask != value:
                return False
        return True

    def _value(self, entry: Field) -> int:
        if entry.slot == "tci":
            return (self.tags[0][1] | PRESENT) >> entry.shift if self.tags else 0
        return self.f[entry.slot] >> entry.shift

    def applies(self, to: str) -> bool:
        f = self.f
        ip = f["dl_type"] in {IP4, IP6} and L3 in self.valid
        if to in {"ip4", "ip6", "ip"}:
            return ip and (to == "ip" or f["dl_type"] == (IP4 if to == "ip4" else IP6))
        if to in {"ports", "tcp", "udp", "sctp", "icmp", "icmp6"}:
            protos = {"ports": (TCP, UDP, SCTP), "tcp": (TCP,), "udp": (UDP,), "sctp": (SCTP,), "icmp": (ICMP,),
                      "icmp6": (ICMP6,)}[to]  # fmt: skip
            return ip and L4 in self.valid and not f["frag"] & 2 and f["proto"] in protos
        if to == "arp":
            return f["dl_type"] in {ARP, RARP} and L3 in self.valid
        return {"nd": ND in self.valid, "vlan": bool(self.tags), "": True}[to]

    # Changes

    def set(self, name: str, value: int, mask: int) -> None:
        entry, f = FIELDS[name], self.f
        value, mask = value << entry.shift, mask << entry.shift
        if entry.slot == "tci":
            tpid, tci = self.tags[0]
            self.tags[0] = (tpid, (tci | PRESENT) & ~mask | value)
            return
        new = f[entry.slot] & ~mask | value
        if new != f[entry.slot]:
            f[entry.slot] = new
            self._write(entry.slot, new)

    def _write(self, slot: str, new: int) -> None:
        l3, l4 = self.l3, self.l4
        four = self.f["dl_type"] == IP4
        if slot in {"ip_src", "ip_dst", "sha", "tha", "proto"} and self.f["dl_type"] in {ARP, RARP}:
            at, size = {"proto": (6, 2), "sha": (8, 6), "ip_src": (14, 4), "tha": (18, 6), "ip_dst": (24, 4)}[
                slot
            ]
            self._put(l3 + at, new.to_bytes(size, "big"))
        elif slot in {"ip_src", "ip_dst"}:
            self._put(l3 + (12 if slot == "ip_src" else 16), new.to_bytes(4, "big"), l3 + 10, self._pseudo())
        elif slot in {"ip6_src", "ip6_dst"}:
            covered = self._pseudo() if slot == "ip6_src" or not self.routed else 0
            self._put(l3 + (8 if slot == "ip6_src" else 24), new.to_bytes(16, "big"), covered)
        elif slot == "tos" and four:
            self._put(l3, bytes([self.rest[l3], new]), l3 + 10)
        elif slot == "ttl" and four:
            self._put(l3 + 8, bytes([new, self.rest[l3 + 9]]), l3 + 10)
        elif slot == "ttl":
            self._put(l3 + 7, bytes([new]))
        elif slot in {"tos", "label"}:
            self._put(l3, (6 << 28 | self.f["tos"] << 20 | self.f["label"]).to_bytes(4, "big"))
        elif slot in {"tp_src", "tp_dst"}:
            self._write_ports()
        elif slot == "target":
            self._put(l4 + 8, new.to_bytes(16, "big"), l4 + 2)
        elif slot in {"sha", "tha"}:
            at = self.sll if slot == "sha" else self.tll
            if at:
                self._put(at, new.to_bytes(6, "big"), l4 + 2)

    def _write_ports(self) -> None:
        f, l4, proto = self.f, self.l4, self.f["proto"]
        if proto in {ICMP, ICMP6}:
            self._put(l4, bytes([f["tp_src"], f["tp_dst"]]), l4 + 2)
            return
        new = f["tp_src"].to_bytes(2, "big") + f["tp_dst"].to_bytes(2, "big")
        if proto == SCTP:
            self._sctp(new)
        self._put(l4, new, l4 + {TCP: 16, UDP: 6}[proto] if proto != SCTP else 0)

    def _sctp(self, new: bytes) -> None:
        l3, l4 = self.l3, self.l4
        crc = int.from_bytes(self.rest[l4 + 8 : l4 + 12], "little")
        if not crc or self.f["frag"]:
            return  # left to hardware; or of a fragment, which cannot be sent then
        end = l3 + (_u16(self.rest, l3 + 2) if self.f["dl_type"] == IP4 else 40 + _u16(self.rest, l3 + 4))
        delta = bytes(a ^ b for a, b in zip(self.rest[l4 : l4 + 4], new, strict=True))
        crc ^= crc32c_difference(delta, end - l4 - 4)
        self.rest[l4 + 8 : l4 + 12] = crc.to_bytes(4, "little")

    def _pseudo(self) -> int:
        """Place of the checksum that covers the addresses, 0 if there is none."""
        if not self.l4:
            return 0
        proto = self.f["proto"]
        if proto == ICMP6 and self.f["dl_type"] == IP6:
            return self.l4 + 2
        return self.l4 + {TCP: 16, UDP: 6}[proto] if proto in {TCP, UDP} else 0

    def _put(self, at: int, new: bytes, *checks: int) -> None:
        """New bytes at a place; every checksum that covers them (0: none) follows."""
        old = bytes(self.rest[at : at + len(new)])
        for place in filter(None, checks):
            check = _u16(self.rest, place)
            udp = self.f["proto"] == UDP and place == self.l4 + 6
            if udp and not check:
                continue
            changed = csum_replace(check, old, new)
            self.rest[place : place + 2] = (changed or (0xFFFF if udp else 0)).to_bytes(2, "big")
        self.rest[at : at + len(new)] = new

    # Sending

    def _ports(self) -> bytes:
        return bytes(self.rest[self.l4 : self.l4 + 4]) if self.l4 else b""

    def frame(self) -> bytes | None:
        """The frame as it leaves now; None where the kernel cannot make it."""
        if self.f["proto"] == SCTP and self.f["frag"] and self._ports() != self.wire_ports:
            return None  # the rest of what the CRC covers is elsewhere
        if not self._retag():
            return None
        f = self.f
        head = f["dl_dst"].to_bytes(6, "big") + f["dl_src"].to_bytes(6, "big")
        tags = b"".join(tpid.to_bytes(2, "big") + tci.to_bytes(2, "big") for tpid, tci in self.wire)
        return head + tags + bytes(self.rest)

    def _retag(self) -> bool:
        """Inner tags that stay are not touched, so they keep their DEI bit; what is pushed has none."""
        keep = 0
        old, new = self.wire[::-1], self.tags[::-1]
        while keep < min(len(old), len(new)) and _same_tag(old[keep], new[keep]):
            keep += 1
        pops = len(old) - keep
        self.wire = self.wire[pops:]
        if pops and not self.wire and _u16(self.rest, 0) in TAGS and len(self.rest) < 6:
            return False  # the kernel looks for another tag behind, and it is cut off
        pushed = [(tpid, tci & ~PRESENT) for tpid, tci in self.tags[: len(self.tags) - keep]]
        self.wire = pushed + self.wire
        return True


def _same_tag(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return a[0] == b[0] and a[1] | PRESENT == b[1] | PRESENT


def _u16(data: bytes | bytearray, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "big")


def kernel_drops(frame: bytes) -> bool:
    """Linux takes the outer tag off before any program runs, and gives up where it is cut off (skb_vlan_untag)."""
    return _u16(frame, 12) in TAGS and len(frame) < 20


# Tables ------------------------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """Frames by the port they leave by, drops by reason, flows met in order. ``effort``: tail calls at most."""

    sent: list[tuple[int, bytes]] = field(default_factory=list)
    drops: Counter[str] = field(default_factory=Counter)
    flows: list[Flow] = field(default_factory=list)
    effort: int = 3


class _StopError(Exception):
    """The packet's way ends here; what is pending still leaves."""


class _FailedError(Exception):
    """An edit is impossible: nothing more leaves."""


class Tables:
    """Flow tables (and groups) of one bridge with these ports (OpenFlow numbers); equal priorities must not overlap."""

    def __init__(
        self, flows: Sequence[Flow], ports: Sequence[int], groups: Mapping[int, Group] | None = None
    ) -> None:
        self.ports = tuple(ports)
        self.deep = True  # some flow looks beyond layer 2: only then headers are read, and missed
        self.groups = groups or {}
        self.tables: dict[int, list[Flow]] = {}
        for flow in sorted(flows, key=lambda flow: -flow.priority):
            self.tables.setdefault(flow.table, []).append(flow)

    def run(self, frame: bytes, in_port: int) -> Outcome:
        """What becomes of one frame."""
        if kernel_drops(frame):
            return Outcome()
        packet = Parsed(frame, in_port)
        if self.deep and packet.hidden:
            return Outcome(drops=Counter(hidden_header=1))
        return _Run(self, packet, in_port).outcome


class _Run:
    def __init__(self, tables: Tables, packet: Parsed, in_port: int) -> None:
        self.tables = tables
        self.p = packet
        self.in_port = in_port
        self.outcome = Outcome()
        self.pending: list[int] = []
        self.lost = self.weak = ""  # weak: no reason as long as some copy leaves
        try:
            try:
                self.lookup(0, 0, 0)
            except _StopError as stop:
                self.lost = str(stop)
            self.flush()
        except _FailedError:
            self.outcome.drops["edit_failed"] = 1
            return
        if self.lost:
            self.outcome.drops[self.lost] += 1
        elif not self.outcome.sent:
            self.outcome.drops[self.weak or "flow"] += 1

    def lookup(self, table: int, depth: int, group_depth: int) -> None:
        self.outcome.effort += 1
        if self.outcome.effort > TAIL_CALLS:
            raise _StopError("pipeline_limit")
        for flow in self.tables.tables.get(table, ()):
            if self.p.matches(flow.match):
                self.outcome.flows.append(flow)
                self.execute(flow.actions, depth, group_depth, table)
                return
        self.weak = self.weak or "table_miss"

    def execute(
        self, actions: Sequence[Action], depth: int, group_depth: int, table: int | None = None
    ) -> None:
        for index, action in enumerate(actions):
            op, p = action.op, self.p
            if op in {"set", "push", "pop", "vid", "pcp", "dec_ttl", "meter"}:
                self.flush()
            if op == "output":
                if action.arg not in self.tables.ports:
                    self.lost = "no_such_port"
                elif action.arg == self.in_port:
                    self.weak = self.weak or "same_port"
                else:
                    self.pending.append(action.arg)
            elif op == "in_port":
                self.pending.append(self.in_port)
            elif op == "flood":
                self.outcome.effort += 1
                self.pending += [port for port in self.tables.ports if port != self.in_port]
            elif op == "set":
                if p.applies(action.applies):
                    p.set(action.name, action.arg, action.mask)
            elif op == "push":
                self.push(action.arg, 0)
            elif op == "pop":
                p.tags = p.tags[1:]
            elif op in {"vid", "pcp"}:
                shift, mask = (0, 0xFFF) if op == "vid" else (13, 7)
                if p.tags:
                    p.set("vlan_vid" if op == "vid" else "vlan_pcp", action.arg, mask)
                else:
                    self.push(C_TAG, action.arg << shift)
            elif op == "dec_ttl":
                if p.applies("ip"):
                    if p.f["ttl"] <= 1:
                        self.lost = "ttl"
                        return  # "stops processing the current set of actions": outer ones go on
                    p.set("nw_ttl", p.f["ttl"] - 1, 0xFF)
            elif op == "goto":
                self.lookup(action.arg, depth, group_depth)
            elif op == "resubmit":
                # A last resubmit to a later table comes back to nothing: it is a goto, and counts for no depth.
                call = table is None or index < len(actions) - 1 or action.arg <= table
                if call and depth >= MAX_DEPTH:
                    raise _StopError("resubmit_depth")
                self.lookup(action.arg, depth + call, group_depth)
            elif op == "group":
                self.group(action.arg, depth, group_depth)

    def push(self, tpid: int, tci: int) -> None:
        if len(self.p.tags) > 1:
            raise _StopError("vlan_depth")
        self.p.tags.insert(0, (tpid, tci))

    def group(self, number: int, depth: int, group_depth: int) -> None:
        self.flush()
        self.outcome.effort += 2
        if group_depth >= MAX_GROUP_DEPTH or depth >= MAX_DEPTH:
            raise _StopError("resubmit_depth")
        before = copy.copy(self.p)
        before.f, before.tags, before.rest = dict(self.p.f), list(self.p.tags), bytearray(self.p.rest)
        for bucket in self.tables.groups[number].buckets:
            self.execute(bucket, depth + 1, group_depth + 1)
            self.flush()
            self.p.f, self.p.tags, self.p.rest = dict(before.f), list(before.tags), bytearray(before.rest)

    def flush(self) -> None:
        if not self.pending:
            return
        self.outcome.effort += 2
        frame = self.p.frame()
        if frame is None:
            raise _FailedError
        self.p.wire_ports = self.p._ports()
        self.outcome.sent += [(port, frame) for port in self.pending]
        self.pending.clear()
