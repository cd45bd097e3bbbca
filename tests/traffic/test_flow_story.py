"""A flow stops ping on the next packet, everything else goes on, and the counters tell exactly what was sent."""

from __future__ import annotations

import pytest

from tests.support.cli import Cli
from tests.support.eventually import eventually
from tests.support.forked import ForkedCli
from tests.support.lab import Lab
from tests.support.traffic import TcpStream, no_ping, ping, pings, tcp_transfer

pytestmark = pytest.mark.traffic

ECHO = 98  # bytes of a frame with a ping of the usual size


def switch(lab: Lab, *, cache: bool, tc: str = "tcx", kind: type[Cli] = ForkedCli) -> Cli:
    cli = kind(lab.host, env={"PYOFFLOAD_TC": tc})
    cli.ok("up", *([] if cache else ["--no-cache"]))
    cli.ok("bridge", "add", "br0")
    return cli


def flow(cli: Cli) -> dict[str, object]:
    (found,) = cli.json("flow", "dump", "br0")
    return found


@pytest.mark.parametrize("cache", [True, False], ids=["cache", "no-cache"])
def test_the_story(own_lab, cache):
    cli = switch(own_lab, cache=cache, kind=Cli)
    one, two = own_lab.guests(2)
    for guest in (one, two):
        cli.ok("port", "add", "br0", guest.ifname)
    pings(one.ns, two.ip, count=5)
    with TcpStream(one.ns, two.ns, two.ip) as stream:
        stream.exchange()
        cli.ok("flow", "add", "br0", "priority=200,icmp,actions=drop")
        no_ping(one.ns, two.ip, count=7)
        stream.exchange()
        pings(one.ns, two.ip6)
        tcp_transfer(two.ns, one.ns, one.ip, megabytes=4)
        assert (flow(cli)["packets"], flow(cli)["bytes"]) == (7, 7 * ECHO)
        (stats,) = cli.json("stats", one.ifname)
        assert {name: count for name, count in stats["drops"].items() if count} == {"flow": 7}

        no_ping(two.ns, one.ip, count=3)
        assert (flow(cli)["packets"], flow(cli)["bytes"]) == (10, 10 * ECHO)
        dumped = cli.ok("flow", "dump", "br0").stdout
        assert " table=0, n_packets=10, n_bytes=980, " in dumped
        assert dumped.endswith("priority=200,icmp actions=drop\n")

        cli.ok("flow", "del", "br0", "icmp")
        pings(one.ns, two.ip, count=5)
        pings(two.ns, one.ip, count=5)
        stream.exchange()
    assert cli.ok("flow", "dump", "br0").stdout == ""


def test_the_very_next_packet_obeys(own_lab):
    """One ping between the return of each command and the next: none is late, ten times in a row."""
    cli = switch(own_lab, cache=True)
    one, two = own_lab.guests(2)
    for guest in (one, two):
        cli.ok("port", "add", "br0", guest.ifname)
    for _ in range(5):
        pings(one.ns, two.ip, count=3)
        cli.ok("flow", "add", "br0", "priority=200,icmp,actions=drop")
        no_ping(one.ns, two.ip, count=1)
        cli.ok("flow", "del", "br0", "icmp")
        pings(one.ns, two.ip, count=1)


@pytest.mark.parametrize("tc", ["tcx", "clsact"])
@pytest.mark.parametrize("cache", [True, False], ids=["cache", "no-cache"])
def test_every_packet_is_counted_once_by_flow_and_by_port(own_lab, cache, tc):
    """300 pings there and back by an explicit flow each way: sent, received, dropped add up to the last byte."""
    cli = switch(own_lab, cache=cache, tc=tc)
    one, two = own_lab.guests(2)
    for guest in (one, two):
        cli.ok("port", "add", "br0", guest.ifname)
        # Neighbours are known: nothing but pings is on the cables.
        other = two if guest is one else one
        guest.ns.ip(f"neigh replace {other.ip} lladdr {other.mac} dev eth0 nud permanent")
    cli.ok("flow", "add", "br0", f"table=0,priority=9,icmp,nw_src={one.ip},actions=output:{two.ifname}")
    cli.ok("flow", "add", "br0", f"table=0,priority=9,icmp,nw_src={two.ip},actions=goto_table:3")
    cli.ok("flow", "add", "br0", "table=3,priority=9,icmp,icmp_type=0,actions=output:1")
    cli.ok("flow", "add", "br0", "table=3,priority=8,icmp,icmp_type=8,actions=drop")

    def counted() -> dict[str, tuple[int, int]]:
        return {
            f"{found['table']} {found['match']}": (found["packets"], found["bytes"])
            for found in cli.json("flow", "dump", "br0")
        }

    def ports() -> list[int]:
        return [
            port[name]
            for port in cli.json("port", "list")
            for name in ("rx_packets", "rx_bytes", "tx_packets", "tx_bytes")
        ]

    before = ports()
    assert ping(one.ns, two.ip, count=300, interval_s=0).received == 300
    no_ping(two.ns, one.ip, count=40, interval_s=0)
    assert counted() == {
        f"0 icmp,nw_src={one.ip}": (300, 300 * ECHO),
        f"0 icmp,nw_src={two.ip}": (340, 340 * ECHO),
        "3 icmp,icmp_type=0": (300, 300 * ECHO),
        "3 icmp,icmp_type=8": (40, 40 * ECHO),
    }
    grown = [after - earlier for after, earlier in zip(ports(), before, strict=True)]
    assert grown == [300, 300 * ECHO, 300, 300 * ECHO, 340, 340 * ECHO, 300, 300 * ECHO]
    drops = {stats["ifname"]: stats["drops"] for stats in cli.json("stats")}
    assert {name: count for name, count in drops[two.ifname].items() if count} == {"flow": 40}
    assert not any(drops[one.ifname].values())


def test_a_timeout_acts_without_anybody(own_lab):
    cli = switch(own_lab, cache=True)
    one, two = own_lab.guests(2)
    for guest in (one, two):
        cli.ok("port", "add", "br0", guest.ifname)
    cli.ok("flow", "add", "br0", "priority=200,icmp,hard_timeout=1,actions=drop")
    no_ping(one.ns, two.ip, count=1)
    eventually(lambda: ping(one.ns, two.ip, count=1, wait_s=0.05).received, why="the flow has timed out")
    pings(one.ns, two.ip, count=20)
    assert cli.json("flow", "dump", "br0") == []


def test_no_process_of_ours_while_traffic_flows(own_lab):
    cli = switch(own_lab, cache=True, kind=Cli)
    one, two = own_lab.guests(2)
    for guest in (one, two):
        cli.ok("port", "add", "br0", guest.ifname)
    with TcpStream(one.ns, two.ns, two.ip) as stream:
        stream.exchange()
        assert own_lab.host.processes() == []
        running = own_lab.host.run("ps", "-eo", "args").stdout
        assert not [
            line for line in running.splitlines() if "pyoffload" in line and own_lab.host.name in line
        ]
        stream.exchange()
