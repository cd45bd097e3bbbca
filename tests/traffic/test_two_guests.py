"""Two guests on a bridge: everything they say to each other arrives, whatever the way through the kernel is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.support.cli import Cli
from tests.support.lab import Guest, Lab
from tests.support.traffic import broadcast, multicast, no_ping, pings, tcp_transfer, udp_echo

pytestmark = pytest.mark.traffic

UDP_SIZES = (0, 1, 18, 1472, 1473, 32000, 65507)


@dataclass(frozen=True, slots=True)
class Host:
    """A host with one bridge, two guests on veth and two behind taps on it."""

    cli: Cli
    cache: bool
    hook: str
    veth: list[Guest]
    tap: list[Guest]

    def pair(self, kind: str) -> tuple[Guest, Guest]:
        """Two guests of that kind; "mixed": one of each."""
        one, two = {"veth": self.veth, "tap": self.tap, "mixed": [self.veth[0], self.tap[0]]}[kind]
        return one, two

    @property
    def guests(self) -> list[Guest]:
        return self.veth + self.tap


WAYS = [(tc, cache) for tc in ("tcx", "clsact") for cache in (True, False)]


@pytest.fixture(
    scope="module", params=WAYS, ids=[f"{tc}-{'cache' if cache else 'no-cache'}" for tc, cache in WAYS]
)
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    tc, cache = request.param
    with Lab() as lab:
        cli = Cli(lab.host, env={"PYOFFLOAD_TC": tc})
        made = Host(cli, cache, "tcx" if tc == "tcx" else "tc", lab.guests(2), lab.tap_guests(2))
        no_ping(made.veth[0].ns, made.veth[1].ip, count=1)
        # Or the next pings wait for the answer to a question that was asked when nobody could hear it.
        made.veth[0].ns.ip("neigh flush dev eth0")
        cli.ok("up", *([] if cache else ["--no-cache"]))
        cli.ok("bridge", "add", "br0")
        for guest in made.guests:
            cli.ok("port", "add", "br0", guest.ifname)
        yield made


KINDS = pytest.mark.parametrize("kind", ["veth", "tap"])


def test_the_hook_and_the_cache_are_as_asked_for(host):
    assert {port["hook"] for port in host.cli.json("port", "list")} == {host.hook}
    pings(host.veth[0].ns, host.veth[1].ip)
    assert host.cli.json("status")["cache"] is host.cache
    assert bool(host.cli.json("flow", "cache", "list")) is host.cache


@pytest.mark.parametrize("kind", ["veth", "tap", "mixed"])
def test_ping_in_all_sizes_both_ways(host, kind):
    one, two = host.pair(kind)
    for ping_from, to in ((one, two), (two, one)):
        pings(ping_from.ns, to.ip)
        pings(ping_from.ns, to.ip, size=1472, fragment=False)
        pings(ping_from.ns, to.ip, size=65507)


@KINDS
def test_ipv6_with_neighbour_discovery(host, kind):
    one, two = host.pair(kind)
    one.ns.run("ip", "-6", "neigh", "flush", "dev", "eth0")
    pings(one.ns, two.ip6)
    assert two.mac in one.ns.run("ip", "-6", "neigh", "show", two.ip6).stdout
    pings(two.ns, one.ip6, size=65000)
    udp_echo(one.ns, two.ns, two.ip6, sizes=(0, 1, 1452, 1453, 65487))
    tcp_transfer(one.ns, two.ns, two.ip6, megabytes=4)


@pytest.mark.parametrize("kind", ["veth", "tap", "mixed"])
def test_64_megabytes_over_tcp_arrive_unchanged(host, kind):
    one, two = host.pair(kind)
    result = tcp_transfer(one.ns, two.ns, two.ip, megabytes=64)
    assert result.n_bytes == 64 << 20
    print(f"{host.hook} cache={host.cache} {kind}: {result.gbit_s:.1f} Gbit/s")


@KINDS
def test_udp_up_to_the_largest_datagram(host, kind):
    one, two = host.pair(kind)
    udp_echo(one.ns, two.ns, two.ip, sizes=UDP_SIZES)


@KINDS
def test_broadcast_and_multicast_reach_every_guest_once(host, kind):
    sender = host.pair(kind)[0]
    others = [guest.ns for guest in host.guests if guest is not sender]
    broadcast(sender.ns, others)
    multicast(sender.ns, others)
    multicast(sender.ns, others, v6=True)


def test_nothing_was_dropped_and_every_frame_was_counted(host):
    ports = {port["ifname"]: port for port in host.cli.json("port", "list")}
    assert set(ports) == {guest.ifname for guest in host.guests}
    for port in ports.values():
        assert not any(port["drops"].values()), port
        assert min(port["rx_packets"], port["tx_packets"]) > 0, port
    host.cli.ok("stats")
    assert host.cli.json("status")["drift"] == []


def test_jumbo_frames(jumbo_lab):
    cli = Cli(jumbo_lab.host)
    guests = [*jumbo_lab.guests(2), *jumbo_lab.tap_guests(1)]
    cli.ok("bridge", "add", "br0")
    for guest in guests:
        cli.ok("port", "add", "br0", guest.ifname)
    one = guests[0]
    for two in guests[1:]:
        pings(one.ns, two.ip, size=8972, fragment=False)
        pings(two.ns, one.ip6, size=8952, fragment=False)
        udp_echo(one.ns, two.ns, two.ip, sizes=(8972, 8973, 65507))
        tcp_transfer(one.ns, two.ns, two.ip, megabytes=64)
        tcp_transfer(two.ns, one.ns, one.ip, megabytes=8)
