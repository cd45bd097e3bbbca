"""A full bridge: 256 ports, and every one gets exactly one copy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.datapath.conftest import Way
from tests.support import frames
from tests.support.lab import Lab
from tests.support.ports import TapPort
from tests.support.switch import Exchanger, Switch

pytestmark = pytest.mark.traffic

N = 256
OPTIONS: list[dict[str, Any]] = [{}, {"vlan": 10}, {"trunk": (10, 20)}, {"trunk": (20,), "native": 10}]


@dataclass
class Bench:
    switch: Switch
    exchange: Exchanger
    taps: list[TapPort]


@pytest.fixture(scope="module", params=[True, False], ids=["cache", "no-cache"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with Lab() as lab:
        taps = lab.taps(N)
        switch = Way(request.param, "tcx").switch(lab.host)
        switch.bridge()
        switch.join_at_once([(tap, OPTIONS[number % 4]) for number, tap in enumerate(taps)])
        yield Bench(switch, Exchanger(lab, taps), taps)


def copies(bench: Bench, sender: TapPort, sent: bytes) -> dict[str, list[bytes]]:
    return {
        port.ifname: [bytes(frame) for frame in came] for port, came in bench.exchange(sender, sent).items()
    }


def test_a_broadcast_reaches_all_ports_of_the_vlan_once(bench: Bench) -> None:
    untagged = bytes(frames.udp(1, 2, eth_dst=frames.BROADCAST))
    tagged = untagged[:12] + b"\x81\x00\x00\x0a" + untagged[12:]
    # transparent ports: VLAN 10 tagged; access and native: untagged; trunk: tagged
    forms = [tagged, untagged, tagged, untagged]
    for number in (0, 1, 2, 3, N - 1, N // 2 + 1):
        sent = forms[number % 4]
        wanted = {tap.ifname: [forms[i % 4]] for i, tap in enumerate(bench.taps) if i != number}
        assert copies(bench, bench.taps[number], sent) == wanted


def test_actions_flood_and_all_reach_all_ports_once(bench: Bench) -> None:
    sent = bytes(frames.udp(1, 2))
    try:
        for action in ("flood", "all"):
            bench.switch.flows(f"actions={action}")
            for number in (0, N - 1):
                wanted = {tap.ifname: [sent] for i, tap in enumerate(bench.taps) if i != number}
                assert copies(bench, bench.taps[number], sent) == wanted
    finally:
        bench.switch.flow_del()


def test_the_257th_port_is_refused(bench: Bench) -> None:
    from pyoffload.errors import OffloadError

    bench.switch.host.ip("link add name spare type veth peer name other")
    with pytest.raises(OffloadError, match="256"):
        bench.switch.join(["spare"])
    assert len(copies(bench, bench.taps[1], bytes(frames.udp(1, 2, eth_dst=frames.BROADCAST)))) == N - 1


def test_a_flood_goes_on_when_ports_have_left(bench: Bench) -> None:
    for tap in bench.taps[4:12]:
        bench.switch.port_del(tap)
    gone = {tap.ifname for tap in bench.taps[4:12]}
    got = copies(bench, bench.taps[1], bytes(frames.udp(1, 2, eth_dst=frames.BROADCAST)))
    assert set(got) == {tap.ifname for tap in bench.taps} - gone - {bench.taps[1].ifname}
    assert {len(came) for came in got.values()} == {1}
