"""Action lists: the rules for what may stand together, struct action, and what the flow cache has to look at."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pyoffload import _abi as abi
from pyoffload.flow import fields as f
from pyoffload.flow.actions import DROP, Op, Step, Steps, Style, needs_to_set
from pyoffload.flow.fields import CACHE_KEY_BYTES, Special
from pyoffload.flow.syntax import BadWordError, fail
from pyoffload.flow.values import ones

_ACTION = struct.Struct("<BBHIQQ")  # struct action
_WORD = ones(64)


def _member(name: str, size: int) -> int:
    offset: int = getattr(abi.flow_key, name).offset
    return ones(8 * size) << (8 * offset)


CACHE_KEY = ones(8 * CACHE_KEY_BYTES)
# What a cached decision always depends on: words 0 and 1, where the packet came from, its inner tag, the tags' types.
CACHE_ALWAYS = ones(128) | _member("in_port", 2) | _member("vlan_tci1", 2) | _member("tpids", 1)
# … and as soon as any flow looks at layer 3 or 4.
CACHE_L3 = _member("nw_proto", 1) | _member("nw_frag", 1) | _member("valid", 1)
# What a group of type select hashes.
CACHE_SELECT = CACHE_L3 | ones(256) << 256 | _member("tp_src", 2) | _member("tp_dst", 2)
_TTL = _member("nw_ttl", 1)
_ICMP_TYPE = _member("tp_src", 2)
# Bits of a mask that make a flow look beyond layer 2: words 2 to 12 but for the members above.
L3_BITS = (ones(64 * 13) & ~CACHE_ALWAYS) & ~ones(128)

_NW_TOS_BITS = 0xFC
_VLAN_PRESENT = abi.VLAN_PRESENT


def cache_bytes(mask: int) -> bytes:
    return (mask & CACHE_KEY).to_bytes(CACHE_KEY_BYTES, "little")


@dataclass(frozen=True, slots=True)
class Relocation:
    """Micro-operation ``index`` has in `arg` the OpenFlow ``id`` of a group or meter, where a slot belongs."""

    index: int
    kind: Literal["group", "meter"]
    id: int


@dataclass(frozen=True, slots=True, eq=False)
class FlowActions:
    """An action list, compiled. ``ops`` are struct action one after the other, none for drop.

    ``needs``: facts the match must give, each with the index of the word that needs it. ``goto``: the table of a goto, or
    -1. ``reads``: what the cache must look at because of it, as a key mask; ``needs_l3``: beyond layer 2.
    """

    steps: Steps
    ops: bytes
    needs: tuple[tuple[int, int], ...]
    goto: int
    reads: int
    needs_l3: bool
    relocations: tuple[Relocation, ...]

    @property
    def groups(self) -> tuple[int, ...]:
        return tuple(step.arg for step in self.steps if step.op is Op.GROUP)

    @property
    def meters(self) -> tuple[int, ...]:
        return tuple(step.arg for step in self.steps if step.op is Op.METER)

    @property
    def outputs(self) -> frozenset[int]:
        """Ports named by output:PORT; what out_port= looks for."""
        return frozenset(step.arg for step in self.steps if step.op is Op.OUTPUT)


class MisplacedError(BadWordError):
    """Word number ``index`` of an action list cannot stand where it does."""

    def __init__(self, index: int, message: str, hint: str | None = None) -> None:
        super().__init__(message, "", hint)
        self.index = index


def compile_actions(parsed: Sequence[Steps], *, bucket: bool = False) -> FlowActions:
    """``parsed`` holds the Steps of each word. In a group's bucket there is no goto_table and no meter.

    MisplacedError if a word cannot stand where it does, BadWordError if there are too many.
    """
    _check_order(parsed, bucket=bucket)
    steps = tuple(step for each in parsed for step in each if each is not DROP)
    ops: list[bytes] = []
    relocations: list[Relocation] = []
    reads, goto, needs_l3 = 0, -1, False
    for step in steps:
        if step.op in {Op.GROUP, Op.METER}:
            kind: Literal["group", "meter"] = "group" if step.op is Op.GROUP else "meter"
            relocations.append(Relocation(len(ops), kind, step.arg))
        elif step.op is Op.GOTO:
            goto = step.arg
        ops.extend(step_ops(step))
        step_reads, step_l3 = _cache_needs(step)
        reads |= step_reads
        needs_l3 = needs_l3 or step_l3
    if len(ops) > abi.MAX_FLOW_ACTIONS:
        fail(f"more than {abi.MAX_FLOW_ACTIONS} actions")
    return FlowActions(steps, b"".join(ops), _needs(parsed), goto, reads, needs_l3, tuple(relocations))


def _check_order(parsed: Sequence[Steps], *, bucket: bool) -> None:
    for index, steps in enumerate(parsed):
        if steps is DROP and len(parsed) > 1:
            raise MisplacedError(index, "drop must be the only action")
        if not steps:
            continue
        op = steps[0].op
        if bucket and op in {Op.GOTO, Op.METER}:
            raise MisplacedError(index, f"{op.name.lower()} is not possible in a group's bucket")
        if op is Op.GOTO and index != len(parsed) - 1:
            raise MisplacedError(index, "goto_table must be the last action")
        if op is Op.METER and index:
            raise MisplacedError(index, "meter must be the first action")


def _needs(parsed: Sequence[Steps]) -> tuple[tuple[int, int], ...]:
    """set_field and load want their protocol in the match, as in OVS; mod_… does nothing to other packets."""
    needs: list[tuple[int, int]] = []
    tagged: bool | None = None  # None: as the match says
    for index, steps in enumerate(parsed):
        for step in steps:
            if step.op in {Op.PUSH_VLAN, Op.SET_VID, Op.SET_PCP}:
                tagged = True
            elif step.op is Op.POP_VLAN:
                tagged = False
            elif step.op is Op.SET and step.field is not None:
                need = needs_to_set(step.field) if step.style is not Style.MOD else 0
                if need == f.VLAN and tagged is False:
                    raise MisplacedError(index, f"{step.field.name}: the VLAN tag is gone before it is set")
                if need and not (need == f.VLAN and tagged):
                    needs.append((need, index))
                if step.field.special is Special.VLAN_TCI and step.mask & _VLAN_PRESENT:
                    tagged = bool(step.value & _VLAN_PRESENT)
    return tuple(needs)


def step_ops(step: Step) -> list[bytes]:
    """The micro-operations of one step."""
    if step.op is not Op.SET:
        return [_ACTION.pack(step.op, 0, 0, step.arg, 0, 0)]
    entry = step.field
    if entry is None:
        raise AssertionError("SET without a field")
    if entry.special is Special.VLAN_TCI and step.mask & _VLAN_PRESENT:
        return _set_tci(step)
    mask = entry.place(step.mask & (_NW_TOS_BITS if entry.name == "nw_tos" else step.mask))
    if entry.prereq in {abi.prereq.ICMP4, abi.prereq.ICMP6} and step.mask == ones(entry.bits):
        mask = entry.whole
    value = entry.place(step.value) & mask
    prereq = abi.prereq.VLAN if entry.special is Special.VLAN_TCI else entry.prereq
    ops = []
    for word in range(abi.FLOW_KEY_WORDS):
        bits = mask >> (64 * word) & _WORD
        if bits:
            ops.append(_ACTION.pack(Op.SET, prereq, word, 0, bits, value >> (64 * word) & _WORD))
    return ops


def _set_tci(step: Step) -> list[bytes]:
    """A tci with its CFI bit: a tag appears, changes, or goes."""
    if not step.value & _VLAN_PRESENT:
        return [_ACTION.pack(Op.POP_VLAN, 0, 0, 0, 0, 0)]
    if step.mask != 0xFFFF:
        fail("vlan_tci: bit 12 can only be set together with all others", "", "use push_vlan")
    return [
        _ACTION.pack(Op.SET_VID, 0, 0, step.value & 0xFFF, 0, 0),
        _ACTION.pack(Op.SET_PCP, 0, 0, step.value >> 13, 0, 0),
    ]


def _cache_needs(step: Step) -> tuple[int, bool]:
    """What a decision with this step depends on: a partly set field on the rest of it, a prerequisite on its fields."""
    if step.op is Op.DEC_TTL:
        return CACHE_L3 | _TTL, True
    entry = step.field
    if entry is None or entry.prereq in {abi.prereq.NONE, abi.prereq.VLAN}:
        return 0, False
    reads = CACHE_L3
    if step.mask != ones(entry.bits) or entry.bits != 8 * entry.size:
        reads |= entry.whole
    if entry.prereq is abi.prereq.ND:
        reads |= _ICMP_TYPE
    return reads & CACHE_KEY, True


def select_group_cache_mask() -> bytes:
    """What a bridge's cache must look at as soon as it has a group of type select."""
    return cache_bytes(CACHE_SELECT | CACHE_ALWAYS)
