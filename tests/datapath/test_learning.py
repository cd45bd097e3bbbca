"""The learning switch: which port a frame goes to, and what the MAC table holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.datapath.conftest import Way
from tests.support import frames
from tests.support.eventually import eventually
from tests.support.lab import Lab
from tests.support.ports import PacketPort
from tests.support.switch import Exchanger, Switch

pytestmark = pytest.mark.traffic

N = 5
MAC_A, MAC_B, MAC_C = (f"02:00:00:0a:00:0{i}" for i in (1, 2, 3))


@dataclass
class Bench:
    switch: Switch
    exchange: Exchanger
    ports: list[PacketPort]


@pytest.fixture(scope="module")
def made_lab(way: Way) -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def made(way: Way, made_lab: Lab) -> Bench:
    wires = made_lab.wires(N)
    switch = way.switch(made_lab.host)
    switch.bridge()
    switch.join(wires)
    return Bench(switch, Exchanger(made_lab, wires), wires)


@pytest.fixture
def bench(made: Bench) -> Iterator[Bench]:
    """The bench with nothing learned, and made as it was afterwards."""
    made.switch.fdb_flush()
    yield made
    made.switch.bridge_set(mac_age_s=300, mac_limit=8192, flood=True)
    for port in made.ports:
        made.switch.port_set(port, isolated=False)


def datagram(src: str, dst: str) -> bytes:
    return bytes(frames.udp(1, 2, eth_src=src, eth_dst=dst))


def goes_to(
    bench: Bench, sender: PacketPort, src: str, dst: str, *wanted: PacketPort, times: int = 1
) -> None:
    """Send one frame after the other; each comes out of exactly these ports, unchanged."""
    for _ in range(times):
        sent = datagram(src, dst)
        got = bench.exchange(sender, sent)
        assert set(got) == set(wanted), (
            f"{src} > {dst} from {sender} came out of {sorted(p.ifname for p in got)}"
        )
        for port, came in got.items():
            frames.same_list(came, [sent], where=repr(port))


def others(bench: Bench, sender: PacketPort) -> list[PacketPort]:
    return [port for port in bench.ports if port is not sender]


def test_an_unknown_address_is_flooded_until_it_has_spoken(bench: Bench) -> None:
    a, b, *_ = bench.ports
    goes_to(bench, a, MAC_A, MAC_B, *others(bench, a), times=3)
    goes_to(bench, b, MAC_B, MAC_A, a, times=3)
    goes_to(bench, a, MAC_A, MAC_B, b, times=3)
    assert bench.switch.macs() == {(MAC_A, 0): a.ifname, (MAC_B, 0): b.ifname}


@pytest.mark.parametrize(
    "dst", [frames.BROADCAST, frames.MULTICAST_MAC4, frames.MULTICAST_MAC6, "01:80:c2:00:00:10"]
)
def test_group_addresses_go_everywhere_but_back(bench: Bench, dst: str) -> None:
    for sender in bench.ports:
        goes_to(bench, sender, MAC_A, dst, *others(bench, sender), times=2)


@pytest.mark.parametrize("last", range(16))
def test_addresses_reserved_for_neighbours_are_not_forwarded(bench: Bench, last: int) -> None:
    a = bench.ports[0]
    with bench.switch.dropping(a, reserved_multicast=2):
        goes_to(bench, a, MAC_A, f"01:80:c2:00:00:{last:02x}", times=2)
    assert (MAC_A, 0) in bench.switch.macs()


@pytest.mark.parametrize(
    "src", [frames.BROADCAST, frames.MULTICAST_MAC4, "01:00:00:00:00:00", "00:00:00:00:00:00"]
)
def test_a_source_that_is_no_station_is_dropped_and_not_learned(bench: Bench, src: str) -> None:
    a = bench.ports[0]
    with bench.switch.dropping(a, source_mac=2):
        goes_to(bench, a, src, MAC_B, times=2)
    assert bench.switch.macs() == {}


def test_a_frame_never_goes_back_to_where_it_came_from(bench: Bench) -> None:
    a, b, *_ = bench.ports
    goes_to(bench, a, MAC_B, frames.BROADCAST, *others(bench, a))
    with bench.switch.dropping(a, same_port=3):
        goes_to(bench, a, MAC_A, MAC_B, times=3)
    with bench.switch.dropping(a, same_port=1):
        goes_to(bench, a, MAC_A, MAC_A)
    goes_to(bench, b, MAC_C, MAC_B, a)


def test_when_an_address_moves_the_very_next_packet_follows(bench: Bench) -> None:
    a, b, c, *_ = bench.ports
    before = bench.switch.counters()["mac_moved"]
    goes_to(bench, b, MAC_B, frames.BROADCAST, *others(bench, b))
    goes_to(bench, a, MAC_A, MAC_B, b, times=4)
    for round_, new in enumerate((c, b, c, b), 1):
        goes_to(bench, new, MAC_B, frames.BROADCAST, *others(bench, new))
        goes_to(bench, a, MAC_A, MAC_B, new, times=3)
        assert bench.switch.counters()["mac_moved"] == before + round_
        assert bench.switch.macs()[MAC_B, 0] == new.ifname


def test_an_address_moves_by_established_traffic_too(bench: Bench) -> None:
    a, b, c, *_ = bench.ports
    goes_to(bench, a, MAC_A, frames.BROADCAST, *others(bench, a))
    for source in (b, c, b, c):
        goes_to(bench, source, MAC_B, MAC_A, a, times=3)
        goes_to(bench, a, MAC_A, MAC_B, source, times=3)


def test_a_static_address_stays_where_it_is(bench: Bench) -> None:
    a, b, c, *_ = bench.ports
    bench.switch.fdb_add(MAC_B, b)
    goes_to(bench, a, MAC_A, MAC_B, b, times=3)
    goes_to(bench, c, MAC_B, frames.BROADCAST, *others(bench, c), times=2)
    goes_to(bench, a, MAC_A, MAC_B, b, times=3)
    assert bench.switch.fdb_flush() >= 1
    goes_to(bench, a, MAC_A, MAC_B, b)
    assert [entry.static for entry in bench.switch.fdb() if entry.mac == MAC_B] == [True]
    bench.switch.fdb_add(MAC_B, c, exist_ok=True)
    goes_to(bench, a, MAC_A, MAC_B, c, times=3)
    bench.switch.fdb_del(MAC_B)
    goes_to(bench, a, MAC_A, MAC_B, *others(bench, a), times=2)


def test_a_learned_address_gives_way_to_a_static_one(bench: Bench) -> None:
    a, b, c, *_ = bench.ports
    goes_to(bench, b, MAC_B, frames.BROADCAST, *others(bench, b))
    goes_to(bench, a, MAC_A, MAC_B, b, times=3)
    bench.switch.fdb_add(MAC_B, c)
    goes_to(bench, a, MAC_A, MAC_B, c, times=3)
    bench.switch.fdb_del(MAC_B)


def test_a_deleted_address_is_flooded_again(bench: Bench) -> None:
    a, b, *_ = bench.ports
    goes_to(bench, b, MAC_B, frames.BROADCAST, *others(bench, b))
    goes_to(bench, a, MAC_A, MAC_B, b, times=3)
    assert bench.switch.fdb_del(MAC_B) == 1
    goes_to(bench, a, MAC_A, MAC_B, *others(bench, a), times=2)


def test_a_flush_forgets_what_was_learned(bench: Bench) -> None:
    a, b, *_ = bench.ports
    goes_to(bench, b, MAC_B, frames.BROADCAST, *others(bench, b))
    goes_to(bench, a, MAC_A, MAC_B, b, times=3)
    assert bench.switch.fdb_flush() == 2
    assert bench.switch.macs() == {}
    goes_to(bench, a, MAC_A, MAC_B, *others(bench, a), times=2)
    goes_to(bench, b, MAC_B, MAC_A, a)


def test_an_address_that_is_silent_ages_and_is_flooded_again(bench: Bench) -> None:
    a, b, *_ = bench.ports
    bench.switch.bridge_set(mac_age_s=1)
    goes_to(bench, b, MAC_B, frames.BROADCAST, *others(bench, b))
    goes_to(bench, a, MAC_A, MAC_B, b, times=2)

    def is_flooded() -> bool:
        # The sender stays alive by this; the silent receiver does not, however busy the flow to it is.
        return set(bench.exchange(a, datagram(MAC_A, MAC_B))) == set(others(bench, a))

    eventually(is_flooded, within_s=4, every_s=0.1, why="the address has aged")
    assert list(bench.switch.macs()) == [(MAC_A, 0)]
    goes_to(bench, b, MAC_B, MAC_A, a)
    goes_to(bench, a, MAC_A, MAC_B, b)


def test_an_address_that_speaks_does_not_age(bench: Bench) -> None:
    a, b, *_ = bench.ports
    bench.switch.bridge_set(mac_age_s=1)
    goes_to(bench, b, MAC_B, frames.BROADCAST, *others(bench, b))
    rounds = 0

    def two_ages_have_passed() -> bool:
        nonlocal rounds
        rounds += 1
        goes_to(bench, a, MAC_A, MAC_B, b)
        goes_to(bench, b, MAC_B, MAC_A, a)
        return rounds > 22

    eventually(two_ages_have_passed, within_s=8, every_s=0.1, why="both spoke all the time")


def test_a_bridge_learns_no_more_than_its_limit(bench: Bench) -> None:
    a, b, *_ = bench.ports
    bench.switch.bridge_set(mac_limit=4)
    before = bench.switch.counters()["mac_limit_hit"]
    macs = [f"02:00:00:0b:00:{i:02x}" for i in range(7)]
    for mac in macs:
        goes_to(bench, a, mac, frames.BROADCAST, *others(bench, a))
    assert set(bench.switch.macs()) == {(mac, 0) for mac in macs[:4]}
    assert bench.switch.counters()["mac_limit_hit"] == before + 3
    for mac in macs[:4]:
        goes_to(bench, b, MAC_B, mac, a)
    for mac in macs[4:]:
        goes_to(bench, b, MAC_B, mac, *others(bench, b))
    bench.switch.fdb_flush()
    goes_to(bench, a, macs[6], frames.BROADCAST, *others(bench, a))
    assert list(bench.switch.macs()) == [(macs[6], 0)]


def test_a_full_table_still_lets_an_address_move(bench: Bench) -> None:
    _a, b, c, *_ = bench.ports
    bench.switch.bridge_set(mac_limit=1)
    goes_to(bench, b, MAC_B, frames.BROADCAST, *others(bench, b))
    goes_to(bench, c, MAC_B, frames.BROADCAST, *others(bench, c))
    assert bench.switch.macs() == {(MAC_B, 0): c.ifname}


def test_without_flooding_the_unknown_is_dropped_and_the_broadcast_is_not(bench: Bench) -> None:
    a, b, *_ = bench.ports
    goes_to(bench, b, MAC_B, frames.BROADCAST, *others(bench, b))
    bench.switch.bridge_set(flood=False)
    with bench.switch.dropping(a, unknown_unicast=3):
        goes_to(bench, a, MAC_A, MAC_C, times=3)
    goes_to(bench, a, MAC_A, MAC_B, b, times=2)
    goes_to(bench, a, MAC_A, frames.BROADCAST, *others(bench, a))
    goes_to(bench, bench.ports[2], MAC_C, MAC_A, a)
    goes_to(bench, a, MAC_A, MAC_C, bench.ports[2], times=2)
    bench.switch.bridge_set(flood=True)
    goes_to(bench, a, MAC_A, frames.MAC_UNKNOWN, *others(bench, a))


def test_isolated_ports_see_the_others_but_not_each_other(bench: Bench) -> None:
    a, b, c, *rest = bench.ports
    for port, mac in ((a, MAC_A), (b, MAC_B), (c, MAC_C)):
        goes_to(bench, port, mac, frames.BROADCAST, *others(bench, port))
    goes_to(bench, a, MAC_A, MAC_B, b, times=2)
    for port in (a, b):
        bench.switch.port_set(port, isolated=True)
    with bench.switch.dropping(a, isolated=3):
        goes_to(bench, a, MAC_A, MAC_B, times=3)
    goes_to(bench, a, MAC_A, frames.BROADCAST, c, *rest, times=2)
    goes_to(bench, a, MAC_A, frames.MAC_UNKNOWN, c, *rest, times=2)
    goes_to(bench, a, MAC_A, MAC_C, c, times=2)
    goes_to(bench, c, MAC_C, MAC_A, a, times=2)
    goes_to(bench, c, MAC_C, frames.BROADCAST, a, b, *rest)
    bench.switch.port_set(a, isolated=False)
    goes_to(bench, a, MAC_A, MAC_B, b, times=2)


def test_frames_of_any_kind_are_switched_unchanged(bench: Bench) -> None:
    a, b, *_ = bench.ports
    goes_to(bench, b, frames.mac(2), frames.BROADCAST, *others(bench, b))
    sent: list[Any] = []
    for seed in range(150):
        data = bytearray(frames.random_frame(seed, guests=2))
        data[0:12] = bytes.fromhex((frames.mac(2) + frames.mac(1)).replace(":", ""))
        sent.append(bytes(data))
    sent += [
        frames.fragments(frames.udp(1, 2, bytes(2000), v6=v6))[i] for v6 in (True, False) for i in (0, 1)
    ]
    tagged = [data for data in map(bytes, sent) if data[12:14] in (b"\x81\x00", b"\x88\xa8")]
    plain = [bytes(data) for data in sent if bytes(data) not in tagged]
    got = bench.exchange(a, *plain)
    assert list(got) == [b]
    frames.same_list(got[b], plain, where="at b")


def test_frames_shorter_than_their_headers_are_switched_by_their_addresses(bench: Bench) -> None:
    a, b, *_ = bench.ports
    goes_to(bench, b, frames.mac(2), frames.BROADCAST, *others(bench, b))
    for packet in (
        frames.tcp(1, 2),
        frames.udp(1, 2, v6=True),
        frames.arp(1, 2, op=2),
        frames.nd_advertise(1, 2),
    ):
        sent = list(frames.truncations(packet))
        got = bench.exchange(a, *sent)
        assert list(got) == [b]
        frames.same_list(got[b], sent, where="at b")


def test_two_bridges_do_not_see_each_other(bench: Bench) -> None:
    a, b, c, d, e = bench.ports
    bench.switch.bridge("br1")
    try:
        for port in (d, e):
            bench.switch.port_del(port)
        bench.switch.join([d, e], "br1")
        goes_to(bench, a, MAC_A, frames.BROADCAST, b, c)
        goes_to(bench, d, MAC_A, frames.BROADCAST, e)
        goes_to(bench, b, MAC_B, MAC_A, a, times=3)
        goes_to(bench, e, MAC_B, MAC_A, d, times=3)
        goes_to(bench, a, MAC_A, MAC_B, b, times=3)
        goes_to(bench, d, MAC_A, MAC_B, e, times=3)
        assert bench.switch.macs("br0") == {(MAC_A, 0): a.ifname, (MAC_B, 0): b.ifname}
        assert bench.switch.macs("br1") == {(MAC_A, 0): d.ifname, (MAC_B, 0): e.ifname}
        with bench.switch.dropping(d, same_port=1):
            goes_to(bench, d, MAC_C, MAC_A)
    finally:
        bench.switch.bridge_del("br1")
        bench.switch.join([d, e])
    goes_to(bench, d, MAC_C, MAC_A, a)


def test_addresses_of_a_port_that_leaves_are_flooded(bench: Bench) -> None:
    a, b, *_ = bench.ports
    goes_to(bench, b, MAC_B, frames.BROADCAST, *others(bench, b))
    goes_to(bench, a, MAC_A, MAC_B, b, times=3)
    bench.switch.port_del(b)
    goes_to(bench, a, MAC_A, MAC_B, *[port for port in others(bench, a) if port is not b], times=2)
    bench.switch.join([b])
    goes_to(bench, a, MAC_A, MAC_B, *others(bench, a), times=2)


def test_a_port_that_is_down_gets_nothing_and_the_others_go_on(bench: Bench) -> None:
    a, b, c, *rest = bench.ports
    goes_to(bench, b, MAC_B, frames.BROADCAST, *others(bench, b))
    goes_to(bench, a, MAC_A, MAC_B, b, times=2)
    host = bench.switch.host
    host.ip(f"link set {b.ifname} down")
    try:
        # Established traffic looks after its output once a tick (1.07 s).
        eventually(lambda: not bench.exchange(a, datagram(MAC_A, MAC_B)), every_s=0.1, why="the port is down")
        with bench.switch.dropping(a, port_down=3):
            goes_to(bench, a, MAC_A, MAC_B, times=3)
        with bench.switch.dropping(a):
            goes_to(bench, a, MAC_A, frames.BROADCAST, c, *rest, times=2)
        goes_to(bench, c, MAC_C, MAC_A, a, times=2)
    finally:
        host.ip(f"link set {b.ifname} up")
        host.wait_running([b.ifname])
        b.ns.wait_running([b.dev])
    goes_to(bench, a, MAC_A, MAC_B, b, times=2)


def test_what_is_for_a_port_whose_interface_is_gone_is_counted(bench: Bench, made_lab: Lab) -> None:
    from pyoffload import datapath

    a, *_ = bench.ports
    (tap,) = made_lab.taps(1)
    bench.switch.join([tap])
    try:
        bench.switch.fdb_add(MAC_B, tap)
        bench.exchange(a, datagram(MAC_A, MAC_B), datagram(MAC_A, MAC_B))
        assert tap.pending() == [datagram(MAC_A, MAC_B)] * 2
        tap.close()
        eventually(lambda: not bench.switch.host.has(tap.ifname))
        with bench.switch.inside() as instance:
            datapath.sync(instance)
        with bench.switch.dropping(a, port_absent=3):
            goes_to(bench, a, MAC_A, MAC_B, times=3)
        with bench.switch.dropping(a):
            goes_to(bench, a, MAC_A, frames.BROADCAST, *others(bench, a))
    finally:
        bench.switch.port_del(tap)
