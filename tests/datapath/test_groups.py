"""Groups: which buckets a packet meets, and that each works on a packet of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from pyoffload import groups
from tests.datapath.conftest import Way
from tests.support import frames
from tests.support.lab import Lab
from tests.support.ports import PacketPort
from tests.support.switch import Exchanger, Switch

pytestmark = pytest.mark.traffic

N = 5
UDP = bytes(frames.udp(1, 2))
MARK = "02:00:00:00:aa:0"


def marked(frame: bytes, dst: int | None = None, src: int | None = None) -> bytes:
    """The frame with one of the marks as its addresses."""
    made = bytearray(frame)
    if dst is not None:
        made[:6] = bytes([2, 0, 0, 0, 0xAA, dst])
    if src is not None:
        made[6:12] = bytes([2, 0, 0, 0, 0xAA, src])
    return bytes(made)


@dataclass
class Bench:
    switch: Switch
    exchange: Exchanger
    ports: list[PacketPort]

    def group(self, *texts: str) -> None:
        """The bridge's groups are these."""
        with self.switch.inside() as instance:
            groups.delete(instance, "br0", None)
            for text in texts:
                groups.add(instance, "br0", text)

    def out(self, sent: Any = UDP, sender: int = 1) -> dict[int, list[bytes]]:
        """Frames by number of the port they left by."""
        got = self.exchange(self.ports[sender - 1], sent)
        return {self.ports.index(port) + 1: [bytes(frame) for frame in came] for port, came in got.items()}

    def out_many(self, sent: list[bytes]) -> dict[int, list[bytes]]:
        """The same for several frames; sorted, because only those of one connection keep their order."""
        got = self.exchange(self.ports[0], *sent)
        return {
            self.ports.index(port) + 1: sorted(bytes(frame) for frame in came) for port, came in got.items()
        }

    def always(self, wanted: dict[int, list[bytes]], sent: Any = UDP) -> None:
        for turn in range(3):
            assert self.out(sent) == wanted, f"packet {turn + 1}"

    def info(self, number: int) -> Any:
        with self.switch.inside() as instance:
            return groups.show(instance, "br0", number)


@pytest.fixture(scope="module")
def bench(way: Way) -> Iterator[Bench]:
    with Lab() as lab:
        wires = lab.wires(N)
        switch = way.switch(lab.host)
        switch.bridge()
        switch.join(wires)
        yield Bench(switch, Exchanger(lab, wires), wires)


def test_a_group_of_type_all_gives_each_bucket_the_packet_as_it_came(bench: Bench) -> None:
    bench.group(
        f"group_id=1,type=all,bucket=actions=mod_dl_dst:{MARK}1,output:2,"
        f"bucket=actions=mod_dl_src:{MARK}2,output:3,bucket=actions=mod_vlan_vid:9,output:4"
    )
    bench.switch.flows("actions=group:1,output:5")
    tagged = UDP[:12] + b"\x81\0\0\x09" + UDP[12:]
    bench.always({2: [marked(UDP, dst=1)], 3: [marked(UDP, src=2)], 4: [tagged], 5: [UDP]})


def test_what_came_before_a_group_is_seen_in_it_and_nothing_of_it_after(bench: Bench) -> None:
    bench.group(f"group_id=1,type=indirect,bucket=actions=mod_dl_dst:{MARK}1,mod_tp_dst:7,output:2")
    bench.switch.flows(
        f"udp,actions=mod_dl_src:{MARK}3,group:1,output:3,goto_table:1",
        "table=1,udp,tp_dst=5001,actions=output:4",
    )
    changed = bytes(frames.udp(1, 2, dport=7))
    bench.always(
        {2: [marked(changed, 1, 3)], 3: [marked(UDP, src=3)], 4: [marked(UDP, src=3)]},
    )


def test_registers_set_in_a_bucket_are_gone_after_it(bench: Bench) -> None:
    bench.group(
        "group_id=1,type=all,bucket=actions=set_field:5->reg0,resubmit(,1),bucket=actions=resubmit(,1)"
    )
    bench.switch.flows(
        "actions=group:1,resubmit(,1)", "table=1,reg0=5,actions=output:2", "table=1,reg0=0,actions=output:3"
    )
    bench.always({2: [UDP], 3: [UDP, UDP]})


def test_groups_in_groups(bench: Bench) -> None:
    bench.group(
        "group_id=3,type=all,bucket=actions=output:3,bucket=actions=output:4",
        f"group_id=2,type=indirect,bucket=actions=mod_dl_dst:{MARK}2,group:3,output:5",
        "group_id=1,type=all,bucket=actions=group:2,bucket=actions=output:2",
    )
    bench.switch.flows("actions=group:1")
    bench.always({2: [UDP], 3: [marked(UDP, 2)], 4: [marked(UDP, 2)], 5: [marked(UDP, 2)]})


def test_a_group_without_buckets_is_a_drop(bench: Bench) -> None:
    bench.group("group_id=1,type=all", "group_id=2,type=select")
    bench.switch.flows("udp,actions=group:1", "tcp,actions=group:2")
    with bench.switch.dropping(bench.ports[0], flow=3):
        bench.always({})
    with bench.switch.dropping(bench.ports[0], no_live_bucket=3):
        bench.always({}, frames.tcp(1, 2))


