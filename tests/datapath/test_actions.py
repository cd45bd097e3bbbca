"""Every action on every kind of packet: what leaves is what scapy builds with the fields so set, byte for byte.

Each case is sent three times: the first packet is decided by the flow tables, the later ones come from the flow cache
where that is on. Flows that set a field of one protocol stand above one that only forwards, so packets of other
protocols must come out as they went in.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.datapath.conftest import Way
from tests.support import frames
from tests.support.lab import Lab
from tests.support.ports import PacketPort
from tests.support.switch import Exchanger, Switch

pytestmark = pytest.mark.traffic

N_TIMES = 3
Edit = Callable[[Any], None]


BIG = bytes(range(200)) * 4
FRAGMENTS = {
    "first fragment": (frames.udp(1, 2, BIG), 0),
    "later fragment": (frames.udp(1, 2, BIG), 1),
    "first fragment 6": (frames.udp(1, 2, BIG, v6=True), 0),
    "later fragment 6": (frames.udp(1, 2, BIG, v6=True), 1),
}


def build() -> dict[str, Any]:
    """One packet of each kind, on Ethernet without a tag."""
    long = b"a payload of odd length, 41 bytes in all."
    made = {
        "tcp": frames.tcp(1, 2, long, flags="PA", options=[("NOP", None), ("Timestamp", (1, 2))]),
        "udp": frames.udp(1, 2, long),
        "udp empty": frames.udp(1, 2, b""),
        "sctp": frames.sctp(1, 2, long),
        "icmp": frames.icmp(1, 2, long),
        "igmp": frames.eth(1, 2) / frames.net(1, 2, proto=2) / b"\x11\x00\x00\x00\x00\x00\x00\x00",
        "tcp6": frames.tcp(1, 2, long, v6=True, flags="SA", ip={"fl": 0xABCDE, "tc": 0x2E}),
        "udp6": frames.udp(1, 2, long, v6=True),
        "udp6 behind headers": frames.udp(
            1, 2, long, v6=True, ext=frames.ipv6_extensions("hopbyhop", "destopt")
        ),
        "sctp6": frames.sctp(1, 2, long, v6=True),
        "icmp6": frames.icmp6(1, 2, long),
        "arp request": frames.arp(1, 2),
        "arp reply": frames.arp(1, 2, op=2),
        "nd solicitation": frames.nd_solicit(1, 2),
        "nd advertisement": frames.nd_advertise(1, 2),
        "other ethertype": frames.eth(1, 2, ethertype=0x88B5) / long,
        "802.3": frames.llc_snap(1, 2),
        "ipv4 options": frames.udp(1, 2, long, ip={"options": [_router_alert()], "tos": 0xB9}),
    }
    for kind, (whole, number) in FRAGMENTS.items():
        made[kind] = frames.fragments(whole)[number]
    zero = frames.udp(1, 2, long)
    zero["UDP"].chksum = 0
    made["udp without checksum"] = zero
    return made


def _router_alert() -> Any:
    from scapy.layers.inet import IPOption_Router_Alert

    return IPOption_Router_Alert()


TAGS = {
    "untagged": b"",
    "vlan 5": bytes.fromhex("8100a005"),  # pcp 5
    "qinq": bytes.fromhex("88a8602a 81002005"),  # 42 over 5
}


@functools.cache
def packets() -> dict[str, bytes]:
    """Every kind with every tagging. An 802.3 length stays behind a tag, as IEEE 802.1Q has it."""
    out = {}
    for kind, packet in build().items():
        data = bytes(packet)
        for tagging, tags in TAGS.items():
            out[f"{kind}, {tagging}"] = data[:12] + tags + data[12:]
    return out


@dataclass(frozen=True)
class Case:
    """An action list, the match it stands behind, and what it does to a packet it acts on.

    ``edit`` changes the dissected packet (checksums are computed afterwards); it sees only packets for which ``acts``.
    ``outer`` works on the bytes instead: tags.
    """

    name: str
    actions: str
    edit: Edit | None = None
    acts: Callable[[Any], bool] = lambda packet: True
    match: str = ""
    outer: Callable[[bytes], bytes | None] | None = None


# Which packets -----------------------------------------------------------------------------------------------------


def has(*layers: str) -> Callable[[Any], bool]:
    return lambda packet: any(layer in packet for layer in layers)


def is_ip(packet: Any) -> bool:
    return "IP" in packet or "IPv6" in packet


def not_later_fragment(packet: Any) -> bool:
    if "IP" in packet:
        return not packet["IP"].frag
    return not ("IPv6ExtHdrFragment" in packet and packet["IPv6ExtHdrFragment"].offset)


def ports_of(*layers: str) -> Callable[[Any], bool]:
    return lambda packet: any(layer in packet for layer in layers) and not_later_fragment(packet)


def is_nd(packet: Any) -> bool:
    return "ICMPv6ND_NS" in packet or "ICMPv6ND_NA" in packet


# What an edit does --------------------------------------------------------------------------------------------------


def ether(**values: Any) -> Edit:
    """Fields of the Ethernet header, II or 802.3."""

    def edit(packet: Any) -> None:
        for name, value in values.items():
            setattr(packet, name, value)

    return edit


def back_again(packet: Any) -> None:
    """What an address and a port that are set to those of packet 1 > 2 amount to."""
    packet.dst = frames.mac(2)
    if ports_of("TCP", "UDP", "SCTP")(packet):
        l4(dport=frames.DPORT)(packet)


def put(layer: str, **values: Any) -> Edit:
    def edit(packet: Any) -> None:
        for name, value in values.items():
            setattr(packet[layer], name, value)

    return edit


def each(**by_layer: dict[str, Any]) -> Edit:
    """Fields of whichever layer the packet has."""

    def edit(packet: Any) -> None:
        for layer, values in by_layer.items():
            if layer in packet:
                for name, value in values.items():
                    setattr(packet[layer], name, value)

    return edit


def tos(new: int, mask: int) -> Edit:
    def edit(packet: Any) -> None:
        if "IP" in packet:
            packet["IP"].tos = packet["IP"].tos & ~mask | new
        else:
            packet["IPv6"].tc = packet["IPv6"].tc & ~mask | new

    return edit


def ttl(value: int) -> Edit:
    return each(IP={"ttl": value}, IPv6={"hlim": value})


def less_ttl(by: int) -> Edit:
    def edit(packet: Any) -> None:
        if "IP" in packet:
            packet["IP"].ttl -= by
        else:
            packet["IPv6"].hlim -= by

    return edit


def l4(**values: int) -> Edit:
    return each(TCP=values, UDP=values, SCTP=values)


def split(data: bytes) -> tuple[bytes, list[bytes], bytes]:
    """Addresses, tags from the outermost, the rest."""
    tags, at = [], 12
    while data[at : at + 2] in (b"\x81\x00", b"\x88\xa8"):
        tags.append(data[at : at + 4])
        at += 4
    return data[:12], tags, data[at:]


def tags(change: Callable[[list[bytes]], list[bytes] | None]) -> Callable[[bytes], bytes | None]:
    def outer(data: bytes) -> bytes | None:
        head, old, rest = split(data)
        new = change(old)
        return None if new is None else head + b"".join(new) + rest

    return outer


def set_tci(mask: int, value: int, *, add: bool = True) -> Callable[[list[bytes]], list[bytes]]:
    """The outermost tag's TCI; without a tag one is added (or not)."""

    def change(old: list[bytes]) -> list[bytes]:
        if not old:
            return [b"\x81\x00" + value.to_bytes(2, "big")] if add else []
        tci = int.from_bytes(old[0][2:], "big") & ~mask | value
        return [old[0][:2] + tci.to_bytes(2, "big"), *old[1:]]

    return change


