"""TCP between two guests with kernel stacks: throughput of one stream, and request/response rate."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from tests.perf.candidates import BRIDGE
from tests.perf.rounds import Row, attempt, interleaved, say
from tests.perf.topology import on_cpu
from tests.support import traffic
from tests.support.cli import Cli
from tests.support.lab import Guest, Lab, linux_bridge

CLIENT_CPU, SERVER_CPU = 0, 1
STREAM, RR = "TCP stream", "TCP request/response"


@dataclass(frozen=True, slots=True)
class Switch:
    name: str
    tc: str | None  # how pyoffload attaches; None: the Linux bridge


SWITCHES = (
    Switch("Linux bridge", None),
    Switch("pyoffload, TCX", "tcx"),
    Switch("pyoffload, clsact", "clsact"),
)


def measure(*, rounds: int, seconds: int, wanted: str) -> list[Row]:
    rows: list[Row] = []
    jobs: list[tuple[Row, Callable[[Row], float]]] = []
    with contextlib.ExitStack() as stack:
        for switch in SWITCHES:
            pair: list[Guest] | None = None
            for part, unit, figure in ((STREAM, "Gbit/s", gbit_s), (RR, "per second", transactions)):
                if wanted not in f"{part}/{switch.name}":
                    continue
                row = Row(part, switch.name, unit=unit)
                rows.append(row)
                if pair is None:
                    say(f"setting up: {switch.name} for TCP")
                    pair = attempt(row, lambda switch=switch: _guests(stack, switch))  # type: ignore[misc]
                if pair is not None:
                    jobs.append((row, lambda _row, pair=pair, figure=figure: figure(pair, seconds)))  # type: ignore[misc]
        interleaved(jobs, rounds)
    return rows


def gbit_s(pair: list[Guest], seconds: int) -> float:
    """One stream, both ends on CPUs of their own."""
    affinity = ("-A", f"{CLIENT_CPU},{SERVER_CPU}")
    result = traffic.iperf3(pair[0].ns, pair[1].ns, pair[1].ip, seconds=seconds, options=affinity)
    return float(result["end"]["sum_received"]["bits_per_second"]) / 1e9


def transactions(pair: list[Guest], seconds: int) -> float:
    """One byte there and back, one at a time, both ends on one CPU."""
    with on_cpu(SERVER_CPU):
        return traffic.tcp_rr(pair[0].ns, pair[1].ns, pair[1].ip, seconds=seconds)


def _guests(stack: contextlib.ExitStack, switch: Switch) -> list[Guest]:
    lab = stack.enter_context(Lab())
    pair = lab.guests(2)
    if switch.tc is None:
        linux_bridge(lab.host, list(pair))
    else:
        cli = Cli(lab.host, env={"PYOFFLOAD_TC": switch.tc})
        cli.ok("bridge", "add", BRIDGE)
        for guest in pair:
            cli.ok("port", "add", BRIDGE, guest.ifname, "--hook", "tc")
    traffic.pings(pair[0].ns, pair[1].ip)
    return pair
