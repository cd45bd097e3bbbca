"""A switch for the tests of the command line: one namespace, one bridge, two ports, made once for a module."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli import Cli
from tests.support.lab import Lab


@pytest.fixture(scope="module")
def switch() -> Iterator[Cli]:
    """The command in a namespace with bridge br0, its ports p1 and p2, and the interface spare, which is no port."""
    with Lab() as lab:
        cli = Cli(lab.host)
        lab.host.ip("link add p1 type veth peer name g1", "link add p2 type veth peer name g2")
        lab.host.ip("link add spare type veth peer name spare-peer", "link set p1 up", "link set p2 up")
        cli.ok("bridge", "add", "br0")
        cli.ok("port", "add", "br0", "p1")
        cli.ok("port", "add", "br0", "p2", "--vlan", "10")
        cli.ok("flow", "add", "br0", "priority=7,icmp,actions=drop")
        yield cli


@pytest.fixture
def unchanged(switch: Cli) -> Iterator[None]:
    """Whatever the test does: the saved configuration is the same afterwards."""
    before = configuration(switch)
    yield
    assert configuration(switch) == before


def configuration(cli: Cli) -> list[str]:
    """The saved configuration of the command's instance, as SQL; without the count of the changes made."""
    assert cli.netns is not None
    path = Path("/var/lib/pyoffload") / cli.netns.name / "config.db"
    if not path.exists():
        return []
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return [line for line in database.iterdump() if "'config_rev'" not in line]
