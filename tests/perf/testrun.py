"""What the programs alone cost: BPF_PROG_TEST_RUN of the loaded ones on their live tables, without any networking."""

from __future__ import annotations

import struct
from collections.abc import Callable

from pyoffload import loader
from pyoffload.instance import Instance
from pyoffload.kernel.prog import Prog, TestRun
from pyoffload.loader import TC_ENTRY, XDP_ENTRY
from tests.perf import candidates as c, programs
from tests.perf.rounds import Row, attempt, say
from tests.perf.topology import SENDER_CPU, Topology, on_cpu

PART = "program alone"
TC_ACT_REDIRECT, XDP_REDIRECT = 7, 4
REPEAT = 300_000
TRIES = 10
SK_BUFF_SIZE = 192
SK_BUFF_INGRESS_IFINDEX, SK_BUFF_IFINDEX = 36, 40  # offsets in struct __sk_buff

CASES = (
    ("TC hit, L2", c.VETH, TC_ENTRY),
    ("TC hit, 5-tuple flows", c.VETH_ACL, TC_ENTRY),
    ("XDP hit, L2", c.XDP, XDP_ENTRY),
    ("XDP hit, 5-tuple flows", c.XDP_ACL, XDP_ENTRY),
    ("TC without cache, 1 mask", c.SLOW[1], TC_ENTRY),
    ("TC without cache, 10 masks", c.SLOW[10], TC_ENTRY),
    ("TC without cache, 64 masks", c.SLOW[64], TC_ENTRY),
)


def measure(*, wanted: str) -> list[Row]:
    """Nanoseconds per run above those of an empty program: median and extremes of TRIES."""
    rows = []
    for name, candidate, program in CASES:
        if wanted not in f"{PART}/{name}":
            continue
        row = Row(PART, name, unit="ns/run")
        rows.append(row)
        say(f"setting up: {name}")
        topology = attempt(row, candidate.build)
        if topology is None:
            continue
        try:
            attempt(row, lambda: _fill(row, topology, program))  # noqa: B023
        finally:
            topology.close()
    return rows


def _fill(row: Row, topology: Topology, program: str) -> None:
    topology.warm_up(1)
    if topology.measure(1000, 1).lost:
        raise AssertionError("the frames do not arrive")
    at_xdp = program == XDP_ENTRY
    with topology.host.entered(), on_cpu(SENDER_CPU):
        index = topology.host.ifindex("ha")
        with topology.tools.load("empty_xdp" if at_xdp else "empty") as floor:
            least = min(runner(floor, index, at_xdp=at_xdp)().duration_ns for _ in range(TRIES))
        with loader.open_current(Instance.current()).open(program) as prog:
            once = runner(prog, index, at_xdp=at_xdp)
            for _ in range(TRIES):
                topology.measure(
                    100, 1
                )  # at XDP an entry is good only while the TC program has looked at it lately
                run = once()
                if run.retval != (XDP_REDIRECT if at_xdp else TC_ACT_REDIRECT):
                    raise AssertionError(f"the program does not redirect: it returned {run.retval}")
                row.values.append(run.duration_ns - least)


def runner(prog: Prog, ifindex: int, *, at_xdp: bool) -> Callable[[], TestRun]:
    """A call runs the program REPEAT times on one frame that comes in on ``ifindex``."""
    data = programs.frame()
    if at_xdp:
        ctx = struct.pack("<6I", 0, len(data), 0, ifindex, 0, 0)
    else:
        raw = bytearray(SK_BUFF_SIZE)
        struct.pack_into("<II", raw, SK_BUFF_INGRESS_IFINDEX, ifindex, ifindex)
        ctx = bytes(raw)
    return lambda: prog.test_run(data, repeat=REPEAT, ctx=ctx)
