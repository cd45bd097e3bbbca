"""Results as text and as a JSON document."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence

from tests.perf import candidates as c, tcp
from tests.perf.goals import MANY, ONE, Verdict
from tests.perf.rounds import Row

# Per candidate: the bridge with the same receiver, and the bare redirect of the same hook.
_BARE = {
    "veth port": c.BARE_PEER.name,
    "tap-like port": c.BARE_REDIRECT.name,
    "tap port": c.BARE_TAP.name,
    "XDP port": c.BARE_XDP.name,
}


def text(rows: Sequence[Row], verdicts: Sequence[Verdict]) -> str:
    lines = []
    for part in dict.fromkeys(row.part for row in rows):
        lines += [*_table(part, [row for row in rows if row.part == part]), ""]
    judged = [verdict for verdict in verdicts if verdict.ratio is not None]
    if judged:
        width = max(len(verdict.goal.text) for verdict in judged)
        lines += ["goals"]
    for verdict in judged:
        word = "reached" if verdict.reached else "MISSED"
        sign = ">=" if verdict.goal.at_least else "<="
        lines.append(
            f"  {verdict.goal.text:{width}}  {verdict.ratio:5.2f}  (goal {sign} {verdict.goal.limit:g})  {word}"
        )
    return "\n".join(lines).rstrip()


def _table(part: str, rows: Sequence[Row]) -> list[str]:
    ratios = part in {ONE, MANY, tcp.STREAM, tcp.RR}
    width = max(len(row.candidate) for row in rows)
    head = f"{part:{width}} {'flows':>8} {'median':>9} {'min-max':>17}"
    lines = [head + (f" {'x bridge':>9} {'x bare':>7}" if ratios else "") + "  lost"]
    lines[0] += f"  [{rows[0].unit}]"
    for row in rows:
        if not row.values:
            lines.append(f"{row.candidate:{width}} {row.n_flows:8}  not measured: {row.failure}")
            continue
        digits = 0 if row.median >= 100 else 1
        spread = f"{min(row.values):.{digits}f}-{max(row.values):.{digits}f}"
        line = f"{row.candidate:{width}} {row.n_flows:8} {row.median:9.{digits}f} {spread:>17}"
        if ratios:
            line += f" {_ratio(over_bridge(row, rows)):>9} {_ratio(over_bare(row, rows)):>7}"
        lines.append(line + f"  {row.lost}" + (f"  {row.failure}" if row.failure else ""))
    return lines


def over_bridge(row: Row, rows: Sequence[Row]) -> float | None:
    """How many times the rate of the Linux bridge under the same load and with the same receiver."""
    bridge = c.BRIDGE_TC
    if row.candidate.endswith(", tap") or "tap port" in row.candidate:
        bridge = c.BRIDGE_TAP
    elif "XDP" in row.candidate:
        bridge = c.BRIDGE_XDP
    peer = _median(rows, row.n_flows, bridge.name)
    if peer is None:
        return None
    return peer / row.median if row.unit.startswith("ns") else row.median / peer


def over_bare(row: Row, rows: Sequence[Row]) -> float | None:
    """How many times the cost of the bare redirect that ends in the same helper."""
    bare = next((name for words, name in _BARE.items() if f"pyoffload {words}" in row.candidate), None)
    peer = _median(rows, row.n_flows, bare) if bare else None
    return row.median / peer if peer else None


def document(rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, object]:
    return {
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "rows": [
            {
                **row.as_dict(),
                "over_bridge": over_bridge(row, _peers(row, rows)),
                "over_bare": over_bare(row, _peers(row, rows)),
            }
            for row in rows
        ],
        "goals": [
            {
                "goal": verdict.goal.text,
                "limit": verdict.goal.limit,
                "at_least": verdict.goal.at_least,
                "ratio": verdict.ratio,
                "reached": verdict.reached,
            }
            for verdict in verdicts
        ],
    }


def _peers(row: Row, rows: Sequence[Row]) -> list[Row]:
    return [other for other in rows if other.part == row.part]


def _median(rows: Sequence[Row], n_flows: int, name: str) -> float | None:
    return next((r.median for r in rows if r.candidate == name and r.n_flows == n_flows and r.values), None)


def _ratio(value: float | None) -> str:
    return f"{value:.2f}" if value is not None else ""
