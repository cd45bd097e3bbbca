"""Ports at XDP: the same packets as at TC, and nothing lost of what an XDP program cannot see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.datapath.conftest import Way
from tests.support import frames, gso, traffic
from tests.support.lab import Guest, Lab
from tests.support.ports import PacketPort
from tests.support.switch import Switch

pytestmark = pytest.mark.traffic

N_TIMES = 4


@dataclass
class Bench:
    lab: Lab
    switch: Switch
    at_xdp: list[PacketPort]
    at_tc: list[PacketPort]
    guests: list[Guest]  # XDP, XDP, TC on veth, TC on tap


@pytest.fixture(scope="module", params=[True, False], ids=["cache", "no-cache"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with Lab() as lab:
        wires = lab.wires(4, vnet_hdr=True)
        guests = [*lab.guests(3), *lab.tap_guests(1)]
        switch = Way(request.param, "tcx").switch(lab.host)
        switch.bridge()
        infos = switch.join([*wires[:2], *guests[:2]], hook="xdp")
        assert {info.hook for info in infos} <= {"xdp native", "xdp generic"}, infos
        switch.join([*wires[2:], *guests[2:]])
        yield Bench(lab, switch, wires[:2], wires[2:], guests)


def test_the_port_is_at_xdp(bench: Bench) -> None:
    assert bench.switch.port_show(bench.at_xdp[0]).hook == "xdp native"


def test_frames_of_any_kind_pass_as_they_pass_at_tc(bench: Bench) -> None:
    ports = [*bench.at_xdp, *bench.at_tc]
    packets = [bytes(frames.random_frame(seed, guests=2)) for seed in range(120)]
    for sender in (bench.at_xdp[0], bench.at_tc[0]):
        for receiver in (bench.at_xdp[1], bench.at_tc[1]):
            bench.switch.fdb_flush()
            for packet in packets:
                data = packet_between(packet, "02:00:00:00:66:01", "02:00:00:00:66:02")
                vlan = (
                    int.from_bytes(data[14:16], "big") & 0xFFF
                    if data[12:14] in (b"\x81\x00", b"\x88\xa8")
                    else 0
                )
                teach = packet_between(packet, "02:00:00:00:66:02", frames.BROADCAST)
                bench.lab.exchange(receiver, [teach], ports)
                got = bench.lab.exchange(sender, [data] * N_TIMES, ports)
                assert {p.ifname: [bytes(f) for f in came] for p, came in got.items() if came} == {
                    receiver.ifname: [data] * N_TIMES
                }, f"VLAN {vlan} from {sender}: {frames.summary(data)}"


def packet_between(data: bytes, src: str, dst: str) -> bytes:
    return bytes.fromhex((dst + src).replace(":", "")) + data[12:]


def test_flows_act_as_at_tc(bench: Bench) -> None:
    a, b = bench.at_xdp
    c, _ = bench.at_tc
    udp, tcp, tagged = frames.udp(1, 2), frames.tcp(1, 2), frames.udp(1, 2, vlan=9)
    aged, changed = frames.udp(1, 2), frames.udp(1, 2, eth_dst="02:00:00:00:00:99")
    aged["IP"].ttl = 63
    cases = [
        (f"output:{b.ifname}", udp, {b: [udp]}),
        (f"output:{c.ifname}", udp, {c: [udp]}),
        (f"output:{b.ifname},output:{c.ifname}", udp, {b: [udp], c: [udp]}),
        (f"dec_ttl,output:{b.ifname}", udp, {b: [aged]}),
        (f"mod_dl_dst:02:00:00:00:00:99,output:{b.ifname}", udp, {b: [changed]}),
        (f"strip_vlan,output:{b.ifname}", tagged, {b: [udp]}),
        (f"push_vlan:0x8100,mod_vlan_vid:9,output:{c.ifname}", udp, {c: [tagged]}),
        ("in_port", udp, {a: [udp]}),
        ("drop", tcp, {}),
    ]
    ports = [*bench.at_xdp, *bench.at_tc]
    try:
        for actions, sent, wanted in cases:
            bench.switch.flows(f"in_port={a.ifname},actions={actions}", "priority=1,actions=drop")
            with bench.switch.dropping(a, **({} if wanted else {"flow": N_TIMES})):
                got = bench.lab.exchange(a, [sent] * N_TIMES, ports)
            came = {port.ifname: [bytes(f) for f in fs] for port, fs in got.items() if fs}
            assert came == {p.ifname: [bytes(fs[0])] * N_TIMES for p, fs in wanted.items()}, actions
            (flow,) = [flow for flow in bench.switch.dump() if "in_port" in flow.match]
            assert flow.packets == N_TIMES, actions
    finally:
        bench.switch.flow_del()


def test_counters_of_xdp_ports_are_exact(bench: Bench) -> None:
    a, b = bench.at_xdp
    bench.switch.fdb_flush()
    bench.lab.exchange(b, [frames.udp(2, 1)], [a])
    before_a, before_b = bench.switch.stats(a), bench.switch.stats(b)
    sent = bytes(frames.udp(1, 2, bytes(200)))
    bench.lab.exchange(a, [sent] * 20, [b])
    after_a, after_b = bench.switch.stats(a), bench.switch.stats(b)
    assert after_a.rx_packets - before_a.rx_packets == 20
    assert after_a.rx_bytes - before_a.rx_bytes == 20 * len(sent)
    assert after_b.tx_packets - before_b.tx_packets == 20
    assert after_b.tx_bytes - before_b.tx_bytes == 20 * len(sent)


def test_a_move_of_an_address_holds_for_the_next_packet(bench: Bench) -> None:
    a, b = bench.at_xdp
    c, _ = bench.at_tc
    ports = [a, b, *bench.at_tc]
    for new in (b, c, b, c):
        bench.lab.exchange(new, [frames.udp(2, 1, eth_dst=frames.BROADCAST)], ports)
        got = bench.lab.exchange(a, [frames.udp(1, 2)] * N_TIMES, ports)
        assert {port.ifname: len(came) for port, came in got.items() if came} == {new.ifname: N_TIMES}


@pytest.mark.parametrize("v6", [False, True], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_an_unfinished_checksum_arrives_right(bench: Bench, kind: str, v6: bool) -> None:
    build = frames.tcp if kind == "tcp" else frames.udp
    packet = build(50, 51, b"some payload", v6=v6)
    data, vnet = gso.partial(packet)
    a, b = bench.at_xdp
    for receiver in (b, bench.at_tc[0]):
        bench.switch.fdb_add(frames.mac(51), receiver, exist_ok=True)
        for _ in range(N_TIMES):
            receiver.flush()
            a.send(data, vnet=vnet)
            (came,) = receiver.sniff(1)
            assert came.vnet is not None
            whole = frames.rebuilt(bytes(came)) if came.vnet.flags & came.vnet.NEEDS_CSUM else bytes(came)
            frames.same(whole, bytes(packet))
    bench.switch.fdb_del(frames.mac(51))


def test_tcp_between_xdp_and_tc_ports_with_default_offloads(bench: Bench) -> None:
    one, two, veth, tap = bench.guests
    for client, server in ((one, two), (one, veth), (veth, one), (tap, one), (one, tap)):
        traffic.tcp_transfer(client.ns, server.ns, server.ip, megabytes=4)
        traffic.tcp_transfer(client.ns, server.ns, server.ip6, megabytes=1)


def test_datagrams_between_xdp_and_tc_ports(bench: Bench) -> None:
    one, two, veth, tap = bench.guests
    for client, server in ((one, two), (one, veth), (tap, one)):
        traffic.pings(client.ns, server.ip)
        traffic.udp_echo(client.ns, server.ns, server.ip)
        traffic.udp_echo(client.ns, server.ns, server.ip6, sizes=(0, 1, 1472, 8000))
