"""Port `local`: the host's own stack on the bridge."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.datapath.conftest import Way
from tests.support import frames, traffic
from tests.support.eventually import eventually
from tests.support.lab import Guest, Lab
from tests.support.ports import PacketPort
from tests.support.switch import Switch

pytestmark = pytest.mark.traffic

HOST4, HOST6 = "10.0.0.200", "fd00::c8"


@dataclass
class Bench:
    lab: Lab
    switch: Switch
    guests: list[Guest]
    wire: PacketPort


@pytest.fixture(scope="module")
def bench(way: Way) -> Iterator[Bench]:
    with Lab() as lab:
        guests = [*lab.guests(1), *lab.tap_guests(1)]
        (wire,) = lab.wires(1)
        switch = way.switch(lab.host)
        switch.bridge()
        switch.join([*guests, wire])
        lab.host.ip("link set br0 up", f"addr add {HOST4}/24 dev br0", f"addr add {HOST6}/64 dev br0 nodad")
        lab.host.wait_running(["br0"])
        yield Bench(lab, switch, guests, wire)


def test_ping_both_ways(bench: Bench) -> None:
    for guest in bench.guests:
        for there, back in ((HOST4, guest.ip), (HOST6, guest.ip6)):
            traffic.pings(guest.ns, there)
            traffic.pings(bench.lab.host, back)


def test_tcp_both_ways(bench: Bench) -> None:
    host = bench.lab.host
    for guest in bench.guests:
        traffic.tcp_transfer(guest.ns, host, HOST4, megabytes=8)
        traffic.tcp_transfer(host, guest.ns, guest.ip, megabytes=8)
        traffic.tcp_transfer(guest.ns, host, HOST6, megabytes=2)
        traffic.tcp_transfer(host, guest.ns, guest.ip6, megabytes=2)


def test_datagrams_of_every_size(bench: Bench) -> None:
    for guest in bench.guests:
        traffic.udp_echo(guest.ns, bench.lab.host, HOST4)


def test_the_hosts_address_is_learned_behind_the_bridges_name(bench: Bench) -> None:
    traffic.pings(bench.guests[0].ns, HOST4)
    mac = bench.lab.host.ip_json("link", "show", "br0")[0]["address"]
    assert bench.switch.macs()[mac, 0] == "br0"


def test_the_host_hears_broadcasts_and_speaks_them(bench: Bench) -> None:
    host = bench.lab.host
    hears = host.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with contextlib.closing(hears):
        hears.setblocking(False)
        hears.bind(("", 0))
        port = hears.getsockname()[1]
        hello = frames.udp(9, 9, b"hello", dport=port, eth_dst=frames.BROADCAST)
        hello["IP"].dst = "10.0.0.255"
        bench.wire.send(hello)
        assert eventually(lambda: _receive(hears)) == b"hello"
    says = host.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with contextlib.closing(says):
        says.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        bench.wire.flush()
        says.sendto(b"to all", ("10.0.0.255", 4000))
        came = eventually(lambda: [f for f in bench.wire.pending() if f.endswith(b"to all")])
        assert len(came) == 1


def test_action_local_and_output_local_reach_the_host(bench: Bench) -> None:
    hears = bench.lab.host.socket(socket.AF_INET, socket.SOCK_DGRAM)
    mac = bench.lab.host.ip_json("link", "show", "br0")[0]["address"]
    with contextlib.closing(hears):
        hears.setblocking(False)
        hears.bind((HOST4, 0))
        port = hears.getsockname()[1]
        try:
            for action in ("local", "output:local", "output:LOCAL", "output:br0", "output:65534"):
                bench.switch.flows(
                    f"in_port={bench.wire.ifname},actions=mod_dl_dst:{mac},{action}",
                    "priority=1,actions=normal",
                )
                data = action.encode()
                for _ in range(3):
                    bench.wire.send(frames.udp(9, 200, data, dport=port, eth_dst=frames.MAC_UNKNOWN))
                    assert eventually(lambda: _receive(hears)) == data
        finally:
            bench.switch.flow_del()


def test_in_port_local_matches_what_the_host_sends(bench: Bench) -> None:
    try:
        bench.switch.flow_add("priority=50,in_port=local,icmp,actions=drop")
        traffic.no_ping(bench.lab.host, bench.guests[0].ip)
        bench.switch.flow_del("in_port=local")
        traffic.pings(bench.lab.host, bench.guests[0].ip)
    finally:
        bench.switch.flow_del()


def test_a_host_that_does_not_listen_costs_no_drop_counters(bench: Bench) -> None:
    bench.lab.host.ip("link set br0 down")
    try:
        with bench.switch.dropping(bench.wire):
            for _ in range(3):
                bench.wire.send(frames.udp(9, 9, eth_dst=frames.BROADCAST))
    finally:
        bench.lab.host.ip("link set br0 up", f"addr replace {HOST6}/64 dev br0 nodad")
        bench.lab.host.wait_running(["br0"])
    traffic.pings(bench.guests[0].ns, HOST4)


def _receive(sock: socket.socket) -> bytes | None:
    try:
        return sock.recv(2000)
    except BlockingIOError:
        return None
