"""Verbs that only look: quick, without compiler, without lock, whatever else is going on."""

from __future__ import annotations

import os
import sys

import pytest

from pyoffload.instance import Instance
from tests.support.cli import COMMAND, Cli
from tests.support.forked import ForkedCli
from tests.support.hoststate import assert_unchanged, host_state
from tests.support.lab import Lab

pytestmark = pytest.mark.traffic

VERBS = (
    "status",
    "doctor",
    "bridge list",
    "bridge show br0",
    "port list",
    "port list br0",
    "port show veth1",
    "fdb list br0",
    "flow dump br0",
    "flow dump br0 icmp --no-stats",
    "flow cache list",
    "flow cache list br0 --top 3",
    "group list br0",
    "group show br0 1",
    "meter list br0",
    "meter show br0 1",
    "stats",
    "stats veth1",
)
SLOW = (
    "pyroute2",
    "scapy",
    "rich",
    "asyncio",
    "numpy",
    "bcc",
    "importlib.metadata",
    "pyoffload.compile_child",
)
verbs = pytest.mark.parametrize("verb", VERBS)


@pytest.fixture(scope="module", autouse=True)
def switch(lab: Lab, cli: Cli) -> None:
    cli.ok("bridge", "add", "br0")
    for guest in lab.guests(2):
        cli.ok("port", "add", "br0", guest.ifname)
    cli.ok("flow", "add", "br0", "priority=200,icmp,actions=drop")
    cli.ok("group", "add", "br0", "group_id=1,type=all,bucket=output:1")
    cli.ok("meter", "add", "br0", "meter=1,kbps,band=type=drop,rate=1000")
    cli.ok("fdb", "add", "br0", "02:00:00:00:00:77", "veth1")


def test_they_answer_and_change_nothing(lab, forked):
    before = host_state(lab.host)
    for verb in VERBS:
        assert forked.ok(*verb.split()).stderr == ""
        assert forked.json(*verb.split()) is not None
    assert_unchanged(before, lab.host)


@pytest.fixture
def forked(lab: Lab, cli: Cli) -> ForkedCli:
    return ForkedCli(lab.host)


@verbs
def test_it_answers_in_time(cli, verb):
    seconds = cli.fastest(*verb.split())
    print(f"{verb}: {seconds * 1000:.0f} ms")
    assert seconds < 1  # 0.15 s is the goal on a machine that does nothing else


@verbs
def test_it_needs_no_compiler(lab, verb):
    root = COMMAND.parents[1]
    python = (sys.executable, "-I", "-X", "importtime", str(root / ".venv/bin/pyoffload"))
    done = Cli(lab.host, command=python).ok(*verb.split())
    imported = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines()]
    assert "pyoffload.instance" in imported
    heavy = [name for name in imported if name.startswith(SLOW)]
    assert heavy == []


def test_none_of_them_waits_for_the_lock(lab, cli):
    impatient = {"PYOFFLOAD_LOCK_TIMEOUT": "0"}
    with lab.host.entered():
        instance = Instance.current()
        with instance.lock():
            for verb in VERBS:
                cli.ok(*verb.split(), env=impatient)
            refused = cli.fails(1, "flow", "del", "br0", "", env=impatient, says=str(os.getpid()))
            assert refused.hint
            assert cli.fails(1, "up", env=impatient).seconds < 1
    assert len(cli.json("flow", "dump", "br0")) == 1


def test_they_work_where_the_datapath_is_down(own_lab):
    cli = Cli(own_lab.host)
    assert cli.json("bridge", "list") == []
    assert cli.json("status")["up"] is False
    assert not any(
        os.path.exists(f"{base}/{own_lab.host.name}") for base in ("/run/pyoffload", "/var/lib/pyoffload")
    )
    guests = own_lab.guests(1)
    cli.ok("bridge", "add", "br0")
    cli.ok("port", "add", "br0", guests[0].ifname)
    cli.ok("flow", "add", "br0", "priority=200,icmp,actions=drop")
    cli.ok("down")
    assert [bridge["name"] for bridge in cli.json("bridge", "list")] == ["br0"]
    assert cli.json("port", "show", guests[0].ifname)["hook"] == "down"
    assert len(cli.json("flow", "dump", "br0")) == 1
    for verb in VERBS:
        if verb.startswith("flow cache"):
            cli.fails(1, *verb.split(), says="not up")
        elif not verb.startswith(("group show", "meter show")):
            cli.ok(*verb.replace("veth1", guests[0].ifname).split())
