"""Payload integrity: super-packets, unfinished checksums, jumbo frames and multiqueue taps pass unharmed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from tests.datapath.conftest import Way
from tests.support import frames, gso, traffic
from tests.support.lab import Guest, Lab
from tests.support.netns import Netns
from tests.support.ports import Frame, PacketPort, TapPort, VnetHdr
from tests.support.switch import Switch

pytestmark = pytest.mark.traffic


@dataclass
class Bench:
    lab: Lab
    switch: Switch
    veths: list[Guest]
    taps: list[Guest]
    raw: list[TapPort]
    wires: list[PacketPort]


@pytest.fixture(scope="module")
def bench(way: Way) -> Iterator[Bench]:
    with Lab(mtu=frames.JUMBO_MTU) as lab:
        made = Bench(
            lab,
            way.switch(lab.host),
            lab.guests(2),
            [*lab.tap_guests(1), *lab.tap_guests(1, queues=2)],
            lab.taps(2, vnet_hdr=True),
            lab.wires(2, vnet_hdr=True),
        )
        for port in (*made.raw, *made.wires):
            port.ignore = frames.is_kernel_chatter  # of the guests, which is flooded here
        made.switch.bridge()
        made.switch.join([*made.veths, *made.taps, *made.raw, *made.wires])
        yield made


def guests(bench: Bench) -> list[tuple[Guest, Guest]]:
    (a, b), (c, d) = bench.veths, bench.taps
    return [(a, b), (a, c), (c, a), (c, d), (d, b)]


def test_tcp_between_every_kind_of_port_with_all_offloads(bench: Bench) -> None:
    for client, server in guests(bench):
        traffic.tcp_transfer(client.ns, server.ns, server.ip, megabytes=8)
        traffic.tcp_transfer(client.ns, server.ns, server.ip6, megabytes=2)


def test_datagrams_of_every_size(bench: Bench) -> None:
    for client, server in guests(bench):
        traffic.udp_echo(client.ns, server.ns, server.ip)
        traffic.udp_echo(client.ns, server.ns, server.ip6, sizes=(0, 1, 8972, 8973, 65_000))


def test_jumbo_pings_without_fragments(bench: Bench) -> None:
    for client, server in guests(bench):
        traffic.pings(client.ns, server.ip, size=frames.JUMBO_MTU - 28, fragment=False)
        traffic.pings(client.ns, server.ip6, size=frames.JUMBO_MTU - 48, fragment=False)


def test_broadcast_and_multicast_reach_all_guests(bench: Bench) -> None:
    everybody = [guest.ns for guest in (*bench.veths, *bench.taps)]
    for dst in ("10.0.0.255", frames.MULTICAST_IP4, frames.MULTICAST_IP6):
        traffic.udp_one_way(everybody[0], everybody[1:], dst)


@pytest.mark.parametrize("v6", [False, True], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("vlan", [None, 7], ids=["untagged", "tagged"])
def test_a_super_packet_passes_whole_or_in_the_right_segments(
    bench: Bench, v6: bool, vlan: int | None
) -> None:
    (a, b), (w, x) = bench.raw, bench.wires
    for sender, receiver in ((a, b), (a, w), (w, a), (w, x)):
        data, vnet = gso.tcp_super(50, 51, v6=v6, **({} if vlan is None else {"vlan": vlan}))
        bench.switch.fdb_add(frames.mac(51), receiver, vlan or 0, exist_ok=True)
        for _ in range(3):
            receiver.flush()
            sender.send(data, vnet=vnet)
            came = receiver.sniff(1)
            came += receiver.sniff()
            assert received(came) == gso.segments(data, vnet), f"{sender} to {receiver}"
    bench.switch.fdb_del(frames.mac(51))


def received(came: list[Frame]) -> list[bytes]:
    """What a guest makes of frames: super-packets cut, checksums finished."""
    out = []
    for frame in came:
        vnet = frame.vnet
        assert vnet is not None
        if vnet.gso_size:
            # hdr_len is a hint: the kernel puts there what happens to be linear.
            segment = frames.parse(frame)["TCP"]
            header = len(frame) - len(segment.payload)
            out += gso.segments(bytes(frame), replace(vnet, hdr_len=header))
        elif vnet.flags & VnetHdr.NEEDS_CSUM:
            out += gso.segments(bytes(frame), vnet)
        else:
            out.append(bytes(frame))
    return out


@pytest.mark.parametrize("kind", ["tcp", "udp", "tcp6", "udp6"])
def test_an_unfinished_checksum_arrives_unfinished_or_right(bench: Bench, kind: str) -> None:
    (a, b), (w, x) = bench.raw, bench.wires
    build = frames.tcp if kind.startswith("tcp") else frames.udp
    packet = build(50, 51, b"some payload", v6=kind.endswith("6"))
    data, vnet = gso.partial(packet)
    for sender, receiver in ((a, b), (a, w), (w, a), (w, x)):
        bench.switch.fdb_add(frames.mac(51), receiver, exist_ok=True)
        for _ in range(3):
            receiver.flush()
            sender.send(data, vnet=vnet)
            assert received(receiver.sniff(1)) == [bytes(packet)], f"{sender} to {receiver}"
    bench.switch.fdb_del(frames.mac(51))


@pytest.mark.parametrize("kind", ["tcp", "udp", "tcp6", "udp6"])
def test_an_unfinished_checksum_survives_every_edit(bench: Bench, kind: str) -> None:
    (a, b), (w, _) = bench.raw, bench.wires
    v6 = kind.endswith("6")
    build = frames.tcp if kind.startswith("tcp") else frames.udp
    packet = build(50, 51, b"some payload", v6=v6)
    sets = (
        "set_field:fd00::77->ipv6_src,set_field:fd00::78->ipv6_dst"
        if v6
        else "mod_nw_src:10.0.0.77,mod_nw_dst:10.0.0.78"
    )
    changed = packet.copy()
    changed[1].src, changed[1].dst = ("fd00::77", "fd00::78") if v6 else ("10.0.0.77", "10.0.0.78")
    changed[2].sport, changed[2].dport = 7, 8
    tagged = bytes(changed)[:12] + b"\x81\x00\x00\x09" + bytes(changed)[12:]
    data, vnet = gso.partial(packet)
    match = "ipv6" if v6 else "ip"
    try:
        for port in (b, w):
            edits = (
                f"{sets},mod_tp_src:7,mod_tp_dst:8,output:{port.ifname},mod_vlan_vid:9,output:{port.ifname}"
            )
            bench.switch.flows(f"in_port={a.ifname},{match},actions={edits}", "priority=1,actions=normal")
            for _ in range(3):
                port.flush()
                a.send(data, vnet=vnet)
                assert sorted(received(port.sniff(2))) == sorted([bytes(changed), tagged])
            bench.switch.flows(
                f"in_port={a.ifname},{match},actions={sets},mod_tp_src:7,mod_tp_dst:8,output:{port.ifname}",
                "priority=1,actions=normal",
            )
            for _ in range(3):
                port.flush()
                a.send(data, vnet=vnet)
                assert received(port.sniff(1)) == [bytes(changed)]
    finally:
        bench.switch.flow_del()


@pytest.mark.parametrize("v6", [False, True], ids=["ipv4", "ipv6"])
def test_tcp_through_address_translation_has_the_same_hash(bench: Bench, v6: bool) -> None:
    """Clients speak to an address that nobody has; the switch rewrites it, and back."""
    for client, server in (
        (bench.veths[0], bench.taps[0]),
        (bench.taps[0], bench.veths[0]),
        (bench.taps[0], bench.taps[1]),
    ):
        virtual = "fd00::99" if v6 else "10.0.0.99"
        own = server.ip6 if v6 else server.ip
        match, src, dst = ("tcp6", "ipv6_src", "ipv6_dst") if v6 else ("tcp", "nw_src", "nw_dst")
        set_src, set_dst = ("ipv6_src", "ipv6_dst") if v6 else ("ip_src", "ip_dst")
        bench.switch.flows(
            f"priority=9,{match},{dst}={virtual},actions=set_field:{own}->{set_dst},normal",
            f"priority=9,{match},{src}={own},actions=set_field:{virtual}->{set_src},normal",
            "priority=1,actions=normal",
        )
        try:
            client.ns.ip(f"neigh replace {virtual} lladdr {server.mac} dev eth0")
            transfer(client.ns, server.ns, own, virtual)
        finally:
            bench.switch.flow_del()
            client.ns.ip(f"neigh del {virtual} dev eth0")


def transfer(client: Netns, server: Netns, own: str, virtual: str) -> None:
    """4 MB to a listener on ``own`` that is called ``virtual``."""
    import hashlib
    import random
    import socket
    import threading

    data = random.Random(virtual).randbytes(4 << 20)
    with traffic.tcp_listener(server, own) as listener:
        port = listener.getsockname()[1]
        digest = hashlib.sha256()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(10)
                while piece := connection.recv(1 << 16):
                    digest.update(piece)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with client.socket(socket.AF_INET6 if ":" in own else socket.AF_INET) as sock:
            sock.settimeout(10)
            sock.connect((virtual, port))
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1) == b""
        thread.join(10)
    assert digest.hexdigest() == hashlib.sha256(data).hexdigest()
