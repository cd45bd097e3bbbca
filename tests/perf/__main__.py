"""The command line of scripts/bench."""

from __future__ import annotations

import argparse
import json
import os
import sys

from tests.perf import candidates as c, goals, report, rounds, tcp, testrun
from tests.perf.rounds import Row

MANY = (1, 1 << 10, 1 << 17, 1 << 20)
ONE_FLOW = [
    c.FLOOR,
    c.BRIDGE_TC,
    c.BRIDGE_XDP,
    c.BRIDGE_TAP,
    c.BARE_REDIRECT,
    c.BARE_PEER,
    c.BARE_XDP,
    c.BARE_TAP,
    c.VETH,
    c.VETH_ACL,
    c.TAP,
    c.TAP_ACL,
    c.REAL_TAP,
    c.REAL_TAP_ACL,
    c.XDP,
    c.XDP_ACL,
    *c.SLOW.values(),
]
MANY_FLOWS = [c.BRIDGE_TC, c.BARE_PEER, c.BARE_XDP, c.VETH_BIG, c.VETH_ACL_BIG, c.XDP_ACL_BIG]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure pyoffload and its peers side by side, in one interleaved run.",
    )
    parser.add_argument("--quick", action="store_true", help="3 short rounds: for those who work on the code")
    parser.add_argument("--rounds", type=int, help="rounds (default 5, with --quick 3)")
    parser.add_argument("--only", default="", metavar="NAME", help="only PART/CANDIDATE that contains NAME")
    parser.add_argument("--json", metavar="FILE", help="write everything there as well")
    parser.add_argument("--check", action="store_true", help="judge the ratios; exit 1 if one is missed")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print(
            "bench: it makes network namespaces and loads eBPF programs\nhint: sudo scripts/bench",
            file=sys.stderr,
        )
        return 3
    n_rounds = options.rounds or (3 if options.quick else 5)
    frames = 300_000 if options.quick else 2_000_000
    rows = measure(n_rounds, frames, options.only, quick=options.quick)
    verdicts = goals.judge(rows)
    print(report.text(rows, verdicts))
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(report.document(rows, verdicts), file, indent=1)
            file.write("\n")
    missed = [verdict for verdict in verdicts if verdict.reached is False]
    return 1 if options.check and (missed or any(row.failure for row in rows)) else 0


def measure(n_rounds: int, frames: int, only: str, *, quick: bool) -> list[Row]:
    one = [(candidate, 1) for candidate in ONE_FLOW]
    many = [(candidate, n) for candidate in MANY_FLOWS for n in MANY]
    rows = rounds.forward("one flow", one, frames=frames, rounds=n_rounds, wanted=only)
    rows += rounds.forward("many flows", many, frames=frames, rounds=n_rounds, wanted=only)
    rows += tcp.measure(rounds=n_rounds, seconds=1 if quick else 3, wanted=only)
    rows += testrun.measure(wanted=only)
    return rows


if __name__ == "__main__":
    sys.exit(main())
