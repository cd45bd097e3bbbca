"""Random flow tables meet random frames; what leaves, byte for byte, every flow's counters and every drop must be what
the model in tests/support/flowmodel.py says. A rule set at a time is installed, and replaced while its decisions are
still cached.

    PYOFFLOAD_EXAMPLES=2000 …/pytest tests/datapath/test_differential.py --hypothesis-seed=7      more, and others
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings, strategies as st

from tests.datapath.flowgen import frames_of, group_sets, rule_sets
from tests.datapath.modelbench import Bench, model_bench
from tests.support.flowmodel import LOCAL, Flow, Group, Tables
from tests.support.lab import Lab

pytestmark = pytest.mark.traffic

EXAMPLES = int(
    os.environ.get("PYOFFLOAD_EXAMPLES", "40")
)  # rule sets of each of the two runs, each with a successor
FRAMES = 160  # for each of them
DEFAULT_SEED = 2
GROUPS = (1, 2, 3)


@pytest.fixture(scope="module", params=[True, False], ids=["cache", "no-cache"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with Lab() as lab, model_bench(lab, cache=request.param) as made:
        with made.switch.inside() as instance:
            from pyoffload import groups, meters

            meters.add(instance, "br0", "meter=1,pktps,band=type=drop,rate=4000000000")
            for number in reversed(GROUPS):
                groups.add(instance, "br0", str(Group(number, ((),))))
        yield made


def test_random_tables_and_frames_do_what_the_model_says(
    bench: Bench, request: pytest.FixtureRequest
) -> None:
    chosen = request.config.getoption("hypothesis_seed", None)
    start = int(chosen) if str(chosen or "").isdecimal() else DEFAULT_SEED
    print(f"hypothesis seed {start}")

    @seed(start)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(
        rule_sets(len(GROUPS)), rule_sets(len(GROUPS)), group_sets(), st.integers(0, 2**32 - 1),
        st.sampled_from([1, 2, LOCAL]),
    )  # fmt: skip
    def example(
        first: list[Flow], second: list[Flow], groups: dict[int, Group], frames_seed: int, in_port: int
    ) -> None:
        sent = frames_of(frames_seed, FRAMES)
        rng = random.Random(frames_seed)
        if any(action.op == "group" for flow in first + second for action in flow.actions):
            bench.set_groups(groups)
        for flows in (first, second):
            bench.install(flows)
            tables = Tables(flows, list(bench.ports), groups)
            again = sent * 2 if bench.switch.cache else list(sent)
            rng.shuffle(again)
            bench.compare(tables, in_port, again)

    example()
    print(f"{bench.compared} comparisons, {dict(bench.kinds)}")
    assert bench.compared >= EXAMPLES * FRAMES * (3 if bench.switch.cache else 1.5)
    assert bench.kinds["sent"] > bench.compared / 5
    if bench.switch.cache:  # hits were tested as well as misses
        assert bench.switch.counters()["cache_misses"] < bench.compared * 0.9
