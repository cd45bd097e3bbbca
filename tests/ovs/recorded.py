"""The flows in this directory, the texts that Open vSwitch 3.1 printed for them, and what pyoffload prints."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pyoffload.flow.dialects import translate_actions
from pyoffload.flow.files import parse_flows
from pyoffload.flow.format import OPENFLOW10, OPENFLOW13, Dialect, format_flow
from pyoffload.flow.spec import FlowSpec

HERE = Path(__file__).parent


class FourPorts:
    """Ports p1 to p4."""

    @staticmethod
    def number(name: str, /) -> int | None:
        return int(name[1:]) if name in {"p1", "p2", "p3", "p4"} else None

    @staticmethod
    def name(ofport: int, /) -> str | None:
        return f"p{ofport}" if 1 <= ofport <= 4 else None


@dataclass(frozen=True)
class Recording:
    """``options`` are those of ovs-ofctl, for loading and for dumping."""

    name: str
    dialect: Dialect
    options: tuple[str, ...] = ()
    meters: tuple[int, ...] = ()
    groups: tuple[int, ...] = ()

    @property
    def flows(self) -> list[str]:
        return (HERE / f"{self.name}.txt").read_text().splitlines()

    @property
    def dump(self) -> list[str]:
        return (HERE / f"{self.name}.dump").read_text().splitlines()


RECORDINGS = (
    Recording("flows", OPENFLOW10),
    Recording("flows13", OPENFLOW13, ("-O", "OpenFlow13"), (1, 4294901760), (0, 1, 4294967040)),
)


def parse(lines: Iterable[str]) -> list[FlowSpec]:
    return parse_flows(lines, FourPorts())


def line_of(flow: FlowSpec, dialect: Dialect) -> str:
    """The flow's line of dump-flows."""
    actions = translate_actions(flow.actions_text, flow.key, flow.mask, dialect)
    return format_flow(flow, flow.match_text, actions)
