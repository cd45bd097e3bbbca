"""A bridge whose every packet is judged by the model in tests/support/flowmodel.py."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support import frames as lab_frames
from tests.support.flowmodel import LOCAL, TAIL_CALLS, Flow, Group, Outcome, Tables, kernel_drops
from tests.support.lab import Lab
from tests.support.ports import PacketPort, Port
from tests.support.switch import Switch


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

    def compare(
        self, tables: Tables, in_port: int, sent: Sequence[bytes], sender: Any = None
    ) -> list[tuple[bytes, Outcome]]:
        """Send all and judge all: frames that came out of each port, counters of flows, drops by reason.

        ``sender`` has `send` and sends in its own way into that port.
        """
        tables.deep = self._looks_beyond_layer_2()
        outcomes = [(frame, tables.run(frame, in_port)) for frame in sent]
        # A packet whose way is longer than the kernel's limit of tail calls is another test's business.
        outcomes = [(frame, outcome) for frame, outcome in outcomes if outcome.effort <= TAIL_CALLS]
        port = sender or self.ports[in_port]
        drops, hits = self._drops(in_port), self._hits()
        got = self.lab.exchange(port, [frame for frame, _ in outcomes], list(self.ports.values()))
        self.compared += len(outcomes)
        for number, listener in self.ports.items():
            wanted = Counter(frame for _, outcome in outcomes for to, frame in outcome.sent if to == number)
            came = Counter(bytes(frame) for frame in got[listener])
            if came != wanted:
                raise AssertionError(self._explain(number, in_port, wanted, came, outcomes))
        for kind, of in (
            ("drops", [Counter(self._drops(in_port)), Counter(drops)]),
            ("flows", [self._hits(), hits]),
        ):
            grown = {name: count - of[1][name] for name, count in of[0].items() if count != of[1][name]}
            wanted_growth = _drops(outcomes) if kind == "drops" else _hits(outcomes)
            assert grown == dict(wanted_growth), self._first_wrong(
                kind, grown, wanted_growth, in_port, tables, sent
            )
        assert not self._unaccounted(outcomes), "the model lost a packet"
        self.kinds["sent"] += sum(bool(outcome.sent) for _, outcome in outcomes)
        self.kinds["matched"] += sum(bool(outcome.flows) for _, outcome in outcomes)
        return outcomes

    @staticmethod
    def _unaccounted(outcomes: list[tuple[bytes, Outcome]]) -> list[bytes]:
        return [
            frame for frame, outcome in outcomes if not (outcome.sent or outcome.drops or kernel_drops(frame))
        ]

    def _looks_beyond_layer_2(self) -> bool:
        from pyoffload._abi import bridge_flag
        from pyoffload.mapset import MapSet
        from pyoffload.records import read_bridges

        with self.switch.inside() as instance:
            (record,) = read_bridges(MapSet(instance, writable=False))
        return bool(record.flags & bridge_flag.NEEDS_L3)

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
        number: int,
        in_port: int,
        wanted: Counter[bytes],
        came: Counter[bytes],
        outcomes: list[tuple[bytes, Outcome]],
    ) -> str:
        missing, extra = list((wanted - came).elements()), list((came - wanted).elements())
        lines = [
            f"port {number}, frames from port {in_port}: {len(missing)} missing, {len(extra)} not wanted"
        ]
        for frame, outcome in outcomes:
            sent = [made for to, made in outcome.sent if to == number]
            if set(sent) & set(missing) or (
                not missing and extra and frame[:12] in {made[:12] for made in extra}
            ):
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


@contextlib.contextmanager
def model_bench(lab: Lab, *, cache: bool, **wires: Any) -> Iterator[Bench]:
    """Bridge br0 with four wires (``wires`` goes to `Lab.wires`), and its local port up."""
    switch = Switch(lab.host, cache=cache)
    switch.bridge()
    made = lab.wires(4, **wires)
    switch.join(made)
    lab.host.sysctl("net/ipv6/conf/br0/disable_ipv6", 1)
    lab.host.ip("link set br0 up")
    lab.host.wait_running(["br0"])
    local = PacketPort(lab.host, "br0", 99, lab.host, "br0").listen()
    try:
        yield Bench(switch, lab, {**dict(enumerate(made, 1)), LOCAL: local})
    finally:
        local.deaf()
