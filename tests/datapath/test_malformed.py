"""Frames that are cut off, lie about their length or stack headers without end: switched or dropped and counted, and
never taken for something they do not contain.

The rules that they meet ask for zeros and for parts of fields, which is what a careless parser would find in a header
that is not there.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from tests.datapath.modelbench import Bench, model_bench
from tests.support import frames
from tests.support.flowmodel import (
    ARP,
    ICMP,
    ICMP6,
    IP4,
    IP6,
    SCTP,
    TCP,
    UDP,
    Action,
    Flow,
    Parsed,
    Tables,
    Term,
    kernel_drops,
    term,
)
from tests.support.lab import Lab
from tests.support.ports import PacketPort, VnetHdr

pytestmark = pytest.mark.traffic

SPORT = 40001  # no part that a rule below asks for is zero, neither here nor in frames.DPORT
TRAP, OTHERS = 4, 2  # where packets go that a rule for zeros took, and all others


def _flow(priority: int, match: list[Term], port: int) -> Flow:
    return Flow(0, priority, tuple(match), (Action("output", f"output:{port}", port),))


def _of(dl_type: int, proto: int | None = None) -> list[Term]:
    terms = [term("dl_type", dl_type, text=f"dl_type={dl_type:#06x}")]
    return terms if proto is None else [*terms, term("nw_proto", proto)]


def _zeros() -> list[Flow]:
    """One rule for every field of every protocol, and for a part of it, that zeros would match."""
    matches: list[list[Term]] = []
    for ip in (IP4, IP6):
        for proto in (TCP, UDP, SCTP):
            for name in ("tp_src", "tp_dst"):
                matches += [[*_of(ip, proto), term(name, 0, mask)] for mask in (0xFFFF, 0xFC00, 1)]
        matches += [
            [*_of(ip, TCP), term("tcp_flags", 0)],
            [*_of(ip, ICMP if ip == IP4 else ICMP6), term("icmp_type", 0)],
            [*_of(ip, ICMP if ip == IP4 else ICMP6), term("icmp_code", 0), term("icmp_type", 0)],
            [*_of(ip, 0)],
            [*_of(ip), term("nw_ttl", 0)],
        ]
        addresses = ("nw_src", "nw_dst") if ip == IP4 else ("ipv6_src", "ipv6_dst")
        matches += [[*_of(ip), term(name, 0)] for name in addresses]
    matches += [
        [*_of(ARP), term("arp_op", 0)],
        [*_of(ARP), term("arp_spa", 0)],
        [*_of(ARP), term("arp_tha", 0), term("arp_sha", 0)],
        [*_of(IP6, ICMP6), term("icmp_type", 135), term("nd_target", 0)],
        [*_of(IP6, ICMP6), term("icmp_type", 136), term("nd_tll", 0), term("nd_target", 0)],
    ]
    return [_flow(1000 + number, match, TRAP) for number, match in enumerate(matches)]


# What the same frames match when they are whole.
WHOLE = [
    _flow(500, [*_of(IP4, TCP), term("tp_dst", frames.DPORT), term("tcp_flags", 2)], 3),
    _flow(501, [*_of(IP6, TCP), term("tp_dst", frames.DPORT)], 3),
    _flow(502, [*_of(IP4, UDP), term("tp_dst", frames.DPORT)], 3),
    _flow(503, [*_of(IP6, UDP), term("tp_dst", frames.DPORT)], 3),
    _flow(504, [*_of(IP4, SCTP), term("tp_src", SPORT)], 3),
    _flow(505, [*_of(IP4, ICMP), term("icmp_type", 8)], 3),
    _flow(506, [*_of(IP6, ICMP6), term("icmp_type", 128)], 3),
    _flow(507, [*_of(ARP), term("arp_op", 1)], 3),
    _flow(508, [*_of(IP6, ICMP6), term("icmp_type", 135), term("nd_target", (0xFD << 120) + 2)], 3),
    _flow(10, [], OTHERS),
]

KINDS: dict[str, bytes] = {
    "udp": bytes(frames.udp(1, 2, sport=SPORT)),
    "udp6": bytes(frames.udp(1, 2, sport=SPORT, v6=True)),
    "tcp with options": bytes(frames.tcp(1, 2, b"data", sport=SPORT, options=[("MSS", 1460), ("WScale", 7)])),
    "tcp6": bytes(frames.tcp(1, 2, sport=SPORT, v6=True)),
    "sctp": bytes(frames.sctp(1, 2, sport=SPORT)),
    "icmp": bytes(frames.icmp(1, 2)),
    "icmp6": bytes(frames.icmp6(1, 2)),
    "arp": bytes(frames.arp(1, 2)),
    "solicitation": bytes(frames.nd_solicit(1, 2)),
    "advertisement": bytes(frames.nd_advertise(1, 2)),
    "extension headers": bytes(
        frames.tcp(1, 2, sport=SPORT, v6=True, ext=frames.ipv6_extensions("hopbyhop", "routing", "auth", "fragment", "destopt"))
    ),
    "vlan tcp": bytes(frames.tcp(1, 2, sport=SPORT, vlan=10)),
    "qinq udp6": bytes(frames.udp(1, 2, sport=SPORT, vlan=10, outer=100, v6=True)),
    "vlan arp": bytes(frames.arp(1, 2, vlan=10)),
    "three tags": bytes.fromhex("02000000000202000000000188a8000a8100001481000fff") + bytes(frames.tcp(1, 2, sport=SPORT))[12:],
    "snap": bytes.fromhex("0200000000020200000000010040aaaa03000000") + bytes(frames.tcp(1, 2, sport=SPORT))[12:],
    "first fragment": bytes(frames.fragments(frames.udp(1, 2, bytes(64), sport=SPORT), 32)[0]),
    "first fragment of ipv6": bytes(frames.fragments(frames.udp(1, 2, bytes(64), sport=SPORT, v6=True), 32)[0]),
}  # fmt: skip


@pytest.fixture(scope="module", params=[True, False], ids=["cache", "no-cache"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with Lab() as lab, model_bench(lab, cache=request.param) as made:
        made.install(FLOWS)
        yield made


FLOWS = [*_zeros(), *WHOLE]
TABLES = Tables(FLOWS, [1, 2, 3, 4, 0xFFFE])


def _judge(bench: Bench, sent: list[bytes], *, trapped: bool = False, sender: Any = None) -> None:
    """Compare with the model; ``trapped``: some of the frames really hold zeros."""
    twice = sent * 2
    random.Random(1).shuffle(twice)
    before = bench.switch.stats(bench.ports[1])
    outcomes = bench.compare(TABLES, 1, twice, sender)
    after = bench.switch.stats(bench.ports[1])
    assert after.rx_packets - before.rx_packets == sum(not kernel_drops(frame) for frame in twice)
    if not trapped:
        caught = {frame.hex() for frame, outcome in outcomes if any(to == TRAP for to, _ in outcome.sent)}
        assert not caught, f"taken for zeros: {caught}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_cut_off_anywhere_matches_nothing_that_is_not_in_it(bench: Bench, kind: str) -> None:
    whole = KINDS[kind]
    _judge(bench, [*frames.truncations(whole), whole])


@pytest.mark.parametrize("kind", ["udp", "tcp with options", "icmp", "first fragment", "vlan tcp", "sctp"])
def test_ipv4_lengths_that_lie_hide_what_they_claim(bench: Bench, kind: str) -> None:
    whole = KINDS[kind]
    at = 14 + 4 * (whole[12] == 0x81)
    sent = []
    for version in (4, 0, 6, 15):
        sent += [_with(whole, at, bytes([version << 4 | ihl])) for ihl in range(16)]
    for total in (0, 1, 19, 20, 21, 24, 27, 28, 39, 40, len(whole) - at, len(whole) - at + 1, 1500, 65535):
        sent.append(_with(whole, at + 2, total.to_bytes(2, "big")))
        sent.append(_with(whole, at + 2, total.to_bytes(2, "big")) + bytes(40))
    # A header that is declared longer than it is has the transport header begin inside the payload: zeros, perhaps.
    _judge(bench, sent, trapped=True)
    for frame in sent:
        if Parsed(frame, 1).valid and frame[at] & 15 == 5:
            assert frame[at] >> 4 == 4


@pytest.mark.parametrize(
    "kind", ["udp6", "tcp6", "icmp6", "extension headers", "solicitation", "advertisement"]
)
def test_ipv6_lengths_that_lie_hide_what_they_claim(bench: Bench, kind: str) -> None:
    whole = KINDS[kind]
    sent = [_with(whole, 14, bytes([version << 4])) for version in range(16)]
    for length in (0, 1, 7, 8, 19, 20, 23, 24, len(whole) - 54, len(whole) - 53, 1500, 65535):
        sent.append(_with(whole, 18, length.to_bytes(2, "big")))
        sent.append(_with(whole, 18, length.to_bytes(2, "big")) + bytes(40))
    # The number of a hop-by-hop header is zero, whether or not it is there.
    _judge(bench, sent, trapped=kind == "extension headers")


@pytest.mark.parametrize("kind", ["tcp with options", "tcp6", "extension headers", "vlan tcp"])
def test_a_tcp_header_longer_than_the_packet_is_none(bench: Bench, kind: str) -> None:
    whole = KINDS[kind]
    parsed = Parsed(whole, 1)
    at = len(whole) - len(parsed.rest) + parsed.l4 + 12
    _judge(bench, [_with(whole, at, bytes([words << 4])) for words in range(16)])


def test_header_chains_without_end_are_switched(bench: Bench) -> None:
    last = bytes(frames.tcp(1, 2, sport=SPORT, v6=True))
    sent = []
    for kind in (0, 43, 44, 51, 60):
        sent += [_chain(last, [kind] * count) for count in (1, 2, 7, 8, 15, 16, 17, 40, 85)]
    sent += [_chain(last, [0, 60, 43, 51, 44, 60] * n) for n in range(1, 9)]
    for lie in (0, 1, 2, 9, 100, 254, 255):
        for kind in (0, 43, 51, 60):
            frame = bytearray(_chain(last, [kind, kind]))
            frame[55] = lie
            sent.append(bytes(frame))
    tags = [b"\x81\0\0\x0a", b"\x88\xa8\0\x14"]
    for count in (3, 4, 10, 100):
        sent.append(last[:12] + b"".join(tags[n % 2] for n in range(count)) + last[12:])
        sent.append(last[:12] + b"".join(tags[n % 2] for n in range(count)))
    # A header that says it is longer puts the next one where zeros may be.
    _judge(bench, sent, trapped=True)


def test_neighbour_discovery_options_that_lie_end_the_walk(bench: Bench) -> None:
    sent = []
    for kind in ("solicitation", "advertisement"):
        whole = KINDS[kind]
        sent += [_with(whole, 14 + 40 + 25, bytes([length])) for length in (0, 1, 2, 3, 31, 255)]
        option = whole[14 + 40 + 24 :]
        for count in (0, 2, 8, 9, 60):
            body = whole[: 14 + 40 + 24] + option * count
            sent.append(_with(body, 18, (24 + len(option) * count).to_bytes(2, "big")))
    _judge(bench, sent)


def test_noise_never_matches_a_rule_for_zeros_by_what_is_missing(bench: Bench) -> None:
    rng = random.Random(11)
    sent = []
    for _ in range(600):
        whole = bytearray(KINDS[rng.choice(list(KINDS))])
        for _ in range(rng.choice((1, 1, 2, 8))):
            whole[rng.randrange(12, len(whole))] = rng.choice(
                (0, 1, 0x45, 0x60, 0x81, 0xFF, rng.randrange(256))
            )
        sent.append(bytes(whole[: rng.randint(14, len(whole))]))
    _judge(bench, sent, trapped=True)


class Split:
    """Sends frames of more than a page of which only the Ethernet header is linear, as a virtual machine may."""

    def __init__(self, port: PacketPort) -> None:
        self.port = port

    def send(self, frame: bytes) -> None:
        self.port.send(frame, vnet=VnetHdr(hdr_len=14))


@pytest.mark.parametrize("cache", [True, False], ids=["cache", "no-cache"])
def test_headers_in_pages_are_read_like_others(jumbo_lab: Lab, cache: bool) -> None:
    big = bytes(6000)
    made = [
        frames.udp(1, 2, big, sport=SPORT), frames.udp(1, 2, big, sport=SPORT, v6=True), frames.tcp(1, 2, big, sport=SPORT), frames.tcp(1, 2, big, sport=SPORT, v6=True),
        frames.tcp(1, 2, big, sport=SPORT, vlan=10, outer=20, v6=True), frames.sctp(1, 2, big, sport=SPORT), frames.icmp(1, 2, big),
        frames.tcp(1, 2, big, sport=SPORT, v6=True, ext=frames.ipv6_extensions("hopbyhop", "routing", "destopt")),
    ]  # fmt: skip
    sent = [bytes(frame) for frame in made]
    full = bytes(made[2])  # TCP behind 40 bytes of IPv4 options
    length = (int.from_bytes(full[16:18], "big") + 40).to_bytes(2, "big")
    sent.append(full[:12] + b"\x81\0\0\x0a\x08\0\x4f\0" + length + full[18:34] + b"\1" * 40 + full[34:])
    sent.append(bytes.fromhex("020000000002020000000001") + b"\0\x40\xaa\xaa\3\0\0\0" + bytes(made[3])[12:])
    sent += [bytes(made[3])[:12] + b"\x88\xa8\0\x0a\x81\0\0\x14\0\x40\xaa\xaa\3\0\0\0" + bytes(made[3])[12:]]
    sent += [
        frame + bytes(7500 - len(frame))
        for frame in (KINDS["arp"], KINDS["solicitation"], KINDS["extension headers"])
    ]
    with model_bench(jumbo_lab, cache=cache, vnet_hdr=True) as bench:
        port = bench.ports[1]
        assert isinstance(port, PacketPort)
        bench.install(FLOWS)
        for sender in (port, Split(port)):
            _judge(bench, sent, sender=sender)


def _with(frame: bytes, at: int, new: bytes) -> bytes:
    return frame[:at] + new + frame[at + len(new) :]


def _chain(last: bytes, kinds: list[int]) -> bytes:
    """``last`` (TCP over IPv6) with extension headers of 8 bytes (AH: 12 and 4 more) before its transport header."""
    body, following = last[54:], last[20]
    for kind in reversed(kinds):
        length = 2 if kind == 51 else 0
        body = bytes([following, length]) + bytes(14 if kind == 51 else 6) + body
        following = kind
    return last[:18] + len(body).to_bytes(2, "big") + bytes([following]) + last[21:54] + body
