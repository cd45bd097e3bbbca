"""Random flows (Hypothesis, so that they shrink) and random frames, out of the same small pools so that they meet."""

from __future__ import annotations

import random
from array import array
from typing import Any

from hypothesis import strategies as st

from tests.support.flowmodel import (
    ARP,
    C_TAG,
    FIELDS,
    FRAGMENT,
    ICMP,
    ICMP6,
    IP4,
    IP6,
    LOCAL,
    PRESENT,
    S_TAG,
    SCTP,
    TCP,
    UDP,
    Action,
    Field,
    Flow,
    Group,
    Term,
    crc32c_difference,
    term,
    written,
)

MACS = [0x020000000001, 0x020000000002, 0x0200000000A3, 0x01005E010203, 0xFFFFFFFFFFFF]
IP4S = [0x0A000001, 0x0A000002, 0x0A000101, 0xC0A80509]
IP6S = [(0xFD << 120) + 1, (0xFD << 120) + 2, (0xFD00_00AA << 96) + 0x5_0001, (0xFF02 << 112) + 0x1_FF00_0002]
PORTS = [22, 53, 80, 443, 40000, 0xFC00, 0]
VIDS = [0, 1, 10, 20, 4095]
TOS = [0, 0x28, 0xB9, 0x03]
TTLS = [0, 1, 2, 64, 255]
LABELS = [0, 5, 0xFFFFF]
TCP_FLAGS = [0x002, 0x012, 0x010, 0x011, 0x8FF]
TYPES = [0x88B5, 0x05FF, 0x9000]
REGS = [0, 1, 0xFFFF0000]
POOLS: dict[str, list[int]] = {"mac": MACS, "ip4": IP4S, "ip6": IP6S, "port": PORTS}
MASKS: dict[str, list[int]] = {
    "mac": [0x010000000000, 0xFFFFFF000000, 0xFF, 0x0200000000F0],
    "ip4": [0xFFFFFF00, 0xFF000000, 0xFFFF0000, 0x80000000, 0xFFFFFFFE, 1, 0xFF00FF00],
    "ip6": [((1 << n) - 1) << (128 - n) for n in (8, 32, 64, 127)] + [0xFFFF, (0xFF << 120) | 3],
    "port": [0xFFF0, 1, 0xFC00, 0x8000],
}

# Rules ---------------------------------------------------------------------------------------------------------------


def _rarely(draw: Any, percent: int) -> bool:
    return bool(draw(st.integers(0, 99)) >= 100 - percent)


def _pick(draw: Any, pool: list[Any]) -> Any:
    return pool[draw(st.integers(0, len(pool) - 1))]


def _masked(draw: Any, name: str) -> Term:
    """A condition on a field that may be masked: exact, by prefix, or on odd bits."""
    kind = FIELDS[name].kind
    value = _pick(draw, POOLS[kind])
    return term(name, value, _pick(draw, MASKS[kind]) if _rarely(draw, 40) else None)


def _any_flags(draw: Any) -> Term:
    return term("tcp_flags", _pick(draw, TCP_FLAGS), _pick(draw, [0xFFF, 0x012, 0x800]))


FRAGS = {"no": (0, 3), "yes": (1, 1), "first": (1, 3), "later": (3, 3), "not_later": (0, 2)}
FAMILIES: dict[str, tuple[int, int | None]] = {
    "any": (0, None), "other": (-1, None), "ip": (IP4, None), "ipv6": (IP6, None), "arp": (ARP, None),
    "tcp": (IP4, TCP), "udp": (IP4, UDP), "sctp": (IP4, SCTP), "icmp": (IP4, ICMP),
    "tcp6": (IP6, TCP), "udp6": (IP6, UDP), "sctp6": (IP6, SCTP), "icmp6": (IP6, ICMP6), "nd": (IP6, ICMP6),
}  # fmt: skip


