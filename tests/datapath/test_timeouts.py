"""Timeouts act in the datapath itself: a flow that is over matches no packet, cached or not, and no process helps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.datapath.conftest import WAYS
from tests.support import frames
from tests.support.eventually import eventually
from tests.support.lab import Lab
from tests.support.ports import PacketPort
from tests.support.switch import Exchanger, Switch

pytestmark = pytest.mark.traffic

UDP = bytes(frames.udp(1, 2))
TCP = bytes(frames.tcp(1, 2))
CLOCK = 0.05  # the datapath's clock ticks every few milliseconds, and the machine may be busy


@dataclass
class Bench:
    switch: Switch
    exchange: Exchanger
    ports: list[PacketPort]

    def out(self, frame: bytes = UDP) -> int:
        """Number of the one port that the frame left by, 0 for none."""
        got = self.exchange(self.ports[0], frame)
        assert len(got) <= 1
        return self.ports.index(next(iter(got))) + 1 if got else 0

    def last_seconds(self, port: int, frame: bytes = UDP, most: float = 5.0) -> float:
        """Send again and again; seconds until the frame does not leave by that port any more, and never again."""
        began = time.monotonic()
        sent_last = began
        while time.monotonic() - began < most:
            before = time.monotonic()
            if self.out(frame) != port:
                assert self.out(frame) != port
                return before - began
            sent_last = before
        raise AssertionError(f"still alive after {sent_last - began:.1f} s")


@pytest.fixture(
    scope="module", params=WAYS[:2]
)  # the hook has no part in it, and time is what these tests take
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with Lab() as lab:
        wires = lab.wires(3)
        switch = request.param.switch(lab.host)
        switch.bridge()
        switch.join(wires)
        yield Bench(switch, Exchanger(lab, wires), wires)


def test_a_hard_timeout_ends_a_flow_under_traffic(bench: Bench) -> None:
    began = time.monotonic()
    bench.switch.flows("priority=9,udp,hard_timeout=1,actions=output:2", "priority=1,actions=output:3")
    added = time.monotonic()
    assert bench.out() == 2
    bench.last_seconds(2)
    now = time.monotonic()
    assert now - began >= 1, "it went too early"
    assert now - added <= 1 + 10 * CLOCK, "it went too late"
    assert bench.out() == 3
    assert [flow.priority for flow in bench.switch.dump()] == [1], "an expired flow is not shown"


def test_an_idle_timeout_ends_a_flow_that_nobody_uses(bench: Bench) -> None:
    bench.switch.flows("priority=9,udp,idle_timeout=1,actions=output:2", "priority=1,actions=output:3")
    assert bench.out() == 2
    used = time.monotonic()
    eventually(lambda: len(bench.switch.dump()) == 1, within_s=3, why="the idle flow is gone")
    assert time.monotonic() - used >= 1 - CLOCK
    assert bench.out() == 3
    assert bench.out(TCP) == 3


def test_an_idle_flow_lives_as_long_as_packets_hit_it_cached_ones_too(bench: Bench) -> None:
    bench.switch.flows("priority=9,udp,idle_timeout=1,actions=output:2", "priority=1,actions=output:3")
    began = time.monotonic()
    while time.monotonic() - began < 2.5:
        assert bench.out() == 2, f"gone after {time.monotonic() - began:.2f} s"
        bench.ports[2].sniff(1, 0.3)  # so long nothing is sent
    eventually(lambda: len(bench.switch.dump()) == 1, within_s=3, why="the idle flow is gone")
    assert bench.out() == 3


def test_a_flow_behind_an_expired_one_takes_over(bench: Bench) -> None:
    """Of equal match, so that they wait in one chain; and with more of them in other tables."""
    bench.switch.flows(
        "priority=9,udp,hard_timeout=1,actions=goto_table:1", "priority=8,udp,actions=output:3",
        "priority=8,tcp,actions=goto_table:1", "table=1,priority=5,hard_timeout=2,actions=output:2",
    )  # fmt: skip
    assert bench.out() == 2
    assert bench.out(TCP) == 2
    bench.last_seconds(2)
    assert bench.out() == 3
    assert bench.out(TCP) == 2, "the other timeout is not over yet"
    bench.last_seconds(2, TCP)
    with bench.switch.dropping(bench.ports[0], table_miss=1):
        assert bench.out(TCP) == 0


def test_the_time_counts_from_the_change_that_added_the_flow(bench: Bench) -> None:
    bench.switch.flows("priority=9,udp,hard_timeout=1,actions=output:2", "priority=1,actions=output:3")
    bench.last_seconds(2)
    bench.switch.flow_add("priority=9,udp,hard_timeout=1,actions=output:2")
    assert bench.out() == 2
    assert bench.last_seconds(2) > 0.5
    bench.switch.flow_add("priority=7,tcp,actions=output:2")
    assert [flow.priority for flow in bench.switch.dump()] == [7, 1], "the next change forgets it"


def test_a_flow_that_expires_while_others_refresh_the_same_packets(bench: Bench) -> None:
    """Two flows decide about one packet: the idle one in table 1 ends when the first leads elsewhere."""
    bench.switch.flows(
        "priority=1,actions=goto_table:1", "table=1,priority=9,udp,idle_timeout=1,actions=output:2",
        "table=1,priority=1,actions=output:3",
    )  # fmt: skip
    for _ in range(3):
        assert bench.out() == 2
    began = time.monotonic()
    while time.monotonic() - began < 1.2:
        assert bench.out(TCP) == 3
    assert bench.out() == 3


def test_replacing_by_the_same_file_brings_an_expired_flow_back(bench: Bench) -> None:
    flows = ["priority=9,udp,hard_timeout=1,actions=output:2", "priority=1,actions=output:3"]
    bench.switch.flows(*flows)
    bench.last_seconds(2)
    bench.switch.flows(*flows)
    assert bench.out() == 2
    assert {flow.priority: flow.packets for flow in bench.switch.dump()}[9] == 1
