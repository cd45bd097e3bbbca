"""Meters as ``ovs-ofctl add-meter`` takes them: ``meter=1,kbps,burst,band=type=drop,rate=1000,burst_size=100``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from pyoffload.flow.syntax import (
    BadWordError,
    FlowSyntaxError,
    fail,
    locate,
    name_and_argument,
    parse_uint,
    words,
)

METER_ID_MAX = 0xFFFF0000  # OpenFlow 1.3 A.3.4.4, OFPM_MAX
_EXAMPLE = "meter=1,kbps,band=type=drop,rate=1000"


@dataclass(frozen=True, slots=True)
class MeterSpec:
    """``rate`` and ``burst`` in kilobits (a second), or in packets where ``per_packet``; burst None: not given."""

    meter_id: int
    per_packet: bool
    rate: int
    burst: int | None


def parse_meter(text: str) -> MeterSpec:
    """FlowSyntaxError points at the first wrong word. The one kind of band is drop, as in Open vSwitch."""
    values: dict[str, int] = {}
    flags: dict[str, int] = {}  # and where they stand
    band = False
    for word, at in words(text):
        try:
            name, argument = name_and_argument(word)
            if name in {"band", "bands"} and not band:
                band = True
                _band_type(argument or "")
            elif argument is None and name in {"kbps", "pktps", "burst", "stats"}:
                flags[name] = at
            elif name == "meter":
                values[name] = _positive(argument or "", METER_ID_MAX, name)
            elif name in {"rate", "burst_size"} and band:
                values[name] = _positive(argument or "", 0xFFFFFFFF, name)
            else:
                _refuse(name, word, band=band)
        except BadWordError as error:
            raise locate(text, at, word, error) from None
    _check(text, values, flags, band=band)
    return MeterSpec(values["meter"], "pktps" in flags, values["rate"], values.get("burst_size"))


def _band_type(argument: str) -> None:
    """``band=type=drop``: the band begins with its type."""
    name, kind = name_and_argument(argument)
    if name != "type":
        fail("a band begins with its type", argument, "band=type=drop,rate=…")
    if kind != "drop":
        fail(f"bands of type '{kind or ''}' are not supported", argument, "type=drop")


def _positive(argument: str, limit: int, what: str) -> int:
    value = parse_uint(argument, limit, what)
    if value == 0:
        fail(f"{what}: 0 is too little", argument)
    return value


def _refuse(name: str, word: str, *, band: bool) -> NoReturn:
    if name in {"band", "bands"}:
        fail("a meter has one band", word)
    if name == "type":
        fail("a meter has one band, which begins with its type", word)
    if name in {"rate", "burst_size"}:
        fail(f"{name} belongs to a band", word, "band=type=drop,rate=…")
    fail(f"'{name}' is no word of a {'band' if band else 'meter'}", name)


def _check(text: str, values: dict[str, int], flags: dict[str, int], *, band: bool) -> None:
    if "meter" not in values:
        raise FlowSyntaxError("a meter needs meter=NUMBER", text, 0, 0, hint=_EXAMPLE)
    if "kbps" in flags and "pktps" in flags:
        second = max("kbps", "pktps", key=flags.__getitem__)
        raise FlowSyntaxError("a meter counts kbps or pktps, not both", text, flags[second], len(second))
    if not {"kbps", "pktps"} & flags.keys():
        raise FlowSyntaxError("a meter needs kbps or pktps", text, 0, 0, hint=_EXAMPLE)
    if not band or "rate" not in values:
        missing = "rate=NUMBER in its band" if band else "a band"
        raise FlowSyntaxError(f"a meter needs {missing}", text, len(text), 0, hint=_EXAMPLE)
    if "burst" in flags and "burst_size" not in values:
        raise FlowSyntaxError("burst without burst_size in the band", text, flags["burst"], len("burst"))
    if "burst_size" in values and "burst" not in flags:
        at = text.index("burst_size")
        raise FlowSyntaxError(
            "burst_size without the word burst before the band", text, at, len("burst_size")
        )
