"""Hooks that somebody else has, and traffic by each hook that we can have."""

from __future__ import annotations

import contextlib

import pytest

from pyoffload import rtnl
from pyoffload.kernel.link import Link
from pyoffload.kernel.prog import (
    ATTACH_TYPE_TCX_INGRESS,
    ATTACH_TYPE_XDP,
    PROG_TYPE_SCHED_CLS,
    PROG_TYPE_XDP,
    Prog,
)
from tests.support.cli import Cli
from tests.support.hoststate import assert_unchanged, host_state
from tests.support.lab import linux_bridge
from tests.support.traffic import TcpStream, broadcast, no_ping, pings, tcp_transfer, udp_echo

pytestmark = pytest.mark.traffic


@pytest.fixture(scope="module", autouse=True)
def bridge(cli: Cli) -> None:
    cli.ok("bridge", "add", "br0")


def program(kind: int, verdict: int, attach_type: int = 0) -> Prog:
    """A program of somebody else that always returns the verdict."""
    code = b"\xb7\0\0\0" + verdict.to_bytes(4, "little", signed=True) + b"\x95\0\0\0\0\0\0\0"
    return Prog.load(kind, code, name="their_watcher", expected_attach_type=attach_type)


@contextlib.contextmanager
def foreign(lab, ifname: str, kind: int, attach_type: int, verdict: int):
    """It holds a hook of an interface; yields its id."""
    with (
        lab.host.entered(),
        program(kind, verdict, attach_type) as theirs,
        Link.create(theirs.fd, lab.host.ifindex(ifname), attach_type),
    ):
        yield theirs.info().id


HOOKS = {
    "xdp": (PROG_TYPE_XDP, ATTACH_TYPE_XDP, 2),  # XDP_PASS
    "tc": (PROG_TYPE_SCHED_CLS, ATTACH_TYPE_TCX_INGRESS, -1),  # TCX_NEXT
}


def test_a_tcx_program_of_somebody_else_is_not_pushed_aside(lab, cli):
    (guest,) = lab.guests(1)
    with foreign(lab, guest.ifname, *HOOKS["tc"]) as number:
        before = host_state(lab.host)
        refused = cli.fails(1, "port", "add", "br0", guest.ifname, says="their_watcher")
        assert guest.ifname in refused.message
        assert str(number) in refused.message
        assert_unchanged(before, lab.host)
        assert cli.json("port", "list") == []
        (face,) = cli.json("doctor", guest.ifname)["interfaces"]
        assert "their_watcher" in str(face)
    cli.ok("port", "add", "br0", guest.ifname)
    cli.ok("port", "del", guest.ifname)


def test_an_xdp_program_of_somebody_else_is_not_pushed_aside(lab, cli):
    (guest,) = lab.guests(1)
    with foreign(lab, guest.ifname, *HOOKS["xdp"]) as number:
        before = host_state(lab.host)
        refused = cli.fails(1, "port", "add", "br0", guest.ifname, "--hook", "xdp", says="their_watcher")
        assert str(number) in refused.message
        assert_unchanged(before, lab.host)
        assert cli.json("port", "list") == []
        # TC is free, and the two do not hinder each other.
        cli.ok("port", "add", "br0", guest.ifname)
        cli.fails(1, "port", "set", guest.ifname, "--hook", "xdp", says="their_watcher")
        assert cli.json("port", "show", guest.ifname)["hook"] == "tcx"
        assert cli.json("status")["drift"] == []
        cli.ok("port", "del", guest.ifname)
        assert_unchanged(before, lab.host)


def test_a_clsact_filter_of_somebody_else_is_not_pushed_aside(lab):
    (guest,) = lab.guests(1)
    cli = Cli(lab.host, env={"PYOFFLOAD_TC": "clsact"})
    kind, _, verdict = HOOKS["tc"]
    with lab.host.entered(), program(kind, verdict) as theirs:
        index = lab.host.ifindex(guest.ifname)
        rtnl.add_clsact(index)
        rtnl.replace_ingress_filter(index, 7, 1, "watcher.o:[tc]", theirs.fd)
        before = host_state(lab.host)
        refused = cli.fails(1, "port", "add", "br0", guest.ifname, says="watcher.o:[tc]")
        assert "prio 7" in refused.message
        assert_unchanged(before, lab.host)
    lab.host.run("tc", "qdisc", "del", "dev", guest.ifname, "clsact")
    cli.ok("port", "add", "br0", guest.ifname)
    assert cli.json("port", "show", guest.ifname)["hook"] == "tc"
    cli.ok("port", "del", guest.ifname)


