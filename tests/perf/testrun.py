"""What the programs alone cost: BPF_PROG_TEST_RUN of the loaded ones on their live tables, without any networking."""

from __future__ import annotations

import struct
from collections.abc import Callable

from pyoffload import loader
from pyoffload.instance import Instance
from pyoffload.kernel.prog import Prog
from tests.perf import candidates as c, programs
from tests.perf.rounds import Row, attempt, say
from tests.perf.topology import SENDER_CPU, Topology, on_cpu
from tests.support.netns import Netns

PART = "program alone"
REPEAT = 300_000
TRIES = 10
SK_BUFF_SIZE = 192
SK_BUFF_INGRESS_IFINDEX, SK_BUFF_IFINDEX = 36, 40  # offsets in struct __sk_buff

CASES = (
    ("TC hit, L2", c.VETH, "tc_ingress"),
    ("TC hit, 5-tuple flows", c.VETH_ACL, "tc_ingress"),
    ("XDP hit, L2", c.XDP, "xdp_ingress"),
    ("XDP hit, 5-tuple flows", c.XDP_ACL, "xdp_ingress"),
    ("TC without cache, 1 mask", c.SLOW[1], "tc_ingress"),
    ("TC without cache, 10 masks", c.SLOW[10], "tc_ingress"),
    ("TC without cache, 64 masks", c.SLOW[64], "tc_ingress"),
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
    empty = "empty_xdp" if program == "xdp_ingress" else "empty"
    with topology.host.entered(), on_cpu(SENDER_CPU), topology.tools.load(empty) as floor:
        with loader.open_current(Instance.current()).open(program) as prog:
            index = topology.host.ifindex("ha")
            once = runner(prog, program, index)
            nothing = runner(floor, program, index)
            least = min(nothing() for _ in range(TRIES))
            row.values = [once() - least for _ in range(TRIES)]


def runner(prog: Prog, program: str, ifindex: int) -> Callable[[], int]:
    """A call gives ns per run of one tight loop on one frame that comes in on ``ifindex``."""
    data = programs.frame()
    if program == "xdp_ingress":
        ctx = struct.pack("<6I", 0, len(data), 0, ifindex, 0, 0)
    else:
        raw = bytearray(SK_BUFF_SIZE)
        struct.pack_into("<II", raw, SK_BUFF_INGRESS_IFINDEX, ifindex, ifindex)
        ctx = bytes(raw)
    return lambda: prog.test_run(data, repeat=REPEAT, ctx=ctx).duration_ns


def instance_of(ns: Netns) -> Instance:
    with ns.entered():
        return Instance.current()
