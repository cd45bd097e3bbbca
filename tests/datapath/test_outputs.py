"""Where actions send a packet: ports by name and number, in_port, flood, all, local, several versions of one packet, and
what is dropped on the way, with its reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.datapath.conftest import Way
from tests.support import frames
from tests.support.lab import Lab
from tests.support.ports import PacketPort
from tests.support.switch import Exchanger, Switch

pytestmark = pytest.mark.traffic

N = 5
MAC_X = "02:00:00:00:77:01"


@dataclass
class Bench:
    switch: Switch
    exchange: Exchanger
    ports: list[PacketPort]

    def gives(self, sender: PacketPort, sent: Any, *wanted: tuple[int, Any], times: int = 3) -> None:
        """Send a packet some times; each time exactly these come out: (number of the port, frame)."""
        for turn in range(times):
            got = self.exchange(sender, sent)
            frames_by_port: dict[PacketPort, list[bytes]] = {}
            for number, frame in wanted:
                frames_by_port.setdefault(self.ports[number - 1], []).append(bytes(frame))
            assert {p.ifname: len(f) for p, f in got.items()} == {
                p.ifname: len(f) for p, f in frames_by_port.items()
            }, f"packet {turn + 1}"
            for port, came in got.items():
                # Copies of one packet for one port may overtake each other.
                frames.same_list(
                    sorted(came), sorted(frames_by_port[port]), where=f"packet {turn + 1} at {port}"
                )


@pytest.fixture(scope="module")
def bench(way: Way) -> Iterator[Bench]:
    with Lab() as lab:
        wires = lab.wires(N, mtu=1600)
        switch = way.switch(lab.host)
        switch.bridge()
        switch.join(wires)
        yield Bench(switch, Exchanger(lab, wires), wires)


UDP = frames.udp(1, 2)


def test_output_by_number_and_by_name(bench: Bench) -> None:
    a = bench.ports[0]
    for action in (
        "output:3",
        f"output:{bench.ports[2].ifname}",
        bench.ports[2].ifname,
        "3",
        f'output:"{bench.ports[2].ifname}"',
    ):
        bench.switch.flows(f"actions={action}")
        bench.gives(a, UDP, (3, UDP))


def test_output_to_several_ports(bench: Bench) -> None:
    a = bench.ports[0]
    for numbers in ((2, 3), (5, 4, 3, 2), (4, 2)):
        bench.switch.flows("actions=" + ",".join(f"output:{number}" for number in numbers))
        bench.gives(a, UDP, *[(number, UDP) for number in numbers])


def test_output_to_one_port_twice_gives_two_copies(bench: Bench) -> None:
    bench.switch.flows("actions=output:2,output:2,output:3")
    bench.gives(bench.ports[0], UDP, (2, UDP), (2, UDP), (3, UDP))


def test_output_leaves_out_the_port_the_packet_came_from(bench: Bench) -> None:
    a = bench.ports[0]
    bench.switch.flows("actions=output:1,output:2")
    with bench.switch.dropping(a):
        bench.gives(a, UDP, (2, UDP))
    bench.switch.flows("actions=output:1")
    with bench.switch.dropping(a, same_port=3):
        bench.gives(a, UDP)


def test_in_port_sends_back(bench: Bench) -> None:
    a = bench.ports[0]
    bench.switch.flows("actions=in_port")
    bench.gives(a, UDP, (1, UDP))
    bench.switch.flows("actions=output:in_port,output:2")
    bench.gives(a, UDP, (1, UDP), (2, UDP))
    changed = frames.udp(1, 2, eth_dst=MAC_X)
    bench.switch.flows(f"actions=mod_dl_dst:{MAC_X},in_port")
    bench.gives(a, UDP, (1, changed))


@pytest.mark.parametrize("action", ["flood", "all"])
def test_flood_and_all_reach_every_other_port(bench: Bench, action: str) -> None:
    bench.switch.flows(f"actions={action}")
    for number, sender in enumerate(bench.ports, 1):
        bench.gives(sender, UDP, *[(other, UDP) for other in range(1, N + 1) if other != number], times=2)


@pytest.mark.parametrize("action", ["flood", "all"])
def test_a_changed_packet_is_flooded_changed(bench: Bench, action: str) -> None:
    changed = frames.rebuilt(frames.udp(1, 2, vlan=9, eth_dst=MAC_X))
    bench.switch.flows(f"actions=mod_dl_dst:{MAC_X},mod_vlan_vid:9,{action}")
    bench.gives(bench.ports[0], UDP, *[(number, changed) for number in range(2, N + 1)])


def test_each_output_gets_the_packet_as_it_is_at_that_point(bench: Bench) -> None:
    first = UDP
    second = frames.udp(1, 2, eth_dst=MAC_X)
    third = frames.udp(1, 2, eth_dst=MAC_X, vlan=0)
    bench.switch.flows(f"actions=output:2,mod_dl_dst:{MAC_X},output:3,push_vlan:0x8100,output:4")
    bench.gives(bench.ports[0], UDP, (2, first), (3, second), (4, third))


def test_versions_of_every_layer_in_one_list(bench: Bench) -> None:
    packet = frames.tcp(1, 2, b"payload", flags="PA")
    steps = [
        "output:2",
        "set_field:192.0.2.9->ip_dst,output:3",
        "mod_tp_dst:99,output:4",
        "dec_ttl,output:5",
        "push_vlan:0x88a8,set_field:4138->vlan_vid,output:2",
        "pop_vlan,mod_nw_tos:8,output:3",
        "set_field:10.0.0.2->ip_dst,mod_tp_dst:5001,output:4",
    ]
    bench.switch.flows("priority=2,tcp,actions=" + ",".join(steps), "priority=1,actions=drop")

    def version(dst: str, dport: int, ttl: int, tos: int = 0, outer: int | None = None) -> bytes:
        made = packet.copy()
        made["IP"].dst, made["TCP"].dport, made["IP"].ttl, made["IP"].tos = dst, dport, ttl, tos
        data = bytes(made)
        return data[:12] + (b"\x88\xa8" + outer.to_bytes(2, "big") if outer else b"") + data[12:]

    bench.gives(
        bench.ports[0],
        packet,
        (2, packet),
        (3, version("192.0.2.9", 5001, 64)),
        (4, version("192.0.2.9", 99, 64)),
        (5, version("192.0.2.9", 99, 63)),
        (2, version("192.0.2.9", 99, 63, outer=42)),
        (3, version("192.0.2.9", 99, 63, tos=8)),
        (4, version("10.0.0.2", 5001, 63, tos=8)),
    )


def test_normal_beside_other_outputs(bench: Bench) -> None:
    a, b, *_ = bench.ports
    bench.switch.flows("actions=normal")
    bench.switch.fdb_flush()
    bench.exchange(b, frames.udp(2, 1))
    bench.switch.flows("actions=output:3,normal")
    bench.gives(a, UDP, (2, UDP), (3, UDP))
    bench.switch.flows("actions=normal,output:3")
    bench.gives(a, UDP, (2, UDP), (3, UDP))
    bench.switch.flows(f"actions=normal,mod_dl_dst:{MAC_X},output:4")
    bench.gives(a, UDP, (2, UDP), (4, frames.udp(1, 2, eth_dst=MAC_X)))
    bench.switch.flows(f"actions=mod_dl_dst:{frames.mac(2)},normal")
    bench.gives(a, frames.udp(1, 2, eth_dst=MAC_X), (2, UDP))
    bench.switch.flows("actions=normal")


def test_a_broadcast_by_normal_beside_an_output(bench: Bench) -> None:
    bench.switch.flows("actions=normal,output:3")
    sent = frames.udp(1, 2, eth_dst=frames.BROADCAST)
    bench.gives(bench.ports[0], sent, (2, sent), (3, sent), (4, sent), (5, sent), (3, sent))


@pytest.mark.parametrize(
    ("actions", "reason"),
    [
        ("drop", "flow"),
        ("mod_dl_dst:02:00:00:00:00:09", "flow"),
        ("output:77", "no_such_port"),
        ("resubmit(,5)", "table_miss"),
        ("goto_table:5", "table_miss"),
        ("push_vlan:0x8100,push_vlan:0x8100,push_vlan:0x8100,output:2", "vlan_depth"),
    ],
)
def test_what_is_dropped_is_counted_by_its_reason(bench: Bench, actions: str, reason: str) -> None:
    a = bench.ports[0]
    bench.switch.flows(f"actions={actions}")
    with bench.switch.dropping(a, **{reason: 3}):
        bench.gives(a, UDP)


def test_a_packet_that_no_flow_wants_is_dropped(bench: Bench) -> None:
    a = bench.ports[0]
    bench.switch.flows("tcp,actions=output:2")
    with bench.switch.dropping(a, table_miss=3):
        bench.gives(a, UDP)
    bench.gives(a, frames.tcp(1, 2), (2, frames.tcp(1, 2)))


def test_an_output_that_exists_is_served_beside_one_that_does_not(bench: Bench) -> None:
    a = bench.ports[0]
    bench.switch.flows("actions=output:77,output:2")
    with bench.switch.dropping(a, no_such_port=3):
        bench.gives(a, UDP, (2, UDP))


@pytest.mark.parametrize("v6", [False, True])
def test_a_packet_at_the_end_of_its_life_is_dropped(bench: Bench, v6: bool) -> None:
    a = bench.ports[0]
    name = "hlim" if v6 else "ttl"
    bench.switch.flows("actions=dec_ttl,output:2")
    for life in (0, 1):
        with bench.switch.dropping(a, ttl=3):
            bench.gives(a, frames.udp(1, 2, v6=v6, ip={name: life}))
    bench.gives(a, frames.udp(1, 2, v6=v6, ip={name: 2}), (2, frames.udp(1, 2, v6=v6, ip={name: 1})))
    # ... also between two of a flow that is established, whose packets differ in nothing else
    with bench.switch.dropping(a, ttl=1):
        for life, left in ((64, 63), (1, None), (255, 254), (2, 1)):
            wanted = [] if left is None else [(2, frames.udp(1, 2, v6=v6, ip={name: left}))]
            bench.gives(a, frames.udp(1, 2, v6=v6, ip={name: life}), *wanted, times=1)


def test_an_output_before_the_end_of_life_still_leaves(bench: Bench) -> None:
    a = bench.ports[0]
    last = frames.udp(1, 2, ip={"ttl": 1})
    bench.switch.flows("actions=output:2,dec_ttl,output:3")
    with bench.switch.dropping(a, ttl=3):
        bench.gives(a, last, (2, last))


def test_values_written_do_not_leak_into_other_packets_of_the_flow(bench: Bench) -> None:
    """Fields that no flow looks at differ between packets of one cached flow; an edit must keep what it does not set."""
    a = bench.ports[0]
    bench.switch.flows(f"in_port=1,actions=mod_dl_dst:{MAC_X},mod_nw_ecn:1,output:2")
    for number in range(1, 6):
        fields = {"tos": number << 4, "ttl": 10 + number, "id": number}
        sent = frames.udp(number, 7, bytes([number]) * number, sport=number, dport=number + 1, ip=fields)
        wanted = frames.udp(
            number,
            7,
            bytes([number]) * number,
            sport=number,
            dport=number + 1,
            ip={**fields, "tos": number << 4 | 1},
            eth_dst=MAC_X,
        )
        bench.gives(a, sent, (2, wanted), times=2)
    bench.switch.flows("in_port=1,ip,actions=set_field:0.0.0.99/0.0.0.255->ip_dst,output:2")
    for number in range(1, 6):
        sent, wanted = frames.udp(1, 20 + number), frames.udp(1, 20 + number)
        wanted["IP"].dst = "10.0.0.99"
        bench.gives(a, sent, (2, wanted), times=2)


def test_flows_count_every_packet_once(bench: Bench) -> None:
    a = bench.ports[0]
    bench.switch.flows(
        "priority=5,udp,actions=output:2", "priority=4,tcp,actions=drop", "priority=1,actions=output:3"
    )
    for packet, n in ((UDP, 7), (frames.tcp(1, 2), 5), (frames.icmp(1, 2), 3)):
        bench.exchange(a, *[packet] * n)
    counted = {flow.priority: (flow.packets, flow.bytes) for flow in bench.switch.dump()}
    assert counted == {
        5: (7, 7 * len(UDP)),
        4: (5, 5 * len(frames.tcp(1, 2))),
        1: (3, 3 * len(frames.icmp(1, 2))),
    }


def test_a_drop_flow_stops_ping_on_the_next_packet(bench: Bench) -> None:
    a, b, *_ = bench.ports
    bench.switch.flow_del()
    bench.switch.fdb_flush()
    bench.exchange(b, frames.udp(2, 1))
    bench.gives(a, frames.icmp(1, 2), (2, frames.icmp(1, 2)))
    bench.gives(a, frames.tcp(1, 2), (2, frames.tcp(1, 2)))
    bench.switch.flow_add("priority=200,icmp,actions=drop")
    with bench.switch.dropping(a, flow=3):
        bench.gives(a, frames.icmp(1, 2))
    bench.gives(a, frames.tcp(1, 2), (2, frames.tcp(1, 2)))
    bench.switch.flow_del("icmp")
    bench.gives(a, frames.icmp(1, 2), (2, frames.icmp(1, 2)))
