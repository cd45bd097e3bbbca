"""VLANs: what every mode of port does to every state of tag, on the way in and on the way out, byte for byte.

The expectations come from a model of IEEE 802.1Q as the command's options have it, written down here anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.datapath.conftest import Way
from tests.support import frames
from tests.support.lab import Lab
from tests.support.ports import PacketPort
from tests.support.switch import Exchanger, Switch

pytestmark = pytest.mark.traffic

C_TAG, S_TAG = 0x8100, 0x88A8
Tag = tuple[int, int, int]  # tpid, vid, pcp

TAGGINGS: dict[str, tuple[Tag, ...]] = {
    "untagged": (),
    "priority tag": ((C_TAG, 0, 5),),
    "priority service tag": ((S_TAG, 0, 3),),
    "vlan 10": ((C_TAG, 10, 0),),
    "vlan 10 pcp 7": ((C_TAG, 10, 7),),
    "vlan 20": ((C_TAG, 20, 1),),
    "vlan 30": ((C_TAG, 30, 0),),
    "vlan 99": ((C_TAG, 99, 0),),
    "vlan 1": ((C_TAG, 1, 0),),
    "vlan 4094": ((C_TAG, 4094, 6),),
    "service vlan 10": ((S_TAG, 10, 2),),
    "service vlan 99": ((S_TAG, 99, 2),),
    "qinq 20 over 99": ((S_TAG, 20, 3), (C_TAG, 99, 1)),
    "qinq 99 over 10": ((S_TAG, 99, 3), (C_TAG, 10, 1)),
    "customer tags 10 over 20": ((C_TAG, 10, 4), (C_TAG, 20, 2)),
    "priority tag over 20": ((C_TAG, 0, 4), (C_TAG, 20, 2)),
    "three tags": ((S_TAG, 10, 1), (C_TAG, 20, 2), (C_TAG, 30, 3)),
}

MODES: dict[str, dict[str, Any]] = {
    "access10": {"vlan": 10},
    "access20": {"vlan": 20},
    "trunk": {"trunk": "10,20-29,4094"},
    "native30": {"trunk": "10,20-29", "native": 30},
    "native10": {"trunk": "10,20", "native": 10},
    "transparent": {},
}


@dataclass
class Bench:
    """One port of each mode, and one more that sends."""

    switch: Switch
    exchange: Exchanger
    port: dict[str, PacketPort]
    sender: PacketPort
    statics: set[tuple[str, int]] = field(default_factory=set)


@pytest.fixture(scope="module")
def bench(way: Way) -> Iterator[Bench]:
    with Lab() as lab:
        wires = lab.wires(len(MODES) + 1)
        switch = way.switch(lab.host)
        switch.bridge()
        port = dict(zip(MODES, wires[1:], strict=True))
        for mode, wire in port.items():
            switch.join([wire], **MODES[mode])
        switch.join(wires[:1])
        yield Bench(switch, Exchanger(lab, wires), port, wires[0])


def vlans(mode: str) -> tuple[set[int], int | None]:
    """VLANs that go tagged, and the one that goes untagged."""
    return {
        "access10": (set(), 10),
        "access20": (set(), 20),
        "trunk": ({10, *range(20, 30), 4094}, None),
        "native30": ({10, *range(20, 30)}, 30),
        "native10": ({20}, 10),
        "transparent": (set(range(1, 4095)), 0),
    }[mode]


def classify(mode: str, tags: tuple[Tag, ...]) -> int | None:
    """The VLAN of a frame that comes in; None: not allowed."""
    tagged, untagged = vlans(mode)
    vid = tags[0][1] if tags else 0
    if mode.startswith("access") and len(tags) > 1:
        return None  # with the first tag off, the second would choose a VLAN
    if not vid:
        return untagged
    if mode.startswith("access"):
        return None
    return vid if vid in tagged or vid == untagged else None


def leaves(mode: str, vlan: int, tags: tuple[Tag, ...]) -> tuple[Tag, ...] | None:
    """The tags with which a frame of that VLAN goes out; None: it does not."""
    tagged, untagged = vlans(mode)
    if vlan == untagged and mode.startswith("native") and len(tags) > 1:
        return None  # the next switch would take the second tag for the first
    if vlan == untagged:
        return tags if mode == "transparent" else tags[1:]
    if vlan not in tagged:
        return None
    if not tags:
        return ((C_TAG, vlan, 0),)
    tpid, _, pcp = tags[0]
    return ((tpid, vlan, pcp), *tags[1:])


def frame(dst: str, tags: tuple[Tag, ...], src: str = frames.mac(1)) -> bytes:
    plain = bytes(frames.udp(1, 2, b"the payload", eth_src=src, eth_dst=dst))
    inserted = b"".join(
        tpid.to_bytes(2, "big") + (pcp << 13 | vid).to_bytes(2, "big") for tpid, vid, pcp in tags
    )
    return plain[:12] + inserted + plain[12:]


CASES = [(mode, tagging) for mode in MODES for tagging in TAGGINGS]


def send_as(bench: Bench, mode: str) -> PacketPort:
    bench.switch.port_set(bench.sender, **{"vlan": None, "trunk": None, "native": None, **MODES[mode]})
    return bench.sender


@pytest.mark.parametrize("mode", MODES)
def test_a_broadcast_reaches_the_ports_of_its_vlan_with_the_tags_they_ask_for(
    bench: Bench, mode: str
) -> None:
    sender = send_as(bench, mode)
    for name, tags in TAGGINGS.items():
        vlan = classify(mode, tags)
        wanted = {}
        for other, port in bench.port.items():
            left = leaves(other, vlan, tags) if vlan is not None else None
            if left is not None:
                wanted[port] = [frame(frames.BROADCAST, left)]
        reasons = {} if vlan is not None else {"vlan_ingress": 1}
        with bench.switch.dropping(sender, **reasons):
            got = bench.exchange(sender, frame(frames.BROADCAST, tags))
        compare(bench, got, wanted, f"{name} into {mode}")


@pytest.mark.parametrize("mode", MODES)
def test_a_unicast_leaves_with_the_tags_that_its_port_asks_for(bench: Bench, mode: str) -> None:
    sender = send_as(bench, mode)
    for number, (other, port) in enumerate(bench.port.items(), 101):
        for name, tags in TAGGINGS.items():
            vlan = classify(mode, tags)
            if vlan is None:
                continue
            dst = frames.mac(number)
            if (dst, vlan) not in bench.statics:
                bench.switch.fdb_add(dst, port, vlan)
                bench.statics.add((dst, vlan))
            left = leaves(other, vlan, tags)
            # The first packet is decided, the later ones are remembered.
            n = 3
            with bench.switch.dropping(sender, **({"vlan_egress": n} if left is None else {})):
                got = bench.exchange(sender, *[frame(dst, tags)] * n)
            wanted = {} if left is None else {port: [frame(dst, left)] * n}
            compare(bench, got, wanted, f"{name} from {mode} to {other}")


def test_addresses_are_learned_in_the_vlan_of_the_port(bench: Bench) -> None:
    bench.switch.fdb_flush()
    for mode in MODES:
        sender = send_as(bench, mode)
        for tags in TAGGINGS.values():
            src = f"02:00:00:01:{list(MODES).index(mode):02x}:{list(TAGGINGS.values()).index(tags):02x}"
            bench.exchange(sender, frame(frames.BROADCAST, tags, src))
            learned = [vlan for mac, vlan in bench.switch.macs() if mac == src]
            vlan = classify(mode, tags)
            assert learned == ([] if vlan is None else [vlan]), f"{tags} into {mode}"


def test_one_address_lives_in_two_vlans_on_two_ports(bench: Bench) -> None:
    sender = send_as(bench, "trunk")
    bench.switch.fdb_flush()
    in10, in20 = bench.port["access10"], bench.port["access20"]
    twin = "02:00:00:02:00:01"
    bench.exchange(in10, frame(frames.BROADCAST, (), twin))
    bench.exchange(in20, frame(frames.BROADCAST, (), twin))
    for _ in range(3):
        got = bench.exchange(sender, frame(twin, ((C_TAG, 10, 0),)), frame(twin, ((C_TAG, 20, 0),)))
        compare(bench, got, {in10: [frame(twin, ())], in20: [frame(twin, ())]}, "to the twins")


def test_a_change_of_a_ports_vlan_holds_for_the_next_packet_of_an_established_flow(bench: Bench) -> None:
    sender = send_as(bench, "access10")
    target = bench.port["transparent"]
    bench.switch.fdb_flush()
    dst = "02:00:00:03:00:01"
    bench.switch.fdb_add(dst, target, 10)
    bench.switch.fdb_add(dst, target, 20)
    for vlan in (10, 20, 10):
        bench.switch.port_set(sender, vlan=vlan)
        got = bench.exchange(sender, *[frame(dst, ())] * 3)
        compare(bench, got, {target: [frame(dst, ((C_TAG, vlan, 0),))] * 3}, f"in VLAN {vlan}")
    for vlan in (10, 20):
        bench.switch.fdb_del(dst, vlan)


def compare(bench: Bench, got: dict[Any, list[Any]], wanted: dict[Any, list[bytes]], what: str) -> None:
    names = {port: mode for mode, port in bench.port.items()} | {bench.sender: "sender"}
    assert {names[port] for port in got} == {names[port] for port in wanted}, what
    for port, came in got.items():
        frames.same_list(came, wanted[port], where=f"{what}: at {names[port]}")
