"""The goals of speed, as ratios within one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.perf import candidates as c, tcp
from tests.perf.rounds import Row

ONE, MANY = "one flow", "many flows"
MILLION = 1 << 20


@dataclass(frozen=True, slots=True)
class Figure:
    part: str
    candidate: str
    n_flows: int = 1


@dataclass(frozen=True, slots=True)
class Goal:
    """``over`` divided by ``under``, at least or at most ``limit``."""

    text: str
    over: Figure
    under: Figure
    limit: float
    at_least: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    goal: Goal
    ratio: float | None

    @property
    def reached(self) -> bool | None:
        if self.ratio is None:
            return None
        return self.ratio >= self.goal.limit if self.goal.at_least else self.ratio <= self.goal.limit


def _faster(text: str, candidate: c.Candidate, peer: c.Candidate, limit: float) -> Goal:
    return Goal(text, Figure(ONE, peer.name), Figure(ONE, candidate.name), limit, at_least=True)


def _cost(text: str, candidate: c.Candidate, peer: c.Candidate, limit: float) -> Goal:
    return Goal(text, Figure(ONE, candidate.name), Figure(ONE, peer.name), limit, at_least=False)


def _scale(text: str, candidate: c.Candidate) -> Goal:
    return Goal(
        text, Figure(MANY, candidate.name, MILLION), Figure(MANY, candidate.name), 2.5, at_least=False
    )


def _tcp(part: str, switch: tcp.Switch) -> Goal:
    text = f"{part}, {switch.name}: rate over the Linux bridge"
    return Goal(text, Figure(part, switch.name), Figure(part, tcp.SWITCHES[0].name), 1.0, at_least=True)


GOALS = (
    _faster("veth port: rate over the Linux bridge", c.VETH, c.BRIDGE_TC, 2.0),
    _faster("veth port, 5-tuple flows: rate over the Linux bridge", c.VETH_ACL, c.BRIDGE_TC, 2.0),
    _faster("tap-like port: rate over the Linux bridge", c.TAP, c.BRIDGE_TC, 1.5),
    _faster("tap-like port, 5-tuple flows: rate over the Linux bridge", c.TAP_ACL, c.BRIDGE_TC, 1.5),
    _faster("tap port: rate over the Linux bridge", c.REAL_TAP, c.BRIDGE_TAP, 1.5),
    _faster("tap port, 5-tuple flows: rate over the Linux bridge", c.REAL_TAP_ACL, c.BRIDGE_TAP, 1.5),
    _faster("XDP port: rate over the Linux bridge", c.XDP, c.BRIDGE_XDP, 4.0),
    _faster("XDP port, 5-tuple flows: rate over the Linux bridge", c.XDP_ACL, c.BRIDGE_XDP, 4.0),
    _cost("veth port: cost over bare redirect_peer", c.VETH, c.BARE_PEER, 1.25),
    _cost("veth port, 5-tuple flows: cost over bare redirect_peer", c.VETH_ACL, c.BARE_PEER, 1.25),
    _cost("tap-like port: cost over bare redirect", c.TAP, c.BARE_REDIRECT, 1.25),
    _cost("tap-like port, 5-tuple flows: cost over bare redirect", c.TAP_ACL, c.BARE_REDIRECT, 1.25),
    _cost("tap port: cost over bare redirect", c.REAL_TAP, c.BARE_TAP, 1.25),
    _cost("tap port, 5-tuple flows: cost over bare redirect", c.REAL_TAP_ACL, c.BARE_TAP, 1.25),
    _cost("XDP port: cost over bare redirect_map", c.XDP, c.BARE_XDP, 1.25),
    _cost("XDP port, 5-tuple flows: cost over bare redirect_map", c.XDP_ACL, c.BARE_XDP, 1.25),
    _scale("veth port: 1,048,576 flows over one flow", c.VETH_BIG),
    _scale("veth port, 5-tuple flows: 1,048,576 flows over one flow", c.VETH_ACL_BIG),
    _scale("XDP port, 5-tuple flows: 1,048,576 flows over one flow", c.XDP_ACL_BIG),
    *(_tcp(part, switch) for part in (tcp.STREAM, tcp.RR) for switch in tcp.SWITCHES[1:]),
)


def judge(rows: Sequence[Row]) -> list[Verdict]:
    """Every goal; its ratio is None if one of the two figures was not measured."""
    known = {Figure(row.part, row.candidate, row.n_flows): row.median for row in rows if row.values}
    verdicts = []
    for goal in GOALS:
        over, under = known.get(goal.over), known.get(goal.under)
        verdicts.append(Verdict(goal, over / under if over and under else None))
    return verdicts