def _terms(draw: Any, family: str, table: int) -> list[Term]:
    dl_type, proto = FAMILIES[family]
    terms: list[Term] = []
    if dl_type > 0:
        terms.append(term("dl_type", dl_type, text=f"dl_type={dl_type:#06x}"))
    elif dl_type < 0:
        value = _pick(draw, TYPES)
        terms.append(term("dl_type", value, text=f"dl_type={value:#06x}"))
    if proto is not None:
        terms.append(term("nw_proto", proto))
    if _rarely(draw, 15):
        terms.append(term("in_port", _pick(draw, [1, 2, 3, LOCAL])))
    terms += [_masked(draw, name) for name in ("dl_src", "dl_dst") if _rarely(draw, 12)]
    if _rarely(draw, 20):
        terms.append(_vlan_term(draw))
    if table and _rarely(draw, 30):
        name = _pick(draw, ["reg0", "metadata"])
        terms.append(term(name, _pick(draw, REGS), _pick(draw, [0xFFFF, (1 << FIELDS[name].bits) - 1])))
    if dl_type in {IP4, IP6}:
        terms += _ip_terms(draw, dl_type)
    if family == "arp":
        terms += [
            _masked(draw, name) for name in ("arp_spa", "arp_tpa", "arp_sha", "arp_tha") if _rarely(draw, 15)
        ]
        if _rarely(draw, 30):
            terms.append(term("arp_op", _pick(draw, [1, 2])))
    if family == "icmp" and _rarely(draw, 40):
        terms.append(term("icmp_type", _pick(draw, [0, 8, 3])))
        if _rarely(draw, 30):
            terms.append(term("icmp_code", _pick(draw, [0, 1])))
    if family == "nd":
        solicits = draw(st.booleans())
        terms.append(term("icmp_type", 135 if solicits else 136))
        if _rarely(draw, 50):
            terms.append(_masked(draw, "nd_target"))
        if _rarely(draw, 50):
            terms.append(_masked(draw, "nd_sll" if solicits else "nd_tll"))
    if proto in {TCP, UDP, SCTP}:
        terms += [_masked(draw, name) for name in ("tp_src", "tp_dst") if _rarely(draw, 25)]
        if proto == TCP and _rarely(draw, 20):
            terms.append(_any_flags(draw))
    return terms


def _vlan_term(draw: Any) -> Term:
    kind, vid = draw(st.integers(0, 4)), _pick(draw, VIDS)
    if kind == 0:
        return term("vlan_tci", 0, text="vlan_tci=0x0000")
    if kind == 1:
        return term("vlan_tci", vid | PRESENT, 0xFFF | PRESENT, f"dl_vlan={vid}")
    if kind == 2:
        return term("vlan_tci", 5 << 13 | PRESENT, 0xE000 | PRESENT, "dl_vlan_pcp=5")
    return term("vlan_tci", PRESENT, PRESENT) if kind == 3 else term("vlan_tci", vid, 0x0F0F)


def _ip_terms(draw: Any, dl_type: int) -> list[Term]:
    names = ("nw_src", "nw_dst") if dl_type == IP4 else ("ipv6_src", "ipv6_dst")
    terms = [_masked(draw, name) for name in names if _rarely(draw, 20)]
    kind = draw(st.integers(0, 11))
    if kind == 11:
        terms.append(term("nw_tos", _pick(draw, TOS), 0xFC))
    elif kind == 10:
        terms.append(term("ip_dscp", _pick(draw, [0, 0x0A, 0x2E])))
    elif kind == 9:
        terms.append(term("nw_ecn", _pick(draw, [0, 1, 3])))
    elif kind == 8:
        terms.append(term("nw_ttl", _pick(draw, TTLS)))
    elif kind == 7:
        word = _pick(draw, list(FRAGS))
        terms.append(term("nw_frag", *FRAGS[word], f"nw_frag={word}"))
    elif kind == 6 and dl_type == IP6:
        terms.append(term("ipv6_label", _pick(draw, LABELS), _pick(draw, [0xFFFFF, 1])))
    return [_plain_tos(each) for each in terms]


def _plain_tos(each: Term) -> Term:
    """nw_tos is written as the whole octet and means its upper six bits."""
    return each._replace(text=f"nw_tos={each.value}") if each.name == "nw_tos" else each


def _set(name: str, value: int, mask: int | None, applies: str) -> Action:
    entry = FIELDS[name]
    mask = (1 << entry.bits) - 1 if mask is None else mask
    text = written(entry.kind, value & mask, entry.bits)
    if mask != (1 << entry.bits) - 1:
        text += "/" + written(entry.kind, mask, entry.bits)
    shown = {"nw_src": "ip_src", "nw_dst": "ip_dst", "dl_src": "eth_src", "dl_dst": "eth_dst"}.get(name, name)
    return Action("set", f"set_field:{text}->{shown}", value & mask, name, mask, applies)


