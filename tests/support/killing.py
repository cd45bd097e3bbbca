"""Let a verb die at each of its steps, and see that nothing is broken: for tests of the command as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pyoffload.instance import Instance
from tests.support.cli import Cli
from tests.support.forked import in_fork
from tests.support.netns import Netns

Words = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """``verb`` is killed; ``before`` makes what it works on, ``back`` takes its change back, ``after`` the rest."""

    verb: Words
    before: Sequence[Words] = ()
    back: Sequence[Words] = ()
    after: Sequence[Words] = ()

    def __str__(self) -> str:
        return " ".join(str(word) for word in self.verb[:2])


def configuration(host: Netns) -> dict[str, Any]:
    """All that the admin has asked for, as the reading verbs tell it; without counters, ages and hooks."""
    return in_fork(lambda: _configuration(host))


def _configuration(host: Netns) -> dict[str, Any]:
    from pyoffload import bridges, fdb, flowtable, groups, meters, ports

    shown: dict[str, Any] = {}
    with host.entered():
        instance = Instance.current()
        for bridge in bridges.list_bridges(instance):
            shown[bridge.name] = (
                (bridge.vni, bridge.mac_age_s, bridge.mac_limit, bridge.flood),
                [
                    (port.ifname, port.ofport, port.vlan, port.trunk, port.native, port.isolated)
                    for port in ports.list_ports(instance, bridge.name)
                ],
                [(e.mac, e.vlan, e.port) for e in fdb.list_macs(instance, bridge.name) if e.static],
                [flow.text(stats=False) for flow in flowtable.dump(instance, bridge.name, stats=False)],
                [_lasting(group.text()) for group in groups.list_groups(instance, bridge.name)],
                [_lasting(meter.text()) for meter in meters.list_meters(instance, bridge.name)],
            )
    return shown


def _lasting(text: str) -> list[str]:
    return [line for line in text.splitlines() if "duration" not in line]


def steps_of(cli: Cli, *verb: object) -> list[str]:
    """Run a verb; returns the places it passed, in order. NAME#2 is the second time; the third is like the second."""
    times: dict[str, int] = {}
    found = []
    for name in cli.checkpoints(*verb):
        times[name] = times.get(name, 0) + 1
        if times[name] <= 2:
            found.append(name if times[name] == 1 else f"{name}#2")
    return found


def kill_everywhere(
    cli: Cli,
    case: Case,
    look: Callable[[], Any],
    *,
    alive: Callable[[], None],
    working: Callable[[], None],
) -> list[str]:
    """Kill the verb at every step it passes; returns the steps.

    Each time: traffic that has nothing to do with it goes on (``alive``), what one can see is the state before or the
    state after (``look``), the next command works, nothing drifts, and all traffic works (``working``).
    """
    for words in case.before:
        cli.ok(*words)
    before = look()
    steps = steps_of(cli, *case.verb)
    after = look()
    assert steps, f"{case}: no steps"
    _back(cli, case, look, before, after)
    for number, step in enumerate(steps):
        alive()
        cli.killed(step, *case.verb)
        try:
            alive()
            seen = look()
            assert seen in (before, after), "a half change is to be seen"
            if number % 2:
                _once_more(cli, case, done=seen == after)
                assert look() == after, "done once more, and it is not done"
            else:
                cli.ok("up")
                assert look() == seen, "the repair changed its mind"
            assert cli.json("status")["drift"] == []
            working()
            _back(cli, case, look, before, after)
        except AssertionError as err:
            raise AssertionError(f"{case}, killed at {step}: {err}") from err
    for words in case.after:
        cli.ok(*words)
    return steps


def _once_more(cli: Cli, case: Case, *, done: bool) -> None:
    """The same command again, as a person would try."""
    result = cli.run(*case.verb)
    assert "Traceback" not in result.stderr, str(result)
    assert "internal error" not in result.stderr, str(result)
    # 1: it exists already, or is not there any more
    assert result.code in ({0, 1} if done else {0}), str(result)


def _back(cli: Cli, case: Case, look: Callable[[], Any], before: Any, after: Any) -> None:
    if before != after and look() == before:
        return
    for words in case.back:
        cli.ok(*words)
    assert look() == before, "the test did not take the change back"
