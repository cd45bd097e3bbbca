"""Flow tables as an admin meets them: which flow wins, what it counts, and that a change holds for the very next packet."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.datapath.conftest import Way
from tests.support import frames
from tests.support.cli import Cli
from tests.support.lab import Lab
from tests.support.ports import PacketPort, collect
from tests.support.switch import Exchanger, Switch

pytestmark = pytest.mark.traffic

N = 4
UDP = bytes(frames.udp(1, 2))
TCP = bytes(frames.tcp(1, 2))
PING = bytes(frames.icmp(1, 2))


@dataclass
class Bench:
    switch: Switch
    exchange: Exchanger
    ports: list[PacketPort]

    def where(self, sent: Any, sender: int = 1, times: int = 3) -> set[int]:
        """Send a frame some times (so that all but the first are cached); the ports that each copy left by."""
        seen = []
        for _ in range(times):
            got = self.exchange(self.ports[sender - 1], sent)
            assert all(len(came) == 1 and came[0] == bytes(sent) for came in got.values())
            seen.append({self.ports.index(port) + 1 for port in got})
        assert seen == [seen[0]] * times, f"not always the same: {seen}"
        return seen[0]

    def counted(self) -> dict[tuple[int, int], tuple[int, int]]:
        """(table, priority) -> (packets, bytes)."""
        return {(flow.table, flow.priority): (flow.packets, flow.bytes) for flow in self.switch.dump()}


@pytest.fixture(scope="module")
def bench(way: Way) -> Iterator[Bench]:
    with Lab() as lab:
        wires = lab.wires(N)
        switch = way.switch(lab.host)
        switch.bridge()
        switch.join(wires)
        yield Bench(switch, Exchanger(lab, wires), wires)


# Which flow wins -----------------------------------------------------------------------------------------------------


def test_the_highest_priority_wins_whatever_the_order_and_the_masks(bench: Bench) -> None:
    narrow = "priority=10,udp,nw_src=10.0.0.1,tp_dst=5001,actions=output:2"
    wide = "priority=20,ip,nw_src=10.0.0.0/8,actions=output:3"
    for order in ((narrow, wide), (wide, narrow)):
        bench.switch.flows(*order)
        assert bench.where(UDP) == {3}
    bench.switch.flows(narrow.replace("10,", "30,", 1), wide)
    assert bench.where(UDP) == {2}
    assert bench.where(TCP) == {3}


def test_priorities_from_0_to_65535_are_all_different(bench: Bench) -> None:
    for low, high in ((0, 1), (65534, 65535), (32767, 32768)):
        bench.switch.flows(f"priority={high},udp,actions=output:2", f"priority={low},actions=output:3")
        assert bench.where(UDP) == {2}
        assert bench.where(TCP) == {3}
    bench.switch.flows("udp,actions=output:2", "priority=32768,tcp,actions=output:3")
    assert [flow.priority for flow in bench.switch.dump()] == [32768, 32768]


def test_flows_of_equal_priority_that_do_not_overlap_live_side_by_side(bench: Bench) -> None:
    bench.switch.flows(
        *(f"priority=5,udp,tp_dst={5000 + n},actions=output:{2 + n % 3}" for n in range(30)),
        "priority=5,tcp,actions=output:4",
    )
    for n in range(30):
        assert bench.where(frames.udp(1, 2, dport=5000 + n), times=2) == {2 + n % 3}
    assert bench.where(TCP) == {4}


def test_the_same_match_at_several_priorities(bench: Bench) -> None:
    bench.switch.flows(*(f"priority={p},udp,tp_dst=5001,actions=output:{2 + p % 3}" for p in range(1, 13)))
    for p in range(12, 0, -1):
        assert bench.where(UDP, times=2) == {2 + p % 3}
        with bench.switch.inside() as instance:
            from pyoffload import flowtable

            flowtable.delete(instance, "br0", f"priority={p},udp,tp_dst=5001", strict=True)
    assert not bench.switch.dump()


def test_many_masks_in_one_table(bench: Bench) -> None:
    lines = [f"priority={100 + n},ip,nw_dst=10.0.0.0/{n},actions=output:{2 + n % 3}" for n in range(1, 31)]
    lines += [f"priority={200 + n},ipv6,ipv6_dst=fd00::/{n},actions=output:{2 + n % 3}" for n in range(1, 31)]
    bench.switch.flows(*lines, "priority=1,actions=output:4")
    assert bench.where(frames.udp(1, 2)) == {2 + 30 % 3}
    assert bench.where(frames.udp(1, 2, v6=True)) == {2 + 30 % 3}
    assert bench.where(frames.arp(1, 2)) == {4}
    changed = UDP[:30] + bytes([10, 64, 0, 1]) + UDP[34:]  # shares nine bits with 10.0.0.0
    assert bench.where(changed) == {2 + 9 % 3}


def test_an_empty_table_0_is_a_learning_switch(bench: Bench) -> None:
    bench.switch.flows()
    bench.switch.fdb_flush()
    assert bench.where(frames.udp(1, 2), times=1) == {2, 3, 4}
    bench.where(frames.udp(2, 1), sender=2, times=1)
    assert bench.where(frames.udp(1, 2)) == {2}
    assert set(bench.switch.macs().values()) == {"wire1", "wire2"}


def test_a_flow_added_to_an_empty_table_leaves_the_rest_to_the_switch(bench: Bench) -> None:
    bench.switch.flows()
    bench.switch.fdb_flush()
    bench.where(frames.udp(2, 1), sender=2, times=1)
    bench.switch.flow_add("priority=200,icmp,actions=drop")
    with bench.switch.dropping(bench.ports[0], flow=3):
        assert bench.where(PING) == set()
    assert bench.where(TCP) == {2}
    bench.switch.flow_del("icmp")
    assert bench.where(PING) == {2}


def test_what_no_flow_matches_is_dropped_and_counted(bench: Bench) -> None:
    bench.switch.flows("udp,actions=output:2", "table=3,actions=output:3")
    with bench.switch.dropping(bench.ports[0], table_miss=3):
        assert bench.where(TCP) == set()
    assert bench.where(UDP) == {2}


# Tables --------------------------------------------------------------------------------------------------------------


def test_goto_table_does_not_come_back_and_resubmit_does(bench: Bench) -> None:
    bench.switch.flows(
        "table=0,udp,actions=output:2,goto_table:5",
        "table=0,tcp,actions=resubmit(,5),output:2",
        "table=5,actions=output:3,goto_table:31",
        "table=31,actions=output:4",
    )
    assert bench.where(UDP) == {2, 3, 4}
    assert bench.where(TCP) == {2, 3, 4}


def test_what_a_resubmit_changed_stays_changed(bench: Bench) -> None:
    bench.switch.flows(
        "table=0,actions=set_field:7->reg1,resubmit(,1),output:2",
        "table=1,reg1=7,actions=mod_dl_dst:02:00:00:00:00:77,set_field:8->metadata,resubmit(,2),resubmit(,9),output:3",
        "table=2,metadata=8,reg1=7,actions=mod_dl_src:02:00:00:00:00:66",
    )
    wanted = bytes.fromhex("020000000077" + "020000000066") + UDP[12:]
    for _ in range(3):
        got = bench.exchange(bench.ports[0], UDP)
        assert got == {bench.ports[1]: [wanted], bench.ports[2]: [wanted]}


def test_a_miss_after_a_resubmit_is_no_drop_when_the_packet_goes_out(bench: Bench) -> None:
    bench.switch.flows("actions=resubmit(,7),output:2")
    with bench.switch.dropping(bench.ports[0]):
        assert bench.where(UDP) == {2}


def test_thirty_two_tables_in_a_row(bench: Bench) -> None:
    bench.switch.flows(
        *(f"table={n},actions=goto_table:{n + 1}" for n in range(31)), "table=31,actions=output:2"
    )
    assert bench.where(UDP) == {2}
    assert {packets for packets, _ in bench.counted().values()} == {3}


def test_resubmits_deeper_than_the_limit_are_dropped_with_their_reason(bench: Bench) -> None:
    bench.switch.flows(
        *(f"table={n},actions=resubmit(,{n + 1}),mod_vlan_vid:{n + 1}" for n in range(12)),
        "table=12,actions=output:2",
    )
    with bench.switch.dropping(bench.ports[0], resubmit_depth=3):
        assert bench.where(UDP) == set()


@pytest.mark.parametrize(
    "flows",
    [
        ["actions=resubmit(,0)"],
        ["actions=resubmit(,0),output:2"],
        ["actions=resubmit(,1),resubmit(,1),output:2", "table=1,actions=resubmit(,0),resubmit(,0)"],
        ["actions=" + ",".join(f"mod_vlan_vid:{n},output:{2 + n % 3}" for n in range(1, 25))],
    ],
    ids=["tail", "call", "tree", "copies"],
)
def test_tables_that_never_end_are_stopped_and_counted(bench: Bench, flows: list[str]) -> None:
    bench.switch.flows(*flows)
    before = sum(bench.switch.drops(bench.ports[0]).values())
    bench.exchange(bench.ports[0], UDP, UDP)
    assert sum(bench.switch.drops(bench.ports[0]).values()) == before + 2
    bench.switch.flows("actions=output:2")
    assert bench.where(UDP) == {2}


# Counters ------------------------------------------------------------------------------------------------------------


def test_counters_are_exactly_what_was_sent(bench: Bench) -> None:
    bench.switch.flows(
        "priority=9,udp,actions=resubmit(,1),resubmit(,1),output:2", "priority=8,tcp,actions=drop",
        "priority=7,actions=flood", "table=1,udp,actions=mod_dl_dst:02:00:00:00:00:99",
    )  # fmt: skip
    tagged, arp = bytes(frames.udp(1, 2, vlan=10)), bytes(frames.arp(1, 2))
    bench.exchange(bench.ports[0], *[UDP] * 50, *[tagged] * 30, *[TCP] * 20, *[arp] * 10)
    n_bytes = 50 * len(UDP) + 30 * len(tagged)
    assert bench.counted() == {
        (0, 9): (80, n_bytes),
        (0, 8): (20, 20 * len(TCP)),
        (0, 7): (10, 10 * len(arp)),
        (1, 32768): (160, 2 * n_bytes),
    }


def test_counters_add_up_when_several_cpus_send(bench: Bench) -> None:
    bench.switch.flows("priority=9,udp,actions=output:4", "priority=1,actions=drop")
    count = 4000

    def send(port: PacketPort, number: int) -> None:
        udp, tcp = bytes(frames.udp(number, 9)), bytes(frames.tcp(number, 9))
        for _ in range(count):
            port.send(udp)
            port.send(tcp)

    threads = [
        threading.Thread(target=send, args=(port, number)) for number, port in enumerate(bench.ports[:3], 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    collect([bench.ports[3]])  # until it is silent
    assert {key: packets for key, (packets, _) in bench.counted().items()} == {
        (0, 9): 3 * count,
        (0, 1): 3 * count,
    }


def test_a_flow_replaced_keeps_its_counters_and_one_added_again_begins_anew(bench: Bench) -> None:
    bench.switch.flows("priority=5,udp,actions=output:2", "priority=1,actions=drop")
    bench.where(UDP)
    bench.switch.flows("priority=5,udp,actions=output:2", "priority=4,tcp,actions=output:3")
    bench.where(UDP)
    assert bench.counted()[0, 5] == (6, 6 * len(UDP))
    bench.switch.flow_add("priority=5,udp,actions=output:3")
    assert bench.where(UDP, times=1) == {3}
    assert bench.counted()[0, 5] == (1, len(UDP))


# The next packet -----------------------------------------------------------------------------------------------------


def test_every_change_acts_on_the_very_next_packet(bench: Bench) -> None:
    from pyoffload import flowtable

    bench.switch.flows("priority=1,actions=output:2")
    for turn in range(8):
        assert bench.where(UDP) == {2}
        bench.switch.flow_add("priority=5,udp,actions=output:3")
        assert bench.where(UDP, times=1) == {3}, f"turn {turn}: add"
        assert bench.where(UDP) == {3}
        with bench.switch.inside() as instance:
            flowtable.modify(instance, "br0", "udp,actions=output:4")
        assert bench.where(UDP, times=1) == {4}, f"turn {turn}: mod"
        assert bench.where(UDP) == {4}
        bench.switch.flow_del("udp")
        assert bench.where(UDP, times=1) == {2}, f"turn {turn}: del"
        bench.switch.flows("priority=1,actions=output:3")
        assert bench.where(UDP, times=1) == {3}, f"turn {turn}: replace"
        bench.switch.flows("priority=1,actions=output:2")


def test_a_replaced_set_is_met_whole_or_not_at_all(bench: Bench) -> None:
    """While frames pour in, two rule sets change places; each set marks the frame in two tables and has its own port."""
    one, two = "02:00:00:00:aa:01", "02:00:00:00:aa:02"
    sets = [
        [
            f"table=0,priority=7,udp,actions=mod_dl_dst:{mac},goto_table:{table}",
            f"table={table},priority={prefix},ip,nw_dst=10.0.0.0/{prefix},actions=mod_dl_src:{mac},output:{port}",
            f"table={6 - table},actions=output:4",
        ]
        for mac, port, table, prefix in ((one, 2, 2, 24), (two, 3, 4, 16))
    ]
    bench.switch.flows(*sets[0])
    stop, sent = threading.Event(), Counter[str]()
    flood = [bytes(frames.udp(1, 2, sport=1000 + flow)) for flow in range(20)]

    def pump() -> None:
        while not stop.wait(0.001):
            for frame in flood:
                bench.ports[0].send(frame)
            sent["frames"] += len(flood)

    for port in bench.ports:
        port.flush()
    drops = bench.switch.drops(bench.ports[0])
    thread = threading.Thread(target=pump)
    thread.start()
    arrived: Counter[tuple[int, bytes]] = Counter()
    try:
        for turn in range(30):
            bench.switch.flows(*sets[(turn + 1) % 2])
            for number in (2, 3, 4):
                for frame in bench.ports[number - 1].pending(1000):
                    arrived[number, bytes(frame[:12])] += 1
    finally:
        stop.set()
        thread.join()
    for port, rest in collect(bench.ports).items():
        for frame in rest:
            arrived[bench.ports.index(port) + 1, bytes(frame[:12])] += 1
    assert sum(port.lost() for port in bench.ports[1:3]) == 0
    marks = {n: bytes.fromhex(mac.replace(":", "")) * 2 for n, mac in ((2, one), (3, two))}
    assert set(arrived) == {(2, marks[2]), (3, marks[3])}, "a packet met parts of both sets, or neither"
    assert sum(arrived.values()) == sent["frames"]
    assert bench.switch.drops(bench.ports[0]) == drops
    assert min(arrived.values()) >= len(flood)


# Ports ---------------------------------------------------------------------------------------------------------------


def test_in_port_as_a_match_and_as_an_action(bench: Bench) -> None:
    bench.switch.flows(
        "in_port=1,actions=output:2", "in_port=wire2,actions=in_port", "in_port=3,actions=output:3,output:4"
    )
    assert bench.where(UDP, 1) == {2}
    assert bench.where(UDP, 2) == {2}
    with bench.switch.dropping(bench.ports[2]):
        assert bench.where(UDP, 3) == {4}
    bench.switch.flows("in_port=3,actions=output:3")
    with bench.switch.dropping(bench.ports[2], same_port=3):
        assert bench.where(UDP, 3) == set()
    with bench.switch.dropping(bench.ports[3], table_miss=3):
        assert bench.where(UDP, 4) == set()


@pytest.mark.parametrize(
    ("flow", "frame", "reason"),
    [
        ("actions=drop", UDP, "flow"),
        ("actions=mod_nw_ttl:3", UDP, "flow"),
        ("actions=output:99", UDP, "no_such_port"),
        ("actions=output:1", UDP, "same_port"),
        ("tcp,actions=output:2", UDP, "table_miss"),
        ("actions=goto_table:3", UDP, "table_miss"),
        ("actions=dec_ttl,output:2", bytes(frames.udp(1, 2, ip={"ttl": 1})), "ttl"),
        ("actions=dec_ttl,output:2", bytes(frames.udp(1, 2, v6=True, ip={"hlim": 0})), "ttl"),
        ("actions=dec_ttl", bytes(frames.udp(1, 2, ip={"ttl": 1})), "ttl"),
        ("actions=push_vlan:0x8100,output:2", bytes(frames.udp(1, 2, vlan=1, outer=2)), "vlan_depth"),
    ],
)
def test_every_dropped_packet_has_its_reason(bench: Bench, flow: str, frame: bytes, reason: str) -> None:
    bench.switch.flows(flow)
    with bench.switch.dropping(bench.ports[0], **{reason: 4}):
        assert bench.where(frame, times=4) == set()


def test_a_ttl_at_its_end_is_noticed_behind_cached_packets(bench: Bench) -> None:
    alive, dead = (bytes(frames.udp(1, 2, ip={"ttl": ttl})) for ttl in (64, 1))
    for flow in ("actions=dec_ttl,output:2", "actions=dec_ttl,mod_nw_ttl:9,output:2", "actions=dec_ttl"):
        bench.switch.flows(flow)
        bench.exchange(bench.ports[0], alive, alive)
        with bench.switch.dropping(bench.ports[0], ttl=2):
            assert bench.exchange(bench.ports[0], dead, dead) == {}


def test_dec_ttl_ends_only_the_list_that_it_stands_in(bench: Bench) -> None:
    bench.switch.flows("actions=resubmit(,1),output:3", "table=1,actions=dec_ttl,output:2")
    assert bench.where(frames.udp(1, 2, ip={"ttl": 1})) == {3}


# From the command line -------------------------------------------------------------------------------------------------


def test_dropping_icmp_stops_ping_on_the_next_packet_and_tcp_goes_on(lab: Lab, cli: Cli) -> None:
    one, two = lab.guests(2)
    cli.ok("bridge", "add", "br0")
    for guest in (one, two):
        cli.ok("port", "add", "br0", guest.ifname)

    def ping() -> bool:
        return one.ns.run("ping", "-c1", "-W1", two.ip, check=False).returncode == 0

    def connect() -> None:
        with two.ns.socket() as server, one.ns.socket() as client:
            server.bind((two.ip, 0))
            server.listen()
            client.settimeout(5)
            client.connect(server.getsockname())

    assert ping()
    cli.ok("flow", "add", "br0", "priority=200,icmp,actions=drop")
    assert not ping()
    connect()
    (flow,) = cli.json("flow", "dump", "br0", "icmp")
    assert flow["packets"] == 1
    cli.ok("flow", "del", "br0", "icmp")
    assert ping()