def _mod(word: str, name: str, value: int, applies: str) -> Action:
    entry = FIELDS[name]
    mask = 0xFC if word == "mod_nw_tos" else (1 << entry.bits) - 1
    value &= mask
    text = written("dec" if entry.kind == "port" else entry.kind, value, entry.bits)
    return Action("set", f"{word}:{text}", value, name, mask, applies)


MODS: list[tuple[str, str, list[int], str]] = [
    ("mod_dl_src", "dl_src", MACS, ""), ("mod_dl_dst", "dl_dst", MACS, ""), ("mod_nw_src", "nw_src", IP4S, "ip4"),
    ("mod_nw_dst", "nw_dst", IP4S, "ip4"), ("mod_nw_tos", "nw_tos", TOS, "ip"), ("mod_nw_ecn", "nw_ecn", [0, 3], "ip"),
    ("mod_nw_ttl", "nw_ttl", TTLS, "ip"), ("mod_tp_src", "tp_src", PORTS, "ports"),
    ("mod_tp_dst", "tp_dst", PORTS, "ports"),
]  # fmt: skip

# What set_field may set where the match has the protocol, and when it applies.
SETS: dict[str, list[tuple[str, str]]] = {
    "arp": [(name, "arp") for name in ("arp_spa", "arp_tpa", "arp_sha", "arp_tha", "arp_op")],
    "ip": [("nw_src", "ip4"), ("nw_dst", "ip4"), ("nw_ttl", "ip"), ("ip_dscp", "ip"), ("nw_ecn", "ip")],
    "ipv6": [
        ("ipv6_src", "ip6"),
        ("ipv6_dst", "ip6"),
        ("ipv6_label", "ip6"),
        ("nw_ttl", "ip"),
        ("ip_dscp", "ip"),
    ],
    "tcp": [("tcp_src", "tcp"), ("tcp_dst", "tcp"), ("nw_dst", "ip4")],
    "udp": [("udp_src", "udp"), ("udp_dst", "udp"), ("nw_src", "ip4")],
    "sctp": [("sctp_src", "sctp"), ("sctp_dst", "sctp")],
    "tcp6": [("tcp_src", "tcp"), ("tcp_dst", "tcp"), ("ipv6_dst", "ip6")],
    "udp6": [("udp_src", "udp"), ("udp_dst", "udp"), ("ipv6_src", "ip6")],
    "sctp6": [("sctp_src", "sctp"), ("sctp_dst", "sctp")],
    "icmp": [("icmp_type", "icmp"), ("icmp_code", "icmp")],
    "icmp6": [("icmpv6_type", "icmp6"), ("icmpv6_code", "icmp6"), ("ipv6_dst", "ip6")],
    "nd": [("nd_target", "nd"), ("icmpv6_code", "icmp6"), ("ipv6_src", "ip6")],
}


def _set_action(draw: Any, family: str) -> Action:
    # The first ones everywhere, because they need nothing in the match.
    choices = [("dl_src", ""), ("dl_dst", ""), ("reg0", ""), ("metadata", ""), *SETS.get(family, [])]
    name, applies = choices[-1 - draw(st.integers(0, len(choices) - 1))]
    return _set_to(draw, name, applies)


def _set_to(draw: Any, name: str, applies: str) -> Action:
    entry: Field = FIELDS[name]
    pool = POOLS.get(entry.kind) or {
        "reg0": REGS, "metadata": REGS, "nw_ttl": TTLS, "ip_dscp": [0, 0x0A], "nw_ecn": [0, 3], "ipv6_label": LABELS,
    }.get(name, [0, 1, 2, 8])  # fmt: skip
    mask = None
    if entry.kind in MASKS and _rarely(draw, 30):
        mask = _pick(draw, MASKS[entry.kind])
    elif name in {"reg0", "metadata", "ipv6_label"} and _rarely(draw, 30):
        mask = 0xFF
    return _set(name, _pick(draw, pool), mask, applies)


