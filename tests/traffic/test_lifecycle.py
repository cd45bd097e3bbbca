"""up, down, upgrade, sync, status: seen from the traffic, and from the host that must be as it was found."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from typing import Self

import pytest

from tests.support.cli import Cli
from tests.support.eventually import eventually
from tests.support.forked import ForkedCli
from tests.support.hoststate import assert_unchanged, host_state, state_difference
from tests.support.lab import Guest, Lab
from tests.support.netns import Netns
from tests.support.traffic import TcpStream, no_ping, ping, pings

pytestmark = pytest.mark.traffic


def switch(lab: Lab, guests: list[Guest], **env: str) -> Cli:
    cli = Cli(lab.host, env=env)
    cli.ok("bridge", "add", "br0")
    for guest in guests:
        cli.ok("port", "add", "br0", guest.ifname)
    return cli


def instance_files(ns: Netns) -> list[str]:
    bases = ("/run/pyoffload", "/run/pyoffload/bpf", "/var/lib/pyoffload")
    return [f"{base}/{ns.name}" for base in bases if os.path.exists(f"{base}/{ns.name}")]


class Paced:
    """Numbered datagrams from one guest to another, evenly spread over time: what is lost is seen exactly."""

    def __init__(self, sender: Guest, receiver: Guest, every_s: float = 0.001) -> None:
        self._far = receiver.ns.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._far.bind((receiver.ip, 0))
        self._far.settimeout(0.2)
        self._near = sender.ns.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._near.connect(self._far.getsockname())
        self._every_s = every_s
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=call, daemon=True) for call in (self._send, self._receive)]
        self.sent = 0
        self.received: list[int] = []

    def _send(self) -> None:
        while not self._stop.wait(self._every_s):
            self._near.send(self.sent.to_bytes(8, "big"))
            self.sent += 1

    def _receive(self) -> None:
        # Read all the time: what waits in a full socket buffer would be lost there, not on the way.
        while True:
            stopped = self._stop.is_set()
            try:
                self.received.append(int.from_bytes(self._far.recv(100), "big"))
            except TimeoutError:
                if stopped:
                    return

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        """Stop sending, and wait until nothing comes any more."""
        self._stop.set()
        for thread in self._threads:
            thread.join(10)
        self._near.close()
        self._far.close()


# ---- up and down


@pytest.mark.parametrize("tc", ["tcx", "clsact"])
def test_down_restores_the_host_and_up_the_configuration(own_lab, tc):
    guests = [*own_lab.guests(2), *own_lab.tap_guests(1)]
    one, two, three = guests
    # Somebody uses the qdisc that our filter would sit on.
    own_lab.host.run("tc", "qdisc", "add", "dev", one.ifname, "clsact")
    before = host_state(own_lab.host)
    cli = switch(own_lab, guests[:1], PYOFFLOAD_TC=tc)
    cli.ok("port", "add", "br0", two.ifname, "--hook", "xdp")
    cli.ok("port", "add", "br0", three.ifname)
    cli.ok("flow", "add", "br0", "priority=9,ip,nw_tos=0x20,actions=drop")
    cli.ok("meter", "add", "br0", "meter=3,kbps,band=type=drop,rate=1000")
    cli.ok("group", "add", "br0", "group_id=3,type=all,bucket=output:1,bucket=output:2")
    cli.ok("fdb", "add", "br0", "02:00:00:00:00:99", one.ifname)
    pings(one.ns, two.ip)
    pings(one.ns, three.ip)
    ports = [(p["ifname"], p["ofport"], p["hook"]) for p in cli.json("port", "list")]
    dumps = configured(cli)

    running = host_state(own_lab.host)
    for _ in range(2):
        again = cli.json("up")
        assert (again["already_up"], again["ports_attached"]) == (True, [])
    assert state_difference(running, host_state(own_lab.host)) == []

    cli.ok("down")
    assert_unchanged(before, own_lab.host)
    no_ping(one.ns, two.ip, count=1)
    assert instance_files(own_lab.host) == [f"/var/lib/pyoffload/{own_lab.host.name}"]
    cli.ok("down")
    assert cli.json("status")["up"] is False

    cli.ok("up")
    pings(one.ns, two.ip)
    pings(one.ns, three.ip)
    assert [(p["ifname"], p["ofport"], p["hook"]) for p in cli.json("port", "list")] == ports
    assert configured(cli) == dumps
    assert cli.json("status")["drift"] == []
    cli.ok("down", "--purge")
    assert_unchanged(before, own_lab.host)
    assert instance_files(own_lab.host) == []
    cli.ok("down", "--purge")
    assert cli.json("bridge", "list") == []


def configured(cli: Cli) -> list[object]:
    """Flows, groups, meters and static addresses, without what changes with time."""
    return [
        cli.ok("flow", "dump", "br0", "--no-stats").stdout,
        [line for line in cli.ok("group", "list", "br0").stdout.splitlines() if "duration" not in line],
        [line for line in cli.ok("meter", "list", "br0").stdout.splitlines() if "duration" not in line],
        [entry for entry in cli.json("fdb", "list", "br0") if entry["static"]],
    ]


def test_up_after_a_reboot_restores_everything(own_lab):
    """A reboot leaves the configuration and nothing else: no pins, no programs, no links of ours."""
    guests = own_lab.guests(2)
    one, two = guests
    cli = switch(own_lab, guests)
    cli.ok("flow", "add", "br0", "priority=9,ip,nw_tos=0x20,actions=drop")
    pings(one.ns, two.ip)
    flows = cli.ok("flow", "dump", "br0", "--no-stats").stdout
    saved = f"/var/lib/pyoffload/{own_lab.host.name}"
    shutil.copytree(saved, f"{saved}.kept")
    try:
        cli.ok("down", "--purge")
        shutil.copytree(f"{saved}.kept", saved)
    finally:
        shutil.rmtree(f"{saved}.kept")
    no_ping(one.ns, two.ip, count=1)
    done = cli.json("up")
    assert sorted(done["ports_attached"]) == [one.ifname, two.ifname]
    pings(one.ns, two.ip)
    assert cli.ok("flow", "dump", "br0", "--no-stats").stdout == flows
    assert cli.json("status")["drift"] == []


def test_pins_that_vanish_are_made_again(own_lab):
    guests = own_lab.guests(2)
    one, two = guests
    cli = switch(own_lab, guests)
    cli.ok("flow", "add", "br0", "priority=9,icmp6,actions=drop")
    for base in ("/run/pyoffload/bpf", "/run/pyoffload"):
        shutil.rmtree(f"{base}/{own_lab.host.name}")
    assert cli.json("status")["up"] is False
    cli.ok("up")
    pings(one.ns, two.ip)
    no_ping(one.ns, two.ip6, count=1)
    assert cli.json("status")["drift"] == []
    cli.ok("down")
    assert not own_lab.host.has("br0")


# ---- under traffic


@pytest.mark.parametrize("tc", ["tcx", "clsact"])
def test_upgrades_lose_no_packet_and_no_session(own_lab, tc):
    guests = own_lab.guests(4)
    one, two, three, four = guests
    cli = switch(own_lab, guests[:2], PYOFFLOAD_TC=tc)
    for guest in (three, four):
        cli.ok("port", "add", "br0", guest.ifname, "--hook", "xdp")
    cli.ok("flow", "add", "br0", "priority=9,udp,actions=normal")
    pings(one.ns, two.ip)
    pings(three.ns, four.ip)
    learned = cli.json("fdb", "list", "br0")
    with TcpStream(one.ns, two.ns, two.ip) as stream, Paced(one, two) as by_tc, Paced(three, four) as by_xdp:
        for _ in range(5):
            cli.ok("upgrade")
            stream.exchange()
            assert cli.json("status")["drift"] == []
    for paced in (by_tc, by_xdp):
        assert paced.sent > 200
        assert paced.received == list(range(paced.sent))
    (flow,) = cli.json("flow", "dump", "br0")
    assert flow["packets"] == by_tc.sent + by_xdp.sent
    assert {entry["mac"] for entry in learned} <= {entry["mac"] for entry in cli.json("fdb", "list", "br0")}


def test_other_peoples_changes_lose_no_packet(own_lab, tmp_path):
    """Flows, ports, groups and bridges come and go beside two guests that talk all the time."""
    guests = own_lab.guests(4)
    one, two, three, four = guests
    cli = switch(own_lab, guests[:2])
    file = tmp_path / "flows.txt"
    with TcpStream(one.ns, two.ns, two.ip) as stream, Paced(one, two) as paced:
        for number in range(2):
            cli.ok("port", "add", "br0", three.ifname)
            cli.ok("port", "set", three.ifname, "--vlan", "7")
            cli.ok("flow", "add", "br0", f"priority=5,tcp,tp_dst={number + 1},actions=drop")
            file.write_text(f"priority=1,actions=normal\npriority=3,tcp,tp_src={number + 1},actions=drop\n")
            cli.ok("flow", "replace", "br0", file)
            cli.ok("bridge", "add", "br1")
            cli.ok("port", "add", "br1", four.ifname, "--hook", "xdp")
            cli.ok("fdb", "flush", "br0")
            cli.ok("up")
            cli.ok("bridge", "del", "br1")
            cli.ok("port", "del", three.ifname)
            stream.exchange()
    assert paced.received == list(range(paced.sent))
    assert paced.sent > 200


# ---- interfaces that come and go


@pytest.mark.parametrize("how", ["sync", "up", "port add", "another change"])
@pytest.mark.parametrize("hook", ["tc", "xdp"])
def test_an_interface_that_comes_back_is_attached_again(lab, hook, how):
    one, two = lab.guests(2)
    bridge = f"b{one.number}"
    cli = ForkedCli(lab.host)
    cli.ok("bridge", "add", bridge)
    cli.ok("port", "add", bridge, one.ifname)
    cli.ok("port", "add", bridge, two.ifname, "--hook", hook)
    try:
        ofport = cli.json("port", "show", two.ifname)["ofport"]
        pings(one.ns, two.ip)
        lab.host.ip(f"link del {two.ifname}")
        gone = cli.json("port", "show", two.ifname)
        assert (gone["hook"], gone["ifindex"]) == ("absent", None)
        assert cli.run("status").code == 0
        two.replug()
        assert any(two.ifname in text for text in cli.json("status")["drift"])
        no_ping(one.ns, two.ip, count=1)
        match how:
            case "port add":
                cli.ok("port", "add", bridge, two.ifname, "--hook", hook)
            case "another change":
                cli.ok("flow", "add", bridge, "priority=2,icmp6,actions=normal")
            case _:
                cli.ok(how)
        pings(one.ns, two.ip)
        back = cli.json("port", "show", two.ifname)
        assert (back["ofport"], back["ifindex"]) == (ofport, lab.host.ifindex(two.ifname))
        assert back["hook"] == ("xdp native" if hook == "xdp" else "tcx")
        assert cli.json("status")["drift"] == []
    finally:
        cli.ok("bridge", "del", bridge)


def test_status_tells_what_somebody_else_took_away(lab):
    one, two = lab.guests(2)
    bridge = f"b{one.number}"
    cli = Cli(lab.host, env={"PYOFFLOAD_TC": "clsact"})
    cli.ok("bridge", "add", bridge)
    for guest in (one, two):
        cli.ok("port", "add", bridge, guest.ifname)
    try:
        lab.host.run("tc", "qdisc", "del", "dev", two.ifname, "clsact")
        told = cli.ok("status")
        assert two.ifname in told.stderr
        (text,) = cli.json("status")["drift"]
        assert two.ifname in text
        cli.ok("sync")
        assert cli.json("status")["drift"] == []
        pings(one.ns, two.ip)
    finally:
        cli.ok("bridge", "del", bridge)


# ---- hosts


def test_two_namespaces_are_two_hosts(own_lab):
    other_host = own_lab.add_host()
    here, there = own_lab.guests(2), own_lab.guests(2, host=other_host)
    cli = switch(own_lab, here)
    other = Cli(other_host)
    other.ok("bridge", "add", "br0")
    for guest in there:
        other.ok("port", "add", "br0", guest.ifname)
    for one, two in (here, there):
        pings(one.ns, two.ip)
    cli.ok("flow", "add", "br0", "priority=200,icmp,actions=drop")
    no_ping(here[0].ns, here[1].ip, count=1)
    pings(there[0].ns, there[1].ip)
    assert other.json("flow", "dump", "br0") == []
    assert {port["ifname"] for port in other.json("port", "list")} == {guest.ifname for guest in there}
    cli.ok("down", "--purge")
    pings(there[0].ns, there[1].ip)
    assert other.json("status")["drift"] == []
    assert instance_files(own_lab.host) == []


@pytest.mark.parametrize("enter", ["flag", "ip", "nsenter"])
def test_every_way_into_a_namespace_leads_to_the_same_host(own_lab, enter):
    """Set up by one way, read by all, taken down by another."""
    guests = own_lab.guests(2)
    one, two = guests
    ways = {way: Cli(own_lab.host, enter=way) for way in ("flag", "ip", "nsenter")}
    cli = ways[enter]
    cli.ok("bridge", "add", "br0")
    for guest in guests:
        cli.ok("port", "add", "br0", guest.ifname)
    pings(one.ns, two.ip)
    for way, reader in ways.items():
        found = reader.json("status")
        assert (found["up"], found["instance"], found["drift"]) == (True, own_lab.host.name, []), way
        assert len(reader.json("fdb", "list", "br0")) == 2
    last = ways["ip" if enter != "ip" else "flag"]
    last.ok("flow", "add", "br0", "priority=9,icmp,actions=drop")
    no_ping(one.ns, two.ip, count=1)
    last.ok("upgrade")
    last.ok("down", "--purge")
    assert instance_files(own_lab.host) == []
    assert all(reader.json("status")["up"] is False for reader in ways.values())


def test_a_namespace_without_a_name(own_lab):
    """nsenter into the namespace of a process, as container hosts have them."""
    one, two = own_lab.guests(2)
    holder = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    inode = ""

    def moved() -> bool:
        nonlocal inode
        inode = os.readlink(f"/proc/{holder.pid}/ns/net")
        return inode != os.readlink("/proc/self/ns/net")

    cli = Cli(None, command=("nsenter", f"--net=/proc/{holder.pid}/ns/net", *Cli(None)._prefix))
    try:
        eventually(moved, why="the process has its own namespace")
        for guest in (one, two):
            own_lab.host.ip(f"link set {guest.ifname} netns {holder.pid}")
        cli.ok("bridge", "add", "br0")
        for guest in (one, two):
            own_lab.host.run(
                "nsenter", f"--net=/proc/{holder.pid}/ns/net", "ip", "link", "set", guest.ifname, "up"
            )
            cli.ok("port", "add", "br0", guest.ifname)
        eventually(
            lambda: ping(one.ns, two.ip, count=1, wait_s=0.2).received, why="the guests reach each other"
        )
        assert cli.json("status")["drift"] == []
    finally:
        cli.run("down", "--purge")
        holder.communicate()
    assert not any(inode.strip("net:[]") in name for name in os.listdir("/var/lib/pyoffload"))
