from __future__ import annotations

import pytest

from pyoffload import _abi as abi
from pyoffload.flow.parse import FlowParser


class Taps:
    """Ports tap1, tap2, … tap9 with those numbers; `wan` is 40; `br0` is the bridge's own."""

    _known = {f"tap{n}": n for n in range(1, 10)} | {"wan": 40, "br0": abi.OFPORT_LOCAL}

    def number(self, name: str, /) -> int | None:
        return self._known.get(name)

    def name(self, ofport: int, /) -> str | None:
        return next((name for name, number in self._known.items() if number == ofport), None)


@pytest.fixture
def names() -> Taps:
    return Taps()


@pytest.fixture
def parser(names) -> FlowParser:
    return FlowParser(names)