@st.composite
def actions(
    draw: Any, table: int, tables: int, family: str, bucket: int = 0, groups: int = 0
) -> tuple[Action, ...]:
    """``bucket``: for the bucket of that group, which may go to groups with greater numbers."""
    made: list[Action] = []
    tagged = False
    for _ in range(draw(st.integers(0, 5))):
        kind = draw(st.integers(0, 15))
        if kind <= 5:
            port = _pick(draw, [1, 2, 3, 4, LOCAL, 77])
            made.append(Action("output", "local" if port == LOCAL else f"output:{port}", port))
        elif kind == 6:
            made.append(Action("flood", _pick(draw, ["flood", "all"])))
        elif kind == 7:
            made.append(Action("in_port", "in_port"))
        elif kind == 8:
            made.append(Action("dec_ttl", "dec_ttl"))
        elif kind == 9 and groups > bucket:
            number = draw(st.integers(bucket + 1, groups))
            made.append(Action("group", f"group:{number}", number))
        elif kind == 9 and not bucket and tables > 1:
            to = draw(st.integers(0, tables - 1))
            made.append(Action("resubmit", f"resubmit(,{to})", to))
        elif kind in {10, 11}:
            word, name, pool, applies = _pick(draw, MODS)
            made.append(_mod(word, name, _pick(draw, pool), applies))
        elif kind == 12:
            tpid = _pick(draw, [C_TAG, S_TAG])
            made.append(Action("push", f"push_vlan:{tpid:#x}", tpid))
            tagged = True
        elif kind == 13:
            made.append(Action("pop", _pick(draw, ["pop_vlan", "strip_vlan"])))
            tagged = False
        elif kind == 14:
            vid = _pick(draw, VIDS)
            if tagged and draw(st.booleans()):
                made.append(_set("vlan_vid", vid, None, "vlan"))
            else:
                made.append(Action("vid", f"mod_vlan_vid:{vid}", vid))
            if draw(st.booleans()):
                made.append(Action("pcp", "mod_vlan_pcp:5", 5))
            tagged = True
        elif not bucket:
            made.append(_set_action(draw, family))
    if not any(action.op in {"output", "flood", "in_port", "group"} for action in made) and draw(
        st.integers(0, 7)
    ):
        port = _pick(draw, [2, 3, 4])
        made.append(Action("output", f"output:{port}", port))
    if not bucket and table + 1 < tables and _rarely(draw, 40):
        to = draw(st.integers(table + 1, tables - 1))
        made.append(Action("goto", f"goto_table:{to}", to))
    if groups and not bucket and _rarely(draw, 8):
        made.insert(0, Action("meter", "meter:1", 1))
    return tuple(made)


@st.composite
def rule_sets(draw: Any, groups: int = 0) -> list[Flow]:
    """Flows of up to four tables. Priorities differ within a table: where equal ones overlap nobody says which wins."""
    tables = draw(st.integers(1, 4))
    flows = []
    for table in range(tables):
        count = draw(st.integers(1, 10 if table == 0 else 5))
        for position in range(count):
            # Narrow flows mostly, ordered at random, and often one for all the rest.
            rest = position == 0 and draw(st.integers(0, 3)) > 0
            family = "any" if rest else _pick(draw, list(FAMILIES))
            match = () if rest else tuple(_terms(draw, family, table))
            priority = position if rest else 10 * draw(st.integers(1, 99)) + position
            flows.append(Flow(table, priority, match, draw(actions(table, tables, family, groups=groups))))
    return flows


@st.composite
def group_sets(draw: Any) -> dict[int, Group]:
    """Three groups; each may go to the ones behind it."""
    return {
        number: Group(
            number,
            tuple(
                draw(actions(0, 1, "any", bucket=number, groups=3)) for _ in range(draw(st.integers(1, 3)))
            ),
        )
        for number in (1, 2, 3)
    }


# Frames --------------------------------------------------------------------------------------------------------------


def _sum(data: bytes) -> int:
    words = array("H", data + b"\0" * (len(data) % 2))
    total = sum(words)
    total = (total & 0xFFFF) + (total >> 16)
    return (total & 0xFFFF) + (total >> 16)


def checksum(data: bytes) -> bytes:
    """Internet checksum (RFC 1071)."""
    return (~_sum(data) & 0xFFFF).to_bytes(2, "little")