def test_select_keeps_a_connection_in_its_bucket_and_shares_by_weight(bench: Bench) -> None:
    bench.group(
        "group_id=1,type=select,bucket=weight:1,actions=output:2,bucket=weight:3,actions=output:3,"
        "bucket=weight:0,actions=output:4"
    )
    bench.switch.flows("actions=group:1")
    connections = [
        bytes(frames.udp(1, 2, sport=1000 + n, dport=80 + n % 7, v6=bool(n % 2))) for n in range(800)
    ]
    first, second = bench.out_many(connections), bench.out_many(connections[::-1])
    chosen = {frame: port for port, came in first.items() for frame in came}
    assert len(chosen) == len(connections)
    assert chosen == {frame: port for port, came in second.items() for frame in came}, "a connection moved"
    shares = Counter(chosen.values())
    assert set(shares) == {2, 3}
    assert 0.18 < shares[2] / len(connections) < 0.32, f"weights 1 to 3 gave {shares}"


def test_select_looks_at_ports_even_where_no_flow_does(bench: Bench) -> None:
    bench.group("group_id=1,type=select,bucket=actions=output:2,bucket=actions=output:3")
    bench.switch.flows("actions=group:1")
    one_pair = [bytes(frames.tcp(1, 2, sport=sport)) for sport in range(2000, 2100)]
    shares = {port: len(came) for port, came in bench.out_many(one_pair).items()}
    assert min(shares.get(2, 0), shares.get(3, 0)) > 20


def test_select_keeps_what_is_no_ip_by_its_addresses(bench: Bench) -> None:
    bench.group("group_id=1,type=select,bucket=actions=output:2,bucket=actions=output:3")
    bench.switch.flows("actions=group:1")
    raw = [bytes(frames.eth(f"02:00:00:00:05:{n:02x}", 2, ethertype=0x88B5) / bytes(46)) for n in range(100)]
    first, second = bench.out_many(raw), bench.out_many(raw)
    assert first == second
    assert min(len(came) for came in first.values()) > 20
    assert set(first) == {2, 3}


def test_fast_failover_takes_the_first_bucket_that_is_alive(bench: Bench) -> None:
    bench.group(
        "group_id=1,type=ff,bucket=watch_port:2,actions=output:2,bucket=watch_port:wire3,actions=output:3,"
        f"bucket=watch_port:4,actions=mod_dl_dst:{MARK}1,output:4"
    )
    bench.switch.flows("actions=group:1")
    bench.always({2: [UDP]})
    two, three, four = bench.ports[1:4]
    two.ns.ip(f"link set {two.dev} down")  # the guest's end: no carrier
    try:
        assert bench.out() == {3: [UDP]}
        three.host.ip(f"link set {three.ifname} down")  # the port itself
        assert bench.out() == {4: [marked(UDP, 1)]}
        four.ns.ip(f"link set {four.dev} down")
        with bench.switch.dropping(bench.ports[0], no_live_bucket=1):
            assert bench.out() == {}
    finally:
        three.host.ip(f"link set {three.ifname} up")
        two.ns.ip(f"link set {two.dev} up", f"link set {four.dev} up")
        two.host.wait_running([port.ifname for port in (two, three, four)])
        two.ns.wait_running([port.dev for port in (two, three, four)])
    bench.always({2: [UDP]})


def test_fast_failover_watches_a_group(bench: Bench) -> None:
    bench.group(
        "group_id=2,type=ff,bucket=watch_port:2,actions=output:2",
        "group_id=1,type=ff,bucket=watch_group:2,actions=group:2,bucket=watch_port:3,actions=output:3",
    )
    bench.switch.flows("actions=group:1")
    bench.always({2: [UDP]})
    two = bench.ports[1]
    two.ns.ip(f"link set {two.dev} down")
    try:
        assert bench.out() == {3: [UDP]}
    finally:
        two.ns.ip(f"link set {two.dev} up")
        two.host.wait_running([two.ifname])
        two.ns.wait_running([two.dev])
    bench.always({2: [UDP]})


def test_a_group_modified_acts_on_the_very_next_packet(bench: Bench) -> None:
    bench.group("group_id=1,type=indirect,bucket=actions=output:2")
    bench.switch.flows("actions=group:1")
    for turn in range(10):
        bench.always({2 + turn % 3: [UDP]})
        with bench.switch.inside() as instance:
            groups.modify(
                instance, "br0", f"group_id=1,type=indirect,bucket=actions=output:{2 + (turn + 1) % 3}"
            )
    with bench.switch.inside() as instance:
        groups.delete(instance, "br0", 1)
    assert bench.switch.dump() == []


def test_groups_and_buckets_count_what_they_meet(bench: Bench) -> None:
    bench.group("group_id=1,type=all,bucket=actions=output:2,bucket=actions=output:3,output:4")
    bench.switch.flows("udp,actions=group:1")
    for _ in range(7):
        bench.out()
    bench.out(frames.tcp(1, 2))
    info = bench.info(1)
    assert (info.packets, info.bytes) == (7, 7 * len(UDP))
    assert [(bucket.packets, bucket.bytes) for bucket in info.buckets] == [(7, 7 * len(UDP))] * 2
