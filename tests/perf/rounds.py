"""Interleaved rounds: everything is measured once per round, so that the machine's moods meet everybody alike."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from pyoffload.errors import OffloadError
from tests.perf.candidates import Candidate
from tests.perf.topology import Sample, Topology
from tests.support.netns import LabError

SETTLE_FRAMES = 20_000
T = TypeVar("T")


@dataclass(slots=True)
class Row:
    """One line of the result: a candidate under one load, and its figure of each round (``unit`` says which)."""

    part: str
    candidate: str
    n_flows: int = 1
    unit: str = "ns/packet"
    values: list[float] = field(default_factory=list)
    lost: int = 0
    sent: int = 0
    failure: str | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values) if self.values else float("nan")

    def as_dict(self) -> dict[str, object]:
        return {
            "part": self.part,
            "candidate": self.candidate,
            "flows": self.n_flows,
            "unit": self.unit,
            "median": round(self.median, 2) if self.values else None,
            "min": round(min(self.values), 2) if self.values else None,
            "max": round(max(self.values), 2) if self.values else None,
            "rounds": len(self.values),
            "sent": self.sent,
            "lost": self.lost,
            "failure": self.failure,
        }


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def interleaved(jobs: Sequence[tuple[Row, Callable[[Row], float]]], rounds: int) -> None:
    """Call every job once per round. A job that fails is marked and left out from then on."""
    for number in range(1, rounds + 1):
        say(f"round {number} of {rounds}")
        for row, job in jobs:
            if row.failure is None:
                attempt(row, lambda row=row, job=job: row.values.append(job(row)))  # type: ignore[misc]


def attempt(row: Row, step: Callable[[], T]) -> T | None:
    try:
        return step()
    except (AssertionError, LabError, OffloadError, OSError) as err:
        row.failure = " ".join(str(err).split())[:400] or type(err).__name__
        say(f"{row.candidate}: {row.failure}")
        return None


def forward(
    part: str, loads: Sequence[tuple[Candidate, int]], *, frames: int, rounds: int, wanted: str
) -> list[Row]:
    """Frames per candidate and number of flows. A candidate is set up once, whatever loads it gets."""
    topologies: dict[str, Topology] = {}
    failed: dict[str, str | None] = {}
    jobs: list[tuple[Row, Callable[[Row], float]]] = []
    rows: list[Row] = []
    try:
        for candidate, n_flows in loads:
            if wanted not in f"{part}/{candidate.name}":
                continue
            row = Row(part, candidate.name, n_flows)
            rows.append(row)
            if candidate.name in failed:
                row.failure = failed[candidate.name]
                continue
            if candidate.name not in topologies:
                say(f"setting up: {candidate.name}")
                built = attempt(row, candidate.build)
                if built is None:
                    failed[candidate.name] = row.failure
                    continue
                topologies[candidate.name] = built
            jobs.append((row, _job(topologies[candidate.name], frames)))
        interleaved(jobs, rounds)
    finally:
        for topology in topologies.values():
            topology.close()
    return rows


def _job(topology: Topology, frames: int) -> Callable[[Row], float]:
    def job(row: Row) -> float:
        topology.warm_up(row.n_flows)
        topology.measure(SETTLE_FRAMES, row.n_flows)
        count = max(frames, 4 * row.n_flows) if row.n_flows > 1 else frames
        sample: Sample = topology.measure(count, row.n_flows)
        row.sent += sample.sent
        row.lost += sample.lost
        if sample.lost * 100 > sample.sent:
            raise AssertionError(f"{sample.lost} of {sample.sent} frames did not arrive")
        return sample.ns

    return job