def push(tpid: int, tci: int = 0) -> Callable[[list[bytes]], list[bytes] | None]:
    def change(old: list[bytes]) -> list[bytes] | None:
        return None if len(old) == 2 else [tpid.to_bytes(2, "big") + tci.to_bytes(2, "big"), *old]

    return change


MAC_X, MAC_Y = "02:00:00:00:77:01", "02:00:00:00:77:02"
IP6_X, IP6_Y = "fd00:1:2:3:4:5:6:7", "fd00:7:6:5:4:3:2:1"
V4, V6, ANY_IP = has("IP"), has("IPv6"), is_ip
PORTS, TCP, UDP, SCTP = ports_of("TCP", "UDP", "SCTP"), ports_of("TCP"), ports_of("UDP"), ports_of("SCTP")
ICMP, ICMP6 = ports_of("ICMP"), has("ICMPv6EchoRequest", "ICMPv6ND_NS", "ICMPv6ND_NA")
ARP = has("ARP")

CASES = [
    Case("nothing", ""),
    # Ethernet
    Case("mod_dl_src", f"mod_dl_src:{MAC_X}", ether(src=MAC_X)),
    Case("mod_dl_dst", f"mod_dl_dst:{MAC_X}", ether(dst=MAC_X)),
    Case(
        "both addresses",
        f"set_field:{MAC_X}->eth_src,set_field:{MAC_Y}->eth_dst",
        ether(src=MAC_X, dst=MAC_Y),
    ),
    Case(
        "part of eth_dst",
        "set_field:00:00:00:00:99:00/00:00:00:00:ff:00->eth_dst",
        outer=lambda data: data[:4] + b"\x99" + data[5:],
    ),
    Case(
        "load of eth_src",
        "load:0xbeef->NXM_OF_ETH_SRC[0..15]",
        outer=lambda data: data[:10] + b"\xbe\xef" + data[12:],
    ),
    # tags
    Case("mod_vlan_vid", "mod_vlan_vid:77", outer=tags(set_tci(0x0FFF, 77))),
    Case("mod_vlan_pcp", "mod_vlan_pcp:6", outer=tags(set_tci(0xE000, 6 << 13))),
    Case("vid and pcp", "mod_vlan_vid:77,mod_vlan_pcp:6", outer=tags(set_tci(0xEFFF, 6 << 13 | 77))),
    Case("push 0x8100", "push_vlan:0x8100", outer=tags(push(0x8100))),
    Case("push 0x88a8", "push_vlan:0x88a8", outer=tags(push(0x88A8))),
    Case("push and set", "push_vlan:0x88a8,set_field:4196->vlan_vid", outer=tags(push(0x88A8, 100))),
    Case("strip_vlan", "strip_vlan", outer=tags(lambda old: old[1:])),
    Case("pop_vlan", "pop_vlan", outer=tags(lambda old: old[1:])),
    Case("pop two", "pop_vlan,pop_vlan", outer=tags(lambda old: old[2:])),
    Case(
        "pop and push",
        "pop_vlan,push_vlan:0x8100,mod_vlan_vid:9,mod_vlan_pcp:3",
        outer=tags(lambda old: [bytes.fromhex("81006009"), *old[1:]]),
    ),
    Case(
        "set_field vlan_vid",
        "set_field:4173->vlan_vid",
        outer=tags(set_tci(0x0FFF, 77)),
        match="vlan_tci=0x1000/0x1000",
        acts=has("802.1Q"),
    ),
    # IPv4 and IPv6
    Case("mod_nw_src", "mod_nw_src:192.0.2.1", put("IP", src="192.0.2.1"), V4),
    Case("mod_nw_dst", "mod_nw_dst:192.0.2.2", put("IP", dst="192.0.2.2"), V4),
    Case(
        "both IPv4 addresses",
        "set_field:192.0.2.1->ip_src,set_field:192.0.2.2->ip_dst",
        put("IP", src="192.0.2.1", dst="192.0.2.2"),
        V4,
        "ip",
    ),
    Case("part of ip_dst", "set_field:0.7.0.0/0.255.0.0->ip_dst", put("IP", dst="10.7.0.2"), V4, "ip"),
    Case("load of ip_src", "load:0xc0000263->NXM_OF_IP_SRC[]", put("IP", src="192.0.2.99"), V4, "ip"),
    Case("load of bits", "load:0x63->NXM_OF_IP_SRC[0..7]", put("IP", src="10.0.0.99"), V4, "ip"),
    Case("ipv6_src", f"set_field:{IP6_X}->ipv6_src", put("IPv6", src=IP6_X), V6, "ipv6"),
    Case("ipv6_dst", f"set_field:{IP6_Y}->ipv6_dst", put("IPv6", dst=IP6_Y), V6, "ipv6"),
    Case(
        "both IPv6 addresses",
        f"set_field:{IP6_X}->ipv6_src,set_field:{IP6_Y}->ipv6_dst",
        put("IPv6", src=IP6_X, dst=IP6_Y),
        V6,
        "ipv6",
    ),
    Case("mod_nw_tos", "mod_nw_tos:184", tos(184, 0xFC), ANY_IP),
    Case("mod_nw_ecn", "mod_nw_ecn:2", tos(2, 3), ANY_IP),
    Case("ip_dscp", "set_field:10->ip_dscp", tos(40, 0xFC), V4, "ip"),
    Case("ip_dscp of IPv6", "set_field:10->ip_dscp", tos(40, 0xFC), V6, "ipv6"),
    Case("nw_ecn", "set_field:1->nw_ecn", tos(1, 3), V6, "ipv6"),
    Case("mod_nw_ttl", "mod_nw_ttl:7", ttl(7), ANY_IP),
    Case("dec_ttl", "dec_ttl", less_ttl(1), ANY_IP),
    Case("dec_ttl twice", "dec_ttl,dec_ttl", less_ttl(2), ANY_IP),
    Case("nw_ttl then dec_ttl", "mod_nw_ttl:9,dec_ttl", ttl(8), ANY_IP),
    Case("ipv6_label", "set_field:0x12345->ipv6_label", put("IPv6", fl=0x12345), V6, "ipv6"),
    # transport
    Case("mod_tp_src", "mod_tp_src:1234", l4(sport=1234), PORTS),
    Case("mod_tp_dst", "mod_tp_dst:4321", l4(dport=4321), PORTS),
    Case("both ports", "mod_tp_src:1234,mod_tp_dst:4321", l4(sport=1234, dport=4321), PORTS),
    Case("tcp_src", "set_field:99->tcp_src", l4(sport=99), lambda p: V4(p) and TCP(p), "tcp"),
    Case("tcp_dst of IPv6", "set_field:99->tcp_dst", l4(dport=99), lambda p: V6(p) and TCP(p), "tcp6"),
    Case("udp_dst", "set_field:99->udp_dst", l4(dport=99), lambda p: V4(p) and UDP(p), "udp"),
    Case("udp_src of IPv6", "set_field:99->udp_src", l4(sport=99), lambda p: V6(p) and UDP(p), "udp6"),
    Case(
        "sctp ports",
        "set_field:99->sctp_src,set_field:98->sctp_dst",
        l4(sport=99, dport=98),
        lambda p: V4(p) and SCTP(p),
        "sctp",
    ),
    Case("sctp6 port", "set_field:99->sctp_dst", l4(dport=99), lambda p: V6(p) and SCTP(p), "sctp6"),
    Case(
        "part of tp_dst",
        "set_field:0x0002/0x00ff->udp_dst",
        l4(dport=frames.DPORT & 0xFF00 | 2),
        lambda p: V4(p) and UDP(p),
        "udp",
    ),
    Case("icmp_type", "set_field:0->icmp_type", put("ICMP", type=0), lambda p: V4(p) and ICMP(p), "icmp"),
    Case("icmp_code", "set_field:3->icmp_code", put("ICMP", code=3), lambda p: V4(p) and ICMP(p), "icmp"),
    # ARP and neighbour discovery
    Case("arp_op", "set_field:2->arp_op", put("ARP", op=2), ARP, "arp"),
    Case("arp_sha", f"set_field:{MAC_X}->arp_sha", put("ARP", hwsrc=MAC_X), ARP, "arp"),
    Case("arp_tha", f"set_field:{MAC_X}->arp_tha", put("ARP", hwdst=MAC_X), ARP, "arp"),
    Case("arp_spa", "set_field:192.0.2.1->arp_spa", put("ARP", psrc="192.0.2.1"), ARP, "arp"),
    Case("arp_tpa", "set_field:192.0.2.1->arp_tpa", put("ARP", pdst="192.0.2.1"), ARP, "arp"),
    Case(
        "an ARP answer made of a question",
        f"set_field:2->arp_op,set_field:{MAC_X}->arp_sha,set_field:{MAC_Y}->arp_tha,"
        f"load:0x0a000063->NXM_OF_ARP_SPA[],load:0x0a000001->NXM_OF_ARP_TPA[],mod_dl_dst:{MAC_Y}",
        each(
            Ethernet={"dst": MAC_Y},
            ARP={"op": 2, "hwsrc": MAC_X, "hwdst": MAC_Y, "psrc": "10.0.0.99", "pdst": "10.0.0.1"},
        ),
        ARP,
        "arp",
    ),
    Case(
        "nd_target of a solicitation",
        f"set_field:{IP6_X}->nd_target",
        put("ICMPv6ND_NS", tgt=IP6_X),
        has("ICMPv6ND_NS"),
        "icmp6,icmp_type=135,icmp_code=0",
    ),
    Case(
        "nd_sll",
        f"set_field:{MAC_X}->nd_sll",
        put("ICMPv6NDOptSrcLLAddr", lladdr=MAC_X),
        has("ICMPv6ND_NS"),
        "icmp6,icmp_type=135,icmp_code=0",
    ),
    Case(
        "nd_tll and nd_target of an advertisement",
        f"set_field:{MAC_X}->nd_tll,set_field:{IP6_X}->nd_target",
        each(ICMPv6ND_NA={"tgt": IP6_X}, ICMPv6NDOptDstLLAddr={"lladdr": MAC_X}),
        has("ICMPv6ND_NA"),
        "icmp6,icmp_type=136,icmp_code=0",
    ),
    # many at once
    Case(
        "a router's work",
        f"mod_dl_src:{MAC_X},mod_dl_dst:{MAC_Y},dec_ttl",
        lambda p: (each(Ethernet={"src": MAC_X, "dst": MAC_Y})(p), less_ttl(1)(p))[0],
        ANY_IP,
        "ip",
    ),
    Case(
        "address translation",
        "set_field:192.0.2.1->ip_src,set_field:192.0.2.2->ip_dst,mod_tp_src:1,mod_tp_dst:65535,mod_nw_tos:4,dec_ttl",
        lambda p: (
            put("IP", src="192.0.2.1", dst="192.0.2.2")(p),
            l4(sport=1, dport=65535)(p) if PORTS(p) else None,
            tos(4, 0xFC)(p),
            less_ttl(1)(p),
        )[0],
        V4,
        "ip",
    ),
    Case(
        "IPv6 translation",
        f"set_field:{IP6_X}->ipv6_src,set_field:{IP6_Y}->ipv6_dst,mod_tp_src:1,mod_tp_dst:65535,dec_ttl",
        lambda p: (
            put("IPv6", src=IP6_X, dst=IP6_Y)(p),
            l4(sport=1, dport=65535)(p) if PORTS(p) else None,
            less_ttl(1)(p),
        )[0],
        V6,
        "ipv6",
    ),
    Case("registers are not in the packet", "load:7->reg0,set_field:0x1234->metadata,load:1->reg3[4..8]"),
    Case(
        "there and back",
        f"mod_dl_dst:{MAC_X},mod_tp_dst:9,mod_dl_dst:{frames.mac(2)},mod_tp_dst:5001",
        back_again,
    ),
]
# A router's work is for IPv4 only, by its match.
ONLY_V4 = {"a router's work"}