def test_a_port_of_a_linux_bridge_is_refused(lab, cli):
    one, two = lab.guests(2)
    linux_bridge(lab.host, [one, two], "lan0")
    cli.fails(1, "port", "add", "br0", one.ifname, says="lan0")
    assert cli.json("port", "list") == []
    pings(one.ns, two.ip)
    lab.host.ip(f"link set {one.ifname} nomaster", f"link set {two.ifname} nomaster", "link del lan0")
    for guest in (one, two):
        cli.ok("port", "add", "br0", guest.ifname)
    pings(one.ns, two.ip)
    for guest in (one, two):
        cli.ok("port", "del", guest.ifname)
    no_ping(one.ns, two.ip, count=1)


def test_who_is_no_port(lab, cli):
    cli.fails(1, "port", "add", "br0", "nosuchif", says="nosuchif")
    cli.fails(1, "port", "add", "br9", "lo", says="br9")
    refused = cli.run("port", "add", "br0", "lo")
    assert refused.code in {1, 4}, str(refused)
    assert "lo" in refused.message
    assert refused.hint or len(refused.stderr.splitlines()) == 1
    cli.fails(2, "port", "add", "br0", "a-name-of-more-than-15", says="a-name-of-more-than-15")
    assert cli.json("port", "list") == []


@pytest.mark.parametrize("cache", [True, False], ids=["cache", "no-cache"])
def test_traffic_by_xdp(own_lab, cache):
    cli = Cli(own_lab.host)
    one, two, three = own_lab.guests(3)
    cli.ok("up", *([] if cache else ["--no-cache"]))
    cli.ok("bridge", "add", "br0")
    cli.ok("port", "add", "br0", one.ifname, "--hook", "xdp")
    cli.ok("port", "add", "br0", two.ifname, "--hook", "xdp")
    cli.ok("port", "add", "br0", three.ifname)
    hooks = {port["ifname"]: port["hook"] for port in cli.json("port", "list")}
    assert hooks == {one.ifname: "xdp native", two.ifname: "xdp native", three.ifname: "tcx"}
    for sender, to in ((one, two), (two, three), (three, one)):
        pings(sender.ns, to.ip, count=20)
        pings(sender.ns, to.ip6)
        pings(sender.ns, to.ip, size=65507)
        udp_echo(sender.ns, to.ns, to.ip)
        tcp_transfer(sender.ns, to.ns, to.ip, megabytes=16)
    broadcast(one.ns, [two.ns, three.ns])
    with TcpStream(one.ns, two.ns, two.ip) as stream:
        stream.exchange()
        cli.ok("flow", "add", "br0", "priority=200,icmp,actions=drop")
        no_ping(one.ns, two.ip)
        stream.exchange()
        cli.ok("flow", "del", "br0", "icmp")
        pings(one.ns, two.ip)
        # The hook changes under the session.
        cli.ok("port", "set", one.ifname, "--hook", "tc")
        stream.exchange()
        cli.ok("port", "set", one.ifname, "--hook", "auto")
        cli.ok("port", "set", two.ifname, "--hook", "tc")
        stream.exchange()
    assert {port["hook"] for port in cli.json("port", "list")} == {"tcx"}
    assert cli.json("status")["drift"] == []


def test_xdp_counts_like_tc(own_lab):
    cli = Cli(own_lab.host)
    one, two = own_lab.guests(2)
    cli.ok("bridge", "add", "br0")
    for guest in (one, two):
        cli.ok("port", "add", "br0", guest.ifname, "--hook", "xdp")
        other = two if guest is one else one
        guest.ns.ip(f"neigh replace {other.ip} lladdr {other.mac} dev eth0 nud permanent")
    pings(one.ns, two.ip, count=200, interval_s=0)
    names = ("rx_packets", "rx_bytes", "tx_packets", "tx_bytes")
    for port in cli.json("port", "list"):
        assert [port[name] for name in names] == [200, 200 * 98] * 2, port


def test_doctor_says_the_hook_that_auto_gives(lab, cli):
    (veth,) = lab.guests(1)
    (tap,) = lab.taps(1)
    report = cli.json("doctor", veth.ifname, tap.ifname)
    wanted = {face["ifname"]: face["hook"] for face in report["interfaces"]}
    for port in (veth, tap):
        cli.ok("port", "add", "br0", port.ifname)
        assert cli.json("port", "show", port.ifname)["hook"] == wanted[port.ifname]
        cli.ok("port", "del", port.ifname)