def _segment(rng: random.Random, proto: int, pseudo: bytes) -> bytes:
    payload = rng.randbytes(rng.choice((0, 4, 18, 19)))
    ports = rng.choice(PORTS).to_bytes(2, "big") + rng.choice(PORTS).to_bytes(2, "big")
    if proto == TCP:
        options = rng.choice((b"", b"\1\1\1\0"))
        flags = ((5 + len(options) // 4) << 12 | rng.choice(TCP_FLAGS)).to_bytes(2, "big")
        return _summed(
            ports + rng.randbytes(8) + flags + b"\x20\0\0\0\0\0" + options + payload, 16, pseudo, proto
        )
    if proto == UDP:
        datagram = ports + (8 + len(payload)).to_bytes(2, "big") + b"\0\0" + payload
        return datagram if rng.random() < 0.15 else _summed(datagram, 6, pseudo, proto)
    if proto == SCTP:
        packet = bytearray(ports + rng.randbytes(4) + b"\0\0\0\0" + payload)
        crc = ~crc32c_difference(bytes(a ^ 0xFF for a in packet[:4]) + packet[4:], 0) & 0xFFFFFFFF
        packet[8:12] = crc.to_bytes(4, "little")
        return bytes(packet)
    if proto == ICMP:
        return _summed(
            bytes([rng.choice((8, 0, 3)), rng.choice((0, 1)), 0, 0]) + rng.randbytes(4) + payload, 2
        )
    if proto == ICMP6:
        return _summed(_icmp6(rng, payload), 2, pseudo, proto)
    return payload


def _icmp6(rng: random.Random, payload: bytes) -> bytes:
    if rng.random() < 0.5:
        return bytes([rng.choice((128, 129)), 0, 0, 0]) + rng.randbytes(4) + payload
    kind = rng.choice((135, 136))
    options = b""
    for _ in range(rng.choice((0, 1, 1, 2))):
        options += rng.choice((b"\1\1", b"\2\1", b"\1\1", b"\2\1", b"\x0e\1", b"\1\0", b"\1\2")) + rng.choice(
            MACS
        ).to_bytes(6, "big")
    code = 0 if rng.random() < 0.9 else 1
    return bytes([kind, code, 0, 0]) + bytes(4) + rng.choice(IP6S).to_bytes(16, "big") + options


def _summed(packet: bytes, at: int, pseudo: bytes = b"", proto: int = 0) -> bytes:
    head = pseudo + len(packet).to_bytes(4, "big") + proto.to_bytes(4, "big") if pseudo else b""
    found = checksum(head + packet)
    if proto == UDP and found == b"\0\0":
        found = b"\xff\xff"
    return packet[:at] + found + packet[at + 2 :]


def _ip4(rng: random.Random) -> bytes:
    addresses = rng.choice(IP4S).to_bytes(4, "big") + rng.choice(IP4S).to_bytes(4, "big")
    proto = rng.choice((TCP, TCP, UDP, UDP, SCTP, ICMP, ICMP, ICMP6, 47))
    options = b"" if rng.random() < 0.9 else b"\1\1\1\0"
    body = _segment(rng, proto, addresses)
    fragment = rng.choice((0, 0, 0, 0, 0, 0x4000, 0x2000, 0x2003, 0x0005))
    total = 20 + len(options) + len(body)
    if rng.random() < 0.05:
        total = max(0, total + rng.choice((-9, -1, 1, 40)))
    version = 0x45 + len(options) // 4 if rng.random() < 0.97 else rng.choice((0x44, 0x65, 0x4F, 0))
    head = bytes([version, rng.choice(TOS)]) + total.to_bytes(2, "big") + rng.randbytes(2)
    head += fragment.to_bytes(2, "big") + bytes([rng.choice(TTLS), proto]) + b"\0\0" + addresses + options
    return head[:10] + checksum(head) + head[12:] + body


def _ip6(rng: random.Random) -> bytes:
    source, target = rng.choice(IP6S).to_bytes(16, "big"), rng.choice(IP6S).to_bytes(16, "big")
    proto = rng.choice((TCP, TCP, UDP, UDP, SCTP, ICMP6, ICMP6, ICMP6, ICMP, 50, 59))
    kinds = [rng.choice((0, 43, 44, 51, 60)) for _ in range(rng.choice((0, 0, 0, 0, 1, 1, 2, 2, 9, 16, 17)))]
    final, body, following = target, b"", proto
    for kind in kinds:
        if kind == 43:
            final = IP6S[0].to_bytes(16, "big")
    body = _segment(rng, proto, source + final)
    for kind in reversed(kinds):
        if kind == FRAGMENT:
            offset = rng.choice((0, 0, 1, 0x10, 0x11))
            header = bytes([following, 0]) + offset.to_bytes(2, "big") + b"\0\0\0\7"
        elif kind == 51:
            header = bytes([following, 4, 0, 0]) + bytes(20)
        elif kind == 43:
            header = bytes([following, 2, 0, rng.choice((0, 1))]) + bytes(4) + final
        else:
            header = bytes([following, rng.choice((0, 0, 1, 90))]) + bytes(6)
            header += bytes(8) if header[1] == 1 else b""
        body, following = header + body, kind
    first = (6 << 28 | rng.choice(TOS) << 20 | rng.choice(LABELS)).to_bytes(4, "big")
    length = len(body) if rng.random() < 0.95 else max(0, len(body) + rng.choice((-3, 1, 500)))
    return first + length.to_bytes(2, "big") + bytes([following, rng.choice(TTLS)]) + source + target + body


def _arp(rng: random.Random) -> bytes:
    head = b"\0\1\x08\0\6\4" if rng.random() < 0.9 else b"\0\6\x08\0\6\4"
    op = rng.choice((1, 2, 2, 0x0101))
    source = rng.choice(MACS).to_bytes(6, "big") + rng.choice(IP4S).to_bytes(4, "big")
    target = rng.choice(MACS).to_bytes(6, "big") + rng.choice(IP4S).to_bytes(4, "big")
    return head + op.to_bytes(2, "big") + source + target


def frame(rng: random.Random) -> bytes:
    """One frame of any kind; some are cut off, padded or damaged."""
    kind = rng.choices(("ip4", "ip6", "arp", "raw", "llc", "garbage"), (40, 32, 10, 4, 6, 8))[0]
    if kind == "ip4":
        body = IP4.to_bytes(2, "big") + _ip4(rng)
    elif kind == "ip6":
        body = IP6.to_bytes(2, "big") + _ip6(rng)
    elif kind == "arp":
        body = rng.choice((ARP, ARP, 0x8035)).to_bytes(2, "big") + _arp(rng)
    elif kind == "raw":
        body = rng.choice((0x88B5, 0x9000, 0x8847)).to_bytes(2, "big") + rng.randbytes(30)
    elif kind == "llc":
        inner = rng.choice(
            (b"\x08\0" + _ip4(rng), b"\x86\xdd" + _ip6(rng), b"\x08\6" + _arp(rng), b"\x20\0" + bytes(9))
        )
        llc = rng.choice((b"\xaa\xaa\3\0\0\0", b"\xaa\xaa\3\0\0\0", b"\xaa\xaa\3\0\0\x0c", b"\x42\x42\3"))
        body = (len(llc + inner) & 0x5FF).to_bytes(2, "big") + llc + inner
    else:
        body = rng.choice((b"\x08\0", b"\x86\xdd", b"\x08\6", b"\x81\0", b"\0\x20")) + rng.randbytes(
            rng.randint(0, 70)
        )
    tags = b""
    for _ in range(rng.choices((0, 1, 2, 3), (60, 22, 14, 4))[0]):
        tci = rng.choice((0, 0, 5)) << 13 | rng.choice(VIDS) | (0x1000 if rng.random() < 0.1 else 0)
        tags += rng.choice((C_TAG, C_TAG, S_TAG)).to_bytes(2, "big") + tci.to_bytes(2, "big")
    made = bytearray(rng.choice(MACS).to_bytes(6, "big") + rng.choice(MACS).to_bytes(6, "big") + tags + body)
    fate = rng.random()
    if fate < 0.10:
        del made[rng.randint(14, len(made)) :]
    elif fate < 0.14 and len(made) > 14:
        made[rng.randrange(14, len(made))] ^= 1 << rng.randrange(8)
    elif fate < 0.25:
        made += bytes(rng.choice((1, 2, 18)))
    return bytes(made)


def frames_of(seed: int, count: int) -> list[bytes]:
    """The same frames for the same seed."""
    rng = random.Random(seed)
    return [frame(rng) for _ in range(count)]
