"""Random flow tables meet random frames; what leaves, byte for byte, every flow's counters and every drop must be what
the model in tests/support/flowmodel.py says. A rule set at a time is installed, and replaced while its decisions are
still cached.

    PYOFFLOAD_EXAMPLES=2000 …/pytest tests/datapath/test_differential.py --hypothesis-seed=7      more, and others
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings, strategies as st

from tests.datapath.flowgen import frames_of, group_sets, rule_sets
from tests.support import frames as lab_frames
from tests.support.flowmodel import LOCAL, TAIL_CALLS, Flow, Group, Outcome, Tables
from tests.support.lab import Lab
from tests.support.ports import PacketPort, Port
from tests.support.switch import Switch

pytestmark = pytest.mark.traffic

EXAMPLES = int(os.environ.get("PYOFFLOAD_EXAMPLES", "60"))  # rule sets of each of the two runs, each with a successor
FRAMES = 160  # for each of them
DEFAULT_SEED = 2
GROUPS = (1, 2, 3)


@dataclass
class Bench:
    """A bridge with four wires and its local port, all of them heard."""

    switch: Switch
    lab: Lab
    ports: dict[int, Port]
    compared: int = 0
    kinds: Counter[str] = field(default_factory=Counter)

    def install(self, flows: Sequence[Flow]) -> None:
        self.switch.flows(*map(str, flows))

    def set_groups(self, groups: dict[int, Group]) -> None:
        from pyoffload import groups as verbs

        with self.switch.inside() as instance:
            for group in sorted(groups.values(), key=lambda group: -group.number):
                verbs.modify(instance, "br0", str(group))

    def compare(self, tables: Tables, flows: Sequence[Flow], in_port: int, sent: Sequence[bytes]) -> None:
        """Send all and judge all: frames that came out of each port, counters of flows, drops by reason."""
        outcomes = [(frame, tables.run(frame, in_port)) for frame in sent]
        # A packet whose way is longer than the kernel's limit of tail calls is another test's business.
        outcomes = [(frame, outcome) for frame, outcome in outcomes if outcome.effort <= TAIL_CALLS]
        port = self.ports[in_port]
        drops, hits = self._drops(in_port), self._hits()
        got = self.lab.exchange(port, [frame for frame, _ in outcomes], list(self.ports.values()))
        self.compared += len(outcomes)
        for number, listener in self.ports.items():
            wanted = Counter(
                frame for _, outcome in outcomes for to, frame in outcome.sent if to == number
            )
            came = Counter(bytes(frame) for frame in got[listener])
            if came != wanted:
                raise AssertionError(self._explain(number, in_port, wanted, came, outcomes))
        for kind, of in (("drops", [Counter(self._drops(in_port)), Counter(drops)]), ("flows", [self._hits(), hits])):
            grown = {name: count - of[1][name] for name, count in of[0].items() if count != of[1][name]}
            wanted_growth = _drops(outcomes) if kind == "drops" else _hits(outcomes)
            assert grown == dict(wanted_growth), self._first_wrong(kind, grown, wanted_growth, in_port, tables, sent)
        self.kinds["sent"] += sum(bool(outcome.sent) for _, outcome in outcomes)
        self.kinds["matched"] += sum(bool(outcome.flows) for _, outcome in outcomes)

    def _drops(self, in_port: int) -> dict[str, int]:
        if in_port == LOCAL:
            from pyoffload import bridges

            with self.switch.inside() as instance:
                local = bridges.show(instance, "br0").local
            assert local is not None
            return local.drops
        return self.switch.drops(self.ports[in_port])

    def _hits(self) -> Counter[tuple[int, int, str]]:
        found: Counter[tuple[int, int, str]] = Counter()
        for flow in self.switch.dump():
            found[flow.table, flow.priority, "packets"] = flow.packets
            found[flow.table, flow.priority, "bytes"] = flow.bytes
        return found

    @staticmethod
    def _explain(
        number: int, in_port: int, wanted: Counter[bytes], came: Counter[bytes], outcomes: list[tuple[bytes, Outcome]]
    ) -> str:
        missing, extra = list((wanted - came).elements()), list((came - wanted).elements())
        lines = [f"port {number}, frames from port {in_port}: {len(missing)} missing, {len(extra)} not wanted"]
        for frame, outcome in outcomes:
            sent = [made for to, made in outcome.sent if to == number]
            if set(sent) & set(missing) or (not missing and extra and frame[:12] in {made[:12] for made in extra}):
                lines.append(f"sent   {frame.hex()}  {lab_frames.summary(frame)}")
                lines += [f"  met  {flow}" for flow in outcome.flows] + [f"  drops {dict(outcome.drops)}"]
                lines += [f"  model {made.hex()}" for made in sent]
                break
        if missing and extra:
            near = min(extra, key=lambda made: (len(made) != len(missing[0]), _distance(made, missing[0])))
            lines.append(lab_frames.difference(near, missing[0]))
        lines += [f"  came  {made.hex()}" for made in extra[:5]]
        return "\n".join(lines)

    def _first_wrong(
        self, kind: str, grown: Any, wanted: Any, in_port: int, tables: Tables, sent: Sequence[bytes]
    ) -> str:
        """Find a frame that alone is counted wrongly, for the message."""
        lines = [f"{kind}: counted {grown}, the model says {dict(wanted)}"]
        count = self._hits if kind == "flows" else lambda: Counter(self._drops(in_port))
        for frame in sent:
            outcome = tables.run(frame, in_port)
            if outcome.effort > TAIL_CALLS:
                continue
            before = count()
            self.lab.exchange(self.ports[in_port], [frame], [])
            after = count()
            alone = {name: n - before[name] for name, n in after.items() if n != before[name]}
            model = dict(_drops([(frame, outcome)]) if kind == "drops" else _hits([(frame, outcome)]))
            if alone != model:
                lines.append(f"{frame.hex()}  {lab_frames.summary(frame)}: counted {alone}, model {model}")
                lines += [f"  met  {flow}" for flow in outcome.flows]
                break
        return "\n".join(lines)


def _distance(a: bytes, b: bytes) -> int:
    return sum(x != y for x, y in zip(a, b, strict=False))


def _drops(outcomes: Sequence[tuple[bytes, Outcome]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for _, outcome in outcomes:
        total.update(outcome.drops)
    return total


def _hits(outcomes: Sequence[tuple[bytes, Outcome]]) -> Counter[tuple[int, int, str]]:
    total: Counter[tuple[int, int, str]] = Counter()
    for frame, outcome in outcomes:
        for flow in outcome.flows:
            total[flow.table, flow.priority, "packets"] += 1
            total[flow.table, flow.priority, "bytes"] += len(frame)
    return total


@pytest.fixture(scope="module", params=[True, False], ids=["cache", "no-cache"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with Lab() as lab:
        switch = Switch(lab.host, cache=request.param)
        switch.bridge()
        wires = lab.wires(4)
        switch.join(wires)
        lab.host.sysctl("net/ipv6/conf/br0/disable_ipv6", 1)
        lab.host.ip("link set br0 up")
        lab.host.wait_running(["br0"])
        local = PacketPort(lab.host, "br0", 99, lab.host, "br0").listen()
        made = Bench(switch, lab, {**dict(enumerate(wires, 1)), LOCAL: local})
        with switch.inside() as instance:
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
            bench.compare(tables, flows, in_port, again)

    example()
    print(f"{bench.compared} comparisons, {dict(bench.kinds)}")
    assert bench.compared >= EXAMPLES * FRAMES * (3 if bench.switch.cache else 1.5)
    assert bench.kinds["sent"] > bench.compared / 5
    if bench.switch.cache:  # hits were tested as well as misses
        assert bench.switch.counters()["cache_misses"] < bench.compared * 0.9
