"""The counters add up: every frame that a guest sends is received by somebody, or is in one drop counter by its reason."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.datapath.conftest import Way
from tests.support import frames
from tests.support.lab import Lab
from tests.support.ports import PacketPort, TapPort
from tests.support.switch import Exchanger, Switch

pytestmark = pytest.mark.traffic

N_FRAMES = 150
FLOWS = (
    "table=0,priority=50,arp,actions=normal",
    "table=0,priority=45,dl_type=0x88b5,actions=drop",
    "table=0,priority=40,udp,tp_dst=53,actions=drop",
    "table=0,priority=40,udp,tp_dst=80,actions=dec_ttl,output:2",
    "table=0,priority=40,tcp,actions=resubmit(,3)",
    "table=0,priority=30,ip,nw_ttl=1,actions=output:77",
    "table=0,priority=20,ip,actions=goto_table:2",
    "table=0,priority=10,ipv6,actions=mod_dl_src:02:00:00:00:70:01,normal",
    "table=0,priority=1,actions=flood",
    "table=2,priority=5,icmp,actions=in_port,output:3",
    "table=2,priority=4,sctp,actions=push_vlan:0x8100,push_vlan:0x8100,output:1",
    "table=3,priority=5,tcp,tp_dst=22,actions=output:4",
    "table=3,priority=4,tcp,actions=normal",
)


@dataclass
class Bench:
    switch: Switch
    exchange: Exchanger
    ports: list[PacketPort | TapPort]


@pytest.fixture(scope="module")
def bench(way: Way) -> Iterator[Bench]:
    with Lab(mtu=1600) as lab:
        ports: list[PacketPort | TapPort] = [*lab.wires(3), *lab.taps(3)]
        switch = way.switch(lab.host)
        switch.bridge()
        for port, options in zip(
            ports,
            [{}, {}, {"vlan": 10}, {"trunk": "10,20"}, {"trunk": "20", "native": 10}, {"isolated": True}],
            strict=True,
        ):
            switch.join([port], **options)
        switch.port_set(ports[0], isolated=True)
        yield Bench(switch, Exchanger(lab, ports), ports)


@pytest.mark.parametrize("flows", [(), FLOWS], ids=["normal", "flows"])
@pytest.mark.parametrize("flood", [True, False], ids=["flood", "no-flood"])
def test_every_frame_is_received_or_in_one_drop_counter(
    bench: Bench, flood: bool, flows: tuple[str, ...]
) -> None:
    bench.switch.bridge_set(flood=flood)
    bench.switch.flow_del()
    if flows:
        bench.switch.flows(*flows)
    rng = random.Random(f"{flood} {len(flows)}")
    received: Counter[str] = Counter()
    before = {port.ifname: bench.switch.stats(port) for port in bench.ports}
    for sender in bench.ports:
        start = bench.switch.drops(sender)
        lost, sent_bytes = 0, 0
        for _ in range(N_FRAMES):
            # The kernel itself drops a tag that ends a frame, before any program.
            frame = frames.random_frame(rng, guests=8).ljust(24, b"\0")
            sent_bytes += len(frame)
            got = bench.exchange(sender, frame)
            lost += not got
            for port, came in got.items():
                received[port.ifname] += len(came)
        stats = bench.switch.stats(sender)
        # A frame that some port got may have lost its copy for another one besides: those are counted too.
        partly = sum(
            stats.drops.get(name, 0) - start.get(name, 0) for name in ("no_such_port", "ttl", "vlan_depth")
        )
        dropped = sum(stats.drops.values()) - sum(start.values())
        assert lost <= dropped <= lost + partly, f"{sender}: {lost} lost, {dropped} counted: {stats.drops}"
        assert stats.rx_packets - before[sender.ifname].rx_packets == N_FRAMES
        assert stats.rx_bytes - before[sender.ifname].rx_bytes == sent_bytes
        assert not {"internal", "edit_failed", "output_failed", "no_port", "bridge_down"} & set(stats.drops)
    for port in bench.ports:
        assert (
            bench.switch.stats(port).tx_packets - before[port.ifname].tx_packets == received[port.ifname]
        ), port
