"""The command is killed at every step of every verb that changes flows, groups and meters.

What packets meet is the state before or the state after, and the guests that the flows are not about notice nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.forked import ForkedCli
from tests.support.killing import Case, configuration, kill_everywhere
from tests.support.lab import Guest, Lab
from tests.support.traffic import TcpStream, no_ping, pings

pytestmark = pytest.mark.traffic

BLOCK = "priority=200,icmp,in_port=3,actions=drop"
GROUP = "group_id=1,type=all,bucket=output:4"
TO_NOBODY = "group_id=1,type=all,bucket=output:5"
METER = "meter=1,kbps,band=type=drop,rate=100000"
BASE = [
    "priority=1,actions=normal",
    "table=3,priority=7,ip,actions=drop",
    "priority=150,icmp,in_port=4,actions=normal",
]
OTHER = [
    "priority=1,actions=normal",
    "priority=150,icmp,in_port=4,actions=normal",
    BLOCK,
    "table=9,arp,actions=drop",
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("flows")
    (directory / "base").write_text("\n".join(BASE) + "\n")
    (directory / "other").write_text("\n".join(OTHER) + "\n")
    return directory


def cases(files: Path) -> dict[str, Case]:
    reset = ("flow", "replace", "br0", files / "base")
    use_group = ("flow", "add", "br0", "priority=200,icmp,in_port=3,actions=group:1")
    use_meter = ("flow", "add", "br0", "priority=200,icmp,in_port=3,actions=meter:1,normal")
    return {
        "flow add": Case(("flow", "add", "br0", BLOCK), back=[reset]),
        "flow add over an equal one": Case(
            ("flow", "add", "br0", "priority=150,icmp,in_port=4,actions=drop"), back=[reset]
        ),
        "flow add --file": Case(("flow", "add", "br0", "--file", files / "other"), back=[reset]),
        "flow replace": Case(("flow", "replace", "br0", files / "other"), back=[reset]),
        "flow mod": Case(
            ("flow", "mod", "br0", "icmp,in_port=3,actions=drop"),
            before=[("flow", "add", "br0", "priority=200,icmp,in_port=3,actions=normal")],
            back=[("flow", "mod", "br0", "icmp,in_port=3,actions=normal")],
            after=[reset],
        ),
        "flow del": Case(
            ("flow", "del", "br0", "icmp,in_port=3"),
            before=[("flow", "add", "br0", BLOCK)],
            back=[("flow", "add", "br0", BLOCK)],
            after=[reset],
        ),
        "flow del all": Case(("flow", "del", "br0", ""), back=[reset]),
        "group add": Case(("group", "add", "br0", GROUP), back=[("group", "del", "br0", "1")]),
        "group mod": Case(
            ("group", "mod", "br0", TO_NOBODY),
            before=[("group", "add", "br0", GROUP), use_group],
            back=[("group", "mod", "br0", GROUP)],
            after=[("group", "del", "br0", "all")],
        ),
        "group del": Case(
            ("group", "del", "br0", "1"),
            before=[("group", "add", "br0", TO_NOBODY), use_group],
            back=[("group", "add", "br0", TO_NOBODY), use_group],
            after=[("group", "del", "br0", "all")],
        ),
        "meter add": Case(("meter", "add", "br0", METER), back=[("meter", "del", "br0", "1")]),
        "meter mod": Case(
            ("meter", "mod", "br0", METER.replace("100000", "200000")),
            before=[("meter", "add", "br0", METER), use_meter],
            back=[("meter", "mod", "br0", METER)],
            after=[("meter", "del", "br0", "all")],
        ),
        "meter del": Case(
            ("meter", "del", "br0", "1"),
            before=[("meter", "add", "br0", METER), use_meter],
            back=[("meter", "add", "br0", METER), use_meter],
            after=[("meter", "del", "br0", "all")],
        ),
    }


@pytest.fixture(scope="module")
def cli(lab: Lab) -> ForkedCli:
    return ForkedCli(lab.host)


@pytest.fixture(scope="module")
def guests(lab: Lab, cli: ForkedCli, files: Path) -> list[Guest]:
    """veth1 and veth2 talk; the flows are about what veth3 and veth4 say."""
    made = lab.guests(5)
    cli.ok("bridge", "add", "br0")
    for guest in made:
        cli.ok("port", "add", "br0", guest.ifname)
    cli.ok("flow", "replace", "br0", files / "base")
    for one, two in ((made[2], made[3]), (made[3], made[2])):
        one.ns.ip(f"neigh replace {two.ip} lladdr {two.mac} dev eth0 nud permanent")
    return made


@pytest.fixture(scope="module")
def talk(guests: list[Guest]) -> Iterator[TcpStream]:
    with TcpStream(guests[0].ns, guests[1].ns, guests[1].ip, timeout_s=2) as stream:
        yield stream


def blocked(shown: dict[str, Any]) -> bool:
    """Whether guest 3 cannot ping guest 4 by the flows that are shown."""
    flows, groups = str(shown["br0"][3]), str(shown["br0"][4])
    to_nobody = "actions=group:1" in flows and "output:5" in groups
    return to_nobody or "icmp,in_port=3 actions=drop" in flows or "icmp,in_port=4 actions=drop" in flows


@pytest.mark.parametrize("name", list(cases(Path())))
def test_killed_at_every_step(lab, cli, guests, talk, files, name):
    one, two, three, four = guests[:4]

    def look() -> dict[str, Any]:
        return configuration(lab.host)

    def alive() -> None:
        talk.exchange()
        pings(one.ns, two.ip, count=2)

    def working() -> None:
        if blocked(look()):
            no_ping(three.ns, four.ip, count=1, wait_s=0.05)
        else:
            pings(three.ns, four.ip, count=2)

    working()
    steps = kill_everywhere(cli, cases(files)[name], look, alive=alive, working=working)
    print(f"{name}: {len(steps)} steps: {' '.join(steps)}")
    working()
