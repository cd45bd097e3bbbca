"""Meters: how many packets or bits pass, shared by flows, on cached packets as on first ones, and every drop counted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from pyoffload import meters
from tests.datapath.conftest import Way
from tests.support import frames
from tests.support.lab import Lab
from tests.support.ports import PacketPort
from tests.support.switch import Exchanger, Switch

pytestmark = pytest.mark.traffic

UDP = bytes(frames.udp(1, 2))
TCP = bytes(frames.tcp(1, 2))
SLACK = 3  # what the clock may give beyond the burst while a batch is sent, besides what it says itself


@dataclass
class Bench:
    switch: Switch
    exchange: Exchanger
    ports: list[PacketPort]

    def meter(self, text: str) -> None:
        """The bridge's only meter, its bucket full."""
        with self.switch.inside() as instance:
            meters.delete(instance, "br0", None)
            meters.add(instance, "br0", text)

    def info(self, number: int = 1) -> Any:
        with self.switch.inside() as instance:
            return meters.show(instance, "br0", number)

    def passing(self, *sent: bytes) -> tuple[int, float]:
        """How many came out at port 2, and in how many seconds they were sent."""
        began = time.monotonic()
        got = self.exchange(self.ports[0], *sent)
        took = time.monotonic() - began
        assert set(got) <= {self.ports[1]}
        return sum(len(came) for came in got.values()), took


@pytest.fixture(scope="module")
def bench(way: Way) -> Iterator[Bench]:
    with Lab() as lab:
        wires = lab.wires(2)
        switch = way.switch(lab.host)
        switch.bridge()
        switch.join(wires)
        yield Bench(switch, Exchanger(lab, wires), wires)


def test_packets_beyond_the_burst_are_dropped_and_counted(bench: Bench) -> None:
    bench.meter("meter=1,pktps,burst,band=type=drop,rate=10,burst_size=20")
    bench.switch.flows("actions=meter:1,output:2")
    before = bench.switch.drops(bench.ports[0]).get("meter", 0)
    passed, took = bench.passing(*[UDP] * 200)
    assert 20 <= passed <= 20 + SLACK + took * 10
    info = bench.info()
    assert (info.dropped_packets, info.dropped_bytes) == (200 - passed, (200 - passed) * len(UDP))
    assert bench.switch.drops(bench.ports[0])["meter"] - before == 200 - passed
    (flow,) = bench.switch.dump()
    assert flow.packets == 200


def test_bits_beyond_the_burst_are_dropped_and_counted(bench: Bench) -> None:
    bench.meter(
        "meter=1,kbps,burst,band=type=drop,rate=80,burst_size=80"
    )  # 10,000 bytes, and as many a second
    bench.switch.flows("actions=meter:1,output:2")
    big = bytes(frames.udp(1, 2, bytes(958)))
    assert len(big) == 1000
    passed, took = bench.passing(*[big] * 100)
    assert 10 <= passed <= 10 + SLACK + took * 10
    assert bench.info().dropped_bytes == (100 - passed) * 1000


def test_the_bucket_fills_again_with_time(bench: Bench) -> None:
    bench.meter("meter=1,pktps,burst,band=type=drop,rate=1000,burst_size=50")
    bench.switch.flows("actions=meter:1,output:2")
    bench.passing(*[UDP] * 400)
    began = time.monotonic()
    passed, turns = 0, 0
    while time.monotonic() - began < 0.5:
        passed += bench.passing(UDP, UDP, UDP, UDP)[0]
        turns += 1
    took = time.monotonic() - began
    if turns * 4 > 1000 * took + 100:  # otherwise the machine was too slow to ask for more than the rate
        assert 0.8 * 1000 * took <= passed <= 1000 * took + 50 + SLACK
    assert passed <= 1000 * took + 50 + SLACK


def test_flows_share_a_meter(bench: Bench) -> None:
    bench.meter("meter=1,pktps,burst,band=type=drop,rate=1,burst_size=30")
    bench.switch.flows(
        "udp,actions=meter:1,output:2", "tcp,actions=meter:1,output:2", "priority=1,actions=output:2"
    )
    passed, took = bench.passing(*[UDP, TCP] * 50)
    assert 30 <= passed <= 30 + SLACK + took
    arp = bytes(frames.arp(1, 2))
    assert bench.passing(*[arp] * 50)[0] == 50


def test_a_meter_in_a_later_table_and_edits_behind_it(bench: Bench) -> None:
    bench.meter("meter=1,pktps,burst,band=type=drop,rate=1,burst_size=10")
    bench.switch.flows(
        "actions=goto_table:1", "table=1,actions=meter:1,mod_dl_src:02:00:00:00:00:55,output:2"
    )
    got = bench.exchange(bench.ports[0], *[UDP] * 40)
    came = got[bench.ports[1]]
    assert 10 <= len(came) <= 10 + SLACK
    assert {bytes(frame[6:12]) for frame in came} == {bytes.fromhex("020000000055")}


def test_a_meter_modified_or_deleted_acts_on_the_next_packet(bench: Bench) -> None:
    bench.meter("meter=1,pktps,burst,band=type=drop,rate=1,burst_size=1")
    bench.switch.flows("udp,actions=meter:1,output:2", "tcp,actions=output:2")
    assert bench.passing(*[UDP] * 20)[0] <= 1 + SLACK
    with bench.switch.inside() as instance:
        meters.modify(instance, "br0", "meter=1,pktps,burst,band=type=drop,rate=100000,burst_size=100000")
    assert bench.passing(*[UDP] * 50)[0] >= 49  # the one that the old rate still owes
    with bench.switch.inside() as instance:
        meters.delete(instance, "br0", 1)
    assert bench.passing(*[TCP] * 5)[0] == 5
    assert [flow.match for flow in bench.switch.dump()] == ["tcp"], "flows of a meter that is gone are gone"


def test_a_rate_that_is_not_reached_drops_nothing(bench: Bench) -> None:
    bench.meter("meter=1,kbps,band=type=drop,rate=10000000")
    bench.switch.flows("actions=meter:1,output:2")
    with bench.switch.dropping(bench.ports[0]):
        assert bench.passing(*[UDP] * 300)[0] == 300
    assert bench.info().dropped_packets == 0
