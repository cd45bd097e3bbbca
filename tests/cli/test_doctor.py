"""doctor: what it finds on this host, and what it says of interfaces of every kind."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.cli import Cli
from tests.support.lab import Lab


@pytest.fixture(scope="module")
def host() -> Iterator[Cli]:
    """A namespace with interfaces of several kinds and no datapath."""
    with Lab() as lab:
        other = lab.add_host()
        lab.host.ip(
            "link add near type veth peer name near-peer",
            f"link add away type veth peer name away-peer netns {other.name}",
            "tuntap add dev tap0 mode tap vnet_hdr",
            "tuntap add dev plain0 mode tap",
            "tuntap add dev tun0 mode tun",
            "link add lbr0 type bridge",
            "link add member type veth peer name member-peer",
            "link set member master lbr0",
            "link set near up",
        )
        yield Cli(lab.host)


def examined(cli: Cli, *names: str) -> dict[str, dict[str, Any]]:
    return {face["ifname"]: face for face in cli.json("doctor", *names)["interfaces"]}


def test_this_host_is_able(host: Cli):
    report = host.json("doctor")
    assert report["able"] is True
    checks = {check["name"]: check for check in report["checks"]}
    assert {
        "kernel",
        "bpf filesystem",
        "bpf jit",
        "tc hook",
        "compiler",
        "kernel headers",
        "capabilities",
    } <= set(checks)
    assert checks["capabilities"]["state"] == "ok"
    assert checks["compiler"]["finding"].startswith("bcc ")
    assert all(check["hint"] for check in report["checks"] if check["state"] in {"missing", "warning"})


def test_each_interface_gets_a_hook_or_the_reason_why_not(host: Cli):
    faces = examined(host)
    assert "lo" not in faces
    for name in ("near", "away", "tap0", "plain0"):
        assert faces[name]["hook"] in {"tcx", "tc"}
        assert faces[name]["why"]
    assert (faces["tun0"]["hook"], faces["tun0"]["why"]) == (None, "carries no Ethernet frames")
    assert faces["member"]["hook"] is None
    assert "lbr0" in faces["member"]["why"]
    assert faces["lbr0"]["hook"] is None


def test_kinds_drivers_and_xdp_modes_are_told_apart(host: Cli):
    faces = examined(host)
    assert {name: faces[name]["kind"] for name in ("near", "tap0", "tun0", "lbr0")} == {
        "near": "veth",
        "tap0": "tap",
        "tun0": "tun",
        "lbr0": "bridge",
    }
    assert faces["near"]["driver"] == "veth"
    assert faces["near"]["xdp"] == "xdp native"
    assert faces["tap0"]["xdp"] == "xdp native"
    assert faces["tun0"]["xdp"] == "none"


def test_it_warns_of_what_would_break_packets(host: Cli):
    faces = examined(host, "tap0", "plain0", "near", "away")
    assert any("vnet_hdr" in text for text in faces["tap0"]["warnings"])
    assert not any("vnet_hdr" in text for text in faces["plain0"]["warnings"])
    assert any("near-peer" in text and "this namespace" in text for text in faces["near"]["warnings"])
    assert not any("this namespace" in text for text in faces["away"]["warnings"])


def test_only_the_interfaces_that_were_named_are_shown_in_that_order(host: Cli):
    assert list(examined(host, "tap0", "near", "tap0")) == ["tap0", "near"]


def test_clsact_is_what_it_says_where_tcx_is_forced_off(host: Cli):
    faces = host.json("doctor", "near", env={"PYOFFLOAD_TC": "clsact"})["interfaces"]
    assert faces[0]["hook"] == "tc"


def test_it_names_who_holds_a_hook(host: Cli):
    assert host.netns is not None
    host.netns.run("tc", "qdisc", "add", "dev", "plain0", "clsact")
    host.netns.run(
        "tc", "filter", "add", "dev", "plain0", "ingress", "prio", "5", "bpf", "da", "bytecode", "1,6 0 0 0"
    )
    try:
        face = examined(host, "plain0")["plain0"]
        assert [(holder["hook"], holder["ours"]) for holder in face["holders"]] == [("tc ingress", False)]
        assert face["hook"] is None
        assert "prio 5" in face["why"]
    finally:
        host.netns.run("tc", "qdisc", "del", "dev", "plain0", "clsact")


def test_a_port_is_shown_with_the_hook_it_has(switch: Cli):
    face = examined(switch, "p1")["p1"]
    assert (face["hook"], face["why"]) == ("tcx", "is a port already")
    assert [(holder["hook"], holder["ours"]) for holder in face["holders"]] == [("tcx ingress", True)]
    local = examined(switch, "br0")["br0"]
    assert local["hook"] is None
    assert "local" in local["why"]


def test_it_leaves_nothing_behind_and_needs_no_root(host: Cli):
    assert host.netns is not None
    drop = (
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--inh-caps=-all",
        "--bounding-set=-all",
    )
    argv = ["nsenter", f"--net={host.netns.path}", *drop, *Cli(None)._prefix, "-j", "doctor"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    nobody = Cli(None, command=tuple(argv[:-2]))
    checks = {check["name"]: check for check in nobody.json("doctor")["checks"]}
    assert checks["capabilities"]["state"] == "missing"
    assert "CAP_NET_ADMIN" in checks["capabilities"]["finding"]