@functools.cache
def parsed(data: bytes) -> Any:
    return frames.parse(data)


@functools.cache
def expected(case_name: str, name: str) -> bytes | None:
    case = next(case for case in CASES if case.name == case_name)
    data = packets()[name]
    packet = parsed(data)
    acts = case.acts(packet) and not (case_name in ONLY_V4 and "IP" not in packet)
    if not acts:
        return data
    if case.outer is not None:
        return case.outer(data)
    if case.edit is None:
        return data
    kind = name.partition(",")[0]
    if kind in {"first fragment", "first fragment 6"}:
        # Its checksum covers the whole datagram: edit that, then cut it.
        whole, number = FRAGMENTS[kind]
        changed = whole.copy()
        case.edit(changed)
        piece = bytes(frames.fragments(changed)[number])
        return piece[:12] + data[12 : len(data) - len(piece) + 12] + piece[12:]
    changed = packet.copy()
    case.edit(changed)
    return frames.rebuilt(bytes(changed))


@dataclass
class Bench:
    switch: Switch
    exchange: Exchanger
    ports: list[PacketPort]


@pytest.fixture(scope="module")
def bench(way: Way) -> Iterator[Bench]:
    with Lab() as lab:
        wires = lab.wires(2, mtu=1600)
        switch = way.switch(lab.host)
        switch.bridge()
        switch.join(wires)
        yield Bench(switch, Exchanger(lab, wires), wires)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_the_packet_leaves_as_the_actions_say(bench: Bench, case: Case) -> None:
    a, _b = bench.ports
    lines = [
        f"priority=10,{case.match + ',' if case.match else ''}actions={case.actions + ',' if case.actions else ''}output:2"
    ]
    if case.match:
        lines.append("priority=1,actions=output:2")
    bench.switch.flows(*lines)
    wrong = []
    sent = {name: expected(case.name, name) for name in packets()}
    refused = N_TIMES * sum(wanted is None for wanted in sent.values())
    with bench.switch.dropping(a, **({"vlan_depth": refused} if refused else {})):
        wrong = send_all(bench, sent)
    assert not wrong, f"{len(wrong)} of {len(sent)} packets\n" + "\n".join(wrong[:6])


def send_all(bench: Bench, sent: dict[str, bytes | None]) -> list[str]:
    """Send packets by name and tell which did not come out as wanted (None: not at all)."""
    a, b = bench.ports
    wrong = []
    for name, wanted in sent.items():
        got = bench.exchange(a, *[packets()[name]] * N_TIMES)
        try:
            assert set(got) == ({b} if wanted is not None else set())
            frames.same_list(got.get(b, []), [wanted] * N_TIMES if wanted is not None else [])
        except AssertionError as err:
            wrong.append(f"--- {name}: {err}")
    return wrong
