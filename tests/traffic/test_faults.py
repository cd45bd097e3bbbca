"""The command is killed at every step of every verb that changes bridges, ports and addresses.

Two guests talk to each other all the time and notice nothing; whatever command comes next works.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support.cli import Cli
from tests.support.forked import ForkedCli
from tests.support.hoststate import assert_unchanged, host_state
from tests.support.killing import Case, configuration, kill_everywhere, steps_of
from tests.support.lab import Guest, Lab
from tests.support.traffic import TcpStream, pings

pytestmark = pytest.mark.traffic

MAC = "02:00:00:00:00:77"
CASES = [
    Case(("bridge", "add", "br1", "--vni", "7"), back=[("bridge", "del", "br1")]),
    Case(
        ("bridge", "del", "br1"),
        before=[
            ("bridge", "add", "br1"),
            ("port", "add", "br1", "veth5"),
            ("flow", "add", "br1", "priority=3,ip,actions=drop"),
            ("meter", "add", "br1", "meter=1,kbps,band=type=drop,rate=100"),
            ("fdb", "add", "br1", MAC, "veth5"),
        ],
        back=[
            ("bridge", "add", "br1"),
            ("port", "add", "br1", "veth5"),
            ("flow", "add", "br1", "priority=3,ip,actions=drop"),
            ("meter", "add", "br1", "meter=1,kbps,band=type=drop,rate=100"),
            ("fdb", "add", "br1", MAC, "veth5"),
        ],
        after=[("bridge", "del", "br1")],
    ),
    Case(("port", "add", "br0", "veth5", "--trunk", "10,20-29"), back=[("port", "del", "veth5")]),
    Case(("port", "add", "br0", "veth5", "--hook", "xdp"), back=[("port", "del", "veth5")]),
    Case(
        ("port", "del", "veth5"),
        before=[("port", "add", "br0", "veth5", "--hook", "xdp"), ("fdb", "add", "br0", MAC, "veth5")],
        back=[("port", "add", "br0", "veth5", "--hook", "xdp"), ("fdb", "add", "br0", MAC, "veth5")],
        after=[("port", "del", "veth5")],
    ),
    Case(("port", "set", "veth3", "--vlan", "7"), back=[("port", "set", "veth3", "--no-vlan")]),
    Case(("fdb", "add", "br0", MAC, "veth3"), back=[("fdb", "del", "br0", MAC)]),
    Case(
        ("fdb", "del", "br0", MAC),
        before=[("fdb", "add", "br0", MAC, "veth3")],
        back=[("fdb", "add", "br0", MAC, "veth3")],
        after=[("fdb", "del", "br0", MAC)],
    ),
    Case(("fdb", "flush", "br0")),
]


@pytest.fixture(scope="module")
def guests(lab: Lab, cli: ForkedCli) -> list[Guest]:
    """veth1 and veth2 talk; veth3 and veth4 are on the same bridge; veth5 is what the verbs are about."""
    made = lab.guests(5)
    cli.ok("bridge", "add", "br0")
    for guest in made[:4]:
        cli.ok("port", "add", "br0", guest.ifname)
    return made


@pytest.fixture(scope="module")
def cli(lab: Lab) -> ForkedCli:
    return ForkedCli(lab.host)


@pytest.fixture(scope="module")
def talk(guests: list[Guest]) -> Iterator[TcpStream]:
    with TcpStream(guests[0].ns, guests[1].ns, guests[1].ip, timeout_s=2) as stream:
        yield stream


@pytest.fixture
def alive(talk: TcpStream, guests: list[Guest]) -> Callable[[], None]:
    def check() -> None:
        talk.exchange()
        pings(guests[0].ns, guests[1].ip, count=2)

    return check


@pytest.mark.parametrize("case", CASES, ids=str)
def test_killed_at_every_step(lab, cli, guests, alive, case):
    def working() -> None:
        pings(guests[1].ns, guests[0].ip6, count=1)

    steps = kill_everywhere(cli, case, lambda: configuration(lab.host), alive=alive, working=working)
    print(f"{case}: {len(steps)} steps: {' '.join(steps)}")
    pings(guests[2].ns, guests[3].ip)


def test_a_killed_process_is_a_killed_process(lab, cli, alive):
    """The same once more with the command as it is started from a shell."""
    started = Cli(lab.host)
    before = configuration(lab.host)
    started.ok("up")
    for step in started.checkpoints("port", "set", "veth3", "--vlan", "9"):
        started.ok("port", "set", "veth3", "--no-vlan")
        started.killed(step, "port", "set", "veth3", "--vlan", "9")
        alive()
    started.ok("port", "set", "veth3", "--no-vlan")
    assert configuration(lab.host) == before
    assert started.json("status")["drift"] == []


@pytest.fixture
def own_cli(own_lab: Lab) -> ForkedCli:
    return ForkedCli(own_lab.host, env={"PYOFFLOAD_TC": "clsact"})


def test_the_same_on_the_clsact_qdisc(own_lab, own_cli):
    """Filters and qdiscs have no pins: what a killed command left of them is known by notes."""
    one, two, three = own_lab.guests(3)
    own_lab.host.run("tc", "qdisc", "add", "dev", two.ifname, "clsact")
    pristine = host_state(own_lab.host)
    own_cli.ok("bridge", "add", "br0")
    for guest in (one, two):
        own_cli.ok("port", "add", "br0", guest.ifname)
    with TcpStream(one.ns, two.ns, two.ip, timeout_s=2) as stream:
        adding = Case(("port", "add", "br0", three.ifname), back=[("port", "del", three.ifname)])
        removing = Case(
            ("port", "del", three.ifname),
            before=[("port", "add", "br0", three.ifname)],
            back=[("port", "add", "br0", three.ifname)],
        )
        for case in (adding, removing):
            steps = kill_everywhere(
                own_cli,
                case,
                lambda: configuration(own_lab.host),
                alive=stream.exchange,
                working=lambda: pings(one.ns, two.ip, count=1),
            )
            assert any("filter" in step for step in steps), steps
    for step in steps_of(own_cli, "down"):
        own_cli.ok("up")
        pings(one.ns, three.ip, count=1)
        own_cli.killed(step, "down")
        own_cli.ok("down")
        assert_unchanged(pristine, own_lab.host)
