"""up, down, upgrade and sync are killed at every step; and two commands at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from pyoffload.instance import Instance
from tests.support.cli import Cli, Result
from tests.support.forked import ForkedCli
from tests.support.hoststate import host_state, state_difference
from tests.support.killing import configuration, steps_of
from tests.support.lab import Guest, Lab
from tests.support.traffic import TcpStream, no_ping, pings

pytestmark = pytest.mark.traffic


@pytest.fixture(scope="module")
def cli(lab: Lab) -> ForkedCli:
    return ForkedCli(lab.host)


@pytest.fixture(scope="module")
def pristine(lab: Lab, guests: list[Guest]) -> dict[str, object]:
    """The host before anything of ours was there."""
    return host_state(lab.host)


@pytest.fixture(scope="module")
def guests(lab: Lab) -> list[Guest]:
    return lab.guests(3)


@pytest.fixture(scope="module", autouse=True)
def bridge(cli: ForkedCli, guests: list[Guest], pristine: object) -> None:
    cli.ok("bridge", "add", "br0")
    cli.ok("port", "add", "br0", guests[0].ifname)
    cli.ok("port", "add", "br0", guests[1].ifname)
    cli.ok("port", "add", "br0", guests[2].ifname, "--hook", "xdp")
    cli.ok("flow", "add", "br0", f"priority=9,icmp6,in_port={guests[1].ifname},actions=drop")
    cli.ok("meter", "add", "br0", "meter=1,kbps,band=type=drop,rate=100000")


@pytest.fixture
def working(lab: Lab, cli: ForkedCli, guests: list[Guest]) -> Callable[[], None]:
    """All is as configured, and the traffic says so."""
    wanted = configuration(lab.host)

    def check() -> None:
        one, two, three = guests
        pings(one.ns, two.ip, count=2)
        pings(three.ns, one.ip, count=2)
        no_ping(two.ns, one.ip6, count=1, wait_s=0.05)
        assert cli.json("status")["drift"] == []
        assert configuration(lab.host) == wanted

    return check


def killed_everywhere(cli: ForkedCli, verb: str, before: str, then: Callable[[int], None]) -> list[str]:
    """Kill the verb at each step, ``before`` in front of each; ``then`` judges what comes afterwards."""
    cli.ok(before)
    steps = [step for step in steps_of(cli, verb) if "#" not in step or verb != "up"]
    assert steps
    for number, step in enumerate(steps):
        cli.ok(before)
        cli.killed(step, verb)
        try:
            then(number)
        except AssertionError as err:
            raise AssertionError(f"{verb}, killed at {step}: {err}") from err
    print(f"{verb}: {len(steps)} steps: {' '.join(steps)}")
    return steps


def test_up(lab, cli, pristine, working):
    def then(number: int) -> None:
        cli.ok("status")
        if not number % 4:
            cli.ok("down")
            assert state_difference(pristine, host_state(lab.host)) == []
        cli.ok("up")
        working()

    killed_everywhere(cli, "up", "down", then)


def test_down(lab, cli, pristine, working):
    def then(number: int) -> None:
        cli.ok("status")
        if number % 2:
            cli.ok("down")
            assert state_difference(pristine, host_state(lab.host)) == []
        cli.ok("up")
        working()

    killed_everywhere(cli, "down", "up", then)


def test_another_verb_comes_after_a_killed_down(lab, cli, guests, working):
    for step in steps_of(cli, "down"):
        cli.ok("up")
        cli.killed(step, "down")
        cli.ok("bridge", "add", "br7")
        cli.ok("bridge", "del", "br7")
        working()
    cli.ok("up")


def test_upgrade(cli, guests, working):
    one, two = guests[:2]
    with TcpStream(one.ns, two.ns, two.ip, timeout_s=2) as talk:

        def then(number: int) -> None:
            talk.exchange()
            pings(one.ns, two.ip, count=2)
            pings(guests[2].ns, two.ip, count=2)
            cli.ok("upgrade" if number % 2 else "up")
            talk.exchange()
            working()

        killed_everywhere(cli, "upgrade", "up", then)


def test_sync(lab, cli, guests, working):
    """An interface came back, and the command that attaches it dies."""
    _, two, three = guests

    def lose() -> None:
        for guest in (two, three):
            lab.host.ip(f"link del {guest.ifname}")
            guest.replug()

    lose()
    steps = steps_of(cli, "sync")
    assert steps
    for step in steps:
        lose()
        cli.killed(step, "sync")
        cli.ok("status")
        cli.ok("sync")
        working()
    print(f"sync: {len(steps)} steps: {' '.join(steps)}")


# ---- two commands at once


class User(threading.Thread):
    """Somebody who types one command after the other."""

    def __init__(self, cli: Cli, commands: list[tuple[str, ...]]) -> None:
        super().__init__(daemon=True)
        self.cli = cli
        self.commands = commands
        self.results: list[Result] = []

    def run(self) -> None:
        for words in self.commands:
            self.results.append(self.cli.run(*words))


def test_two_users_and_a_reader_at_once(lab, guests, working):
    cli = Cli(lab.host)
    one, two = guests[:2]
    flows = [("flow", "add", "br0", f"table=5,priority={n},ip,actions=drop") for n in range(1, 21)]
    others = []
    for number in range(5):
        others += [
            ("bridge", "add", f"bb{number}"),
            ("fdb", "add", "br0", f"02:00:00:00:01:{number:02x}", one.ifname),
            ("meter", "add", "br0", f"meter={number + 10},kbps,band=type=drop,rate=100"),
            ("group", "add", "br0", f"group_id={number + 10},type=all,bucket=output:1"),
        ]
    reading = [
        ("status",),
        ("flow", "dump", "br0"),
        ("port", "list"),
        ("fdb", "list", "br0"),
        ("bridge", "list"),
    ]
    users = [User(cli, flows), User(cli, others), User(cli, reading * 4)]
    with TcpStream(one.ns, two.ns, two.ip, timeout_s=2) as talk:
        for user in users:
            user.start()
        while any(user.is_alive() for user in users):
            talk.exchange()
            users[0].join(0.01)
    failed = [str(result) for user in users for result in user.results if result.code]
    assert failed == []
    # A change on its way is no drift.
    assert [result.stderr for result in users[2].results if result.stderr] == []
    assert [len(user.results) for user in users] == [20, 20, 20]
    assert len(cli.json("flow", "dump", "br0", "--table", "5")) == 20
    assert len([b for b in cli.json("bridge", "list") if b["name"].startswith("bb")]) == 5
    assert len([e for e in cli.json("fdb", "list", "br0") if e["static"]]) == 5
    assert len(cli.json("meter", "list", "br0")) == 6
    assert len(cli.json("group", "list", "br0")) == 5
    assert cli.json("status")["drift"] == []
    cli.ok("flow", "del", "br0", "table=5")
    cli.ok("group", "del", "br0", "all")
    for number in range(5):
        cli.ok("bridge", "del", f"bb{number}")
        cli.ok("meter", "del", "br0", str(number + 10))
        cli.ok("fdb", "del", "br0", f"02:00:00:00:01:{number:02x}")
    working()


@pytest.fixture
def locked(lab: Lab) -> Iterator[None]:
    with lab.host.entered():
        lock = Instance.current().lock()
    with lock:
        yield


def test_who_waits_too_long_is_told_whom_he_waits_for(lab, cli, guests, locked):
    before = configuration(lab.host)
    for words in (
        ("bridge", "add", "br9"),
        ("port", "set", guests[0].ifname, "--vlan", "9"),
        ("flow", "add", "br0", "priority=200,icmp,actions=drop"),
        ("flow", "del", "br0", ""),
        ("meter", "del", "br0", "all"),
        ("up",),
        ("down",),
        ("upgrade",),
        ("sync",),
    ):
        refused = cli.fails(1, *words, env={"PYOFFLOAD_LOCK_TIMEOUT": "0.05"}, says="0.05 s")
        assert "process " in refused.message, str(refused)
        assert refused.hint
        assert refused.seconds < 2
    assert configuration(lab.host) == before
    pings(guests[0].ns, guests[1].ip)
